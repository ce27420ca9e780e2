//! Latest values in Redis.

use std::time::Duration;

use fred::error::Error as RedisError;
use uuid::Uuid;

use crate::{
    api::{error::ApiError, memory_budget::Reservation, state::ApiState},
    redis::{self, Resource, Unusable, ValueLookup},
};

/// How long Redis may take for an answer; then the store is asked.
const REDIS_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a value is asked for that grows while it is read.
const READ_ATTEMPTS_MAX: usize = 3;
/// What a value from Redis may have without a reservation: no more than a connection is handed at once anyway.
const UNRESERVED_BYTES_MAX: usize = 64 << 10;

/// The value of a key, and the memory that a large one needs. How large it is is asked first: what Redis has is not kept waiting by
/// those who wait for the store, and the memory is there before the value is; a large one waits for its memory as rows do.
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
                // Others may write to these keys; what is no JSON is no value.
                let json = value.filter(|value| serde_json::from_str::<serde::de::IgnoredAny>(value).is_ok());
                return Ok(json.map(|value| (reservation, value)));
            }
        }
    }
    Ok(None)
}

/// What Redis answers in time; what it refuses is logged.
async fn with_timeout<T>(
    answer: impl Future<Output = Result<T, RedisError>>,
    refused: impl FnOnce(&RedisError),
) -> Option<T> {
    tokio::time::timeout(REDIS_TIMEOUT, answer).await.ok()?.inspect_err(refused).ok()
}
