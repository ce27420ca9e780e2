//! The list of runs: filters, search and order.
//!
//! A request ends after [`SEARCH_BUDGET`], however few runs it has found, and says where the list goes on, also while the runs are
//! still being sorted. Only `"next": null` says that there are no more.

use std::{collections::BTreeSet, time::Duration};

use axum::extract::State;
use serde::Serialize;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::run_cursor;
use crate::{
    api::{
        error::{ApiError, ApiResult},
        memory_budget::{PAGE_BYTES, Reservation, SMALL_RESERVATION},
        params::Params,
        state::ApiState,
    },
    event::{status, total_bytes},
    render::{RunJson, STALE},
    store::{
        BoxFuture, RunsQuery,
        run_list::{CONFIG_PREFIX, RunsSort, SortBy, Words, sort_columns},
    },
    units,
};

/// How long one request compares runs, or waits until they are sorted.
const SEARCH_BUDGET: Duration = Duration::from_millis(150);

/// The statuses that are shown.
const STATUSES: [&str; 5] = [status::RUNNING, STALE, status::COMPLETED, status::FAILED, status::STOPPED];

#[derive(Serialize)]
struct RunList<'a> {
    runs: Vec<RunJson<'a>>,
    count: usize,
    next: Option<String>,
    /// Absent in a whole answer to a request that names no search: its fields are those that clients have always had.
    #[serde(skip_serializing_if = "Option::is_none")]
    scanned: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sorted: Option<Sorted<'a>>,
}

/// What a sorted list is a list of.
#[derive(Serialize)]
struct Sorted<'a> {
    by: &'a str,
    order: &'a str,
    of: usize,
    all: bool,
    /// The runs are still being sorted.
    #[serde(skip_serializing_if = "Option::is_none")]
    sorting: Option<bool>,
    /// The configuration keys of these runs, which have not the one that is sorted by.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<BTreeSet<String>>,
}

/// A list that is not newest first, as the request names it.
struct NamedSort {
    by: String,
    order: &'static str,
}

/// `GET /api/runs`
pub async fn list(State(state): State<ApiState>, params: Params) -> ApiResult {
    let names = ["limit", "status", "dataset", "q", "archived", "sort", "order", "before"];
    let params = params.allow_only(&names, &["tag"])?;
    let sort = sort(&params)?;
    let mut query = query(&params, state.config.page_rows)?;
    query.stale_after = state.config.stale_micros();
    query.sort = sort.as_ref().map(NamedSort::parse).transpose()?;
    let fingerprint = fingerprint(&params, sort.as_ref());
    let parse = |text: &str| run_cursor::parse(text, fingerprint, sort.is_some());
    query.from = params
        .cursor("before", parse)
        .map_err(|error| error.append_detail("; a list goes on with the same filters and order"))?
        .unwrap_or_default();
    let mut reservation = Reservation::reserve(&state.memory, SMALL_RESERVATION).await;
    let read = || -> BoxFuture<'_, _> {
        let query = RunsQuery { deadline: Some(Instant::now() + SEARCH_BUDGET), ..query.clone() };
        let store = &*state.store;
        Box::pin(async move { store.runs(&query).await })
    };
    let page = reservation.read_within(read, |page| total_bytes(&page.runs)).await?;
    let RunsQuery { now, stale_after, .. } = query;
    let runs: Vec<_> = page.runs.iter().map(|run| RunJson { run, now, stale_after }).collect();
    let next = page.next.map(|next| run_cursor::write(&next, fingerprint, sort.is_some()));
    let sorted = sort.as_ref().map(|NamedSort { by, order }| Sorted {
        by,
        order,
        of: page.sorted,
        all: page.sorts_all,
        sorting: page.is_sorting.then_some(true),
        keys: query.sort.as_ref().and_then(|sort| sort.keys_instead(&page.runs)),
    });
    let is_search = ["q", "tag", "archived", "sort", "order"].into_iter().any(|name| params.text(name).is_some());
    let scanned = Some(page.scanned).filter(|_| is_search || next.is_some());
    reservation.json(&RunList { count: runs.len(), runs, next, scanned, sorted })
}

fn query(params: &Params, page_rows: usize) -> Result<RunsQuery, ApiError> {
    let archived = match params.word("archived", &["false", "true", "any"])? {
        "any" => None,
        word => Some(word == "true"),
    };
    let words = Words::parse(params.text("q").unwrap_or_default());
    Ok(RunsQuery {
        limit: params.number("limit", 100, 1, page_rows)?,
        bytes: PAGE_BYTES,
        status: params.text("status").map(|_| params.word("status", &STATUSES)).transpose()?.map(str::to_owned),
        now: units::now(),
        dataset: params.text("dataset").map(str::to_owned),
        tags: params.exact("tag").map(str::to_owned).collect(),
        archived,
        words: words.map_err(|problem| ApiError::bad_request(format!("`q` {problem}")))?,
        ..RunsQuery::default()
    })
}

/// The requested order; `None` for newest first, which is the order of the index.
fn sort(params: &Params) -> Result<Option<NamedSort>, ApiError> {
    let order = params.word("order", &["desc", "asc"])?;
    let order = if order == "asc" { "asc" } else { "desc" };
    let by = params.text("sort").unwrap_or("start_time").to_owned();
    Ok(Some(NamedSort { by, order }).filter(|sort| sort.by != "start_time" || sort.order != "desc"))
}

impl NamedSort {
    fn parse(&self) -> Result<RunsSort, ApiError> {
        let by = SortBy::named(&self.by).ok_or_else(|| {
            let columns = sort_columns().join(", ");
            let detail = format!("`sort` must be {CONFIG_PREFIX}KEY or one of {columns}, not `{}`", self.by);
            ApiError::bad_request(detail)
        })?;
        Ok(RunsSort { by, descending: self.order == "desc" })
    }
}

/// Tells lists apart: a cursor belongs to one of them. The size of a page may change from page to page.
fn fingerprint(params: &Params, sort: Option<&NamedSort>) -> u64 {
    let mut tags: Vec<_> = params.exact("tag").collect();
    tags.sort_unstable();
    let text = |name| params.text(name).unwrap_or_default();
    let archived = params.text("archived").unwrap_or("false");
    let sort = sort.map(|sort| (&sort.by, sort.order));
    xxh3_64(format!("{:?}", (text("status"), text("dataset"), text("q"), archived, tags, sort)).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::RunRow,
        metrics::Metrics,
        store::{Retention, Store, sqlite},
        units::Micros,
    };

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
        for n in 0..300 {
            store.write_run(&run(n, now), None).await.unwrap();
        }
        let stale = run(300, now - 3_000_000_000);
        store.write_run(&stale, None).await.unwrap();
        // The time is up at once: each request still gets ahead.
        let deadline = Some(Instant::now());
        let mut query = RunsQuery { limit: 10, status: Some(STALE.into()), deadline, ..RunsQuery::default() };
        let (mut found, mut requests) = (Vec::new(), 0);
        loop {
            let page = store.runs(&query).await.unwrap();
            requests += 1;
            found.extend(page.runs);
            let Some(next) = page.next else { break };
            query.from = next;
        }
        assert_eq!((found.len(), found[0].row.run_id), (1, stale.run_id));
        assert!(requests > 3, "{requests}");
    }
}
