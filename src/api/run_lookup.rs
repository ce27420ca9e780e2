//! The run that a request is about.
//!
//! A run is named by its id, by the name that its producer published (its id is derived from it), or by the name that people gave
//! it. An id is always that run's, whatever runs are called.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::json;
use uuid::Uuid;

use super::{error::ApiError, params::Params, state::ApiState};
use crate::{
    event::{EditedRun, RunRow, run_id_from_text},
    store::{self, RunsQuery},
};

/// Newest runs among which the one with the newest event is searched.
const RECENT_RUNS: usize = 32;

/// The id of the run that a path or a parameter names. Text that is an id names that run whether it exists or not.
///
/// # Errors
/// 400 when no run has this name, 409 with the list when several have it.
pub async fn resolve_run(state: &ApiState, text: &str) -> Result<Uuid, ApiError> {
    let trimmed = text.trim();
    if let Ok(run_id) = Uuid::try_parse(trimmed) {
        return Ok(run_id);
    }
    // A name may begin or end with blanks.
    let readings = [Some(text), Some(trimmed).filter(|trimmed| *trimmed != text)];
    for name in readings.into_iter().flatten().filter(|name| !name.is_empty()) {
        let mut runs = named(state, name).await?;
        match runs.len() {
            0 => {}
            1 => return Ok(runs.swap_remove(0).row.run_id),
            _ => return Err(ambiguous(name, &runs)),
        }
    }
    Err(ApiError::bad_request("Invalid UUID"))
}

/// The runs with this name.
async fn named(state: &ApiState, name: &str) -> Result<Vec<EditedRun>, ApiError> {
    let published = run_id_from_text(name);
    let given = state.store.runs_named(name).await?;
    let mut runs = Vec::new();
    for run_id in std::iter::once(published).chain(given.into_iter().filter(|run_id| *run_id != published)) {
        runs.extend(shown_run(state, run_id).await?.map(|run| EditedRun { row: without_large_fields(run.row), ..run }));
    }
    Ok(runs)
}

fn ambiguous(name: &str, runs: &[EditedRun]) -> ApiError {
    let described = |run: &EditedRun| match &run.row.run_name {
        // Those that were given the same name are told apart by the published one.
        Some(published) if published != name => format!("{published} ({})", run.row.run_id),
        _ => format!("{name} ({})", run.row.run_id),
    };
    let listed: Vec<_> = runs.iter().map(described).collect();
    let candidate = |run: &EditedRun| json!({ "run_id": run.row.run_id, "run_name": run.row.run_name, "display_name": run.display_name });
    let detail = format!("`{name}` names {} runs, give the id of one: {}", runs.len(), listed.join(", "));
    ApiError::new(StatusCode::CONFLICT, detail).with_candidates(runs.iter().map(candidate).collect())
}

/// The ids of the runs in a repeatable parameter.
///
/// # Errors
/// As [`resolve_run`]; 400 when there are fewer than `least`, or more than `http.max_runs`.
pub async fn resolve_runs(state: &ApiState, params: &Params, least: usize) -> Result<Vec<Uuid>, ApiError> {
    let named = params.runs("run_id");
    if !(least..=state.config.max_runs).contains(&named.len()) {
        return Err(ApiError::bad_request(format!("give `run_id` {least} to {} times", state.config.max_runs)));
    }
    let mut runs = Vec::new();
    for text in named {
        runs.push(resolve_run(state, text).await?);
    }
    Ok(runs)
}

/// A run as it is shown: as the store has it, else as it was created here a moment ago.
///
/// # Errors
/// As the store fails.
pub async fn shown_run(state: &ApiState, run_id: Uuid) -> Result<Option<EditedRun>, ApiError> {
    let Some(row) = row_or_created(state, run_id).await? else { return Ok(None) };
    Ok(store::edited(&*state.store, vec![row]).await?.pop())
}

/// The row of a run: as the store has it, else as it was created here a moment ago.
///
/// # Errors
/// As the store fails.
pub async fn row_or_created(state: &ApiState, run_id: Uuid) -> Result<Option<RunRow>, ApiError> {
    let _read_permit = state.memory.read_permit().await;
    if let Some(row) = state.store.read_run(run_id).await? {
        return Ok(Some(row));
    }
    let intake = state.submitter.targets().ok().and_then(|targets| targets.intake.as_ref());
    Ok(intake.and_then(|intake| intake.created(run_id)))
}

/// Refuses a run of which there is nothing. Rows of metrics may be there before the run's own row.
///
/// # Errors
/// 404 then; and as the store fails.
pub async fn require_known(state: &ApiState, run_id: Uuid) -> Result<(), ApiError> {
    if row_or_created(state, run_id).await?.is_some() || state.store.count_metrics(run_id).await? > 0 {
        return Ok(());
    }
    Err(ApiError::run_not_found())
}

/// The row of the run that a path names, without what may be large in it.
///
/// # Errors
/// As [`resolve_run`]; 404 when there is no such run.
pub async fn find(state: &ApiState, text: &str) -> Result<RunRow, ApiError> {
    small_row(state, resolve_run(state, text).await?).await
}

/// The same by its id.
///
/// # Errors
/// 404 when there is no such run.
pub async fn small_row(state: &ApiState, run_id: Uuid) -> Result<RunRow, ApiError> {
    Ok(without_large_fields(find_by_id(state, run_id).await?))
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
pub async fn requested_run(state: &ApiState, params: Params) -> Result<Option<Uuid>, ApiError> {
    optional_run(state, &params.allow_only(&["run_id"], &[])?).await
}

/// The run in an optional `run_id`.
pub async fn optional_run(state: &ApiState, params: &Params) -> Result<Option<Uuid>, ApiError> {
    match params.exact("run_id").next() {
        Some(text) => resolve_run(state, text).await.map(Some),
        None => Ok(None),
    }
}

/// The run in the required `run_id`.
pub async fn required_run(state: &ApiState, params: &Params) -> Result<Uuid, ApiError> {
    optional_run(state, params).await?.ok_or_else(|| ApiError::bad_request("`run_id` is missing"))
}

/// The row of the run that a request names, else of the one with the newest event.
///
/// # Errors
/// 404 when there is no such run.
pub async fn named_or_newest(state: &ApiState, params: Params) -> Result<RunRow, ApiError> {
    let named = requested_run(state, params).await?;
    find_by_id(state, newest(state, named).await?).await
}

/// The named run, else the one with the newest event.
pub async fn newest(state: &ApiState, named: Option<Uuid>) -> Result<Uuid, ApiError> {
    recent(state, named).await?.first().copied().ok_or_else(ApiError::run_not_found)
}

/// The named run alone, else those with the newest events, the newest first.
pub async fn recent(state: &ApiState, named: Option<Uuid>) -> Result<Vec<Uuid>, ApiError> {
    if let Some(run_id) = named {
        return Ok(vec![run_id]);
    }
    let _read_permit = state.memory.read_permit().await;
    let (mut query, mut last_active) = (RunsQuery { limit: RECENT_RUNS, ..RunsQuery::default() }, Vec::new());
    while last_active.len() < RECENT_RUNS {
        let page = state.store.runs(&query).await?;
        last_active
            .extend(page.runs.iter().map(|run| (run.row.last_event_time.or(run.row.start_time), run.row.run_id)));
        let Some(next) = page.next else { break };
        query.from = next;
    }
    // Of equal times the one that was listed last.
    last_active.reverse();
    last_active.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    Ok(last_active.into_iter().map(|(_, run_id)| run_id).collect())
}
