//! Aggregates of a whole run.

use axum::extract::{Path, State};
use serde_json::{Map, Value, json};

use super::scan::{self, full_range};
use crate::{
    api::{
        error::{ApiResult, json as json_answer},
        params::Params,
        run_lookup,
        state::ApiState,
    },
    curve::{Aggregate, Aggregates, Extreme, Field},
    render,
};

/// `GET /api/runs/{run_id}/aggregates`
pub async fn aggregates(State(state): State<ApiState>, Path(run_id): Path<String>, params: Params) -> ApiResult {
    let params = params.allow_only(&["fields", "attempts", "start_time", "end_time"], &["field"])?;
    let run = run_lookup::find(&state, &run_id).await?;
    let fields = scan::fields(&params)?;
    let mut aggregates = Aggregates::new(fields.len(), scan::all_attempts(&params)?);
    scan::scan(&*state.store, full_range(&run, &params)?, &fields, &mut aggregates).await?;
    let by_field: Map<String, Value> = fields
        .iter()
        .zip(&aggregates.fields)
        .map(|(field, of)| (field.name().to_owned(), aggregate(field, of)))
        .collect();
    json_answer(&json!({
        "run_id": run.run_id,
        "rows": aggregates.rows,
        "replaced": aggregates.replaced,
        "first_timestamp": aggregates.bounds.map(|(_, oldest)| render::time(oldest)),
        "last_timestamp": aggregates.bounds.map(|(newest, _)| render::time(newest)),
        "fields": by_field,
    }))
}

fn aggregate(field: &Field, of: &Aggregate) -> Value {
    let best = if field.less_is_better() { of.min } else { of.max };
    json!({
        "count": of.count,
        "non_finite": of.non_finite,
        "min": of.min.map(|at| at.value),
        "max": of.max.map(|at| at.value),
        "avg": of.mean(),
        "last": of.last.map(|at| number(at.value)),
        "best": best.map(|at| extreme_json(&at)),
        "best_epoch": best.and_then(|at| at.epoch),
        "first_non_finite": of.first_non_finite.map(|at| extreme_json(&at)),
        "first_non_finite_epoch": of.first_non_finite.and_then(|at| at.epoch),
    })
}

/// A number; a non-finite one by its name, since JSON has none.
fn number(value: f64) -> Value {
    match value {
        value if value.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        value => value.into(),
    }
}

fn extreme_json(at: &Extreme) -> Value {
    json!({
        "value": number(at.value), "epoch": at.epoch, "step": at.step, "timestamp": render::time(at.timestamp),
    })
}
