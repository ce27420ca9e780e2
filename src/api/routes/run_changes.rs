//! Runs that are created, completed and annotated by HTTP.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::body::{Body, bytes, object};
use crate::{
    api::{
        auth::Caller,
        error::{ApiError, ApiResult, json as json_answer},
        params::uuid,
        state::ApiState,
        submit::SubmitTargets,
    },
    event::{run_id_from_text, status},
    render, units, wire,
};

/// A message as a trainer publishes it.
fn message(kind: &str, run_id: &Value, data: Map<String, Value>) -> Value {
    json!({ "type": kind, "run_id": run_id, "timestamp": render::time(units::now()), "data": data })
}

/// `POST /api/runs`
pub async fn create(State(state): State<ApiState>, Extension(caller): Extension<Caller>, read: Body) -> ApiResult {
    let targets = state.submitter.targets()?;
    let mut data = object(&bytes(read)?)?;
    let named = ["run_id", "run_name", "name"].into_iter().filter_map(|name| data.remove(name));
    let id = match named.filter(|name| !name.is_null()).collect::<Vec<_>>().as_slice() {
        [] => Value::from(Uuid::new_v4().to_string()),
        // Verbatim, blanks included: a trainer that publishes the same text means the same run.
        [Value::String(name)] if !name.trim().is_empty() => Value::from(name.as_str()),
        [_] => return Err(ApiError::bad_request("`run_id`, `run_name` or `name` must be text")),
        _ => return Err(ApiError::bad_request("`run_id`, `run_name` and `name` mean the same: give one of them")),
    };
    targets.message(&message("training_start", &id, data)).await?;
    let text = id.as_str().unwrap_or_default();
    let run_id = run_id_from_text(text);
    if let Some(intake) = &targets.intake {
        intake.remember(run_id);
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
    let run_id = require_run(&state, targets, &run_id).await?;
    let message = message("training_end", &json!(run_id), object(&bytes(read)?)?);
    let outcome = targets.message(&message).await?;
    targets.record_change(&caller, "complete_run", &json!(run_id));
    json_answer(&json!({ "run_id": run_id, "status": outcome.status }))
}

/// `POST /api/runs/{run_id}/notes`
pub async fn notes(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(run_id): Path<String>,
    read: Body,
) -> ApiResult {
    let targets = state.submitter.targets()?;
    let run_id = require_run(&state, targets, &run_id).await?;
    let data = object(&bytes(read)?)?;
    let texts = |value: &Value| value.as_array().is_some_and(|tags| tags.iter().all(Value::is_string));
    for (name, value) in &data {
        match name.as_str() {
            "notes" if value.is_string() => {}
            "tags" if texts(value) => {}
            "notes" => return Err(ApiError::bad_request("`notes` must be text")),
            "tags" => return Err(ApiError::bad_request("`tags` must be a list of texts")),
            other => return Err(ApiError::bad_request(format!("unknown field `{other}`; known: notes, tags"))),
        }
    }
    if data.is_empty() {
        return Err(ApiError::bad_request("give `notes`, `tags` or both"));
    }
    let answer = json!({ "run_id": run_id, "notes": data.get("notes"), "tags": data.get("tags") });
    targets.message(&message(wire::RUN_UPDATE, &json!(run_id), data)).await?;
    targets.record_change(&caller, "update_run", &json!(run_id));
    json_answer(&answer)
}

/// A run that exists in the store, or was created here recently. If the store does not answer, the run is assumed to exist.
async fn require_run(state: &ApiState, targets: &SubmitTargets, run_id: &str) -> Result<Uuid, ApiError> {
    let run_id = uuid(run_id)?;
    let created = targets.intake.as_ref().is_some_and(|intake| intake.remembers(run_id));
    if !created && let Ok(None) = state.store.read_run(run_id).await {
        return Err(ApiError::run_not_found());
    }
    Ok(run_id)
}
