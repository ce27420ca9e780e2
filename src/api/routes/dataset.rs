//! The dataset of a run, in the form that the panels of the field's existing dashboards read.

use axum::extract::State;
use serde_json::json;
use uuid::Uuid;

use crate::{
    api::{
        error::{ApiError, ApiResult, json as json_answer},
        memory_budget::Reservation,
        params::Params,
        run_lookup,
        state::ApiState,
    },
    event::{DatasetRow, EventRow, Resolved, Row, dataset_id},
    render::Json,
    store::RangeQuery,
    wire,
};

/// First events of a run in which the one that names its dataset is searched.
const FIRST_EVENTS: usize = 64;

/// `GET /api/dataset`
pub async fn dataset(State(state): State<ApiState>, params: Params) -> ApiResult {
    let run = run_lookup::without_large_fields(run_lookup::named_or_newest(&state, params).await?);
    let Some(name) = &run.dataset_name else { return Err(ApiError::not_found("No dataset yet")) };
    let stored = match state.store.dataset(dataset_id(name)).await? {
        Some(row) => Some(row),
        // A dataset with an id of its own is not found by its name; the message that named it has all of it.
        None => announced(&state, run.run_id).await?,
    };
    let mut answer = match &stored {
        Some(row) => serde_json::to_value(Json(row)).unwrap_or_default(),
        // A run start may carry no more than a name.
        None => json!({ "num_samples": null, "num_features": null, "num_classes": null }),
    };
    answer["name"] = json!(name);
    if answer["num_samples"].is_null() {
        answer["num_samples"] = json!(run.dataset_size);
    }
    answer["dataset_name"] = json!(name);
    answer["run_id"] = json!(run.run_id);
    json_answer(&answer)
}

/// The dataset in the start of a run.
async fn announced(state: &ApiState, run_id: Uuid) -> Result<Option<DatasetRow>, ApiError> {
    let mut reservation = Reservation::reserve_page(&state.memory).await;
    let query = RangeQuery { ascending: true, ..RangeQuery::newest(run_id, FIRST_EVENTS) };
    let (rows, _) = reservation.page::<EventRow>(&*state.store, &query).await?;
    Ok(rows.iter().rev().find_map(dataset_of))
}

fn dataset_of(event: &EventRow) -> Option<DatasetRow> {
    let payload = event.payload_json.as_bytes();
    let message = wire::decode_accepted(payload).ok()?;
    let (run_id, event_time) = (event.key.run_id, event.key.timestamp);
    let decided = Resolved { run_id, event_time, received_at: event_time, has_event_time: false, opened_run: false };
    wire::rows(&message, &decided, "", payload).rows.into_iter().find_map(|row| match row {
        Row::Dataset(row) => Some(row),
        _ => None,
    })
}
