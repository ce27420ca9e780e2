//! Pages of event rows: bounded in number and in bytes, because one row may be megabytes.

use uuid::Uuid;

use super::{
    error::ApiError,
    memory_budget::{PAGE_BYTES, Reservation},
    params::Params,
};
use crate::{
    event::{EventRow, Keyed, MetricsRow, TopologyRow, total_bytes},
    render,
    store::{BoxFuture, RangeQuery, Store, StoreError},
};

/// Rows that are read in pages.
pub trait Paged: Keyed + Sized + Send {
    /// Rows of one read from the store.
    const PAGE_ROWS: usize;
    /// Reads rows.
    fn read<'a>(store: &'a dyn Store, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<Self>, StoreError>>;
}

/// Small rows, except for fields that a producer adds.
impl Paged for MetricsRow {
    const PAGE_ROWS: usize = 1_000;

    fn read<'a>(store: &'a dyn Store, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<Self>, StoreError>> {
        store.metrics(query)
    }
}

/// Rows with the whole message.
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
        // One row more than requested tells whether there is a next page.
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

impl Reservation {
    /// A page of rows, and the cursor of the next.
    ///
    /// # Errors
    /// As the store fails.
    pub async fn page<T: Paged>(
        &mut self,
        store: &dyn Store,
        query: &RangeQuery,
    ) -> Result<(Vec<T>, Option<String>), StoreError> {
        self.read_within(|| Box::pin(page::<T>(store, query.clone())), |(rows, _)| total_bytes(rows)).await
    }

    /// The same for rows whose text is written while it is sent; see [`read_rows_within`](Self::read_rows_within).
    ///
    /// # Errors
    /// As the store fails.
    pub async fn page_rows<T: Paged>(&mut self, store: &dyn Store, query: &RangeQuery) -> Result<Vec<T>, StoreError> {
        let read = || -> BoxFuture<'_, _> { Box::pin(page::<T>(store, query.clone())) };
        Ok(self.read_rows_within(read, |(rows, _)| total_bytes(rows)).await?.0)
    }

    /// Rows as they are read; see [`read_rows_within`](Self::read_rows_within).
    ///
    /// # Errors
    /// As the store fails.
    pub async fn rows<T: Paged>(&mut self, store: &dyn Store, query: &RangeQuery) -> Result<Vec<T>, StoreError> {
        self.read_rows_within(|| T::read(store, query), |rows| total_bytes(rows)).await
    }
}

/// The parameters that the ranges of all event tables share.
pub const RANGE: [&str; 5] = ["start_time", "end_time", "limit", "order", "cursor"];

/// The range that the parameters describe.
pub fn range(params: &Params, run_id: Uuid, limit: usize, most: usize) -> Result<RangeQuery, ApiError> {
    Ok(RangeQuery {
        start: params.time("start_time")?,
        end: params.time("end_time")?,
        limit: params.number("limit", limit, 1, most)?,
        ascending: params.word("order", &["desc", "asc"])? == "asc",
        after: params.cursor("cursor", render::parse_event_cursor)?,
        ..RangeQuery::newest(run_id, limit)
    })
}
