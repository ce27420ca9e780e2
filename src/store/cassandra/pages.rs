//! Reading page by page: every answer ends at its limit, in rows or in bytes.

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

/// Sends `statement` and hands every page to `page` until it breaks or there are no more. From the second page on, other reads go
/// first.
pub(super) async fn pages(
    live: &LiveSession,
    statement: &PreparedStatement,
    values: impl SerializeRow,
    mut page: impl FnMut(QueryRowsResult) -> Result<ControlFlow<()>, StoreError>,
) -> Result<(), StoreError> {
    let (mut from, mut guard) = (PagingState::start(), live.scheduler.start());
    loop {
        let (result, next) =
            live.session.execute_single_page(statement, &values, from).await.map_err(errors::store_error)?;
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

/// At most `limit` rows, each read as `R` and made into `T`.
pub(super) async fn collect<R, T>(
    live: &LiveSession,
    statement: &PreparedStatement,
    values: impl SerializeRow,
    limit: usize,
    make: impl Fn(R) -> T,
) -> Result<Vec<T>, StoreError>
where
    R: for<'f, 'm> Row<'f, 'm>,
{
    let (mut all, mut yielder) = (Vec::new(), YieldEvery::default());
    pages(live, statement, values, |page| {
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

/// The first and the last `(millisecond, event_id)` of a range, inclusive; `None` when nothing can be between.
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

/// The bytes of a page that is asked for. The server counts rows only, so their number follows the largest that was met, up to
/// `page_rows`: more rows are fewer round trips. That is a guess, no limit: where rows have just become large, one page has as many
/// of them as were asked for when they were small, all in memory at once, and only the next has fewer. `page_rows` is what bounds
/// that.
const PAGE_BYTES: usize = 2 << 20;

/// How many rows the first page may have. One, unless it is known how large those before were: it may be as large as a message, and
/// a page of many such is more than the heap of a small server and our memory take. All of the query's, if they fit: a page that
/// is one row short costs a second round trip.
fn first_page_rows(query: &RangeQuery, most: usize) -> usize {
    PAGE_BYTES.checked_div(query.largest_row).unwrap_or(1).clamp(1, most)
}

/// How many rows the next page may have: as many as fit by the largest met so far, and no more than four times as many as before.
/// Fewer than the query's limit: where a page takes all of it, the server sees nothing to be paged, and begins from the start
/// whatever paging state it is given.
pub(super) fn next_page_rows(rows: usize, largest: usize, limit: usize, most: usize) -> usize {
    let most = (rows * 4).min(most).min(limit.saturating_sub(1)).max(1);
    rows_that_fit(largest, most)
}

/// How many rows as large as this fit a page.
fn rows_that_fit(bytes: usize, most: usize) -> usize {
    (PAGE_BYTES / bytes.max(1)).clamp(1, most)
}

type RangeValues = (Uuid, CqlTimestamp, i64, CqlTimestamp, i64, i32);
type Page = (QueryResult, PagingStateResponse);

/// Whether a page may be on its way before it is wanted: only for a command that reads once, and takes all of a query in one page.
/// What many read through one daemon has a budget, of which such a page would know nothing.
fn can_prefetch(live: &LiveSession, query: &RangeQuery) -> bool {
    live.one_shot && query.prefetch.is_some() && live.page_rows >= query.limit
}

/// What it takes to ask for any page of a query.
#[derive(Clone)]
struct PageRequest {
    session: Arc<Session>,
    statement: PreparedStatement,
    values: RangeValues,
}

impl PageRequest {
    /// `None`: there is nothing between the bounds.
    fn new(live: &LiveSession, statements: &RangeStatements, query: &RangeQuery) -> Option<Self> {
        let (first, last) = bounds(query)?;
        let statement = if query.ascending { &statements.oldest_first } else { &statements.newest_first }.clone();
        // With a limit of its own, the answer would end there for good.
        let limit = if can_prefetch(live, query) { i32::MAX } else { cql_limit(query.limit) };
        let values = (query.run_id, CqlTimestamp(first.0), first.1, CqlTimestamp(last.0), last.1, limit);
        Some(Self { session: Arc::clone(&live.session), statement, values })
    }

    async fn page(&mut self, from: PagingState, rows: usize) -> Result<Page, ExecutionError> {
        self.statement.set_page_size(i32::try_from(rows).unwrap_or(1));
        self.session.execute_single_page(&self.statement, &self.values, from).await
    }

    /// The same as a task, which is sent when this returns.
    async fn send(mut self, from: PagingState, rows: usize) -> InFlightPage {
        let mut sent = JoinSet::new();
        sent.spawn(async move { self.page(from, rows).await });
        // On a runtime of one thread, the driver's task must write the request to the socket before this one continues.
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
            // The runtime is shutting down; it drops this future.
            _ => pending().await,
        }
    }
}

/// The page behind the row with this key.
struct PrefetchedPage {
    after: (Micros, i64),
    in_flight: InFlightPage,
}

/// Hands over whole rows one by one until it breaks. For a read that continues, returns the request for the page behind the last
/// row, if it was sent.
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
            // A prefetch that failed may succeed now. The query begins where that page would.
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
            // How large the largest of this page is shows only when it is read: so far the average has to do.
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

/// Hands over whole rows one by one until it breaks.
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

/// Whole rows: as many as fit the limits of the query.
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
