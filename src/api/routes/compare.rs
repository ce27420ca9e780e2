//! Fields of several runs, on one axis.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use serde_json::{Value, json};

use super::scan;
use crate::{
    api::{
        error::{ApiError, ApiResult},
        fields::{self, FIELDS_MAX},
        memory_budget::Reservation,
        params::Params,
        run_lookup,
        state::ApiState,
    },
    curve::{Axis, Bucket, Curve, Field, POINTS_MIN, Reducer, SHIFT_MAX, Spread},
    event::EditedRun,
    render,
    store::RangeQuery,
    units::{self, Micros},
};

/// `GET /api/compare`
pub async fn compare(State(state): State<ApiState>, params: Params) -> ApiResult {
    let params = params.allow_only(&["by", "max_points", "attempts"], &["run_id", "field"])?;
    let ids = run_lookup::resolve_runs(&state, &params, 1).await?;
    let fields = fields::drawn(&params, FIELDS_MAX, vec![Field::train_loss()])?;
    let by = params.word("by", &["epoch", "step", "time"])?;
    let points = params.number("max_points", 1_000, POINTS_MIN, state.config.max_points)?;
    let raw = scan::all_attempts(&params)?;
    let bytes = ids.len() * scan::curve_bytes(points, fields.len());
    let reservation = Reservation::reserve(&state.memory, bytes).await;
    let mut curves = Vec::new();
    for id in ids {
        let run = run_lookup::shown_run(&state, id).await?.ok_or_else(ApiError::run_not_found)?;
        let run = EditedRun { row: run_lookup::without_large_fields(run.row), ..run };
        let axis = match by {
            "epoch" => Axis::Epoch,
            "step" => Axis::Step,
            _ => Axis::Time(run.row.start_time.unwrap_or(0)),
        };
        let mut reducer = Reducer::new(axis, fields.len(), points, raw);
        scan::scan(&*state.store, RangeQuery::newest(run.row.run_id, 1), &fields, &mut reducer).await?;
        curves.push((run, reducer.finish()));
    }
    let runs: Vec<_> = curves.iter().map(|(run, _)| run.row.run_id).collect();
    let has_value = |n| curves.iter().any(|(_, curve)| curve.has_value(n));
    fields::require_known(&state, &runs, fields::unseen(&fields, has_value)).await?;
    reservation.json(&answer(&curves, &fields, by, points, state.config.stale_micros()))
}

fn answer(curves: &[(EditedRun, Curve)], fields: &[Field], by: &str, points: usize, stale_after: Micros) -> Value {
    // The widest buckets of all runs: buckets must be the same for each run.
    let mut shift = curves.iter().filter_map(|(_, curve)| curve.shift).max().unwrap_or(0);
    let (aligned, axis) = loop {
        let aligned: Vec<BTreeMap<i64, Bucket>> = curves.iter().map(|(_, curve)| curve.widened(shift)).collect();
        let axis: BTreeSet<i64> = aligned.iter().flat_map(BTreeMap::keys).copied().collect();
        if axis.len() <= points || shift >= SHIFT_MAX {
            break (aligned, axis);
        }
        shift += 1;
    };
    let unit = if by == "time" { 1e-6 } else { 1.0 };
    let scaled = |x: i64| if by == "time" { json!(x as f64 * unit) } else { json!(x) };
    let of_field = |(n, field): (usize, &Field)| {
        let runs = curves.iter().zip(&aligned);
        runs.map(|((run, curve), aligned)| {
            curve_json(run, curve, &Column { field, n, aligned, axis: &axis, stale_after })
        })
        .collect::<Vec<_>>()
    };
    let shown: Vec<Value> = fields.iter().enumerate().flat_map(of_field).collect();
    json!({
        "field": fields[0].label(),
        "fields": fields.iter().map(Field::label).collect::<Vec<_>>(),
        "by": by,
        "width": scaled(1 << shift),
        "x": axis.iter().map(|x| scaled(*x)).collect::<Vec<_>>(),
        "curves": shown,
        "count": shown.len(),
    })
}

/// One field of the buckets of a run.
struct Column<'a> {
    field: &'a Field,
    /// Index of the field.
    n: usize,
    aligned: &'a BTreeMap<i64, Bucket>,
    axis: &'a BTreeSet<i64>,
    stale_after: Micros,
}

impl Column<'_> {
    fn values(&self, value: fn(&Spread) -> f64) -> Vec<Option<f64>> {
        let at = |x| self.aligned.get(x).map(|bucket| value(&bucket.fields[self.n]));
        // JSON has no non-finite numbers: they are null, and counted.
        self.axis.iter().map(|x| at(x).filter(|value| value.is_finite())).collect()
    }
}

fn curve_json(run: &EditedRun, curve: &Curve, column: &Column<'_>) -> Value {
    let non_finite: u32 = column.aligned.values().map(|bucket| bucket.fields[column.n].non_finite).sum();
    json!({
        "run_id": run.row.run_id,
        "field": column.field.label(),
        "run_name": run.row.run_name,
        "display_name": run.display_name,
        "status": render::shown_status(&run.row, units::now(), column.stale_after),
        "last": column.values(|spread| spread.last),
        "min": column.values(|spread| spread.min),
        "max": column.values(|spread| spread.max),
        "of": curve.of,
        "replaced": curve.replaced,
        "left_out": curve.off_axis,
        "non_finite": non_finite,
    })
}
