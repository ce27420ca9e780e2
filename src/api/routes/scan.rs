//! Scans a run's rows once, from the newest to the oldest, a page at a time.

use crate::{
    api::{error::ApiError, params::Params},
    curve::{Field, SampleSink},
    event::RunRow,
    store::{RangeQuery, SamplesQuery, Store, StoreError},
};

/// Maximum rows of a page: large enough to be read at speed, small enough to be little memory and a short read.
const PAGE_ROWS: usize = 10_000;
/// Maximum numbers of a page: with many fields it has fewer rows.
const PAGE_VALUES: usize = 160_000;
/// Memory of a point, and of each of its fields: while the curve is made, and as text.
const POINT_BYTES: usize = 512;
const VALUE_BYTES: usize = 256;

/// Hands every row of the range to `fold`, the newest first; the next page is read while one is folded.
///
/// # Errors
/// As the store fails.
pub async fn scan(
    store: &dyn Store,
    range: RangeQuery,
    fields: &[Field],
    fold: &mut (dyn SampleSink + Send),
) -> Result<(), StoreError> {
    let limit = PAGE_ROWS.min(PAGE_VALUES / fields.len().max(1));
    let range = RangeQuery { limit, ascending: false, ..range };
    let mut query = SamplesQuery { range, fields: fields.to_vec() };
    let mut page = store.samples(&query).await?;
    loop {
        let Some(last) = page.rows.last().filter(|_| page.rows.len() == limit) else {
            fold.add(&page);
            return Ok(());
        };
        query.range.after = Some((last.timestamp, last.event_id));
        let folded = async {
            fold.add(&page);
        };
        let (next, ()) = tokio::join!(store.samples(&query), folded);
        page = next?;
    }
}

/// Memory for a curve: while it is made, and its text.
pub fn curve_bytes(points: usize, fields: usize) -> usize {
    points * (POINT_BYTES + fields * VALUE_BYTES)
}

/// The range of a run between the times of a request.
///
/// # Errors
/// 400 for an invalid time.
pub fn full_range(run: &RunRow, params: &Params) -> Result<RangeQuery, ApiError> {
    let (start, end) = (params.time("start_time")?, params.time("end_time")?);
    Ok(RangeQuery { start, end, ..RangeQuery::newest(run.run_id, 1) })
}

/// Whether values of superseded attempts are requested, too.
///
/// # Errors
/// 400 for an unknown word.
pub fn all_attempts(params: &Params) -> Result<bool, ApiError> {
    Ok(params.word("attempts", &["effective", "raw"])? == "raw")
}
