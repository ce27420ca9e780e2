//! Redis Pub/Sub: subscribes, confirms it, receives, and reports every gap.
//!
//! A session is one connection, whose subscriptions are confirmed. Refused channels are tried again on a connection of their own.

mod receive_clock;
mod session;

use std::{convert::Infallible, sync::Arc, time::Duration};

use fred::interfaces::EventInterface;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use self::{
    receive_clock::ReceiveClock,
    session::{End, Session},
};
use super::{
    queue::{Queue, QueueSender},
    receive_thread::TrafficFlag,
    status::SourceStatus,
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
/// Commands are few, and what is only told may be missed: their buffer needs no 32,768 places.
const SMALL_BUFFER_CAPACITY: usize = 1_024;
/// How often a refused channel is tried again.
const RETRY_REFUSED: Duration = Duration::from_secs(2);

/// One source with its own connection and its own channels.
pub struct Source {
    name: &'static str,
    redis: Config,
    acl: Acl,
    channels: Vec<String>,
    /// Of our own channels the one that is read, if any.
    ack_channel: Option<String>,
    buffer_capacity: usize,
    control: bool,
    sender: QueueSender,
    status: SourceStatus,
    metrics: Arc<Metrics>,
    clock: ReceiveClock,
    traffic: TrafficFlag,
    /// Refused channels, since when nothing is received from each, and why.
    refused: Vec<(String, Micros, String)>,
    /// Since when nothing is received after it once was, and by whose doing.
    outage: Option<(Micros, GapReason)>,
    /// What is known of the server's habit of cutting off slow readers.
    server: Option<session::ServerInfo>,
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
        Self { buffer_capacity: config.receive_buffer, ..source }
    }

    /// The source of commands, on a connection of its own.
    pub fn control(config: &Config, queue: Queue, status: SourceStatus, metrics: Arc<Metrics>) -> Self {
        Self::new(CONTROL, config, config.control_channels.clone(), queue, status, metrics)
    }

    /// For a process that only passes on what it receives: training messages, and the answers of daemons to commands.
    pub fn listener(config: &Config, queue: Queue, status: SourceStatus, metrics: Arc<Metrics>) -> Self {
        let mut channels = config.training_channels.clone();
        // A pattern may bring them already.
        if !channels.iter().any(|channel| overlap(channel, &config.ack_channel())) {
            channels.push(config.ack_channel());
        }
        let source = Self::new(TRAINING, config, channels, queue, status, metrics);
        Self { ack_channel: Some(config.ack_channel()), ..source }
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
        let mut clock = ReceiveClock::default();
        status.register(name, &channels, clock.now());
        Self {
            name,
            channels,
            ack_channel: None,
            buffer_capacity: SMALL_BUFFER_CAPACITY.min(config.receive_buffer),
            control,
            // The contract's names of places where something is missed.
            sender: QueueSender::new(queue, if control { "control" } else { "redis" }, Arc::clone(&metrics)),
            redis: config.clone(),
            acl: Acl::of(config),
            status,
            metrics,
            clock,
            traffic: TrafficFlag::default(),
            refused: Vec::new(),
            outage: None,
            server: None,
        }
    }

    /// Whether a channel is one of ours that is not to be read.
    fn is_ignored(&self, channel: &str) -> bool {
        self.redis.is_own_channel(channel) && self.ack_channel.as_deref() != Some(channel)
    }

    /// Whom to tell that messages flow.
    pub(super) fn set_traffic_flag(&mut self, traffic: TrafficFlag) {
        self.traffic = traffic;
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
                    self.on_open_error(&error);
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
            let _ = self.sender.flush_gaps(Instant::now());
            tokio::select! {
                biased;
                () = stop.stopped() => break,
                () = sleep(delay) => {}
            }
        }
        let now = self.clock.now();
        self.status.down(self.name, "stopped".into(), now);
        if let Some((since, reason)) = self.outage {
            self.sender.record_gap(reason, (since, now), None);
            self.status.set_received_through(self.name, now);
        }
        self.sender.finish(Duration::from_secs(2)).await;
        Ok(())
    }

    fn on_open_error(&mut self, error: &OpenError) {
        self.metrics.source_connected.get_or_create(&Label::of(self.name)).set(0);
        let text = Chain(error).to_string();
        let now = self.clock.now();
        if self.status.down(self.name, text.clone(), now) {
            warn!(source = self.name, error = text, "not listening to Redis; trying again");
        }
    }

    /// Connects, subscribes and confirms it.
    async fn open(&mut self) -> Result<Session, OpenError> {
        let connected = connect(&self.redis, Role::Subscriber(self.buffer_capacity)).await?;
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
        let server = session::server_info(&connected.client, &self.acl).await;
        self.on_connect(server);
        Ok(Session::new(connected, messages))
    }

    /// Notes which channels are refused now. From one that no longer is nothing was received until now.
    fn set_refused(&mut self, refused: Vec<(String, String)>) {
        let now = self.clock.now();
        let before = std::mem::take(&mut self.refused);
        for (channel, since, _) in &before {
            if !refused.iter().any(|(name, _)| name == channel) {
                info!(source = self.name, channel, "Redis allows a channel that it refused before");
                self.sender.record_gap(GapReason::NotListening, (*since, now), Some(channel.clone()));
            }
        }
        for (channel, reason) in refused {
            let known = before.iter().find(|(name, ..)| *name == channel).map(|(_, since, _)| *since);
            if known.is_none() {
                error!(source = self.name, channel, reason, "Redis refuses a channel");
            }
            let since = known.or(self.outage.map(|(since, _)| since)).unwrap_or(now);
            self.refused.push((channel, since, reason));
        }
    }

    fn report_up(&mut self) {
        let now = self.clock.now();
        let refused: Vec<_> = self.refused.iter().map(|(name, ..)| name.clone()).collect();
        let error = self.refused.first().map(|(name, _, reason)| format!("`{name}` is refused: {reason}"));
        self.status.up(self.name, &refused, error, now);
    }

    fn on_connect(&mut self, server: session::ServerInfo) {
        if let Some((since, reason)) = self.outage.take() {
            let cut = reason == GapReason::Disconnected
                && self.server.as_ref().is_some_and(|before| before.evicted_client(&server));
            let reason = if cut { GapReason::CutByRedis } else { reason };
            let now = self.clock.now();
            self.sender.record_gap(reason, (since, now), None);
            let missing_ms = (now - since) / 1_000;
            warn!(source = self.name, %reason, missing_ms, "listening again; what was published meanwhile is missed");
        } else {
            info!(source = self.name, channels = self.channels.len() - self.refused.len(), "listening to Redis");
        }
        self.server = Some(server);
        let now = self.clock.now();
        self.status.set_received_through(self.name, now);
        self.report_up();
        self.metrics.source_connected.get_or_create(&Label::of(self.name)).set(1);
        self.metrics.source_connects.get_or_create(&Label::of(self.name)).inc();
    }

    /// Tries the refused channels on a connection of their own. Returns those that are still refused.
    async fn retry_refused(redis: Config, mut refused: Vec<(String, String)>) -> Vec<(String, String)> {
        if let Ok(connected) = connect(&redis, Role::Commands).await {
            let mut still_refused = Vec::new();
            for (channel, reason) in &refused {
                match subscribe(&connected.client, channel, &redis).await {
                    Ok(None) => {}
                    Ok(Some(reason)) => still_refused.push((channel.clone(), reason.to_string())),
                    Err(_) => still_refused.push((channel.clone(), reason.clone())),
                }
            }
            refused = still_refused;
        }
        refused
    }

    /// Subscribes to what is no longer refused, on the connection in use.
    async fn subscribe_allowed(
        &mut self,
        session: &Session,
        still_refused: Vec<(String, String)>,
    ) -> Result<(), OpenError> {
        for (channel, ..) in &self.refused {
            let allowed = !still_refused.iter().any(|(name, _)| name == channel);
            if allowed && let Some(reason) = subscribe(&session.connected.client, channel, &self.redis).await? {
                return Err(OpenError::Refused(reason.to_string()));
            }
        }
        self.set_refused(still_refused);
        self.report_up();
        Ok(())
    }
}
