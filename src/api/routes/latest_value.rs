//! Latest values in Redis.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use fred::error::Error as RedisError;
use uuid::Uuid;

use crate::{
    api::{error::ApiError, memory_budget::Reservation, state::ApiState},
    redis::{self, Resource, Unusable, ValueLookup},
};

/// How long Redis may take for an answer; then the store is asked.
const REDIS_TIMEOUT: Duration = Duration::from_millis(500);
/// Attempts to read a value that grows meanwhile.
const READ_ATTEMPTS_MAX: usize = 3;
/// Maximum size of a value that is read without a reservation: a connection holds that much anyway.
const UNRESERVED_BYTES_MAX: usize = 64 << 10;

/// The value of a key, and the reservation of a large one. The size is asked first, so that memory is reserved before the value is
/// read. Small values need none, and do not wait behind reads from the store.
pub async fn read(
    state: &ApiState,
    subject: &str,
    run_id: Option<Uuid>,
) -> Result<Option<(Option<Reservation>, String)>, ApiError> {
    let Some(latest) = state.latest.as_ref() else { return Ok(None) };
    let Some(client) = latest.link.client() else { return Ok(None) };
    let key = match run_id {
        Some(run_id) => format!("{}{subject}:{run_id}:latest", latest.prefix),
        None => format!("{}{subject}:latest", latest.prefix),
    };
    let (link, max) = (&latest.link, latest.value_max(subject));
    let refused = |error: &RedisError| link.acl().warn(error, Resource::Key(&key));
    for _ in 0..READ_ATTEMPTS_MAX {
        let length =
            with_timeout(redis::value_length(&client, &key, max), refused).await.unwrap_or(ValueLookup::Absent);
        let Some(bytes) = link.usable(&key, length) else { break };
        let reservation = if bytes > UNRESERVED_BYTES_MAX {
            Some(Reservation::reserve_value(&state.memory, bytes).await)
        } else {
            None
        };
        let fits = reservation.as_ref().map_or(UNRESERVED_BYTES_MAX, Reservation::bytes).min(max);
        match with_timeout(redis::value_range(&client, &key, fits), refused).await {
            // It has grown meanwhile.
            Some(ValueLookup::Unusable(Unusable::TooLarge(_))) => {}
            found => {
                let value = link.usable(&key, found.unwrap_or(ValueLookup::Absent));
                // Other clients may write these keys: a value that is no JSON is ignored.
                let json = value.filter(|value| serde_json::from_str::<serde::de::IgnoredAny>(value).is_ok());
                return Ok(json.map(|value| (reservation, value)));
            }
        }
    }
    Ok(None)
}

/// The header that tells whether an answer is from Redis (`HIT`) or from the store (`MISS`).
pub fn cache_status(status: &'static str) -> [(HeaderName, HeaderValue); 1] {
    [(HeaderName::from_static("x-cache-status"), HeaderValue::from_static(status))]
}

/// The answer of Redis, if it comes in time; a refusal is logged.
async fn with_timeout<T>(
    answer: impl Future<Output = Result<T, RedisError>>,
    refused: impl FnOnce(&RedisError),
) -> Option<T> {
    tokio::time::timeout(REDIS_TIMEOUT, answer).await.ok()?.inspect_err(refused).ok()
}
