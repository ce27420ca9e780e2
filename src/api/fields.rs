//! The fields that a request names: columns of metrics rows, and numbers in `extra`.

use std::{collections::BTreeSet, fmt::Write as _};

use uuid::Uuid;

use super::{
    error::ApiError,
    memory_budget::{Reservation, SMALL_RESERVATION},
    params::Params,
    state::ApiState,
};
use crate::{
    curve::Field,
    event::{ColumnValue, METRIC_COLUMNS, MetricsRow, RunRow, extra_label},
    store::{BoxFuture, RangeQuery, Store, StoreError},
};

/// Maximum fields of a page, a curve or a comparison.
pub const FIELDS_MAX: usize = 16;
/// Maximum names that an error lists.
const LISTED_MAX: usize = 64;
/// Newest rows of a run in which columns with values are looked for.
const LOOKED_AT_ROWS: usize = 100;

/// The fields that a request names; none: it names none. `fields` is a comma-separated list; `field` is repeatable and takes a name
/// verbatim, commas included.
///
/// # Errors
/// 400 when they are more than `most`.
pub fn named(params: &Params, most: usize) -> Result<Vec<Field>, ApiError> {
    let mut fields: Vec<Field> = Vec::new();
    for field in params.list("fields").chain(params.exact("field")).map(Field::named) {
        if !fields.contains(&field) {
            fields.push(field);
        }
    }
    if fields.len() > most {
        return Err(ApiError::bad_request(format!("`fields` and `field` name more than {most}")));
    }
    Ok(fields)
}

/// The same for curves, which consist of numbers; the default fields when a request names none.
///
/// # Errors
/// 400 when they are more than `most`, or when one is text.
pub fn drawn(params: &Params, most: usize, default: Vec<Field>) -> Result<Vec<Field>, ApiError> {
    let fields = named(params, most)?;
    match fields.iter().find(|field| !field.is_drawn()) {
        Some(text) => Err(ApiError::bad_request(format!("`{}` is text, and has no curve", text.label()))),
        None if fields.is_empty() => Ok(default),
        None => Ok(fields),
    }
}

/// The names that no row has shown so far; `has_value` says which fields were seen. A column is there even if no row has a value for it.
pub fn unseen(fields: &[Field], has_value: impl Fn(usize) -> bool) -> Vec<String> {
    let extra = |(n, field): (usize, &Field)| match field {
        Field::Extra(name) if !has_value(n) => Some(name.clone()),
        _ => None,
    };
    fields.iter().enumerate().filter_map(extra).collect()
}

/// Refuses names that none of the runs has, of those that are [`unseen`]. It reserves memory for a page: a caller that holds one
/// releases it before, or both would wait for each other.
///
/// # Errors
/// 404 that lists the names that are there.
pub async fn require_known(state: &ApiState, runs: &[Uuid], mut unseen: Vec<String>) -> Result<(), ApiError> {
    if unseen.is_empty() {
        return Ok(());
    }
    let known = metric_names(state, runs).await?.0;
    unseen.retain(|name| !known.contains(name));
    let Some(name) = unseen.first() else { return Ok(()) };
    let columns = columns_with_values(state, runs).await?.into_iter().map(Into::into);
    let mut listed: Vec<_> = columns.chain(known.iter().map(|name| extra_label(name))).collect();
    let more = listed.len().saturating_sub(LISTED_MAX);
    listed.truncate(LISTED_MAX);
    let mut detail = match listed.as_slice() {
        [] => format!("no metric `{name}`, and no other yet"),
        listed => format!("no metric `{name}`; there are {}", listed.join(", ")),
    };
    if more > 0 {
        let _ = write!(detail, " and {more} more, which `metric_names` of the run lists");
    }
    Err(ApiError::not_found(detail))
}

/// The columns with numbers in which one of the runs has a value, as far as its row and its newest metrics tell.
async fn columns_with_values(state: &ApiState, runs: &[Uuid]) -> Result<Vec<&'static str>, StoreError> {
    let mut found = BTreeSet::new();
    for run_id in runs {
        let read_permit = state.memory.read_permit().await;
        found.extend(state.store.read_run(*run_id).await?.iter().flat_map(columns_of_run));
        drop(read_permit);
        let mut reservation = Reservation::reserve_page(&state.memory).await;
        let newest = RangeQuery::newest(*run_id, LOOKED_AT_ROWS);
        let (rows, _) = reservation.page::<MetricsRow>(&*state.store, &newest).await?;
        found.extend(rows.iter().flat_map(columns_of_row));
    }
    let columns = METRIC_COLUMNS.iter().map(|column| column.name);
    Ok(columns.filter(|name| found.contains(name)).collect())
}

/// The columns of metrics whose last value the row of a run has.
fn columns_of_run(run: &RunRow) -> impl Iterator<Item = &'static str> + use<> {
    let last = [
        ("epoch", run.final_epoch.is_some()),
        ("train_loss", run.final_train_loss.is_some()),
        ("train_accuracy", run.final_train_accuracy.is_some()),
        ("val_loss", run.final_val_loss.is_some()),
        ("val_accuracy", run.final_val_accuracy.is_some()),
    ];
    last.into_iter().filter(|(_, has_value)| *has_value).map(|(name, _)| name)
}

/// The columns with numbers that a row has.
fn columns_of_row(row: &MetricsRow) -> Vec<&'static str> {
    let values = METRIC_COLUMNS.iter().zip(row.columns.values());
    let is_number = |value: &ColumnValue<'_>| value.number().is_some();
    values.filter(|(_, value)| is_number(value)).map(|(column, _)| column.name).collect()
}

/// The names of the extra metrics of all these runs, and the memory that is reserved for them.
///
/// # Errors
/// As the store fails.
pub async fn metric_names(state: &ApiState, runs: &[Uuid]) -> Result<(BTreeSet<String>, Reservation), StoreError> {
    let store = &*state.store;
    let mut reservation = Reservation::reserve(&state.memory, SMALL_RESERVATION).await;
    let read = || -> BoxFuture<'_, Result<_, StoreError>> { Box::pin(read_names(store, runs)) };
    let names = reservation.read_rows_within(read, |names| names_bytes(names)).await?;
    Ok((names, reservation))
}

async fn read_names(store: &dyn Store, runs: &[Uuid]) -> Result<BTreeSet<String>, StoreError> {
    let mut names = BTreeSet::new();
    for run_id in runs {
        names.extend(store.metric_names(*run_id).await?);
    }
    Ok(names)
}

/// Memory of these names.
pub fn names_bytes<'a>(names: impl IntoIterator<Item = &'a String>) -> usize {
    names.into_iter().map(|name| name.len() + size_of::<String>()).sum()
}
