//! Redis Pub/Sub: subscribes, proves it, receives, and reports every hole.
//!
//! A session is one connection, whose subscriptions are proven. Refused channels are tried again on a connection of their own.

mod session;
mod stamp;

use std::{convert::Infallible, sync::Arc, time::Duration};

use fred::interfaces::EventInterface;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use self::{
    session::{End, Session},
    stamp::Stamper,
};
use super::{
    queue::{Delivery, Queue},
    status::SourceStatus,
    strokes::Flow,
};
use crate::{
    frame::GapReason,
    lifecycle::Signal,
    logging::Chain,
    metrics::{Label, Metrics},
    redis::{Acl, Config, ConnectError, Retry, Role, SubscribeError, connect, overlap, subscribe},
    units::Micros,
};

/// The name of the source of training messages.
pub const TRAINING: &str = "training";
/// The name of the source of commands.
pub const CONTROL: &str = "control";
/// Commands are few, and what is only told may be missed: their ring needs no 32,768 places.
const SMALL_RING: usize = 1_024;
/// How often a refused channel is tried again.
const RETRY_REFUSED: Duration = Duration::from_secs(2);

/// One source with its own connection and its own channels.
pub struct Source {
    name: &'static str,
    redis: Config,
    acl: Acl,
    channels: Vec<String>,
    /// Of our own channels the one that is read, if any.
    own: Option<String>,
    ring: usize,
    control: bool,
    delivery: Delivery,
    status: SourceStatus,
    metrics: Arc<Metrics>,
    stamper: Stamper,
    flow: Flow,
    /// Refused channels, since when each of them is not heard, and why.
    refused: Vec<(String, Micros, String)>,
    /// Since when nothing is heard after it once was, and by whose doing.
    lost: Option<(Micros, GapReason)>,
    /// What is known of the server's habit of cutting off slow readers.
    server: Option<session::Server>,
}

/// Why a session could not begin.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    #[error("Redis refuses every channel: {0}")]
    Refused(String),
}

impl Source {
    /// The source of training messages.
    pub fn training(config: &Config, queue: Queue, status: SourceStatus, metrics: Arc<Metrics>) -> Self {
        let channels = config.training_channels.clone();
        let source = Self::new(TRAINING, config, channels, queue, status, metrics);
        Self { ring: config.receive_buffer, ..source }
    }

    /// The source of commands, on a connection of its own.
    pub fn control(config: &Config, queue: Queue, status: SourceStatus, metrics: Arc<Metrics>) -> Self {
        Self::new(CONTROL, config, config.control_channels.clone(), queue, status, metrics)
    }

    /// For a process that only tells what it hears: training messages, and the answers of daemons to commands.
    pub fn listener(config: &Config, queue: Queue, status: SourceStatus, metrics: Arc<Metrics>) -> Self {
        let mut channels = config.training_channels.clone();
        // A pattern may bring them already.
        if !channels.iter().any(|channel| overlap(channel, &config.ack_channel())) {
            channels.push(config.ack_channel());
        }
        let source = Self::new(TRAINING, config, channels, queue, status, metrics);
        Self { own: Some(config.ack_channel()), ..source }
    }

    fn new(
        name: &'static str,
        config: &Config,
        channels: Vec<String>,
        queue: Queue,
        status: SourceStatus,
        metrics: Arc<Metrics>,
    ) -> Self {
        let control = name == CONTROL;
        let mut stamper = Stamper::default();
        status.register(name, &channels, stamper.now());
        Self {
            name,
            channels,
            own: None,
            ring: SMALL_RING.min(config.receive_buffer),
            control,
            // The contract's names of places where something is missed.
            delivery: Delivery::new(queue, if control { "control" } else { "redis" }, Arc::clone(&metrics)),
            redis: config.clone(),
            acl: Acl::of(config),
            status,
            metrics,
            stamper,
            flow: Flow::default(),
            refused: Vec::new(),
            lost: None,
            server: None,
        }
    }

    /// Whether a channel is one of ours that is not to be read.
    fn is_unread(&self, channel: &str) -> bool {
        self.redis.is_own_channel(channel) && self.own.as_deref() != Some(channel)
    }

    /// Whom to tell that messages flow.
    pub(super) fn set_flow(&mut self, flow: Flow) {
        self.flow = flow;
    }

    /// Receives until told to stop, or until intake is gone.
    ///
    /// # Errors
    /// None: whatever Redis does, it keeps trying.
    pub async fn run(mut self, mut stop: Signal) -> Result<(), Infallible> {
        if self.channels.is_empty() {
            stop.stopped().await;
            return Ok(());
        }
        let mut retry = Retry::default();
        loop {
            let opened = tokio::select! {
                biased;
                () = stop.stopped() => break,
                opened = self.open() => opened,
            };
            let delay = match opened {
                Ok(session) => {
                    retry.reset();
                    match Box::pin(self.receive(session, &mut stop)).await {
                        End::Stopped => break,
                        End::Lost => retry.next_delay(None),
                    }
                }
                Err(error) => {
                    self.failed(&error);
                    match &error {
                        OpenError::Connect(connect) => retry.next_delay(Some(connect)),
                        OpenError::Refused(_) | OpenError::Subscribe(SubscribeError::Forbidden(_)) => {
                            Duration::from_secs(1)
                        }
                        _ => retry.next_delay(None),
                    }
                }
            };
            // A closed queue is seen at the next frame.
            let _ = self.delivery.tell(Instant::now());
            tokio::select! {
                biased;
                () = stop.stopped() => break,
                () = sleep(delay) => {}
            }
        }
        let now = self.stamper.now();
        self.status.down(self.name, "stopped".into(), now);
        if let Some((since, reason)) = self.lost {
            self.delivery.hole(reason, (since, now), None);
            self.status.heard(self.name, now);
        }
        self.delivery.finish(Duration::from_secs(2)).await;
        Ok(())
    }

    fn failed(&mut self, error: &OpenError) {
        self.metrics.source_connected.get_or_create(&Label::of(self.name)).set(0);
        let text = Chain(error).to_string();
        let now = self.stamper.now();
        if self.status.down(self.name, text.clone(), now) {
            warn!(source = self.name, error = text, "not listening to Redis; trying again");
        }
    }

    /// Connects, subscribes and proves it.
    async fn open(&mut self) -> Result<Session, OpenError> {
        let connected = connect(&self.redis, Role::Subscriber(self.ring)).await?;
        let messages = connected.client.message_rx();
        let mut refused = Vec::new();
        for channel in &self.channels {
            if let Some(reason) = subscribe(&connected.client, channel, &self.redis).await? {
                refused.push((channel.clone(), reason.to_string()));
            }
        }
        self.set_refused(refused);
        if self.refused.len() == self.channels.len() {
            let reason = self.refused.first().map(|(_, _, reason)| reason.clone());
            return Err(OpenError::Refused(reason.unwrap_or_default()));
        }
        let server = session::ask_server(&connected.client, &self.acl).await;
        self.opened(server);
        Ok(Session::new(connected, messages))
    }

    /// Notes which channels are refused now. One that no longer is was not heard until now.
    fn set_refused(&mut self, refused: Vec<(String, String)>) {
        let now = self.stamper.now();
        let before = std::mem::take(&mut self.refused);
        for (channel, since, _) in &before {
            if !refused.iter().any(|(name, _)| name == channel) {
                info!(source = self.name, channel, "Redis allows a channel that it refused before");
                self.delivery.hole(GapReason::NotListening, (*since, now), Some(channel.clone()));
            }
        }
        for (channel, reason) in refused {
            let known = before.iter().find(|(name, ..)| *name == channel).map(|(_, since, _)| *since);
            if known.is_none() {
                error!(source = self.name, channel, reason, "Redis refuses a channel");
            }
            let since = known.or(self.lost.map(|(since, _)| since)).unwrap_or(now);
            self.refused.push((channel, since, reason));
        }
    }

    fn report_up(&mut self) {
        let now = self.stamper.now();
        let refused: Vec<_> = self.refused.iter().map(|(name, ..)| name.clone()).collect();
        let error = self.refused.first().map(|(name, _, reason)| format!("`{name}` is refused: {reason}"));
        self.status.up(self.name, &refused, error, now);
    }

    fn opened(&mut self, server: session::Server) {
        if let Some((since, reason)) = self.lost.take() {
            let cut = reason == GapReason::Disconnected
                && self.server.as_ref().is_some_and(|before| before.has_cut_us_off(&server));
            let reason = if cut { GapReason::CutByRedis } else { reason };
            let now = self.stamper.now();
            self.delivery.hole(reason, (since, now), None);
            let missing_ms = (now - since) / 1_000;
            warn!(source = self.name, %reason, missing_ms, "listening again; what was published meanwhile is missed");
        } else {
            info!(source = self.name, channels = self.channels.len() - self.refused.len(), "listening to Redis");
        }
        self.server = Some(server);
        let now = self.stamper.now();
        self.status.heard(self.name, now);
        self.report_up();
        self.metrics.source_connected.get_or_create(&Label::of(self.name)).set(1);
        self.metrics.source_connects.get_or_create(&Label::of(self.name)).inc();
    }

    /// Tries the refused channels on a connection of their own. Returns those that are still refused.
    async fn retry_refused(redis: Config, mut refused: Vec<(String, String)>) -> Vec<(String, String)> {
        if let Ok(connected) = connect(&redis, Role::Commands).await {
            let mut still = Vec::new();
            for (channel, reason) in &refused {
                match subscribe(&connected.client, channel, &redis).await {
                    Ok(None) => {}
                    Ok(Some(reason)) => still.push((channel.clone(), reason.to_string())),
                    Err(_) => still.push((channel.clone(), reason.clone())),
                }
            }
            refused = still;
        }
        refused
    }

    /// Subscribes to what is no longer refused, on the connection in use.
    async fn take_allowed(&mut self, session: &Session, still: Vec<(String, String)>) -> Result<(), OpenError> {
        for (channel, ..) in &self.refused {
            let allowed = !still.iter().any(|(name, _)| name == channel);
            if allowed && let Some(reason) = subscribe(&session.connected.client, channel, &self.redis).await? {
                return Err(OpenError::Refused(reason.to_string()));
            }
        }
        self.set_refused(still);
        self.report_up();
        Ok(())
    }
}
