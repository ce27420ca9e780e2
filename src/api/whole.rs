//! What is said of a whole run: aggregates, the growth of its network, and what is missing of it.

use axum::extract::{Path, State};
use serde_json::{Map, Value, json};

use super::{
    Sight,
    error::{Answer, ApiError},
    json,
    params::Params,
    room::Room,
    runs, walk,
};
use crate::{
    curve::{Aggregate, Aggregates, Extreme, Field, Growth, Level},
    event::{EventRow, RunRow},
    gaps::{
        ledger::{self, Filter},
        missing::{Hole, missing},
    },
    render::{self, JsonRows},
    store::RangeQuery,
    units::Micros,
};

/// Events looked at for those that tell of a unit.
const EVENTS: usize = 5_000;
/// The message that tells of a unit is small; a larger one is not looked into.
const ARRIVAL_BYTES: usize = 64 << 10;
/// Holes and gap rows told, at most.
const HOLES: usize = 1_000;

fn all(run: &RunRow, params: &Params) -> Result<RangeQuery, ApiError> {
    let (start, end) = (params.time("start_time")?, params.time("end_time")?);
    Ok(RangeQuery { start, end, ..RangeQuery::newest(run.run_id, 1) })
}

/// `GET /api/runs/{run_id}/aggregates`
pub async fn aggregates(State(sight): State<Sight>, Path(run_id): Path<String>, params: Params) -> Answer {
    let params = params.known(&["fields", "attempts", "start_time", "end_time"], &["field"])?;
    let run = runs::find(&sight, &run_id).await?;
    let fields = walk::fields(&params)?;
    let mut aggregates = Aggregates::new(fields.len(), walk::raw(&params)?);
    walk::walk(&*sight.store, all(&run, &params)?, &fields, &mut aggregates).await?;
    let by_field: Map<String, Value> = fields
        .iter()
        .zip(&aggregates.fields)
        .map(|(field, of)| (field.name().to_owned(), aggregate(field, of)))
        .collect();
    json(&json!({
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
        "best": best.map(|at| place(&at)),
        "best_epoch": best.and_then(|at| at.epoch),
        "first_non_finite": of.first_non_finite.map(|at| place(&at)),
        "first_non_finite_epoch": of.first_non_finite.and_then(|at| at.epoch),
    })
}

/// A number; what JSON has none for, by its name.
fn number(value: f64) -> Value {
    match value {
        value if value.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        value => value.into(),
    }
}

fn place(at: &Extreme) -> Value {
    json!({
        "value": number(at.value), "epoch": at.epoch, "step": at.step, "timestamp": render::time(at.timestamp),
    })
}

/// `GET /api/runs/{run_id}/growth`
pub async fn growth(State(sight): State<Sight>, Path(run_id): Path<String>, params: Params) -> Answer {
    let params = params.known(&["field", "start_time", "end_time"], &[])?;
    let run = runs::find(&sight, &run_id).await?;
    let field = params.exact("field").next().map_or(Field::TRAIN_LOSS, Field::named);
    let mut growth = Growth::default();
    walk::walk(&*sight.store, all(&run, &params)?, std::slice::from_ref(&field), &mut growth).await?;
    let arrivals = arrivals(&sight, run.run_id).await?;
    let (mut levels, truncated) = (growth.levels, growth.truncated);
    levels.reverse();
    let mut shown = Vec::new();
    let mut before: Option<&Level> = None;
    for level in &levels {
        let arrival = before.and_then(|before| nearest(&arrivals, before.from, level));
        let (earlier, later) = (before.and_then(|before| before.last), level.last);
        shown.push(json!({
            "hidden_units": level.hidden_units,
            "timestamp": render::time(level.from),
            "until": render::time(level.to),
            "epoch": level.epoch,
            "phase": level.phase,
            "rows": level.rows,
            "before": earlier,
            "first": level.first,
            "min": level.range.map(|(min, _)| min),
            "max": level.range.map(|(_, max)| max),
            "last": later,
            "change": earlier.zip(later).map(|(earlier, later)| later - earlier),
            "correlation": arrival.and_then(|arrival| arrival.correlation),
        }));
        before = Some(level);
    }
    json(
        &json!({ "run_id": run.run_id, "field": field.name(), "levels": shown, "count": shown.len(), "truncated": truncated }),
    )
}

/// What was announced about the unit of a level: nearest to its first row, be it a moment before or after.
fn nearest<'a>(arrivals: &'a [Arrival], since: Micros, level: &Level) -> Option<&'a Arrival> {
    let near = arrivals.iter().filter(|arrival| arrival.at > since && arrival.at <= level.to);
    near.min_by_key(|arrival| arrival.at.abs_diff(level.from))
}

/// A unit that a trainer announced.
struct Arrival {
    at: Micros,
    correlation: Option<f64>,
}

/// The newest first.
async fn arrivals(sight: &Sight, run_id: uuid::Uuid) -> Result<Vec<Arrival>, ApiError> {
    let mut room = Room::of(&sight.memory).await;
    let (events, _) = room.page::<EventRow>(&*sight.store, &RangeQuery::newest(run_id, EVENTS)).await?;
    let arrival = |event: &EventRow| {
        let payload: Value = serde_json::from_str(&event.payload_json).ok()?;
        let details = [&payload, &payload["data"], &payload["details"], &payload["data"]["details"]];
        let correlation = details.iter().find_map(|place| place["correlation"].as_f64());
        Some(Arrival { at: event.key.timestamp, correlation })
    };
    let tells = |event: &&EventRow| event.r#type == "cascade_add" && event.payload_json.len() <= ARRIVAL_BYTES;
    Ok(events.iter().filter(tells).filter_map(arrival).collect())
}

/// `GET /api/runs/{run_id}/gaps`
pub async fn gaps(State(sight): State<Sight>, Path(run_id): Path<String>, params: Params) -> Answer {
    params.known(&[], &[])?;
    let run = runs::find(&sight, &run_id).await?;
    let room = Room::of(&sight.memory).await;
    let missing = missing(&*sight.store, run.run_id).await?;
    drop(room);
    let gaps = ledger::read(&*sight.store, &Filter::of_run(&run), HOLES).await?;
    let hole = |hole: &Hole| {
        json!({
            "from": hole.first, "to": hole.last, "count": hole.last.abs_diff(hole.first) + 1,
            "after": render::time(hole.after), "before": render::time(hole.before),
        })
    };
    json(&json!({
        "run_id": run.run_id,
        "first_seq": missing.range.map(|range| range.0),
        "last_seq": missing.range.map(|range| range.1),
        "missing": missing.holes.iter().take(HOLES).map(hole).collect::<Vec<_>>(),
        "missing_count": missing.lost,
        "truncated": !missing.exact || missing.holes.len() > HOLES,
        "gaps": JsonRows(&gaps),
        "count": gaps.len(),
    }))
}
