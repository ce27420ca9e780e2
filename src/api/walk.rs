//! Walking a run's rows once, from the newest to the oldest, a page at a time.

use axum::http::StatusCode;

use super::{error::ApiError, params::Params};
use crate::{
    curve::{Field, Fold},
    event::{DAY, GapRow},
    store::{DaysQuery, RangeQuery, SamplesQuery, Store, StoreError},
    units::{self, Micros},
};

/// Rows of a page: large enough to be read at speed, small enough to be little memory and a short read.
const STEP: usize = 10_000;
/// Gap rows looked at for those that concern one run.
const GAPS_LOOKED_AT: usize = 10_000;
/// Fields of one answer, at most.
const FIELDS_MAX: usize = 16;

/// Hands every row of the range to `fold`, the newest first; the next page is read while one is folded.
///
/// # Errors
/// As the store fails.
pub async fn walk(
    store: &dyn Store,
    range: RangeQuery,
    fields: &[Field],
    fold: &mut (dyn Fold + Send),
) -> Result<(), StoreError> {
    let range = RangeQuery { limit: STEP, ascending: false, ..range };
    let mut query = SamplesQuery { range, fields: fields.to_vec() };
    let mut page = store.samples(&query).await?;
    loop {
        let Some(last) = page.rows.last().filter(|_| page.rows.len() == STEP) else {
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

/// The fields that a request names, or the usual ones.
///
/// # Errors
/// 400 when they are too many.
pub fn fields(params: &Params) -> Result<Vec<Field>, ApiError> {
    let mut fields: Vec<Field> = Vec::new();
    for field in params.list("fields").map(Field::named) {
        if !fields.contains(&field) {
            fields.push(field);
        }
    }
    if fields.len() > FIELDS_MAX {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, format!("`fields` names more than {FIELDS_MAX}")));
    }
    Ok(if fields.is_empty() { Field::usual() } else { fields })
}

/// Whether every attempt is wanted, not only the values that count.
///
/// # Errors
/// 400 for another word.
pub fn raw(params: &Params) -> Result<bool, ApiError> {
    Ok(params.word("attempts", &["effective", "raw"])? == "raw")
}

/// What was missed: of this run, whenever it was found out; and what nobody can name a run for, between two moments. The newest
/// first.
///
/// # Errors
/// As the store fails.
pub async fn gaps(
    store: &dyn Store,
    run_id: uuid::Uuid,
    (start, end): (Micros, Micros),
    limit: usize,
) -> Result<Vec<GapRow>, StoreError> {
    // Events carry the producer's time, gaps ours. By its start: one that began a day before may reach in.
    let query = DaysQuery { start: start.saturating_sub(DAY), end: units::now(), limit: GAPS_LOOKED_AT };
    let mut gaps = store.gaps(&query).await?;
    gaps.retain(|gap| match gap.run_id {
        Some(of) => of == run_id,
        None => gap.ended_at >= start && gap.started_at <= end,
    });
    gaps.truncate(limit);
    Ok(gaps)
}
