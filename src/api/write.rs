//! What changes something: commands, and runs created, annotated and completed by HTTP. Each is the message that a program
//! would have published, and takes the message's path; there is no second way to the store.
//!
//! * A message about a run goes into intake's queue, and is answered when its record is durable. In a process without a pipeline
//!   (`serve`) it is published on the training channel, for the daemon that listens there.
//! * A command is for everyone on the control channel, trainers included, so it is published there, and comes back to this
//!   daemon as it comes to all others. One for this daemon alone (`target` is its name) goes into the queue directly, also
//!   while Redis is away. Either way the answer is this daemon's receipt, given once the command is recorded.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use fred::interfaces::PubsubInterface;
use serde_json::{Map, Value, json};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, timeout},
};
use tracing::info;
use uuid::Uuid;

use super::{
    ApiState,
    access::Caller,
    error::{ApiError, ApiResult},
    params::uuid,
};
use crate::{
    event::{run_id_from_text, status},
    frame::{Ack, Frame, IntakeItem},
    logging::Untrusted,
    redis::{Link, Resource},
    render, units,
    wire::{self, Command, Limits, Outcome},
};

/// How long a receipt is waited for beyond the time that the command itself may take.
const RECEIPT_MARGIN: Duration = Duration::from_secs(2);
/// The time that a command may take which says none, as `control.flush_timeout`.
const DEFAULT_COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Runs remembered that were created here and may not be in the store yet.
const CREATED_MAX: usize = 1_024;
/// The channel of messages by HTTP where none is configured by its plain name.
const FALLBACK_CHANNEL: &str = "http";

/// Where requests that change something go.
#[derive(Clone, Default)]
pub struct Submitter(Option<Arc<SubmitTargets>>);

/// The targets of a [`Submitter`].
pub struct SubmitTargets {
    /// The channel that messages about runs belong to: the first of the training channels that is no pattern.
    pub training: Option<String>,
    /// The channel of commands, likewise.
    pub control: Option<String>,
    /// To publish with.
    pub link: Link,
    /// What a message may be at most, as intake goes by.
    pub limits: watch::Receiver<Limits>,
    /// The answers of daemons to commands, as far as they are heard here.
    pub receipts: broadcast::Sender<Arc<str>>,
    /// The pipeline of this process, if it has one.
    pub intake: Option<IntakeHandle>,
}

/// The way into this process' intake.
pub struct IntakeHandle {
    /// Weak: intake has drained when every sender is gone, and this one may not keep it.
    pub queue: mpsc::WeakSender<IntakeItem>,
    /// Name of this daemon.
    pub instance: String,
    /// Runs created by HTTP, the newest last.
    pub created: Mutex<VecDeque<Uuid>>,
}

impl Submitter {
    /// Through these ends.
    pub fn new(targets: SubmitTargets) -> Self {
        Self(Some(Arc::new(targets)))
    }

    /// The answers to commands, from now on.
    pub(super) fn receipts(&self) -> Option<broadcast::Receiver<Arc<str>>> {
        Some(self.0.as_deref()?.receipts.subscribe())
    }

    /// Limits of a message, as they are now.
    pub fn limits(&self) -> Option<watch::Receiver<Limits>> {
        Some(self.0.as_deref()?.limits.clone())
    }

    fn targets(&self) -> Result<&SubmitTargets, ApiError> {
        self.0.as_deref().ok_or_else(|| ApiError::unavailable("nothing can be changed from here"))
    }
}

impl IntakeHandle {
    /// Hands over a message and waits until it is durable; a command, until it is taken.
    async fn submit(&self, channel: &str, payload: Vec<u8>, control: bool) -> Result<(), ApiError> {
        let (answer, taken) = oneshot::channel();
        let frame = Frame {
            channel: channel.into(),
            payload: payload.into(),
            received_at: units::now(),
            received: Instant::now(),
            control,
        };
        let queue = self.queue.upgrade().ok_or_else(|| ApiError::unavailable("the daemon is stopping"))?;
        queue
            .try_send(IntakeItem::FrameWithAck(frame, answer))
            .map_err(|_| ApiError::unavailable("intake has no room; try again"))?;
        // Kept, it would keep intake from draining.
        drop(queue);
        match taken.await {
            Ok(Ack::Durable) => Ok(()),
            Ok(Ack::Rejected(rejection)) => Err(ApiError::bad_request(rejection.to_string())),
            // Not on disk, but obeyed all the same: its receipt says how that went.
            Ok(Ack::NotDurable) if control => Ok(()),
            Ok(Ack::NotDurable) => {
                Err(ApiError::unavailable("received, but the disk does not take it; it may be lost"))
            }
            Err(_) => Err(ApiError::unavailable("the daemon is stopping")),
        }
    }

    fn remember(&self, run_id: Uuid) {
        let mut created = self.created.lock().unwrap_or_else(PoisonError::into_inner);
        created.push_back(run_id);
        if created.len() > CREATED_MAX {
            created.pop_front();
        }
    }

    fn remembers(&self, run_id: Uuid) -> bool {
        self.created.lock().unwrap_or_else(PoisonError::into_inner).contains(&run_id)
    }
}

impl SubmitTargets {
    /// Records a message about a run, and returns once it is durable (or heard, without a pipeline here). Answers the outcome that
    /// the message has as the end of a run.
    async fn message(&self, message: &Value) -> Result<Outcome, ApiError> {
        let payload = message.to_string().into_bytes();
        // Looked at before it is sent: what is wrong with a request is the client's to hear, no dead letter.
        let outcome = wire::decode(&payload, &self.limits.borrow())
            .map_err(|rejection| ApiError::bad_request(rejection.to_string()))?
            .outcome();
        match (&self.intake, &self.training) {
            (Some(intake), channel) => {
                intake.submit(channel.as_deref().unwrap_or(FALLBACK_CHANNEL), payload, false).await?
            }
            (None, Some(channel)) => self.publish(channel, payload).await?,
            (None, None) => {
                return Err(ApiError::unavailable("`redis.training_channels` names no channel without a pattern"));
            }
        }
        Ok(outcome)
    }

    async fn publish(&self, channel: &str, payload: Vec<u8>) -> Result<(), ApiError> {
        let client = self.link.client().ok_or_else(|| ApiError::unavailable("Redis is not connected"))?;
        let listeners: Result<i64, _> = client.publish(channel, Bytes::from(payload)).await;
        match listeners {
            Ok(0) => Err(ApiError::unavailable(format!("nobody listens on `{channel}`"))),
            Ok(_) => Ok(()),
            Err(error) => {
                let error = self.link.acl().explain(&error, Resource::Channel(channel));
                Err(ApiError::unavailable(format!("failed to publish on `{channel}`: {error}")))
            }
        }
    }
}

/// The body as an object; nothing is an empty one.
fn object(body: &Bytes) -> Result<Map<String, Value>, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ApiError::bad_request("the body must be a JSON object")),
        Err(error) => Err(ApiError::bad_request(format!("the body is no JSON: {error}"))),
    }
}

fn body(read: Result<Bytes, axum::extract::rejection::BytesRejection>) -> Result<Bytes, ApiError> {
    read.map_err(|error| ApiError::new(error.status(), format!("{error}; see `http.max_body`")))
}

type Body = Result<Bytes, axum::extract::rejection::BytesRejection>;

/// `POST /api/control`
pub async fn control(State(state): State<ApiState>, Extension(caller): Extension<Caller>, read: Body) -> ApiResult {
    let targets = state.submitter.targets()?;
    let (command, payload) = with_id(&body(read)?, &targets.limits.borrow())?;
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
        return super::json(&receipt);
    }
    let answer = json!({
        "id": id, "command": command.command, "target": command.target, "instance": null, "outcome": null,
        "detail": "sent; no receipt yet", "received_at": render::time(units::now()), "took_ms": null,
    });
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

/// Says what still works when others cannot be reached.
fn with_target_hint(error: ApiError, own_intake: Option<&IntakeHandle>) -> ApiError {
    match own_intake {
        Some(intake) => {
            error.append_detail(&format!("; `\"target\": \"{}\"` commands this daemon alone", intake.instance))
        }
        None => error,
    }
}

/// The command with an id, so that its receipt can be told from others; as bytes, too.
fn with_id(body: &Bytes, limits: &Limits) -> Result<(Command, Vec<u8>), ApiError> {
    let wrong = |rejection: crate::frame::Rejection| ApiError::bad_request(rejection.to_string());
    let mut command = wire::decode_control(body, limits).map_err(wrong)?;
    if command.id.is_some() {
        return Ok((command, body.to_vec()));
    }
    let id = Uuid::new_v4().to_string();
    let mut object: Map<String, Value> = match serde_json::from_str(&command.payload_json) {
        Ok(Value::Object(object)) => object,
        _ => Map::from_iter([("command".to_owned(), command.command.clone().into())]),
    };
    object.insert("id".into(), id.clone().into());
    command.id = Some(id);
    Ok((command, Value::Object(object).to_string().into_bytes()))
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

/// A message as a trainer publishes it.
fn message(kind: &str, run_id: &Value, data: Map<String, Value>) -> Value {
    json!({ "type": kind, "run_id": run_id, "timestamp": render::time(units::now()), "data": data })
}

/// `POST /api/runs`
pub async fn create(State(state): State<ApiState>, Extension(caller): Extension<Caller>, read: Body) -> ApiResult {
    let targets = state.submitter.targets()?;
    let mut data = object(&body(read)?)?;
    let named = ["run_id", "run_name", "name"].into_iter().filter_map(|name| data.remove(name));
    let id = match named.filter(|name| !name.is_null()).collect::<Vec<_>>().as_slice() {
        [] => Value::from(Uuid::new_v4().to_string()),
        // As it is, blanks included: a trainer that publishes the same text means the same run.
        [Value::String(name)] if !name.trim().is_empty() => Value::from(name.as_str()),
        [_] => return Err(ApiError::bad_request("`run_id`, `run_name` or `name` must be text")),
        _ => return Err(ApiError::bad_request("`run_id`, `run_name` and `name` are one: give either")),
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
    let message = message("training_end", &json!(run_id), object(&body(read)?)?);
    let outcome = targets.message(&message).await?;
    targets.record_change(&caller, "complete_run", &json!(run_id));
    super::json(&json!({ "run_id": run_id, "status": outcome.status }))
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
    let data = object(&body(read)?)?;
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
    super::json(&answer)
}

/// A run that there is: in the store, or created here a moment ago. A store that does not answer is no reason to refuse.
async fn require_run(state: &ApiState, targets: &SubmitTargets, run_id: &str) -> Result<Uuid, ApiError> {
    let run_id = uuid(run_id)?;
    let created = targets.intake.as_ref().is_some_and(|intake| intake.remembers(run_id));
    if !created && let Ok(None) = state.store.read_run(run_id).await {
        return Err(ApiError::run_not_found());
    }
    Ok(run_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_that_the_disk_does_not_take_is_obeyed_and_a_message_is_not_promised() {
        let (queue, mut arrivals) = mpsc::channel(1);
        let to = IntakeHandle { queue: queue.downgrade(), instance: "a".into(), created: Mutex::default() };
        let intake = async {
            for _ in 0..2 {
                let Some(IntakeItem::FrameWithAck(_, answer)) = arrivals.recv().await else {
                    panic!("nothing is asked")
                };
                answer.send(Ack::NotDurable).unwrap();
            }
        };
        let asker = async {
            assert!(to.submit(FALLBACK_CHANNEL, b"pause".to_vec(), true).await.is_ok(), "its receipt is waited for");
            assert!(to.submit(FALLBACK_CHANNEL, b"{}".to_vec(), false).await.is_err());
        };
        tokio::join!(intake, asker);
    }
}
