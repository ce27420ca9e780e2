//! `POST /api/control`: commands.

use std::{sync::Arc, time::Duration};

use axum::{Extension, Json, body::Bytes, extract::State, http::StatusCode, response::IntoResponse};
use serde_json::{Map, Value, json};
use tokio::{sync::broadcast, time::timeout};
use tracing::info;
use uuid::Uuid;

use super::body::{Body, allow_only, bytes};
use crate::{
    api::{
        auth::Caller,
        error::{ApiError, ApiResult, json as json_answer},
        state::ApiState,
        submit::IntakeHandle,
    },
    frame::Rejection,
    logging::Untrusted,
    render, units,
    wire::{self, Command, Limits},
};

/// Time to wait for a receipt beyond the time-out of the command.
const RECEIPT_MARGIN: Duration = Duration::from_secs(2);
/// The fields of a command, at the top of its body or in its `data`.
const FIELDS: [&str; 5] = ["command", "id", "target", "params", "timeout"];
/// Fields that a body may have beside them.
const OUTER_FIELDS: [&str; 2] = ["type", "data"];

/// Time-out of a command that names none, as the default of `control.flush_timeout`.
const DEFAULT_COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// What the body of `POST /api/control` may hold.
pub fn names() -> Vec<&'static str> {
    [&FIELDS[..], &OUTER_FIELDS].concat()
}

/// `POST /api/control`
pub async fn control(State(state): State<ApiState>, Extension(caller): Extension<Caller>, read: Body) -> ApiResult {
    let targets = state.submitter.targets()?;
    let (command, payload) = with_id(&bytes(read)?, &targets.limits.borrow())?;
    let name = Untrusted(command.command.as_bytes());
    info!(command = %name, token = caller.name(), "a command is asked for by HTTP");
    let for_us = |intake: &IntakeHandle| match command.target.as_deref() {
        None | Some("ingest") => true,
        Some(target) => target == intake.instance,
    };
    let own_intake = targets.intake.as_ref().filter(|intake| for_us(intake));
    let receipts = own_intake.map(|_| targets.receipts.subscribe());
    let mut row = None;
    match (own_intake, &command.target, &targets.control) {
        (Some(intake), Some(target), _) if *target == intake.instance => {
            intake.submit(&caller.source(), payload, true).await?;
        }
        (_, _, Some(channel)) => {
            row = targets.record_command(&caller, &command)?;
            if let Err(error) = targets.publish(channel, payload).await {
                targets.record_outcome(row, "failed");
                return Err(with_target_hint(error, own_intake));
            }
        }
        _ => return Err(ApiError::unavailable("`redis.control_channels` names no channel without a pattern")),
    }
    let id = command.id.clone().unwrap_or_default();
    if let Some(receipts) = receipts
        && let Some(receipt) =
            receipt(receipts, &id, command.timeout.unwrap_or(DEFAULT_COMMAND_TIMEOUT) + RECEIPT_MARGIN).await
    {
        targets.record_outcome(row, receipt["outcome"].as_str().unwrap_or("done"));
        return json_answer(&receipt);
    }
    let answer = json!({
        "id": id, "command": command.command, "target": command.target, "instance": null, "outcome": null,
        "detail": "sent; no receipt yet", "received_at": render::time(units::now()), "took_ms": null,
    });
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

/// Adds that a command for this daemon alone still works.
fn with_target_hint(error: ApiError, own_intake: Option<&IntakeHandle>) -> ApiError {
    match own_intake {
        Some(intake) => {
            error.append_detail(&format!("; `\"target\": \"{}\"` commands this daemon alone", intake.instance))
        }
        None => error,
    }
}

/// The command with an id, by which its receipt is recognised; also as bytes.
fn with_id(body: &Bytes, limits: &Limits) -> Result<(Command, Vec<u8>), ApiError> {
    let wrong = |Rejection { reason, detail }: Rejection| {
        ApiError::bad_request(format!("the body is no command ({}): {detail}", reason.as_str()))
    };
    let mut command = wire::decode_control(body, limits).map_err(wrong)?;
    let mut object: Map<String, Value> = match serde_json::from_str(&command.payload_json) {
        Ok(Value::Object(object)) => object,
        _ => Map::from_iter([("command".to_owned(), command.command.clone().into())]),
    };
    refuse_unknown_fields(&object)?;
    if command.id.is_some() {
        return Ok((command, body.to_vec()));
    }
    let id = Uuid::new_v4().to_string();
    object.insert("id".into(), id.clone().into());
    command.id = Some(id);
    Ok((command, Value::Object(object).to_string().into_bytes()))
}

/// Refuses a field that no command has. Trainers publish commands with further fields on Redis; by HTTP such a field is a mistake.
fn refuse_unknown_fields(object: &Map<String, Value>) -> Result<(), ApiError> {
    allow_only(object, &names())?;
    match object.get("data") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(data)) => allow_only(data, &FIELDS).map_err(|error| error.append_detail(" (in `data`)")),
        Some(_) => Err(ApiError::bad_request("`data` must be an object")),
    }
}

async fn receipt(mut receipts: broadcast::Receiver<Arc<str>>, id: &str, max_wait: Duration) -> Option<Value> {
    let found = async {
        loop {
            match receipts.recv().await {
                Ok(text) => {
                    if let Ok(receipt) = serde_json::from_str::<Value>(&text)
                        && receipt["id"] == id
                    {
                        return Some(receipt);
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    };
    timeout(max_wait, found).await.ok().flatten()
}
