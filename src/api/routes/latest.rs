//! Latest values: from Redis (`X-Cache-Status: HIT`), else from the store (`MISS`).

use axum::{
    body::Bytes,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use uuid::Uuid;

use super::{
    latest_value::{self, cache_status},
    stored_message::{is_state, write_state, write_topology},
};
use crate::{
    api::{
        error::{ApiError, ApiResult},
        memory_budget::{ChunkWriter, Reservation, SMALL_RESERVATION, chunked_json},
        params::Params,
        run_lookup::{newest, recent, requested_run},
        state::ApiState,
    },
    event::{EventRow, MetricsRow, TopologyRow},
    render::{Json, JsonRows},
    store::RangeQuery,
};

/// Newest events of a run in which the state is searched.
const STATE_EVENT_ROWS: usize = 256;
/// Runs in which a latest value is searched, the most recently active first.
const SEARCHED_RUNS: usize = 8;
/// Objects of a history from the store, as many as the key holds by default.
const HISTORY_ROWS: usize = 512;

/// `GET /api/metrics`
pub async fn metrics(State(state): State<ApiState>, params: Params) -> ApiResult {
    let run_id = requested_run(&state, params).await?;
    if let Some(hit) = cached(&state, "metrics", run_id).await? {
        return Ok(hit);
    }
    for run in searched(&state, run_id).await? {
        let mut reservation = Reservation::reserve(&state.memory, SMALL_RESERVATION).await;
        let (rows, _) = reservation.page::<MetricsRow>(&*state.store, &RangeQuery::newest(run, 1)).await?;
        if let Some(row) = rows.first() {
            return Ok(answer("MISS", Some(reservation), text(&Json(row))));
        }
    }
    Err(ApiError::not_found("No metrics yet"))
}

/// `GET /api/topology`, `GET /api/network/topology`
pub async fn topology(State(state): State<ApiState>, params: Params) -> ApiResult {
    let run_id = requested_run(&state, params).await?;
    if let Some(hit) = cached(&state, "topology", run_id).await? {
        return Ok(hit);
    }
    for run in searched(&state, run_id).await? {
        let mut reservation = Reservation::reserve(&state.memory, SMALL_RESERVATION).await;
        let rows = reservation.page_rows::<TopologyRow>(&*state.store, &RangeQuery::newest(run, 1)).await?;
        if let Some(row) = rows.into_iter().next() {
            return Ok(made(reservation, move |out| write_topology(row, out)));
        }
    }
    Err(ApiError::not_found("No topology yet"))
}

/// `GET /api/state`
pub async fn state(State(state): State<ApiState>, params: Params) -> ApiResult {
    let run_id = requested_run(&state, params).await?;
    // Redis has one state for all runs, and none for each run.
    if run_id.is_none()
        && let Some(hit) = cached(&state, "state", None).await?
    {
        return Ok(hit);
    }
    for run in searched(&state, run_id).await? {
        let mut reservation = Reservation::reserve_page(&state.memory).await;
        let query = RangeQuery::newest(run, STATE_EVENT_ROWS);
        let rows = reservation.page_rows::<EventRow>(&*state.store, &query).await?;
        if let Some(row) = rows.into_iter().find(is_state) {
            return Ok(made(reservation, move |out| write_state(&row, out)));
        }
    }
    Err(ApiError::not_found("No state yet"))
}

/// The runs whose latest value may be meant: the keys of Redis have that of any run, so a newest run without one does not count.
async fn searched(state: &ApiState, named: Option<Uuid>) -> Result<impl Iterator<Item = Uuid>, ApiError> {
    Ok(recent(state, named).await?.into_iter().take(SEARCHED_RUNS))
}

/// `GET /api/history`
pub async fn history(State(state): State<ApiState>) -> ApiResult {
    if let Some(hit) = cached(&state, "history", None).await? {
        return Ok(hit);
    }
    let mut reservation = Reservation::reserve_page(&state.memory).await;
    let run = newest(&state, None).await?;
    let query = RangeQuery::newest(run, HISTORY_ROWS);
    let (mut rows, _) = reservation.page::<MetricsRow>(&*state.store, &query).await?;
    rows.reverse();
    Ok(answer("MISS", Some(reservation), text(&JsonRows(&rows))))
}

/// The answer from Redis, counted as a hit or a miss.
async fn cached(state: &ApiState, subject: &str, run_id: Option<Uuid>) -> Result<Option<Response>, ApiError> {
    let value = latest_value::read(state, subject, run_id).await?;
    if value.is_some() {
        state.metrics.api_latest_hits.inc()
    } else {
        state.metrics.api_latest_misses.inc()
    };
    Ok(value.map(|(reservation, value)| answer("HIT", reservation, value)))
}

fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("rows always serialise")
}

fn answer(status: &'static str, reservation: Option<Reservation>, body: String) -> Response {
    let answer = match reservation {
        Some(reservation) => reservation.text(body.into_bytes()),
        None => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
    };
    (cache_status(status), answer).into_response()
}

/// The answer from the store that `write` writes while it is sent.
fn made(reservation: Reservation, write: impl FnOnce(&mut ChunkWriter<Bytes>) + Send + 'static) -> Response {
    (cache_status("MISS"), chunked_json(reservation, write)).into_response()
}
