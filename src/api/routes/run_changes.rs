//! Runs that are created and completed by HTTP.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use serde_json::{Map, Value, json};
use tokio::time::{Duration, sleep, timeout};
use uuid::Uuid;

use super::body::{Body, allow_only, bytes, object};
use crate::{
    api::{
        auth::Caller,
        error::{ApiError, ApiResult, json as json_answer},
        run_lookup,
        state::ApiState,
    },
    event::{Resolved, RunRow, run_id_from_text, status},
    render, units, wire,
};

/// How long a completed run is waited for in the store: while the writer is paused it does not come.
const STORED_WAIT: Duration = Duration::from_secs(1);
/// How often it is looked for.
const STORED_POLL: Duration = Duration::from_millis(25);

/// A message as a trainer publishes it.
fn message(kind: &str, run_id: &Value, data: Map<String, Value>) -> Value {
    json!({ "type": kind, "run_id": run_id, "timestamp": render::time(units::now()), "data": data })
}

/// The fields by which a created run may be named.
const NAME_FIELDS: [&str; 3] = ["run_id", "run_name", "name"];

/// What the body of `POST /api/runs` may hold.
pub fn create_names() -> Vec<&'static str> {
    NAME_FIELDS.into_iter().chain(wire::run_start_names()).collect()
}

/// What the body of `POST /api/runs/{run_id}/complete` may hold; a metric without a column belongs into `final_metrics`.
pub fn complete_names() -> Vec<&'static str> {
    wire::run_end_names().collect()
}

/// `POST /api/runs`
pub async fn create(State(state): State<ApiState>, Extension(caller): Extension<Caller>, read: Body) -> ApiResult {
    let targets = state.submitter.targets()?;
    let mut data = object(&bytes(read)?)?;
    allow_only(&data, &create_names())?;
    let not_object = |name: &&str| data.get(*name).is_some_and(|value| !value.is_object() && !value.is_null());
    if let Some(name) = wire::config_names().find(not_object) {
        return Err(ApiError::bad_request(format!(
            "`{name}` must be an object: the names and values of the configuration"
        )));
    }
    let named = NAME_FIELDS.into_iter().filter_map(|name| data.remove(name));
    let id = match named.filter(|name| !name.is_null()).collect::<Vec<_>>().as_slice() {
        [] => Value::from(Uuid::new_v4().to_string()),
        // Verbatim, blanks included: a trainer that publishes the same text means the same run.
        [Value::String(name)] if !name.trim().is_empty() => Value::from(name.as_str()),
        [_] => return Err(ApiError::bad_request("`run_id`, `run_name` or `name` must be text")),
        _ => return Err(ApiError::bad_request("`run_id`, `run_name` and `name` mean the same: give one of them")),
    };
    let message = message("training_start", &id, data);
    targets.message(&message).await?;
    let text = id.as_str().unwrap_or_default();
    let run_id = run_id_from_text(text);
    if let Some(intake) = &targets.intake {
        intake.remember(created_row(&message, run_id));
    }
    targets.record_change(&caller, "create_run", &json!(run_id));
    let name = Uuid::try_parse(text.trim()).is_err().then_some(text);
    let answer = json!({ "run_id": run_id, "run_name": name, "status": status::RUNNING });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// `POST /api/runs/{run_id}/complete`
pub async fn complete(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(run_id): Path<String>,
    read: Body,
) -> ApiResult {
    let targets = state.submitter.targets()?;
    let run_id = require_run(&state, &run_id).await?;
    let data = object(&bytes(read)?)?;
    allow_only(&data, &complete_names())?;
    let message = message("training_end", &json!(run_id), data);
    let outcome = targets.message(&message).await?;
    targets.record_change(&caller, "complete_run", &json!(run_id));
    wait_for_status(&state, run_id, outcome.status).await;
    json_answer(&json!({ "run_id": run_id, "status": outcome.status }))
}

/// Waits until the stored row has this status, so that a client that asks next reads what it was told; not for a store that is away, nor
/// for longer than [`STORED_WAIT`].
async fn wait_for_status(state: &ApiState, run_id: Uuid, status: &str) {
    let stored = async {
        while let Ok(row) = run_lookup::row_or_created(state, run_id).await {
            if row.is_some_and(|row| row.status.as_deref() == Some(status)) {
                return;
            }
            sleep(STORED_POLL).await;
        }
    };
    // Whether it is stored by then or not: the message is durable.
    let _ = timeout(STORED_WAIT, stored).await;
}

/// The row of a run that was created by this message.
fn created_row(message: &Value, run_id: Uuid) -> RunRow {
    let (now, payload) = (units::now(), message.to_string());
    let decided = Resolved { run_id, event_time: now, received_at: now, has_event_time: true, opened_run: false };
    let row = wire::decode_accepted(payload.as_bytes())
        .map(|message| *wire::rows(&message, &decided, "", payload.as_bytes()).run_update.values)
        .unwrap_or_default();
    RunRow { run_id, start_time: Some(now), status: Some(status::RUNNING.into()), last_event_time: Some(now), ..row }
}

/// A run that exists in the store, or was created here recently. If the store does not answer, the run is assumed to exist.
async fn require_run(state: &ApiState, run: &str) -> Result<Uuid, ApiError> {
    let run_id = match run_lookup::resolve_run(state, run).await {
        // The name is taken as that which the producer published.
        Err(error) if error.status() == StatusCode::SERVICE_UNAVAILABLE => return Ok(run_id_from_text(run)),
        resolved => resolved?,
    };
    match run_lookup::row_or_created(state, run_id).await {
        Ok(None) => Err(ApiError::run_not_found()),
        _ => Ok(run_id),
    }
}
