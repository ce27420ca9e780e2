//! The list of runs, and one run with its newest metrics.

use std::collections::BTreeSet;

use axum::extract::{Path, State};
use serde::Serialize;

use super::{
    Sight,
    error::{Answer, ApiError},
    params::{Params, uuid},
    room::Room,
    rows::{self, PAGE_BYTES},
};
use crate::{
    event::{MetricsRow, RunRow, Weigh, status, weight},
    render::{self, JsonRows, RunJson, STALE, STALE_AFTER},
    store::{BoxFuture, RangeQuery, RunsQuery, Store, StoreError},
    units::{self, Micros},
};

/// How many runs are looked at for those with the status that was asked for.
const LOOKED_AT: usize = 10_000;
/// Room for a list of runs, with its text: most need far less.
const LIST_BYTES: usize = 2 << 20;

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
        ..RunsQuery::default()
    };
    let now = units::now();
    let mut room = Room::for_bytes(&sight.memory, LIST_BYTES).await;
    let read = || -> BoxFuture<'_, _> { Box::pin(shown(&*sight.store, query.clone(), now)) };
    let (runs, next) = room.keep(read, |(runs, _)| weight(runs)).await?;
    let shown = runs.iter().map(|run| RunJson { run, now, stale_after: STALE_AFTER }).collect();
    room.json(&Listed { runs: shown, count: runs.len(), next })
}

/// A page of runs by the status that is shown, which tells stale from running; and the cursor of the next page.
async fn shown(store: &dyn Store, query: RunsQuery, now: Micros) -> Result<(Vec<RunRow>, Option<String>), StoreError> {
    let wanted = query.status.clone();
    let stored = wanted.as_deref().map(|wanted| if wanted == STALE { status::RUNNING } else { wanted }.to_owned());
    let mut page = RunsQuery { status: stored, ..query };
    let (limit, mut found, mut looked_at, mut bytes) = (page.limit, Vec::<RunRow>::new(), 0, 0);
    // One more than is asked for tells whether there is a next page.
    page.limit = limit.saturating_add(1).min(LOOKED_AT);
    let is_wanted = |run: &RunRow| wanted.is_none() || render::shown_status(run, now, STALE_AFTER) == wanted.as_deref();
    let more = 'pages: loop {
        let runs = store.runs(&page).await?;
        let complete = !page.is_filled(&runs);
        page.before = runs.last().and_then(|run| Some((run.start_time?, run.run_id)));
        looked_at += runs.len();
        for run in runs.into_iter().filter(is_wanted) {
            bytes += run.bytes();
            if found.len() == limit || (bytes > PAGE_BYTES && !found.is_empty()) {
                break 'pages true;
            }
            found.push(run);
        }
        if complete || page.before.is_none() || looked_at >= LOOKED_AT {
            break false;
        }
    };
    let next = found.last().filter(|_| more).and_then(render::run_cursor);
    Ok((found, next))
}

#[derive(Serialize)]
struct One<'a> {
    run: RunJson<'a>,
    metrics: JsonRows<'a, MetricsRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric_count: Option<u64>,
    /// Where `/api/metrics/range` goes on; absent: these are all.
    next: Option<String>,
}

/// `GET /api/runs/{run_id}`
pub async fn one(State(sight): State<Sight>, Path(run_id): Path<String>, params: Params) -> Answer {
    let params = params.known(&["limit", "count"], &[])?;
    let counted = params.word("count", &["exact", "none"])? == "exact";
    let run_id = uuid(&run_id)?;
    let limit = params.number("limit", 1_000, 0, sight.config.page_rows)?;
    let (store, query) = (&*sight.store, &RangeQuery::newest(run_id, limit));
    // Cassandra reads every row of the run for that, seconds where there are a million: no room is held meanwhile.
    let metric_count = if counted { Some(store.count_metrics(run_id).await?) } else { None };
    let mut room = Room::of(&sight.memory).await;
    let read = || -> BoxFuture<'_, Result<_, StoreError>> {
        Box::pin(async {
            let Some(run) = store.read_run(run_id).await? else { return Ok(None) };
            Ok(Some((run, rows::page::<MetricsRow>(store, query.clone()).await?)))
        })
    };
    let bytes = |found: &Option<(RunRow, (Vec<_>, _))>| {
        found.as_ref().map_or(0, |(run, (metrics, _))| run.bytes() + weight(metrics))
    };
    let (run, (metrics, next)) = room.keep(read, bytes).await?.ok_or_else(ApiError::no_run)?;
    let shown = RunJson { run: &run, now: units::now(), stale_after: STALE_AFTER };
    room.json(&One { run: shown, metrics: JsonRows(&metrics), metric_count, next })
}

/// The row of the run that a path names, without what may be large in it.
///
/// # Errors
/// 400 when it is no UUID, 404 when there is no such run.
pub async fn find(sight: &Sight, run_id: &str) -> Result<RunRow, ApiError> {
    let run_id = uuid(run_id)?;
    let _turn = sight.memory.turn().await;
    let run = sight.store.read_run(run_id).await?.ok_or_else(ApiError::no_run)?;
    Ok(RunRow { config_json: None, notes: None, tags: BTreeSet::new(), ..run })
}
