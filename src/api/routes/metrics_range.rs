//! Metrics of a run: page by page as they are stored, or the whole range as a curve of a given number of points.

use std::borrow::Cow;

use axum::extract::State;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, json};

use super::scan;
use crate::{
    api::{
        error::{ApiError, ApiResult},
        memory_budget::Reservation,
        paging::{self, RANGE},
        params::Params,
        state::ApiState,
    },
    curve::{self, Axis, Bucket, Curve, Field, Reducer},
    event::{GapRow, MetricsRow},
    gap_reader::ledger::{self, Filter},
    render::{self, JsonRows},
    store::RangeQuery,
};

/// Maximum gaps reported with a curve.
const MAX_GAP_ROWS: usize = 200;

#[derive(Serialize)]
struct RowsPage<'a> {
    metrics: JsonRows<'a, MetricsRow>,
    count: usize,
    next: Option<String>,
    exact: bool,
}

/// `GET /api/metrics/range`
pub async fn range(State(state): State<ApiState>, params: Params) -> ApiResult {
    let names: Vec<_> = RANGE.into_iter().chain(["run_id", "max_points", "fields", "by", "attempts"]).collect();
    let params = params.allow_only(&names, &["field"])?;
    let query = paging::range(&params, params.run_id()?, 1_000, state.config.page_rows)?;
    if params.text("max_points").is_some() {
        return downsampled(&state, &params, query).await;
    }
    for name in ["by", "attempts"] {
        if params.text(name).is_some() {
            return Err(ApiError::bad_request(format!("`{name}` applies to curves: give `max_points`, too")));
        }
    }
    let fields = scan::names_fields(&params).then(|| scan::fields(&params)).transpose()?;
    let mut reservation = Reservation::reserve_page(&state.memory).await;
    let (rows, next) = reservation.page::<MetricsRow>(&*state.store, &query).await?;
    let Some(fields) = fields else {
        return reservation.json(&RowsPage { metrics: JsonRows(&rows), count: rows.len(), next, exact: true });
    };
    let metrics = rows.iter().map(|row| ProjectedRow { row, fields: &fields }).collect();
    let names = fields.iter().map(Field::name).collect();
    reservation.json(&ProjectedPage { metrics, count: rows.len(), next, exact: true, fields: names })
}

/// Rows with their key and the requested fields.
#[derive(Serialize)]
struct ProjectedPage<'a> {
    metrics: Vec<ProjectedRow<'a>>,
    count: usize,
    next: Option<String>,
    exact: bool,
    fields: Vec<&'a str>,
}

/// A column under its name; a number in `extra`, too.
struct ProjectedRow<'a> {
    row: &'a MetricsRow,
    fields: &'a [Field],
}

impl Serialize for ProjectedRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names = || self.fields.iter().map(Field::name).filter(|name| !render::KEY_COLUMNS.contains(name));
        let mut map = serializer.serialize_map(None)?;
        let lost = render::columns(&mut map, self.row, names())?;
        map.serialize_entry("non_finite", &lost)?;
        map.end()
    }
}

async fn downsampled(state: &ApiState, params: &Params, query: RangeQuery) -> ApiResult {
    if query.after.is_some() {
        return Err(ApiError::bad_request(
            "`cursor` cannot be combined with `max_points`: a curve covers the whole range",
        ));
    }
    let points = params.number("max_points", 0, curve::POINTS_MIN, state.config.max_points)?;
    let fields = scan::fields(params)?;
    let by = params.word("by", &["time", "epoch", "step"])?;
    let axis = match by {
        "epoch" => Axis::Epoch,
        "step" => Axis::Step,
        _ => Axis::Time(0),
    };
    let (run_id, ascending) = (query.run_id, query.ascending);
    let raw = scan::all_attempts(params)?;
    // Only later rows tell which values are superseded, so the scan goes on beyond the end: a part of a curve equals that part of
    // the whole.
    let until = query.end.filter(|_| !raw);
    let query = RangeQuery { end: query.end.filter(|_| raw), ..query };
    let reservation = Reservation::reserve(&state.memory, scan::curve_bytes(points, fields.len())).await;
    let mut reducer = Reducer::new(axis, fields.len(), points, raw).until(until);
    scan::scan(&*state.store, query, &fields, &mut reducer).await?;
    let curve = reducer.finish();
    let bounds = (
        curve.points.iter().map(|point| point.oldest_at).min(),
        curve.points.iter().map(|point| point.newest.timestamp).max(),
    );
    let gaps = match bounds {
        (Some(start), Some(end)) => {
            ledger::read(&*state.store, &Filter::of_span(run_id, start, end), MAX_GAP_ROWS).await?
        }
        _ => Vec::new(),
    };
    let point = |point| Point { curve: &curve, point, fields: &fields };
    let mut points: Vec<_> = curve.points.iter().map(point).collect();
    if !ascending {
        points.reverse();
    }
    reservation.json(&DownsampledCurve {
        count: points.len(),
        metrics: points,
        next: None,
        exact: exact(&curve, by),
        replaced: curve.replaced,
        left_out: curve.off_axis,
        gaps: JsonRows(&gaps),
    })
}

#[derive(Serialize)]
struct DownsampledCurve<'a> {
    metrics: Vec<Point<'a>>,
    count: usize,
    next: Option<String>,
    exact: Value,
    replaced: u64,
    left_out: u64,
    gaps: JsonRows<'a, GapRow>,
}

fn exact(curve: &Curve, by: &str) -> Value {
    let Some(shift) = curve.shift else { return Value::Bool(true) };
    let width = 1_i64 << shift;
    let width = if by == "time" { json!(width as f64 / 1e6) } else { json!(width) };
    json!({ "method": "buckets of first, min, max and last", "by": by, "width": width, "of": curve.of })
}

/// Members of every point, besides the requested fields.
const FIXED: [&str; 11] =
    ["timestamp", "event_id", "epoch", "step", "hidden_units", "phase", "seq", "from", "rows", "non_finite", "spread"];

/// A point has the form of its newest row; `spread` describes all of its rows. Serialised without a tree of values, since there are
/// many points.
struct Point<'a> {
    curve: &'a Curve,
    point: &'a Bucket,
    fields: &'a [Field],
}

impl Point<'_> {
    fn values(&self) -> impl Iterator<Item = (&str, &curve::Spread)> {
        self.fields.iter().map(Field::name).zip(&self.point.fields)
    }
}

impl Serialize for Point<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (point, newest) = (self.point, &self.point.newest);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", &render::time(newest.timestamp))?;
        map.serialize_entry("event_id", &newest.event_id)?;
        map.serialize_entry("epoch", &newest.epoch)?;
        map.serialize_entry("step", &newest.step)?;
        map.serialize_entry("hidden_units", &newest.hidden_units)?;
        map.serialize_entry("phase", &self.curve.phase(point))?;
        map.serialize_entry("seq", &newest.seq)?;
        map.serialize_entry("from", &render::time(point.oldest_at))?;
        map.serialize_entry("rows", &point.rows)?;
        for (name, values) in self.values().filter(|(name, _)| *name != "hidden_units") {
            // A number in `extra` may have the name of a member.
            let clashes = FIXED.contains(&name);
            let name = if clashes { Cow::Owned(format!("extra.{name}")) } else { Cow::Borrowed(name) };
            // serde_json writes a non-finite number as null.
            map.serialize_entry(&name, &(values.count > 0).then_some(values.last))?;
        }
        let lost: Vec<_> = self.values().filter(|(_, values)| values.non_finite > 0).map(|(name, _)| name).collect();
        map.serialize_entry("non_finite", &lost)?;
        map.serialize_entry("spread", &Spreads(self))?;
        map.end()
    }
}

struct Spreads<'a>(&'a Point<'a>);

impl Serialize for Spreads<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A single row has no spread.
        let several = self.0.point.rows > 1;
        serializer.collect_map(self.0.values().filter(|(_, values)| several && values.count > 0).map(
            |(name, values)| {
                let extreme = |value| values.has_finite().then_some(value);
                let spread = Spread {
                    first: values.first,
                    min: extreme(values.min),
                    max: extreme(values.max),
                    last: values.last,
                    count: values.count,
                    non_finite: values.non_finite,
                };
                (name, spread)
            },
        ))
    }
}

#[derive(Serialize)]
struct Spread {
    first: f64,
    min: Option<f64>,
    max: Option<f64>,
    last: f64,
    count: u32,
    non_finite: u32,
}
