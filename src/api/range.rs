//! Metrics of a run: page by page as they are stored, or the whole range as a curve of a given number of points.

use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    Sight,
    error::Answer,
    json,
    params::Params,
    rows::{self, RANGE},
    walk,
};
use crate::{
    curve::{Axis, Bucket, Curve, Field, Reducer},
    event::{GapRow, MetricsRow},
    render::{self, JsonRows},
    store::RangeQuery,
};

/// Gaps told with a curve, at most.
const GAPS: usize = 200;

#[derive(Serialize)]
struct Exact<'a> {
    metrics: JsonRows<'a, MetricsRow>,
    count: usize,
    next: Option<String>,
    exact: bool,
}

/// `GET /api/metrics/range`
pub async fn range(State(sight): State<Sight>, params: Params) -> Answer {
    let names: Vec<_> = RANGE.into_iter().chain(["run_id", "max_points", "fields", "by", "attempts"]).collect();
    let params = params.known(&names, &[])?;
    let query = rows::range(&params, params.run_id()?, 1_000, sight.config.page_rows)?;
    if params.text("max_points").is_some() {
        return curve(&sight, &params, query).await;
    }
    for name in ["fields", "by", "attempts"] {
        if params.text(name).is_some() {
            return Err(super::ApiError::bad(format!("`{name}` is for curves: give `max_points`, too")));
        }
    }
    let (rows, next) = rows::page::<MetricsRow>(&*sight.store, query).await?;
    json(&Exact { metrics: JsonRows(&rows), count: rows.len(), next, exact: true })
}

async fn curve(sight: &Sight, params: &Params, query: RangeQuery) -> Answer {
    if query.after.is_some() {
        return Err(super::ApiError::bad("`cursor` does not go with `max_points`: a curve is the whole range"));
    }
    let points = params.number("max_points", 0, 1, sight.config.points)?;
    let fields = walk::fields(params)?;
    let by = params.word("by", &["time", "epoch", "step"])?;
    let axis = match by {
        "epoch" => Axis::Epoch,
        "step" => Axis::Step,
        _ => Axis::Time(0),
    };
    let (run_id, ascending) = (query.run_id, query.ascending);
    let mut reducer = Reducer::new(axis, fields.len(), points, walk::raw(params)?);
    walk::walk(&*sight.store, query, &fields, &mut reducer).await?;
    let curve = reducer.finish();
    let bounds = (
        curve.points.iter().map(|point| point.oldest_at).min(),
        curve.points.iter().map(|point| point.newest.timestamp).max(),
    );
    let gaps = match bounds {
        (Some(start), Some(end)) => walk::gaps(&*sight.store, run_id, (start, end), GAPS).await?,
        _ => Vec::new(),
    };
    json(&answer(&curve, &fields, by, ascending, &gaps))
}

fn answer(curve: &Curve, fields: &[Field], by: &str, ascending: bool, gaps: &[GapRow]) -> Value {
    let mut points: Vec<Value> = curve.points.iter().map(|point| shown(curve, point, fields)).collect();
    if !ascending {
        points.reverse();
    }
    let exact = match curve.shift {
        None => Value::Bool(true),
        Some(shift) => {
            let width = 1_i64 << shift;
            let width = if by == "time" { json!(width as f64 / 1e6) } else { json!(width) };
            json!({ "method": "buckets of first, min, max and last", "by": by, "width": width, "of": curve.of })
        }
    };
    json!({
        "metrics": points,
        "count": points.len(),
        "next": null,
        "exact": exact,
        "replaced": curve.replaced,
        "left_out": curve.apart,
        "gaps": JsonRows(gaps),
    })
}

/// A point looks like its newest row; what its other rows say is in `spread`.
fn shown(curve: &Curve, point: &Bucket, fields: &[Field]) -> Value {
    let newest = &point.newest;
    let mut object = Map::from_iter([
        ("timestamp".to_owned(), json!(render::time(newest.timestamp))),
        ("event_id".to_owned(), json!(newest.event_id)),
        ("epoch".to_owned(), json!(newest.epoch)),
        ("step".to_owned(), json!(newest.step)),
        ("hidden_units".to_owned(), json!(newest.hidden_units)),
        ("phase".to_owned(), json!(curve.phase(point))),
        ("seq".to_owned(), json!(newest.seq)),
        ("from".to_owned(), json!(render::time(point.oldest_at))),
        ("rows".to_owned(), json!(point.rows)),
    ]);
    let (mut spread, mut non_finite) = (Map::new(), Vec::new());
    for (field, values) in fields.iter().zip(&point.fields) {
        let some = values.count > 0;
        // `json!` makes what is not finite null.
        let value = if some { json!(values.last) } else { Value::Null };
        if values.non_finite > 0 {
            non_finite.push(field.name());
        }
        if some && point.rows > 1 {
            let finite = values.has_finite();
            let extreme = |value: f64| if finite { json!(value) } else { Value::Null };
            let (min, max) = (extreme(values.min), extreme(values.max));
            let values = json!({
                "first": values.first, "min": min, "max": max, "last": values.last,
                "count": values.count, "non_finite": values.non_finite,
            });
            spread.insert(field.name().to_owned(), values);
        }
        if field.name() != "hidden_units" {
            object.insert(field.name().to_owned(), value);
        }
    }
    object.insert("non_finite".to_owned(), json!(non_finite));
    object.insert("spread".to_owned(), Value::Object(spread));
    Value::Object(object)
}
