//! The events and the topologies of a run.

use axum::extract::{Path, State};
use serde::Serialize;

use crate::{
    api::{
        error::ApiResult,
        memory_budget::Reservation,
        paging::{RANGE, range},
        params::Params,
        run_lookup,
        state::ApiState,
    },
    event::{EventRow, TopologyRow},
    render::JsonRows,
};

#[derive(Serialize)]
struct Events<'a> {
    events: JsonRows<'a, EventRow>,
    count: usize,
    next: Option<String>,
}

/// `GET /api/runs/{run_id}/events`
pub async fn events(State(state): State<ApiState>, Path(run_id): Path<String>, params: Params) -> ApiResult {
    let params = params.allow_only(&RANGE, &[])?;
    let run = run_lookup::find(&state, &run_id).await?;
    let query = range(&params, run.run_id, 1_000, state.config.page_rows)?;
    let mut reservation = Reservation::reserve_page(&state.memory).await;
    let (rows, next) = reservation.page::<EventRow>(&*state.store, &query).await?;
    reservation.json(&Events { events: JsonRows(&rows), count: rows.len(), next })
}

#[derive(Serialize)]
struct Topology<'a> {
    topology: JsonRows<'a, TopologyRow>,
    count: usize,
    next: Option<String>,
}

/// `GET /api/runs/{run_id}/topology`
pub async fn topology(State(state): State<ApiState>, Path(run_id): Path<String>, params: Params) -> ApiResult {
    let params = params.allow_only(&RANGE, &[])?;
    let run = run_lookup::find(&state, &run_id).await?;
    let query = range(&params, run.run_id, 100, state.config.page_rows)?;
    let mut reservation = Reservation::reserve_page(&state.memory).await;
    let (rows, next) = reservation.page::<TopologyRow>(&*state.store, &query).await?;
    reservation.json(&Topology { topology: JsonRows(&rows), count: rows.len(), next })
}
