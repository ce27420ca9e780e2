//! Metrics of a run: page by page as they are stored, or the whole range as a curve of a given number of points.

use std::borrow::Cow;

use axum::extract::State;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, json};

use super::scan;
use crate::{
    api::{
        error::{ApiError, ApiResult},
        fields::{self, FIELDS_MAX},
        memory_budget::Reservation,
        paging::{self, RANGE},
        params::Params,
        run_lookup,
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
    let run_id = run_lookup::required_run(&state, &params).await?;
    let query = paging::range(&params, run_id, 1_000, state.config.page_rows)?;
    if params.text("max_points").is_some() {
        return downsampled(&state, &params, query).await;
    }
    for name in ["by", "attempts"] {
        if params.text(name).is_some() {
            return Err(ApiError::bad_request(format!("`{name}` applies to curves: give `max_points`, too")));
        }
    }
    let fields = fields::named(&params, FIELDS_MAX)?;
    let mut reservation = Reservation::reserve_page(&state.memory).await;
    let (mut rows, mut next) = reservation.page::<MetricsRow>(&*state.store, &query).await?;
    if rows.is_empty() {
        run_lookup::require_known(&state, run_id).await?;
    }
    if fields.is_empty() {
        return reservation.json(&RowsPage { metrics: JsonRows(&rows), count: rows.len(), next, exact: true });
    }
    let whole_columns = |field: &Field| ROW_FIELDS.contains(&&*field.label());
    let has_value = |n: usize| whole_columns(&fields[n]) || rows.iter().any(|row| has_number(row, &fields[n]));
    let unseen = fields::unseen(&fields, has_value);
    if !unseen.is_empty() {
        drop((rows, reservation));
        fields::require_known(&state, &[query.run_id], unseen).await?;
        reservation = Reservation::reserve_page(&state.memory).await;
        (rows, next) = reservation.page::<MetricsRow>(&*state.store, &query).await?;
    }
    let labels: Vec<_> = fields.iter().map(Field::label).collect();
    let metrics = rows.iter().map(|row| ProjectedRow { row, labels: &labels }).collect();
    reservation.json(&ProjectedPage { metrics, count: rows.len(), next, exact: true, fields: &labels })
}

/// What a page of rows can be asked for beside columns and metrics; the key is in every row.
const ROW_FIELDS: [&str; 5] = ["run_id", "timestamp", "event_id", "extra", "rest_json"];

fn has_number(row: &MetricsRow, field: &Field) -> bool {
    matches!(field, Field::Extra(name) if row.extra.contains_key(name))
}

/// Rows with their key and the requested fields.
#[derive(Serialize)]
struct ProjectedPage<'a> {
    metrics: Vec<ProjectedRow<'a>>,
    count: usize,
    next: Option<String>,
    exact: bool,
    fields: &'a [Cow<'a, str>],
}

/// A column under its name; a number in `extra`, too.
struct ProjectedRow<'a> {
    row: &'a MetricsRow,
    labels: &'a [Cow<'a, str>],
}

impl Serialize for ProjectedRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let labels = self.labels.iter().map(|label| &**label).filter(|label| !render::KEY_COLUMNS.contains(label));
        let mut map = serializer.serialize_map(None)?;
        render::columns(&mut map, self.row, labels)?;
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
    let fields = fields::drawn(params, FIELDS_MAX, Field::drawn_by_default())?;
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
    if curve.points.is_empty() {
        run_lookup::require_known(state, run_id).await?;
    }
    fields::require_known(state, &[run_id], fields::unseen(&fields, |n| curve.has_value(n))).await?;
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
    let members: Vec<_> = fields.iter().map(Member::of).collect();
    let point = |point| Point { curve: &curve, point, members: &members };
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

/// The member of a point with the last value of a field.
struct Member<'a> {
    name: Cow<'a, str>,
    /// Every point has it, whichever fields were requested.
    is_fixed: bool,
}

impl<'a> Member<'a> {
    fn of(field: &'a Field) -> Self {
        let name = field.label();
        let is_fixed = FIXED.contains(&&*name);
        match field {
            Field::Column(_) => Self { name, is_fixed },
            // A number in `extra` may have the name of a member that is no column.
            Field::Extra(_) if is_fixed => Self { name: Cow::Owned(format!("extra.{name}")), is_fixed: false },
            Field::Extra(_) => Self { name, is_fixed },
        }
    }
}

/// A point has the form of its newest row; `spread` describes all of its rows. Serialised without a tree of values, since there are
/// many points.
struct Point<'a> {
    curve: &'a Curve,
    point: &'a Bucket,
    members: &'a [Member<'a>],
}

impl Point<'_> {
    fn values(&self) -> impl Iterator<Item = (&Member<'_>, &curve::Spread)> {
        self.members.iter().zip(&self.point.fields)
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
        for (member, values) in self.values().filter(|(member, _)| !member.is_fixed) {
            // serde_json writes a non-finite number as null.
            map.serialize_entry(&member.name, &(values.count > 0).then_some(values.last))?;
        }
        let lost = self.values().filter(|(_, values)| values.non_finite > 0).map(|(member, _)| &*member.name);
        let lost: Vec<_> = lost.collect();
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
            |(member, values)| {
                let extreme = |value| values.has_finite().then_some(value);
                let spread = Spread {
                    first: values.first,
                    min: extreme(values.min),
                    max: extreme(values.max),
                    last: values.last,
                    count: values.count,
                    non_finite: values.non_finite,
                };
                (&*member.name, spread)
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
