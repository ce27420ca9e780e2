//! The growth of a run's network: a level for each number of hidden units.

use axum::extract::{Path, State};
use serde_json::{Value, json};
use uuid::Uuid;

use super::scan::{self, full_range};
use crate::{
    api::{
        error::{ApiError, ApiResult, json as json_answer},
        fields,
        memory_budget::Reservation,
        params::Params,
        run_lookup,
        state::ApiState,
    },
    curve::{Field, Growth, Level},
    event::EventRow,
    render,
    store::RangeQuery,
    units::Micros,
};

/// Newest events in which added units are searched.
const EVENT_ROWS: usize = 5_000;
/// Maximum size of a message that reports an added unit; a larger one is not parsed.
const UNIT_ADDED_MAX_BYTES: usize = 64 << 10;

/// `GET /api/runs/{run_id}/growth`
pub async fn growth(State(state): State<ApiState>, Path(run_id): Path<String>, params: Params) -> ApiResult {
    let params = params.allow_only(&["field", "start_time", "end_time"], &[])?;
    let run = run_lookup::find(&state, &run_id).await?;
    let field = fields::drawn(&params, 1, vec![Field::train_loss()])?.swap_remove(0);
    let mut growth = Growth::default();
    scan::scan(&*state.store, full_range(&run, &params)?, std::slice::from_ref(&field), &mut growth).await?;
    let has_value = |_| growth.levels.iter().any(|level| level.last.is_some());
    let unseen = fields::unseen(std::slice::from_ref(&field), has_value);
    fields::require_known(&state, &[run.run_id], unseen).await?;
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
    json_answer(
        &json!({ "run_id": run.run_id, "field": field.label(), "levels": shown, "count": shown.len(), "truncated": truncated }),
    )
}

/// The added unit of a level: the one reported nearest to its first row, before or after.
fn nearest<'a>(units_added: &'a [UnitAdded], since: Micros, level: &Level) -> Option<&'a UnitAdded> {
    let near = units_added.iter().filter(|unit| unit.at > since && unit.at <= level.to);
    near.min_by_key(|unit| unit.at.abs_diff(level.from))
}

/// A unit that a trainer reported as added.
struct UnitAdded {
    at: Micros,
    correlation: Option<f64>,
}

/// Added units, the newest first.
async fn units_added(state: &ApiState, run_id: Uuid) -> Result<Vec<UnitAdded>, ApiError> {
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
