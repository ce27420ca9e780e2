//! Connects, subscribes, confirms it, and keeps since when nothing is received from which channel.

use std::{io, mem, time::Duration};

use tracing::{error, info, warn};

use super::{
    session::{Former, ServerInfo, Session, server_info},
    source::PubSub,
};
use crate::{
    gaps::GapReason,
    logging::Chain,
    redis::{Config, ConnectError, Subscription, open_subscription},
    source::{queue_sender::QueueSender, receive_clock::ReceiveClock},
    units::Micros,
};

/// A running source.
pub(super) struct Subscriber {
    pub(super) source: PubSub,
    pub(super) sender: QueueSender,
    pub(super) clock: ReceiveClock,
    /// Refused channels: name, start of the gap, reason.
    pub(super) refused: Vec<(String, Micros, String)>,
    /// Start and reason of the gap since the last connection.
    pub(super) outage: Option<(Micros, GapReason)>,
    /// The primary before this one.
    pub(super) former: Option<Former>,
    /// The server at the time of the last connect.
    server: Option<ServerInfo>,
}

/// Why a session could not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("failed to ask for INFO")]
    Info(#[source] io::Error),
    #[error("failed to subscribe")]
    Subscribe(#[from] io::Error),
    #[error("Redis refuses every channel: {0}")]
    Refused(String),
}

impl Subscriber {
    pub(super) fn new(source: PubSub, sender: QueueSender) -> Self {
        let clock = ReceiveClock::default();
        Self { source, sender, clock, refused: Vec::new(), outage: None, former: None, server: None }
    }

    /// Reports the stop, and delivers every gap.
    pub(super) async fn finish(mut self) {
        let now = self.clock.now();
        self.source.status.down("stopped".into(), now);
        if let Some((since, reason)) = self.outage {
            self.sender.record_gap(reason, since, now, None);
            self.source.status.set_received_through(now);
        }
        self.sender.finish(Duration::from_secs(2)).await;
    }

    pub(super) fn on_open_error(&mut self, error: &OpenError) {
        self.source.metrics.source_connected.of(self.source.role.as_str()).set(0);
        let text = Chain(error).to_string();
        let now = self.clock.now();
        if self.source.status.down(text.clone(), now) {
            warn!(error = text, "not listening to Redis; trying again");
        }
    }

    /// Connects, subscribes and confirms it.
    pub(super) async fn open(&mut self) -> Result<Session, OpenError> {
        let mut opened = open_subscription(&self.source.redis).await?;
        // Before messages come: behind large ones an answer may be late.
        let server = server_info(&mut opened.subscription).await.map_err(OpenError::Info)?;
        let mut refused = Vec::new();
        for channel in &self.source.channels {
            if let Some(reason) = opened.subscription.subscribe(channel).await? {
                refused.push((channel.clone(), reason.to_string()));
            }
        }
        self.set_refused(refused);
        if self.refused.len() == self.source.channels.len() {
            let reason = self.refused.first().map(|(_, _, reason)| reason.clone());
            return Err(OpenError::Refused(reason.unwrap_or_default()));
        }
        self.on_connect(server);
        Ok(Session::new(opened))
    }

    /// Updates the refused channels. A channel that is allowed again has missed everything until now.
    fn set_refused(&mut self, refused: Vec<(String, String)>) {
        let now = self.clock.now();
        let before = mem::take(&mut self.refused);
        for (channel, since, _) in &before {
            if !refused.iter().any(|(name, _)| name == channel) {
                info!(channel, "Redis allows a channel that it refused before");
                self.sender.record_gap(GapReason::NotListening, *since, now, Some(channel.clone()));
            }
        }
        for (channel, reason) in refused {
            let known = before.iter().find(|(name, ..)| *name == channel).map(|(_, since, _)| *since);
            if known.is_none() {
                error!(channel, reason, "Redis refuses a channel");
            }
            let since = known.or(self.outage.map(|(since, _)| since)).unwrap_or(now);
            self.refused.push((channel, since, reason));
        }
    }

    fn report_up(&mut self) {
        let now = self.clock.now();
        let refused: Vec<_> = self.refused.iter().map(|(name, ..)| name.clone()).collect();
        let error = self.refused.first().map(|(name, _, reason)| format!("`{name}` is refused: {reason}"));
        self.source.status.up(&refused, error, now);
    }

    fn on_connect(&mut self, server: ServerInfo) {
        if let Some((since, reason)) = self.outage.take() {
            let cut = reason == GapReason::Disconnected
                && self.server.as_ref().is_some_and(|before| before.evicted_client(&server));
            let reason = if cut { GapReason::CutByRedis } else { reason };
            let now = self.clock.now();
            self.sender.record_gap(reason, since, now, None);
            let missing_ms = (now - since) / 1_000;
            warn!(%reason, missing_ms, "listening again; what was published meanwhile is missed");
        } else {
            info!(channels = self.source.channels.len() - self.refused.len(), "listening to Redis");
        }
        self.server = Some(server);
        let now = self.clock.now();
        self.source.status.set_received_through(now);
        self.report_up();
        self.source.metrics.source_connected.of(self.source.role.as_str()).set(1);
        self.source.metrics.source_connects.of(self.source.role.as_str()).inc();
    }

    /// Subscribes to what is no longer refused, on the connection in use.
    pub(super) async fn subscribe_allowed(
        &mut self,
        subscription: &mut Subscription,
        still_refused: Vec<(String, String)>,
    ) -> Result<(), OpenError> {
        for (channel, ..) in &self.refused {
            let allowed = !still_refused.iter().any(|(name, _)| name == channel);
            if allowed && let Some(reason) = subscription.subscribe(channel).await? {
                return Err(OpenError::Refused(reason.to_string()));
            }
        }
        self.set_refused(still_refused);
        self.report_up();
        Ok(())
    }
}

/// Tries the refused channels on a connection of their own. Returns those that are still refused.
pub(super) async fn retry_refused(redis: Config, mut refused: Vec<(String, String)>) -> Vec<(String, String)> {
    if let Ok(mut opened) = open_subscription(&redis).await {
        let mut still_refused = Vec::new();
        for (channel, reason) in &refused {
            match opened.subscription.subscribe(channel).await {
                Ok(None) => {}
                Ok(Some(reason)) => still_refused.push((channel.clone(), reason.to_string())),
                Err(_) => still_refused.push((channel.clone(), reason.clone())),
            }
        }
        refused = still_refused;
    }
    refused
}
