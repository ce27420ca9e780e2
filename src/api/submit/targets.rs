//! Where a change goes: into intake's queue, or onto a Redis channel.

use std::sync::Arc;

use bytes::Bytes;
use fred::interfaces::PubsubInterface;
use serde_json::Value;
use tokio::sync::{broadcast, watch};

use super::intake_handle::IntakeHandle;
use crate::{
    api::error::ApiError,
    redis::{Link, Resource},
    wire::{self, Limits, Outcome},
};

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

impl Submitter {
    /// Through these ends.
    pub fn new(targets: SubmitTargets) -> Self {
        Self(Some(Arc::new(targets)))
    }

    /// The answers to commands, from now on.
    pub fn receipts(&self) -> Option<broadcast::Receiver<Arc<str>>> {
        Some(self.0.as_deref()?.receipts.subscribe())
    }

    /// Limits of a message, as they are now.
    pub fn limits(&self) -> Option<watch::Receiver<Limits>> {
        Some(self.0.as_deref()?.limits.clone())
    }

    /// The targets.
    ///
    /// # Errors
    /// 503 in a process that can change nothing.
    pub fn targets(&self) -> Result<&SubmitTargets, ApiError> {
        self.0.as_deref().ok_or_else(|| ApiError::unavailable("nothing can be changed from here"))
    }
}

impl SubmitTargets {
    /// Records a message about a run, and returns once it is durable (or heard, without a pipeline here). Answers the outcome that
    /// the message has as the end of a run.
    pub async fn message(&self, message: &Value) -> Result<Outcome, ApiError> {
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

    /// Publishes on a channel that somebody listens on.
    pub async fn publish(&self, channel: &str, payload: Vec<u8>) -> Result<(), ApiError> {
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
