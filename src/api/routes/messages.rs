//! `POST /api/messages`: training messages of programs that do not reach Redis.
//!
//! A body holds one message or many ([`wire::split`]). Each is taken in as if it had been published on the first training channel
//! with its own bytes, so that what is sent again is the same row. The answer follows once all are durable. Where there is no room
//! for all, the answer says how many were taken, of the beginning, and the client sends the rest again later.

use std::ops::Range;

use axum::{
    Json,
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use crate::{
    api::{
        config::Config,
        error::{ApiError, ApiResult, json as json_answer},
        memory_budget::{Reservation, SMALL_VALUE_BYTES},
        state::ApiState,
        submit::{FALLBACK_CHANNEL, Submitted},
    },
    memory::{LARGE_VALUE, MemoryLimit, guarded},
    wire,
};

/// Path of the route; its bodies have a limit of their own.
pub const PATH: &str = "/api/messages";
/// Seconds after which a client should send again what was not taken.
const RETRY_AFTER: u64 = 2;
/// The part of `http.request_timeout` after which the answer says what was taken until then.
const SUBMIT_SHARE: f64 = 0.8;

/// `POST /api/messages`
pub async fn publish(State(state): State<ApiState>, request: Request) -> ApiResult {
    let targets = state.submitter.targets()?;
    let Some(intake) = &targets.intake else {
        // Trying again does not help.
        let detail = "this process takes no messages; send them to a daemon (`cascor-ingest run`)";
        return Err(ApiError::unavailable(detail));
    };
    check_encoding(request.headers())?;
    let deadline = Instant::now() + state.config.request_timeout.mul_f64(SUBMIT_SHARE);
    let receiving = receive(&state, request.into_body());
    let late = |_| {
        let detail = "the body did not arrive in time (`http.request_timeout`); nothing is taken";
        ApiError::unavailable(detail).with_retry_after(RETRY_AFTER)
    };
    let (body, reservation) = timeout_at(deadline, receiving).await.map_err(late)??;
    if body.trim_ascii().is_empty() {
        return Err(ApiError::bad_request("the body holds no message: send JSON, lines of JSON, or MessagePack"));
    }
    let (max, process) = (state.config.max_messages, state.memory.process().clone());
    let payloads = spawn_blocking(move || payloads(&body, max, &process)).await;
    let payloads = payloads.map_err(|error| ApiError::unavailable(error.to_string()))?.ok_or_else(|| {
        let detail = format!("more than {max} messages; send fewer at once, see `http.max_messages`");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    })?;
    let channel = targets.training.as_deref().unwrap_or(FALLBACK_CHANNEL);
    let submitted = intake.submit_all(channel, payloads, deadline).await;
    drop(reservation);
    answer(&submitted)
}

/// Bytes that are compressed would be taken for messages.
fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            let detail = "a body with a Content-Encoding is not taken; send it uncompressed";
            Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
        }
        _ => Ok(()),
    }
}

/// Reads the whole body, with memory for it. A body that breaks off is an error, so no message of it is taken.
async fn receive(state: &ApiState, mut body: Body) -> Result<(Bytes, Reservation), ApiError> {
    let max = state.config.max_messages_body.as_usize();
    let declared = body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if declared.is_some_and(|bytes| bytes > max) {
        return Err(too_large(&state.config));
    }
    let mut reserved = declared.unwrap_or(SMALL_VALUE_BYTES).min(max);
    let mut reservation = Reservation::reserve_body(&state.memory, reserved).await;
    let mut received = Vec::with_capacity(declared.unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| ApiError::bad_request(format!("the body broke off, nothing is taken: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let bytes = received.len() + data.len();
        if bytes > max {
            return Err(too_large(&state.config));
        }
        if bytes > reserved {
            // Released first, so that no two bodies wait for each other.
            drop(reservation);
            reserved = max;
            reservation = Reservation::reserve_body(&state.memory, reserved).await;
            received.reserve_exact(max - received.len());
        }
        received.extend_from_slice(&data);
    }
    Ok((received.into(), reservation))
}

/// 413 for a body of messages.
pub fn too_large(config: &Config) -> ApiError {
    let max = config.max_messages_body;
    let detail = format!("the body is larger than {max}; send fewer messages at once, see `http.max_messages_body`");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

/// The messages of a body; `None`: there are more than `max`.
fn payloads(body: &Bytes, max: usize, process: &MemoryLimit) -> Option<Vec<Bytes>> {
    let payload = |range: Range<usize>| {
        // The live feed and the latest values keep messages; a small one must not keep the whole body.
        let payload =
            if 2 * range.len() > body.len() { body.slice(range) } else { Bytes::copy_from_slice(&body[range]) };
        let bytes = payload.len();
        if bytes > LARGE_VALUE { guarded(payload, process.charge(bytes)) } else { payload }
    };
    Some(wire::split(body, max)?.into_iter().map(payload).collect())
}

fn answer(submitted: &Submitted) -> ApiResult {
    let rejected: Vec<Value> = submitted
        .rejected
        .iter()
        .map(|(index, rejection)| {
            json!({ "index": index, "reason": rejection.reason.as_str(), "detail": rejection.detail })
        })
        .collect();
    let accepted = submitted.taken - rejected.len();
    let Some(why) = submitted.refused else {
        return json_answer(&json!({ "accepted": accepted, "rejected": rejected }));
    };
    let taken = submitted.taken;
    let detail = format!("{why}: the first {taken} are taken; send the others again");
    let body = json!({ "detail": detail, "taken": taken, "accepted": accepted, "rejected": rejected });
    Ok(unavailable(&body))
}

fn unavailable(body: &Value) -> Response {
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
    response
}
