//! What is said of a whole run: aggregates, the growth of its network, and what is missing of it.

use axum::extract::{Path, State};
use serde_json::{Map, Value, json};

use super::{
    ApiState,
    error::{ApiError, ApiResult},
    json,
    memory_budget::Reservation,
    params::Params,
    runs, scan,
};
use crate::{
    curve::{Aggregate, Aggregates, Extreme, Field, Growth, Level},
    event::{EventRow, RunRow},
    gap_reader::{
        ledger::{self, Filter},
        missing::{SeqGap, missing},
    },
    render::{self, JsonRows},
    store::RangeQuery,
    units::Micros,
};

/// Events looked at for those that tell of a unit.
const EVENT_ROWS: usize = 5_000;
/// The message that tells of a unit is small; a larger one is not looked into.
const UNIT_ADDED_MAX_BYTES: usize = 64 << 10;
/// Sequence gaps and gap rows reported, at most.
const MAX_GAPS: usize = 1_000;

fn full_range(run: &RunRow, params: &Params) -> Result<RangeQuery, ApiError> {
    let (start, end) = (params.time("start_time")?, params.time("end_time")?);
    Ok(RangeQuery { start, end, ..RangeQuery::newest(run.run_id, 1) })
}

/// `GET /api/runs/{run_id}/aggregates`
pub async fn aggregates(State(state): State<ApiState>, Path(run_id): Path<String>, params: Params) -> ApiResult {
    let params = params.allow_only(&["fields", "attempts", "start_time", "end_time"], &["field"])?;
    let run = runs::find(&state, &run_id).await?;
    let fields = scan::fields(&params)?;
    let mut aggregates = Aggregates::new(fields.len(), scan::all_attempts(&params)?);
    scan::scan(&*state.store, full_range(&run, &params)?, &fields, &mut aggregates).await?;
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
        "best": best.map(|at| extreme_json(&at)),
        "best_epoch": best.and_then(|at| at.epoch),
        "first_non_finite": of.first_non_finite.map(|at| extreme_json(&at)),
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

fn extreme_json(at: &Extreme) -> Value {
    json!({
        "value": number(at.value), "epoch": at.epoch, "step": at.step, "timestamp": render::time(at.timestamp),
    })
}

/// `GET /api/runs/{run_id}/growth`
pub async fn growth(State(state): State<ApiState>, Path(run_id): Path<String>, params: Params) -> ApiResult {
    let params = params.allow_only(&["field", "start_time", "end_time"], &[])?;
    let run = runs::find(&state, &run_id).await?;
    let field = params.exact("field").next().map_or(Field::TRAIN_LOSS, Field::named);
    let mut growth = Growth::default();
    scan::scan(&*state.store, full_range(&run, &params)?, std::slice::from_ref(&field), &mut growth).await?;
    let units_added = units_added(&state, run.run_id).await?;
    let (mut levels, truncated) = (growth.levels, growth.truncated);
    levels.reverse();
    let mut shown = Vec::new();
    let mut before: Option<&Level> = None;
    for level in &levels {
        let unit = before.and_then(|before| nearest(&units_added, before.from, level));
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
            "correlation": unit.and_then(|unit| unit.correlation),
        }));
        before = Some(level);
    }
    json(
        &json!({ "run_id": run.run_id, "field": field.name(), "levels": shown, "count": shown.len(), "truncated": truncated }),
    )
}

/// What was announced about the unit of a level: nearest to its first row, be it a moment before or after.
fn nearest<'a>(units_added: &'a [UnitAdded], since: Micros, level: &Level) -> Option<&'a UnitAdded> {
    let near = units_added.iter().filter(|unit| unit.at > since && unit.at <= level.to);
    near.min_by_key(|unit| unit.at.abs_diff(level.from))
}

/// A unit that a trainer reported as added.
struct UnitAdded {
    at: Micros,
    correlation: Option<f64>,
}

/// The newest first.
async fn units_added(state: &ApiState, run_id: uuid::Uuid) -> Result<Vec<UnitAdded>, ApiError> {
    let mut reservation = Reservation::reserve_page(&state.memory).await;
    let (events, _) = reservation.page::<EventRow>(&*state.store, &RangeQuery::newest(run_id, EVENT_ROWS)).await?;
    let unit = |event: &EventRow| {
        let payload: Value = serde_json::from_str(&event.payload_json).ok()?;
        let details = [&payload, &payload["data"], &payload["details"], &payload["data"]["details"]];
        let correlation = details.iter().find_map(|place| place["correlation"].as_f64());
        Some(UnitAdded { at: event.key.timestamp, correlation })
    };
    let tells = |event: &&EventRow| event.r#type == "cascade_add" && event.payload_json.len() <= UNIT_ADDED_MAX_BYTES;
    Ok(events.iter().filter(tells).filter_map(unit).collect())
}

/// `GET /api/runs/{run_id}/gaps`
pub async fn gaps(State(state): State<ApiState>, Path(run_id): Path<String>, params: Params) -> ApiResult {
    params.allow_only(&[], &[])?;
    let run = runs::find(&state, &run_id).await?;
    let reservation = Reservation::reserve_page(&state.memory).await;
    let missing = missing(&*state.store, run.run_id).await?;
    drop(reservation);
    let gaps = ledger::read(&*state.store, &Filter::of_run(&run), MAX_GAPS).await?;
    let seq_gap = |seq_gap: &SeqGap| {
        json!({
            "from": seq_gap.first, "to": seq_gap.last, "count": seq_gap.last.abs_diff(seq_gap.first) + 1,
            "after": render::time(seq_gap.after), "before": render::time(seq_gap.before),
        })
    };
    json(&json!({
        "run_id": run.run_id,
        "first_seq": missing.range.map(|range| range.0),
        "last_seq": missing.range.map(|range| range.1),
        "missing": missing.gaps.iter().take(MAX_GAPS).map(seq_gap).collect::<Vec<_>>(),
        "missing_count": missing.lost,
        "truncated": !missing.exact || missing.gaps.len() > MAX_GAPS,
        "gaps": JsonRows(&gaps),
        "count": gaps.len(),
    }))
}
