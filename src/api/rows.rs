//! Pages of event rows: bounded in number and in bytes, because one row may be megabytes.

use axum::extract::{Path, State};
use serde::Serialize;

use super::{ApiState, error::ApiResult, memory_budget::Reservation, params::Params, runs};
use crate::{
    event::{EventRow, Keyed, MetricsRow, TopologyRow},
    render::{self, JsonRows},
    store::{BoxFuture, RangeQuery, Store, StoreError},
};

/// A page ends before the row that would pass this, if it has any, and says where it goes on.
pub const PAGE_BYTES: usize = 8 << 20;

/// Rows that are read in pages.
pub trait Paged: Keyed + Sized + Send {
    /// How many are read at a time.
    const PAGE_ROWS: usize;
    /// Reads rows.
    fn read<'a>(store: &'a dyn Store, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<Self>, StoreError>>;
}

/// Small rows, but for what a producer adds.
impl Paged for MetricsRow {
    const PAGE_ROWS: usize = 1_000;

    fn read<'a>(store: &'a dyn Store, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<Self>, StoreError>> {
        store.metrics(query)
    }
}

/// Rows with the message whole.
impl Paged for EventRow {
    const PAGE_ROWS: usize = 32;

    fn read<'a>(store: &'a dyn Store, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<Self>, StoreError>> {
        store.events(query)
    }
}

/// Rows with every connection of a network.
impl Paged for TopologyRow {
    const PAGE_ROWS: usize = 4;

    fn read<'a>(store: &'a dyn Store, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<Self>, StoreError>> {
        store.topology(query)
    }
}

/// A page of at most `query.limit` rows, and the cursor of the next.
///
/// # Errors
/// As the store fails.
pub async fn page<T: Paged>(store: &dyn Store, mut query: RangeQuery) -> Result<(Vec<T>, Option<String>), StoreError> {
    let limit = query.limit;
    let (mut rows, mut bytes) = (Vec::<T>::new(), 0);
    if limit == 0 {
        return Ok((rows, None));
    }
    let more = loop {
        // One more than is asked for tells whether there is a next page.
        query.limit = (limit - rows.len()).saturating_add(1).min(T::PAGE_ROWS);
        let read = T::read(store, &query).await?;
        let complete = !query.is_filled(&read);
        query.after = read.last().map(|row| row.key().cursor()).or(query.after);
        let mut full = false;
        for row in read {
            bytes += row.bytes();
            full = rows.len() == limit || (bytes > PAGE_BYTES && !rows.is_empty());
            if full {
                break;
            }
            rows.push(row);
        }
        if full || complete {
            break full;
        }
        if bytes >= PAGE_BYTES {
            break true;
        }
    };
    let next = rows.last().filter(|_| more).map(|row| render::event_cursor(row.key()));
    Ok((rows, next))
}

/// What the ranges of all event tables have in common.
pub const RANGE: [&str; 5] = ["start_time", "end_time", "limit", "order", "cursor"];

/// The range that the parameters describe.
pub fn range(params: &Params, run_id: uuid::Uuid, limit: usize, most: usize) -> Result<RangeQuery, super::ApiError> {
    Ok(RangeQuery {
        start: params.time("start_time")?,
        end: params.time("end_time")?,
        limit: params.number("limit", limit, 1, most)?,
        ascending: params.word("order", &["desc", "asc"])? == "asc",
        after: params.cursor("cursor", render::parse_event_cursor)?,
        ..RangeQuery::newest(run_id, limit)
    })
}

#[derive(Serialize)]
struct Events<'a> {
    events: JsonRows<'a, EventRow>,
    count: usize,
    next: Option<String>,
}

/// `GET /api/runs/{run_id}/events`
pub async fn events(State(state): State<ApiState>, Path(run_id): Path<String>, params: Params) -> ApiResult {
    let params = params.allow_only(&RANGE, &[])?;
    let run = runs::find(&state, &run_id).await?;
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
    let run = runs::find(&state, &run_id).await?;
    let query = range(&params, run.run_id, 100, state.config.page_rows)?;
    let mut reservation = Reservation::reserve_page(&state.memory).await;
    let (rows, next) = reservation.page::<TopologyRow>(&*state.store, &query).await?;
    reservation.json(&Topology { topology: JsonRows(&rows), count: rows.len(), next })
}
