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
/// Fields of one answer, at most.
const FIELDS_MAX: usize = 16;
/// What a point takes, and what each of its fields does: in memory while it is made, and in the answer.
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

/// Memory for a curve of so many points: while it is made, and its text.
pub fn curve_bytes(points: usize, fields: usize) -> usize {
    points * (POINT_BYTES + fields * VALUE_BYTES)
}

/// The rows of a run that a request's times allow.
///
/// # Errors
/// 400 for a time that is none.
pub fn full_range(run: &RunRow, params: &Params) -> Result<RangeQuery, ApiError> {
    let (start, end) = (params.time("start_time")?, params.time("end_time")?);
    Ok(RangeQuery { start, end, ..RangeQuery::newest(run.run_id, 1) })
}

/// Whether a request names fields.
pub fn names_fields(params: &Params) -> bool {
    params.list("fields").next().is_some() || params.exact("field").next().is_some()
}

/// The fields that a request names, or the usual ones: `fields` is a list with commas, `field` is repeated, and takes a name as it
/// is, commas and all.
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

/// Whether every attempt is wanted, not only the values that count.
///
/// # Errors
/// 400 for another word.
pub fn all_attempts(params: &Params) -> Result<bool, ApiError> {
    Ok(params.word("attempts", &["effective", "raw"])? == "raw")
}
