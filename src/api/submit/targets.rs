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

/// Channel of messages by HTTP if no channel without a pattern is configured.
pub const FALLBACK_CHANNEL: &str = "http";

/// Submits requests that change something.
#[derive(Clone, Default)]
pub struct Submitter(Option<Arc<SubmitTargets>>);

/// The targets of a [`Submitter`].
pub struct SubmitTargets {
    /// Channel of messages about runs: the first training channel that is no pattern.
    pub training: Option<String>,
    /// Channel of commands, likewise.
    pub control: Option<String>,
    /// The connection to publish with.
    pub link: Link,
    /// Limits of a message, as intake applies them.
    pub limits: watch::Receiver<Limits>,
    /// Receipts of commands that this process receives.
    pub receipts: broadcast::Sender<Arc<str>>,
    /// Intake of this process, if it has a pipeline.
    pub intake: Option<IntakeHandle>,
}

impl Submitter {
    /// A submitter to these targets.
    pub fn new(targets: SubmitTargets) -> Self {
        Self(Some(Arc::new(targets)))
    }

    /// Receipts of commands from now on.
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
        self.0.as_deref().ok_or_else(|| ApiError::unavailable("this process takes no changes"))
    }
}

impl SubmitTargets {
    /// Submits a message about a run, and returns once it is durable, or, without a pipeline, published. Returns the outcome that
    /// the message has as the end of a run.
    pub async fn message(&self, message: &Value) -> Result<Outcome, ApiError> {
        let payload = message.to_string().into_bytes();
        // Decoded before it is sent: an invalid request is answered with 400, and makes no dead letter.
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

    /// Publishes on a channel.
    ///
    /// # Errors
    /// 503 without a subscriber, or while Redis is not connected.
    pub async fn publish(&self, channel: &str, payload: Vec<u8>) -> Result<(), ApiError> {
        let client = self.link.client().ok_or_else(|| ApiError::unavailable("Redis is not connected"))?;
        let listeners: Result<i64, _> = client.publish(channel, Bytes::from(payload)).await;
        match listeners {
            Ok(0) => Err(ApiError::unavailable(format!("`{channel}` has no subscriber"))),
            Ok(_) => Ok(()),
            Err(error) => {
                let error = self.link.acl().explain(&error, Resource::Channel(channel));
                Err(ApiError::unavailable(format!("failed to publish on `{channel}`: {error}")))
            }
        }
    }
}
