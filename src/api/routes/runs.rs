//! The list of runs, and one run with its newest metrics.

use axum::extract::{Path, State};
use serde::Serialize;

use crate::{
    api::{
        error::{ApiError, ApiResult},
        memory_budget::{PAGE_BYTES, Reservation, SMALL_RESERVATION},
        paging,
        params::{Params, uuid},
        state::ApiState,
    },
    event::{MemSize, MetricsRow, RunRow, status, total_bytes},
    render::{self, JsonRows, RunJson, STALE, STALE_AFTER},
    store::{BoxFuture, RangeQuery, Runs, RunsQuery, Store, StoreError},
    units::{self, Micros},
};

/// Maximum runs that one request scans for the requested status.
const MAX_SCANNED_RUNS: usize = 10_000;

/// The statuses that are shown.
pub const STATUSES: [&str; 5] = [status::RUNNING, STALE, status::COMPLETED, status::FAILED, status::STOPPED];

#[derive(Serialize)]
struct RunList<'a> {
    runs: Vec<RunJson<'a>>,
    count: usize,
    next: Option<String>,
}

/// `GET /api/runs`
pub async fn list(State(state): State<ApiState>, params: Params) -> ApiResult {
    let params = params.allow_only(&["limit", "status", "dataset", "before"], &[])?;
    let status = params.text("status").map(|_| params.word("status", &STATUSES)).transpose()?.map(str::to_owned);
    let query = RunsQuery {
        limit: params.number("limit", 100, 1, state.config.page_rows)?,
        status,
        dataset: params.text("dataset").map(str::to_owned),
        before: params.cursor("before", render::parse_run_cursor)?,
        ..RunsQuery::default()
    };
    let now = units::now();
    let mut reservation = Reservation::reserve(&state.memory, SMALL_RESERVATION).await;
    let read = || -> BoxFuture<'_, _> { Box::pin(read_page(&*state.store, query.clone(), now)) };
    let (runs, next) = reservation.read_within(read, |(runs, _)| total_bytes(runs)).await?;
    let shown = runs.iter().map(|run| RunJson { run, now, stale_after: STALE_AFTER }).collect();
    reservation.json(&RunList { runs: shown, count: runs.len(), next })
}

/// A page of runs by their shown status, which tells stale from running, and the cursor of the next page. If few runs match, the
/// page ends early, possibly empty, and the cursor is behind the last scanned run.
async fn read_page(
    store: &dyn Store,
    query: RunsQuery,
    now: Micros,
) -> Result<(Vec<RunRow>, Option<String>), StoreError> {
    let wanted = query.status.clone();
    let stored = wanted.as_deref().map(|wanted| if wanted == STALE { status::RUNNING } else { wanted }.to_owned());
    let mut page = RunsQuery { status: stored, ..query };
    let (limit, mut found, mut scanned, mut bytes) = (page.limit, Vec::<RunRow>::new(), 0, 0);
    // One run more than requested tells whether there is a next page.
    page.limit = limit.saturating_add(1).min(MAX_SCANNED_RUNS);
    let is_wanted = |run: &RunRow| wanted.is_none() || render::shown_status(run, now, STALE_AFTER) == wanted.as_deref();
    let next = 'pages: loop {
        let Runs { rows: runs, scanned_to: looked_to } = store.runs(&page).await?;
        let complete = looked_to.is_none() && !page.is_filled(&runs);
        page.before = looked_to.or_else(|| runs.last().and_then(RunRow::cursor));
        scanned += runs.len();
        for run in runs.into_iter().filter(is_wanted) {
            bytes += run.bytes();
            if found.len() == limit || (bytes > PAGE_BYTES && !found.is_empty()) {
                break 'pages found.last().and_then(render::run_cursor);
            }
            found.push(run);
        }
        if complete {
            break None;
        }
        if page.before.is_none() || looked_to.is_some() || scanned >= MAX_SCANNED_RUNS {
            break page.before.map(render::run_cursor_at);
        }
    };
    Ok((found, next))
}

#[derive(Serialize)]
struct RunDetail<'a> {
    run: RunJson<'a>,
    metrics: JsonRows<'a, MetricsRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric_count: Option<u64>,
    /// Cursor for `/api/metrics/range`; absent: these are all rows.
    next: Option<String>,
}

/// `GET /api/runs/{run_id}`
pub async fn detail(State(state): State<ApiState>, Path(run_id): Path<String>, params: Params) -> ApiResult {
    let params = params.allow_only(&["limit", "count"], &[])?;
    let counted = params.word("count", &["exact", "none"])? == "exact";
    let run_id = uuid(&run_id)?;
    let limit = params.number("limit", 1_000, 0, state.config.page_rows)?;
    let (store, query) = (&*state.store, &RangeQuery::newest(run_id, limit));
    // Cassandra counts by reading every row, seconds for a million rows: no memory is reserved meanwhile.
    let metric_count = if counted { Some(store.count_metrics(run_id).await?) } else { None };
    let mut reservation = Reservation::reserve_page(&state.memory).await;
    let read = || -> BoxFuture<'_, Result<_, StoreError>> {
        Box::pin(async {
            let Some(run) = store.read_run(run_id).await? else { return Ok(None) };
            Ok(Some((run, paging::page::<MetricsRow>(store, query.clone()).await?)))
        })
    };
    let bytes = |found: &Option<(RunRow, (Vec<_>, _))>| {
        found.as_ref().map_or(0, |(run, (metrics, _))| run.bytes() + total_bytes(metrics))
    };
    let (run, (metrics, next)) = reservation.read_within(read, bytes).await?.ok_or_else(ApiError::run_not_found)?;
    let shown = RunJson { run: &run, now: units::now(), stale_after: STALE_AFTER };
    reservation.json(&RunDetail { run: shown, metrics: JsonRows(&metrics), metric_count, next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        metrics::Metrics,
        store::{Retention, sqlite},
    };

    /// The store does not know which runs are stale, so they are scanned.
    #[tokio::test]
    async fn a_page_that_ends_before_all_runs_were_scanned_has_a_cursor() {
        let folder = tempfile::tempdir().unwrap();
        let config = sqlite::Config { path: folder.path().join("cascor.db") };
        let store = sqlite::open(&config, &Retention::default(), Metrics::new());
        let now = units::now();
        let run = |n: i64, last_event_time: Micros| RunRow {
            run_id: uuid::Uuid::from_u128(n as u128),
            start_time: Some(now - 3_600_000_000 - n),
            status: Some(status::RUNNING.into()),
            last_event_time: Some(last_event_time),
            ..RunRow::default()
        };
        for n in 0..MAX_SCANNED_RUNS as i64 + 5 {
            store.write_run(&run(n, now), None).await.unwrap();
        }
        let stale = run(MAX_SCANNED_RUNS as i64 + 5, now - 3_000_000_000);
        store.write_run(&stale, None).await.unwrap();
        let query = RunsQuery { limit: 2_499, status: Some(STALE.into()), ..RunsQuery::default() };
        let (runs, next) = read_page(&store, query.clone(), now).await.unwrap();
        assert!(runs.is_empty());
        let before = render::parse_run_cursor(&next.unwrap());
        assert_eq!(before.unwrap().1.as_u128(), MAX_SCANNED_RUNS as u128 - 1);
        let (runs, next) = read_page(&store, RunsQuery { before, ..query }, now).await.unwrap();
        assert_eq!((runs.len(), runs[0].run_id, next), (1, stale.run_id, None));
    }
}
