//! One run with its newest metrics.

use axum::extract::{Path, State};
use serde::Serialize;

use crate::{
    api::{
        error::{ApiError, ApiResult},
        fields::names_bytes,
        memory_budget::Reservation,
        paging,
        params::Params,
        run_lookup,
        state::ApiState,
    },
    event::{EditedRun, MemSize, MetricsRow, total_bytes},
    render::{JsonRows, RunJson},
    store::{self, BoxFuture, RangeQuery, StoreError},
    units,
};

#[derive(Serialize)]
struct RunDetail<'a> {
    run: RunJson<'a>,
    metrics: JsonRows<'a, MetricsRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric_count: Option<u64>,
    /// Cursor for `/api/metrics/range`; absent: these are all rows.
    next: Option<String>,
    /// Names of the numbers in `extra`, in byte order.
    metric_names: Vec<String>,
}

/// `GET /api/runs/{run_id}`
pub async fn detail(State(state): State<ApiState>, Path(run_id): Path<String>, params: Params) -> ApiResult {
    let params = params.allow_only(&["limit", "count"], &[])?;
    let counted = params.word("count", &["exact", "none"])? == "exact";
    let run_id = run_lookup::resolve_run(&state, &run_id).await?;
    let limit = params.number("limit", 1_000, 0, state.config.page_rows)?;
    let (store, query) = (&*state.store, &RangeQuery::newest(run_id, limit));
    // Cassandra counts by reading every row, seconds for a million rows: no memory is reserved meanwhile.
    let metric_count = if counted { Some(store.count_metrics(run_id).await?) } else { None };
    let mut reservation = Reservation::reserve_page(&state.memory).await;
    let read = || -> BoxFuture<'_, Result<_, StoreError>> {
        Box::pin(async {
            let Some(run) = store::edited_run(store, run_id).await? else { return Ok(None) };
            let names = store.metric_names(run_id).await?;
            Ok(Some((run, names, paging::page::<MetricsRow>(store, query.clone()).await?)))
        })
    };
    let bytes = |found: &Option<(EditedRun, Vec<_>, (Vec<_>, _))>| {
        let found = found.as_ref();
        found.map_or(0, |(run, names, (metrics, _))| run.bytes() + names_bytes(names) + total_bytes(metrics))
    };
    let (run, metric_names, (metrics, next)) = match reservation.read_within(read, bytes).await? {
        Some(found) => found,
        // Created here a moment ago, and not stored yet.
        None => {
            let created = run_lookup::shown_run(&state, run_id).await?.ok_or_else(ApiError::run_not_found)?;
            (created, Vec::new(), (Vec::new(), None))
        }
    };
    let shown = RunJson { run: &run, now: units::now(), stale_after: state.config.stale_micros() };
    reservation.json(&RunDetail { run: shown, metrics: JsonRows(&metrics), metric_count, next, metric_names })
}
