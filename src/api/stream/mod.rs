//! `GET /api/stream`: live events as server-sent events, collected for each client.
//!
//! | event | data |
//! | --- | --- |
//! | `hello` | `{"resumed", "live", "max_runs", "stale_after_seconds"}`; not resumed: missed events are in the store; not live: this process does not receive all of them; so many runs a request may name; silence after which a running run is stale. Again when `live` changes |
//! | `metrics` | `{"run_id", "rows": [...], "skipped"}`: rows as `/api/metrics/range` has them, oldest first |
//! | `topology` | the newest snapshot of a run; one that is large without its `topology_json` |
//! | `event` | `{"run_id", "rows": [...], "skipped"}`: starts, ends, units added; of states the newest |
//! | `activity` | `{"runs": [...]}`: other runs that had events, if `run_id` was given |
//! | `skipped` | `{"count"}`: messages lost because this client was too slow |
//! | `receipt` | the answer to a command |
//! | `status` | the status object, once a second |
//!
//! A chunk is made at most every `http.stream_interval`, and only when the client has taken the previous one: a slow client misses
//! messages, learns how many, and delays no other. The `id` of an event is the position to resume from (`Last-Event-ID`).

mod client;
mod format;
mod run_events;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::IntoResponse,
};
use futures_util::stream::unfold;

use self::client::StreamClient;
use super::{
    error::{ApiError, ApiResult},
    params::Params,
    run_lookup,
    state::ApiState,
};

/// `GET /api/stream`
pub async fn stream(State(state): State<ApiState>, headers: HeaderMap, params: Params) -> ApiResult {
    let params = params.allow_only(&["last_event_id"], &["run_id"])?;
    let runs = run_lookup::resolve_runs(&state, &params, 0).await?;
    let header = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let Some(subscriber) = state.live.subscribe(header.or(params.text("last_event_id")), state.reserved.streams) else {
        let detail = "too many streams are open (`http.streams`); close one, or ask for the newest values instead";
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, detail));
    };
    // A chunk is made when the connection asks for it.
    let body = Body::from_stream(unfold(StreamClient::new(state, subscriber, runs), StreamClient::next));
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    // For proxies that buffer answers.
    let buffering = (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(([kind, buffering], body).into_response())
}
