//! Paged reads, limited in rows and bytes.

use std::{future::pending, ops::ControlFlow, panic::resume_unwind, sync::Arc};

use scylla::{
    client::session::Session,
    deserialize::row::DeserializeRow as Row,
    errors::ExecutionError,
    response::{
        PagingState, PagingStateResponse,
        query_result::{QueryResult, QueryRowsResult},
    },
    serialize::row::SerializeRow,
    statement::prepared::PreparedStatement,
    value::CqlTimestamp,
};
use tokio::task::{JoinSet, yield_now};
use uuid::Uuid;

use super::{errors, read_scheduler::YIELD_ROWS, session::LiveSession, statements::RangeStatements, time};
use crate::{
    cooperative::YieldEvery,
    event::Keyed,
    store::{Prefetch, RangeQuery, StoreError},
    units::Micros,
};

pub(super) fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Misconfigured(Box::new(error))
}

/// Sends `statement` and passes every page to `page` until it breaks or there are no more. From the second page on it yields to
/// other reads. Not generic: the driver's code for a request would be compiled for each caller.
pub(super) async fn pages(
    live: &LiveSession,
    statement: &PreparedStatement,
    values: &(dyn SerializeRow + Sync),
    page: &mut (dyn FnMut(QueryRowsResult) -> Result<ControlFlow<()>, StoreError> + Send),
) -> Result<(), StoreError> {
    let (mut from, mut guard) = (PagingState::start(), live.scheduler.start());
    loop {
        let (result, next) =
            live.session.execute_single_page(statement, values, from).await.map_err(errors::store_error)?;
        drop(guard);
        if page(result.into_rows_result().map_err(unreadable)?)?.is_break() {
            return Ok(());
        }
        match next.into_paging_control_flow() {
            ControlFlow::Break(()) => return Ok(()),
            ControlFlow::Continue(state) => from = state,
        }
        guard = live.scheduler.next_page().await;
    }
}

/// At most `limit` rows, each decoded as `R` and converted to `T`.
pub(super) async fn collect<R, T: Send>(
    live: &LiveSession,
    statement: &PreparedStatement,
    values: impl SerializeRow + Sync,
    limit: usize,
    make: impl Fn(R) -> T + Sync,
) -> Result<Vec<T>, StoreError>
where
    R: for<'f, 'm> Row<'f, 'm>,
{
    let (mut all, mut yielder) = (Vec::new(), YieldEvery::default());
    pages(live, statement, &values, &mut |page| {
        for row in page.rows::<R>().map_err(unreadable)? {
            if all.len() == limit {
                return Ok(ControlFlow::Break(()));
            }
            all.push(make(row.map_err(unreadable)?));
            yielder.tick();
        }
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    Ok(all)
}

pub(super) fn cql_limit(limit: usize) -> i32 {
    i32::try_from(limit).unwrap_or(i32::MAX)
}

pub(super) type Bounds = ((i64, i64), (i64, i64));

/// The first and last `(millisecond, event_id)` of a range, inclusive; `None` for an empty range.
pub(super) fn bounds(query: &RangeQuery) -> Option<Bounds> {
    let low = |at| (time::millis(at), time::event_ids(at).0);
    let high = |at| (time::millis(at), time::event_ids(at).1);
    let mut first = query.start.map_or((i64::MIN, i64::MIN), low);
    let mut last = query.end.map_or((i64::MAX, i64::MAX), high);
    if let Some((at, event_id)) = query.after {
        if query.ascending {
            first = first.max((time::millis(at), event_id.saturating_add(1)));
        } else {
            last = last.min((time::millis(at), event_id.saturating_sub(1)));
        }
    }
    (first <= last && query.limit > 0).then_some((first, last))
}

/// Target size of a page. The server limits pages by rows only, so the row count is derived from the largest row seen, up to
/// `page_rows`; more rows mean fewer round trips. It is an estimate: when rows suddenly grow, one page still has the row count
/// that suited small rows, all in memory at once. Only `page_rows` bounds that case.
const PAGE_BYTES: usize = 2 << 20;

/// Row count of the first page. With unknown row sizes it is one: a row may be as large as a message, and a page of many such
/// rows exceeds the heap of a small server and our memory budget. Otherwise the whole query if it fits: a page that is one row
/// short costs a second round trip.
fn first_page_rows(query: &RangeQuery, most: usize) -> usize {
    PAGE_BYTES.checked_div(query.largest_row).unwrap_or(1).clamp(1, most)
}

/// Row count of the next page: as many as fit, judged by the largest row so far, and at most four times the last count. It stays
/// below the query's limit: if one page covers the limit, the server does not page and ignores the paging state.
pub(super) fn next_page_rows(rows: usize, largest: usize, limit: usize, most: usize) -> usize {
    let most = (rows * 4).min(most).min(limit.saturating_sub(1)).max(1);
    rows_that_fit(largest, most)
}

/// Number of rows of this size that fit a page.
fn rows_that_fit(bytes: usize, most: usize) -> usize {
    (PAGE_BYTES / bytes.max(1)).clamp(1, most)
}

type RangeValues = (Uuid, CqlTimestamp, i64, CqlTimestamp, i64, i32);
type Page = (QueryResult, PagingStateResponse);

/// Whether pages may be prefetched: only in a one-shot command whose page covers the whole query. In the daemon reads share a
/// memory budget, which does not count a prefetched page.
fn can_prefetch(live: &LiveSession, query: &RangeQuery) -> bool {
    live.one_shot && query.prefetch.is_some() && live.page_rows >= query.limit
}

/// Parameters for requesting any page of a query.
#[derive(Clone)]
struct PageRequest {
    session: Arc<Session>,
    statement: PreparedStatement,
    values: RangeValues,
}

impl PageRequest {
    /// `None` for an empty range.
    fn new(live: &LiveSession, statements: &RangeStatements, query: &RangeQuery) -> Option<Self> {
        let (first, last) = bounds(query)?;
        let statement = if query.ascending { &statements.oldest_first } else { &statements.newest_first }.clone();
        // With its own limit the answer would end there for good.
        let limit = if can_prefetch(live, query) { i32::MAX } else { cql_limit(query.limit) };
        let values = (query.run_id, CqlTimestamp(first.0), first.1, CqlTimestamp(last.0), last.1, limit);
        Some(Self { session: Arc::clone(&live.session), statement, values })
    }

    async fn page(&mut self, from: PagingState, rows: usize) -> Result<Page, ExecutionError> {
        self.statement.set_page_size(i32::try_from(rows).unwrap_or(1));
        self.session.execute_single_page(&self.statement, &self.values, from).await
    }

    /// Requests a page; the request is sent when this returns.
    async fn send(mut self, from: PagingState, rows: usize) -> InFlightPage {
        let mut sent = JoinSet::new();
        sent.spawn(async move { self.page(from, rows).await });
        // On a single-threaded runtime the driver's task must run to write the request to the socket before rows are processed.
        yield_now().await;
        InFlightPage(sent)
    }
}

/// A prefetched page; dropping it cancels the request.
struct InFlightPage(JoinSet<Result<Page, ExecutionError>>);

impl InFlightPage {
    async fn page(mut self) -> Result<Page, ExecutionError> {
        match self.0.join_next().await {
            Some(Ok(page)) => page,
            Some(Err(error)) if error.is_panic() => resume_unwind(error.into_panic()),
            // The runtime is shutting down and drops this future.
            _ => pending().await,
        }
    }
}

/// The prefetched page that starts after this key.
struct PrefetchedPage {
    after: (Micros, i64),
    in_flight: InFlightPage,
}

/// Passes whole rows one by one to the callback until it breaks. In a paged read, the page after the last row may be prefetched.
async fn for_each_row<R>(
    live: &LiveSession,
    statements: &RangeStatements,
    query: &RangeQuery,
    mut in_flight: Option<InFlightPage>,
    mut take: impl FnMut(R) -> (usize, ControlFlow<()>),
) -> Result<Option<InFlightPage>, StoreError>
where
    R: for<'f, 'm> Row<'f, 'm>,
{
    let Some(mut request) = PageRequest::new(live, statements, query) else { return Ok(None) };
    let mut guard = (live.scheduler.start(), 0);
    let most = live.page_rows.min(query.limit);
    let (mut from, mut read, mut largest) = (PagingState::start(), 0, query.largest_row);
    let (mut rows, mut yielder) = (first_page_rows(query, most), YieldEvery::default());
    loop {
        let page = match in_flight.take() {
            // The prefetch failed, but a retry may succeed: the query starts where that page would.
            Some(sent) => match sent.page().await {
                Ok(page) => Ok(page),
                Err(_) => request.page(PagingState::start(), rows).await,
            },
            None => request.page(from, rows).await,
        };
        let (result, next) = page.map_err(errors::store_error)?;
        let (page, next) = (result.into_rows_result().map_err(unreadable)?, next.into_paging_control_flow());
        let (count, bytes) = (page.rows_num(), page.rows_bytes_size());
        let mut prefetched = None;
        if let ControlFlow::Continue(state) = &next
            && can_prefetch(live, query)
            && read + count == query.limit
            && bytes <= PAGE_BYTES
        {
            // The largest row of this page is known only after decoding; until then the average is used.
            let rows = rows_that_fit(largest.max(bytes / count.max(1)), most);
            prefetched = Some(request.clone().send(state.clone(), rows).await);
        }
        for row in page.rows::<R>().map_err(unreadable)? {
            let (bytes, flow) = take(row.map_err(unreadable)?);
            yielder.tick();
            largest = largest.max(bytes);
            read += 1;
            if flow.is_break() {
                return Ok(None);
            }
            if read == query.limit {
                return Ok(prefetched);
            }
        }
        match next {
            ControlFlow::Break(()) => return Ok(None),
            ControlFlow::Continue(state) => from = state,
        }
        if read - guard.1 >= YIELD_ROWS {
            drop(guard);
            guard = (live.scheduler.next_page().await, read);
        }
        rows = next_page_rows(rows, largest, query.limit, live.page_rows).min(query.limit - read);
    }
}

/// Passes whole rows one by one to the callback until it breaks.
pub(super) async fn each<R>(
    live: &LiveSession,
    statements: &RangeStatements,
    query: &RangeQuery,
    take: impl FnMut(R) -> (usize, ControlFlow<()>),
) -> Result<(), StoreError>
where
    R: for<'f, 'm> Row<'f, 'm>,
{
    for_each_row(live, statements, query, None, take).await.map(drop)
}

/// Whole rows within the limits of the query.
pub(super) async fn range<R, T: Keyed>(
    live: &LiveSession,
    statements: &RangeStatements,
    query: &RangeQuery,
    make: impl Fn(R) -> T,
) -> Result<Vec<T>, StoreError>
where
    R: for<'f, 'm> Row<'f, 'm>,
{
    let prefetched = query.prefetch.as_ref().and_then(Prefetch::take::<PrefetchedPage>);
    let in_flight =
        prefetched.filter(|prefetched| Some(prefetched.after) == query.after).map(|prefetched| prefetched.in_flight);
    let (mut all, mut total) = (Vec::new(), 0);
    let in_flight = for_each_row(live, statements, query, in_flight, |row| {
        let row = make(row);
        let bytes = row.bytes();
        total += bytes;
        all.push(row);
        (bytes, if total >= query.bytes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
    .await?;
    if let (Some(prefetch), Some(in_flight), Some(last)) = (&query.prefetch, in_flight, all.last()) {
        prefetch.put(PrefetchedPage { after: last.key().cursor(), in_flight });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_exact_to_the_row() {
        let at = 1_763_683_199_123_456;
        let id = (456 << 43) | 77;
        let query = |ascending, after| RangeQuery {
            start: Some(at - 5),
            end: Some(at + 5),
            ascending,
            after,
            ..RangeQuery::newest(Uuid::nil(), 10)
        };
        let ms = at / 1_000;
        let whole = ((ms, 451 << 43), (ms, (461 << 43) | ((1 << 43) - 1)));
        assert_eq!(bounds(&query(false, None)), Some(whole));
        assert_eq!(bounds(&query(false, Some((at, id)))), Some((whole.0, (ms, id - 1))));
        assert_eq!(bounds(&query(true, Some((at, id)))), Some(((ms, id + 1), whole.1)));
        assert_eq!(bounds(&query(false, Some((at - 1_000, id)))), None, "nothing is left before the start");
        assert_eq!(bounds(&RangeQuery::newest(Uuid::nil(), 0)), None);
    }
}
