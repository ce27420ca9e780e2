//! Aggregates of a whole run.

use std::cmp::Ordering;

use axum::extract::{Path, State};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::scan::{self, full_range};
use crate::{
    api::{error::ApiResult, fields, memory_budget::Reservation, params::Params, run_lookup, state::ApiState},
    curve::{Aggregate, Aggregates, Extreme, Field},
    render,
    store::StoreError,
    units::non_finite_name,
};

/// Maximum fields of one answer.
const FIELDS_MAX: usize = 256;
/// Memory of a field: its aggregate, which of its values count, its text, and its numbers in two pages.
const FIELD_BYTES: usize = 24 << 10;

/// `GET /api/runs/{run_id}/aggregates`
pub async fn aggregates(State(state): State<ApiState>, Path(run_id): Path<String>, params: Params) -> ApiResult {
    let params = params.allow_only(&["fields", "attempts", "start_time", "end_time"], &["field"])?;
    let run = run_lookup::find(&state, &run_id).await?;
    let (range, raw) = (full_range(&run, &params)?, scan::all_attempts(&params)?);
    let named = fields::drawn(&params, FIELDS_MAX, Vec::new())?;
    let (fields, left_out) = if named.is_empty() { all_fields(&state, run.run_id).await? } else { (named, 0) };
    let reservation = Reservation::reserve(&state.memory, fields.len() * FIELD_BYTES).await;
    let mut aggregates = Aggregates::new(fields.len(), raw);
    scan::scan(&*state.store, range, &fields, &mut aggregates).await?;
    let unseen = fields::unseen(&fields, |n| aggregates.fields[n].count > 0);
    fields::require_known(&state, &[run.run_id], unseen).await?;
    let by_field: Map<String, Value> = fields
        .iter()
        .zip(&aggregates.fields)
        .map(|(field, of)| (field.label().into_owned(), aggregate(field, of)))
        .collect();
    reservation.json(&json!({
        "run_id": run.run_id,
        "rows": aggregates.rows,
        "replaced": aggregates.replaced,
        "first_timestamp": aggregates.bounds.map(|(_, oldest)| render::time(oldest)),
        "last_timestamp": aggregates.bounds.map(|(newest, _)| render::time(newest)),
        "fields": by_field,
        "fields_left_out": left_out,
    }))
}

/// Every column and every extra metric of a run, as many as one answer has; and how many there are beyond.
async fn all_fields(state: &ApiState, run_id: Uuid) -> Result<(Vec<Field>, usize), StoreError> {
    let (names, _reservation) = fields::metric_names(state, &[run_id]).await?;
    let mut fields = Field::drawn_columns();
    let room = FIELDS_MAX - fields.len();
    let left_out = names.len().saturating_sub(room);
    fields.extend(names.into_iter().take(room).map(Field::Extra));
    Ok((fields, left_out))
}

fn aggregate(field: &Field, of: &Aggregate) -> Value {
    let best = match field.better() {
        Some(Ordering::Less) => of.min,
        Some(_) => of.max,
        None => None,
    };
    json!({
        "count": of.count,
        "non_finite": of.non_finite,
        "min": of.min.map(|at| at.value),
        "max": of.max.map(|at| at.value),
        "avg": of.mean(),
        "last": of.last.map(|at| at.value),
        "last_non_finite": of.last.and_then(|at| non_finite_name(at.value)),
        "best": best.map(|at| extreme_json(&at)),
        "best_epoch": best.and_then(|at| at.epoch),
        "first_non_finite": of.first_non_finite.map(|at| extreme_json(&at)),
        "first_non_finite_epoch": of.first_non_finite.and_then(|at| at.epoch),
    })
}

fn extreme_json(at: &Extreme) -> Value {
    json!({
        "value": at.value, "non_finite": non_finite_name(at.value),
        "epoch": at.epoch, "step": at.step, "timestamp": render::time(at.timestamp),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_not_finite_is_null_beside_its_name() {
        for (value, number, name) in [
            (0.5, json!(0.5), Value::Null),
            (f64::NAN, Value::Null, json!("NaN")),
            (f64::INFINITY, Value::Null, json!("Infinity")),
            (f64::NEG_INFINITY, Value::Null, json!("-Infinity")),
        ] {
            let last = Extreme { value, epoch: Some(3), step: None, timestamp: 0 };
            let mut of = Aggregate::default();
            of.add(last);
            let of = aggregate(&Field::Extra("f".into()), &of);
            assert_eq!((&of["last"], &of["last_non_finite"]), (&number, &name), "{value}");
            let at = extreme_json(&last);
            assert_eq!((&at["value"], &at["non_finite"]), (&number, &name), "{value}");
        }
    }
}
