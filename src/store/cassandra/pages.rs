//! Reading page by page: every answer ends at its limit, in rows or in bytes.

use std::ops::ControlFlow;

use scylla::{
    deserialize::row::DeserializeRow as Row,
    response::{PagingState, query_result::QueryRowsResult},
    serialize::row::SerializeRow,
    statement::prepared::PreparedStatement,
    value::CqlTimestamp,
};

use super::{errors, session::Link, statements::Range, time};
use crate::{
    courtesy::Courtesy,
    event::Weigh,
    store::{RangeQuery, StoreError},
};

pub(super) fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Misconfigured(Box::new(error))
}

/// Sends `statement` and hands every page to `page` until it breaks or there are no more.
pub(super) async fn pages(
    link: &Link,
    statement: &PreparedStatement,
    values: impl SerializeRow,
    mut page: impl FnMut(QueryRowsResult) -> Result<ControlFlow<()>, StoreError>,
) -> Result<(), StoreError> {
    let mut from = PagingState::start();
    loop {
        let (result, next) =
            link.session.execute_single_page(statement, &values, from).await.map_err(errors::store_error)?;
        if page(result.into_rows_result().map_err(unreadable)?)?.is_break() {
            return Ok(());
        }
        match next.into_paging_control_flow() {
            ControlFlow::Break(()) => return Ok(()),
            ControlFlow::Continue(state) => from = state,
        }
    }
}

/// At most `limit` rows, each read as `R` and made into `T`.
pub(super) async fn collect<R, T>(
    link: &Link,
    statement: &PreparedStatement,
    values: impl SerializeRow,
    limit: usize,
    make: impl Fn(R) -> T,
) -> Result<Vec<T>, StoreError>
where
    R: for<'f, 'm> Row<'f, 'm>,
{
    let (mut all, mut courtesy) = (Vec::new(), Courtesy::default());
    pages(link, statement, values, |page| {
        for row in page.rows::<R>().map_err(unreadable)? {
            if all.len() == limit {
                return Ok(ControlFlow::Break(()));
            }
            all.push(make(row.map_err(unreadable)?));
            courtesy.row();
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
fn first_page(query: &RangeQuery, most: usize) -> usize {
    PAGE_BYTES.checked_div(query.largest).unwrap_or(1).clamp(1, most)
}

/// How many rows the next page may have: as many as fit by the largest met so far, and no more than four times as many as before.
/// Fewer than the query's limit: where a page takes all of it, the server sees nothing to be paged, and begins from the start
/// whatever paging state it is given.
pub(super) fn next_page(rows: usize, largest: usize, limit: usize, most: usize) -> usize {
    let most = (rows * 4).min(most).min(limit.saturating_sub(1)).max(1);
    (PAGE_BYTES / largest.max(1)).clamp(1, most)
}

/// Hands over whole rows one by one until it breaks.
pub(super) async fn each<R>(
    link: &Link,
    statements: &Range,
    query: &RangeQuery,
    mut take: impl FnMut(R) -> (usize, ControlFlow<()>),
) -> Result<(), StoreError>
where
    R: for<'f, 'm> Row<'f, 'm>,
{
    let Some((first, last)) = bounds(query) else { return Ok(()) };
    let mut statement = if query.ascending { &statements.oldest_first } else { &statements.newest_first }.clone();
    let values = (query.run_id, CqlTimestamp(first.0), first.1, CqlTimestamp(last.0), last.1, cql_limit(query.limit));
    let (mut from, mut read, mut largest) = (PagingState::start(), 0, query.largest);
    let (mut rows, mut courtesy) = (first_page(query, link.page_rows), Courtesy::default());
    loop {
        statement.set_page_size(i32::try_from(rows).unwrap_or(1));
        let answer = link.session.execute_single_page(&statement, &values, from).await;
        let (result, next) = answer.map_err(errors::store_error)?;
        for row in result.into_rows_result().map_err(unreadable)?.rows::<R>().map_err(unreadable)? {
            let (bytes, flow) = take(row.map_err(unreadable)?);
            courtesy.row();
            largest = largest.max(bytes);
            read += 1;
            if flow.is_break() || read == query.limit {
                return Ok(());
            }
        }
        match next.into_paging_control_flow() {
            ControlFlow::Break(()) => return Ok(()),
            ControlFlow::Continue(state) => from = state,
        }
        rows = next_page(rows, largest, query.limit, link.page_rows);
    }
}

/// Whole rows: as many as fit the limits of the query.
pub(super) async fn range<R, T: Weigh>(
    link: &Link,
    statements: &Range,
    query: &RangeQuery,
    make: impl Fn(R) -> T,
) -> Result<Vec<T>, StoreError>
where
    R: for<'f, 'm> Row<'f, 'm>,
{
    let (mut all, mut total) = (Vec::new(), 0);
    each(link, statements, query, |row| {
        let row = make(row);
        let bytes = row.bytes();
        total += bytes;
        all.push(row);
        (bytes, if total >= query.bytes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
    .await?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

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
