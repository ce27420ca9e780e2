//! Scans a run's rows once, from the newest to the oldest, a page at a time.

use axum::http::StatusCode;

use crate::{
    api::{error::ApiError, params::Params},
    curve::{Field, SampleSink},
    event::RunRow,
    store::{RangeQuery, SamplesQuery, Store, StoreError},
};

/// Rows of a page: large enough to be read at speed, small enough to be little memory and a short read.
const PAGE_ROWS: usize = 10_000;
/// Maximum fields of one answer.
const FIELDS_MAX: usize = 16;
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
    let range = RangeQuery { limit: PAGE_ROWS, ascending: false, ..range };
    let mut query = SamplesQuery { range, fields: fields.to_vec() };
    let mut page = store.samples(&query).await?;
    loop {
        let Some(last) = page.rows.last().filter(|_| page.rows.len() == PAGE_ROWS) else {
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

/// Whether a request names fields.
pub fn names_fields(params: &Params) -> bool {
    params.list("fields").next().is_some() || params.exact("field").next().is_some()
}

/// The fields of a request, or the default ones. `fields` is a comma-separated list; `field` is repeatable and takes a name
/// verbatim, commas included.
///
/// # Errors
/// 400 when they are too many.
pub fn fields(params: &Params) -> Result<Vec<Field>, ApiError> {
    let mut fields: Vec<Field> = Vec::new();
    for field in params.list("fields").chain(params.exact("field")).map(Field::named) {
        if !fields.contains(&field) {
            fields.push(field);
        }
    }
    if fields.len() > FIELDS_MAX {
        let detail = format!("`fields` and `field` name more than {FIELDS_MAX}");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
    }
    Ok(if fields.is_empty() { Field::drawn_by_default() } else { fields })
}

/// Whether values of superseded attempts are requested, too.
///
/// # Errors
/// 400 for an unknown word.
pub fn all_attempts(params: &Params) -> Result<bool, ApiError> {
    Ok(params.word("attempts", &["effective", "raw"])? == "raw")
}
