//! The run that a request is about.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{
    error::ApiError,
    params::{Params, uuid},
    state::ApiState,
};
use crate::{event::RunRow, store::RunsQuery};

/// Newest runs among which the one with the newest event is searched.
const RECENT_RUNS: usize = 32;

/// The row of the run that a path names, without what may be large in it.
///
/// # Errors
/// 400 when it is no UUID, 404 when there is no such run.
pub async fn find(state: &ApiState, run_id: &str) -> Result<RunRow, ApiError> {
    Ok(without_large_fields(find_by_id(state, uuid(run_id)?).await?))
}

/// The row without what may be large in it.
pub fn without_large_fields(run: RunRow) -> RunRow {
    RunRow { config_json: None, notes: None, tags: BTreeSet::new(), ..run }
}

/// The whole row of a run.
///
/// # Errors
/// 404 when there is no such run.
async fn find_by_id(state: &ApiState, run_id: Uuid) -> Result<RunRow, ApiError> {
    let _read_permit = state.memory.read_permit().await;
    state.store.read_run(run_id).await?.ok_or_else(ApiError::run_not_found)
}

/// The run in the optional `run_id` of a request.
pub fn requested_run(params: Params) -> Result<Option<Uuid>, ApiError> {
    params.allow_only(&["run_id"], &[])?.text("run_id").map(uuid).transpose()
}

/// The row of the run that a request names, else of the one with the newest event.
///
/// # Errors
/// 404 when there is no such run.
pub async fn named_or_newest(state: &ApiState, params: Params) -> Result<RunRow, ApiError> {
    let named = requested_run(params)?;
    find_by_id(state, newest(state, named).await?).await
}

/// The named run, else the one with the newest event.
pub async fn newest(state: &ApiState, named: Option<Uuid>) -> Result<Uuid, ApiError> {
    if let Some(run_id) = named {
        return Ok(run_id);
    }
    let _read_permit = state.memory.read_permit().await;
    let (mut query, mut last_active) = (RunsQuery { limit: RECENT_RUNS, ..RunsQuery::default() }, Vec::new());
    loop {
        let runs = state.store.runs(&query).await?.rows;
        last_active.extend(runs.iter().map(|run| (run.last_event_time.or(run.start_time), run.run_id)));
        let filled = query.is_filled(&runs);
        query.before = runs.last().and_then(RunRow::cursor);
        if !filled || query.before.is_none() || last_active.len() >= RECENT_RUNS {
            break;
        }
    }
    Ok(last_active.iter().max_by_key(|(at, _)| at).ok_or_else(ApiError::run_not_found)?.1)
}
