//! One field of several runs, on one axis.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use serde_json::{Value, json};

use super::{
    Sight,
    error::{Answer, ApiError},
    params::Params,
    range::{POINT_BYTES, VALUE_BYTES},
    room::Room,
    runs, walk,
};
use crate::{
    curve::{Axis, Bucket, Curve, Field, POINTS_MIN, Reducer, SHIFT_MAX},
    event::RunRow,
    render,
    store::RangeQuery,
    units,
};

/// `GET /api/compare`
pub async fn compare(State(sight): State<Sight>, params: Params) -> Answer {
    let params = params.known(&["field", "by", "max_points", "attempts"], &["run_id"])?;
    let ids: Vec<&str> = params.list("run_id").collect();
    if ids.is_empty() || ids.len() > sight.config.runs {
        return Err(ApiError::bad(format!("give `run_id` 1 to {} times", sight.config.runs)));
    }
    let field = params.text("field").map_or(Field::TRAIN_LOSS, Field::named);
    let by = params.word("by", &["epoch", "step", "time"])?;
    let points = params.number("max_points", 1_000, POINTS_MIN, sight.config.points)?;
    let raw = walk::raw(&params)?;
    let room = Room::for_bytes(&sight.memory, ids.len() * points * (POINT_BYTES + VALUE_BYTES)).await;
    let mut curves = Vec::new();
    for id in ids {
        let run = runs::find(&sight, id).await?;
        let axis = match by {
            "epoch" => Axis::Epoch,
            "step" => Axis::Step,
            _ => Axis::Time(run.start_time.unwrap_or(0)),
        };
        let mut reducer = Reducer::new(axis, 1, points, raw);
        let fields = std::slice::from_ref(&field);
        walk::walk(&*sight.store, RangeQuery::newest(run.run_id, 1), fields, &mut reducer).await?;
        curves.push((run, reducer.finish()));
    }
    room.json(&answer(&curves, &field, by, points))
}

fn answer(curves: &[(RunRow, Curve)], field: &Field, by: &str, points: usize) -> Value {
    // The widest of all: a bucket of one run must be a bucket of each.
    let mut shift = curves.iter().filter_map(|(_, curve)| curve.shift).max().unwrap_or(0);
    let (laid, axis) = loop {
        let laid: Vec<BTreeMap<i64, Bucket>> = curves.iter().map(|(_, curve)| curve.widened(shift)).collect();
        let axis: BTreeSet<i64> = laid.iter().flat_map(BTreeMap::keys).copied().collect();
        if axis.len() <= points || shift >= SHIFT_MAX {
            break (laid, axis);
        }
        shift += 1;
    };
    let unit = if by == "time" { 1e-6 } else { 1.0 };
    let scaled = |x: i64| if by == "time" { json!(x as f64 * unit) } else { json!(x) };
    let shown: Vec<Value> = curves.iter().zip(&laid).map(|((run, curve), laid)| one(run, curve, laid, &axis)).collect();
    json!({
        "field": field.name(),
        "by": by,
        "width": scaled(1 << shift),
        "x": axis.iter().map(|x| scaled(*x)).collect::<Vec<_>>(),
        "curves": shown,
        "count": shown.len(),
    })
}

fn one(run: &RunRow, curve: &Curve, laid: &BTreeMap<i64, Bucket>, axis: &BTreeSet<i64>) -> Value {
    let column = |value: fn(&Bucket) -> f64| -> Vec<Option<f64>> {
        // What is not finite has no place in JSON: null, and counted.
        axis.iter().map(|x| laid.get(x).map(value).filter(|value| value.is_finite())).collect()
    };
    let non_finite: u32 = laid.values().map(|bucket| bucket.fields[0].non_finite).sum();
    json!({
        "run_id": run.run_id,
        "run_name": run.run_name,
        "status": render::shown_status(run, units::now(), render::STALE_AFTER),
        "last": column(|bucket| bucket.fields[0].last),
        "min": column(|bucket| bucket.fields[0].min),
        "max": column(|bucket| bucket.fields[0].max),
        "of": curve.of,
        "replaced": curve.replaced,
        "left_out": curve.apart,
        "non_finite": non_finite,
    })
}
