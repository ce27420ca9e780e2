//! The list of runs, and one run with its newest metrics.

use axum::extract::{Path, State};
use serde::Serialize;

use super::{
    Sight,
    error::{Answer, ApiError},
    json,
    params::{Params, uuid},
    room::Room,
};
use crate::{
    event::{MetricsRow, RunRow, status},
    render::{self, JsonRows, RunJson, STALE, STALE_AFTER},
    store::{RangeQuery, RunsQuery, Store, StoreError},
    units::{self, Micros},
};

/// How many runs are looked at for those with the status that was asked for.
const LOOKED_AT: usize = 10_000;

/// The statuses that are shown.
pub const STATUSES: [&str; 5] = [status::RUNNING, STALE, status::COMPLETED, status::FAILED, status::STOPPED];

#[derive(Serialize)]
struct Listed<'a> {
    runs: Vec<RunJson<'a>>,
    count: usize,
    next: Option<String>,
}

/// `GET /api/runs`
pub async fn list(State(sight): State<Sight>, params: Params) -> Answer {
    let params = params.known(&["limit", "status", "dataset", "before"], &[])?;
    let status = match params.text("status") {
        Some(_) => Some(params.word("status", &STATUSES)?.to_owned()),
        None => None,
    };
    let query = RunsQuery {
        limit: params.number("limit", 100, 1, sight.config.page_rows)?,
        status,
        dataset: params.text("dataset").map(str::to_owned),
        before: params.cursor("before", render::parse_run_cursor)?,
    };
    let now = units::now();
    let (runs, next) = shown(&*sight.store, query, now).await?;
    let shown = runs.iter().map(|run| RunJson { run, now, stale_after: STALE_AFTER }).collect();
    json(&Listed { runs: shown, count: runs.len(), next })
}

/// A page of runs by the status that is shown, which tells stale from running; and the cursor of the next page.
async fn shown(store: &dyn Store, query: RunsQuery, now: Micros) -> Result<(Vec<RunRow>, Option<String>), StoreError> {
    let wanted = query.status.clone();
    let stored = wanted.as_deref().map(|wanted| if wanted == STALE { status::RUNNING } else { wanted }.to_owned());
    let mut page = RunsQuery { status: stored, ..query };
    let (limit, mut found, mut looked_at) = (page.limit, Vec::new(), 0);
    // One more than is asked for tells whether there is a next page.
    page.limit = limit.saturating_add(1).min(LOOKED_AT);
    while found.len() <= limit && looked_at < LOOKED_AT {
        let runs = store.runs(&page).await?;
        let (read, last) = (runs.len(), runs.last().and_then(|run| Some((run.start_time?, run.run_id))));
        let is_wanted =
            |run: &RunRow| wanted.is_none() || render::shown_status(run, now, STALE_AFTER) == wanted.as_deref();
        found.extend(runs.into_iter().filter(is_wanted));
        looked_at += read;
        page.before = last;
        if read < page.limit || last.is_none() {
            break;
        }
    }
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).and_then(render::run_cursor);
    Ok((found, next))
}

#[derive(Serialize)]
struct One<'a> {
    run: RunJson<'a>,
    metrics: JsonRows<'a, MetricsRow>,
    metric_count: u64,
    /// Where `/api/metrics/range` goes on; absent: these are all.
    next: Option<String>,
}

/// `GET /api/runs/{run_id}`
pub async fn one(State(sight): State<Sight>, Path(run_id): Path<String>, params: Params) -> Answer {
    let params = params.known(&["limit"], &[])?;
    let run = find(&*sight.store, &run_id).await?;
    let limit = params.number("limit", 1_000, 0, sight.config.page_rows)?;
    let query = RangeQuery::newest(run.run_id, limit);
    let mut room = Room::of(&sight.memory).await;
    let (metrics, next) = room.page::<MetricsRow>(&*sight.store, &query).await?;
    let metric_count = sight.store.count_metrics(run.run_id).await?;
    let shown = RunJson { run: &run, now: units::now(), stale_after: STALE_AFTER };
    room.json(&One { run: shown, metrics: JsonRows(&metrics), metric_count, next })
}

/// The row of the run that a path names.
///
/// # Errors
/// 400 when it is no UUID, 404 when there is no such run.
pub async fn find(store: &dyn Store, run_id: &str) -> Result<RunRow, ApiError> {
    store.read_run(uuid(run_id)?).await?.ok_or_else(ApiError::no_run)
}
