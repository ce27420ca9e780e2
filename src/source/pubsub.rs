//! Redis Pub/Sub: subscribes, proves it, receives, and reports every hole.
//!
//! A session is one connection. SUBSCRIBE is answered by a push that the client library swallows, or by an error that it hands
//! to the next command; so each SUBSCRIBE is followed by a PING with a text of its own, on the same connection: that text back
//! means that Redis has taken the SUBSCRIBE before it. A refusal leaves a stray reply behind, which would shift all later ones:
//! the connection is made anew without the refused channels, and those are tried again on connections of their own.

mod session;
mod stamp;

use std::{convert::Infallible, sync::Arc, time::Duration};

use fred::{
    error::Error as RedisError,
    interfaces::{ClientLike, EventInterface, PubsubInterface},
};
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use self::{
    session::{End, Session},
    stamp::Stamper,
};
use super::{
    queue::{Delivery, Queue},
    status::SourceStatus,
};
use crate::{
    frame::GapReason,
    lifecycle::Signal,
    logging::Chain,
    metrics::{Label, Metrics},
    redis::{Config, ConnectError, Connected, Retry, Role, connect, is_pattern},
    units::Micros,
};

/// The name of the source of training messages.
pub const TRAINING: &str = "training";
/// The name of the source of commands.
pub const CONTROL: &str = "control";
/// Commands are few; their ring needs no 16,384 places.
const CONTROL_RING: usize = 1_024;
/// How often a refused channel is tried again.
const RETRY_REFUSED: Duration = Duration::from_secs(2);

/// One source with its own connection and its own channels.
pub struct Source {
    name: &'static str,
    redis: Config,
    channels: Vec<String>,
    ring: usize,
    control: bool,
    delivery: Delivery,
    status: SourceStatus,
    metrics: Arc<Metrics>,
    stamper: Stamper,
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
    #[error("failed to subscribe")]
    Subscribe(#[source] RedisError),
    #[error("Redis refuses every channel ({0}); allow them with ACL SETUSER")]
    Refused(String),
    #[error("Redis confirms {found} subscriptions instead of {expected}")]
    Unproven { expected: u64, found: u64 },
}

impl Source {
    /// The source of training messages.
    pub fn training(config: &Config, queue: Queue, status: SourceStatus, metrics: Arc<Metrics>) -> Self {
        Self::new(TRAINING, config, queue, status, metrics)
    }

    /// The source of commands, on a connection of its own.
    pub fn control(config: &Config, queue: Queue, status: SourceStatus, metrics: Arc<Metrics>) -> Self {
        Self::new(CONTROL, config, queue, status, metrics)
    }

    fn new(name: &'static str, config: &Config, queue: Queue, status: SourceStatus, metrics: Arc<Metrics>) -> Self {
        let control = name == CONTROL;
        let channels = if control { &config.control_channels } else { &config.training_channels };
        let mut stamper = Stamper::default();
        status.register(name, channels, stamper.now());
        Self {
            name,
            channels: channels.clone(),
            ring: if control { CONTROL_RING.min(config.receive_buffer) } else { config.receive_buffer },
            control,
            // The contract's names of places where something is missed.
            delivery: Delivery::new(queue, if control { "control" } else { "redis" }, Arc::clone(&metrics)),
            redis: config.clone(),
            status,
            metrics,
            stamper,
            refused: Vec::new(),
            lost: None,
            server: None,
        }
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
                        End::Again => Duration::ZERO,
                        End::Lost => retry.next_delay(None),
                    }
                }
                Err(error) => {
                    self.failed(&error);
                    match &error {
                        OpenError::Connect(connect) => retry.next_delay(Some(connect)),
                        OpenError::Refused(_) => Duration::from_secs(1),
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
            self.delivery.hole(reason, (since, now), None, None);
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
        loop {
            let connected = connect(&self.redis, Role::Subscriber(self.ring)).await?;
            let wanted: Vec<_> = self.channels.iter().filter(|name| !self.is_refused(name)).cloned().collect();
            if wanted.is_empty() {
                // Every channel was refused before; all are tried again.
                let reason = self.refused.first().map(|(_, _, reason)| reason.clone()).unwrap_or_default();
                let since = self.refused.iter().map(|(_, since, _)| *since).min();
                self.refused.clear();
                self.lost =
                    self.lost.or(since.filter(|_| self.status_was_proven()).map(|at| (at, GapReason::Disconnected)));
                return Err(OpenError::Refused(reason));
            }
            let messages = connected.client.message_rx();
            let mut refusals = Vec::new();
            for channel in &wanted {
                if let Some(reason) = subscribe(&connected, channel).await? {
                    refusals.push((channel.clone(), reason));
                    // The stray reply makes the rest of this connection unreliable.
                    break;
                }
            }
            if refusals.is_empty() {
                let server = session::prove(&connected.client, &wanted).await?;
                return Ok(self.opened(Session::new(connected, messages), server).await);
            }
            let since = self.lost.map_or_else(|| self.stamper.now(), |(since, _)| since);
            for (channel, reason) in refusals {
                error!(source = self.name, channel, reason, "Redis refuses a channel; allow it with ACL SETUSER");
                self.refused.push((channel, since, reason));
            }
        }
    }

    fn is_refused(&self, channel: &str) -> bool {
        self.refused.iter().any(|(name, ..)| name == channel)
    }

    fn status_was_proven(&self) -> bool {
        self.status.connections().iter().any(|connection| connection.name == self.name && connection.connects > 0)
    }

    async fn opened(&mut self, session: Session, server: session::Server) -> Session {
        let now = self.stamper.now();
        if let Some((since, reason)) = self.lost.take() {
            let cut = reason == GapReason::Disconnected
                && self.server.as_ref().is_some_and(|before| before.has_cut_us_off(&server));
            let reason = if cut { GapReason::CutByRedis } else { reason };
            self.delivery.hole(reason, (since, now), None, None);
            warn!(source = self.name, %reason, missing_ms = (now - since) / 1_000, "listening again; what was published meanwhile is missed");
        } else {
            info!(source = self.name, channels = self.channels.len() - self.refused.len(), "listening to Redis");
        }
        self.server = Some(server);
        let refused: Vec<_> = self.refused.iter().map(|(name, ..)| name.clone()).collect();
        let error = self.refused.first().map(|(name, _, reason)| format!("`{name}` is refused: {reason}"));
        self.status.up(self.name, &refused, error, now);
        self.metrics.source_connected.get_or_create(&Label::of(self.name)).set(1);
        self.metrics.source_connects.get_or_create(&Label::of(self.name)).inc();
        session
    }

    /// Tries the refused channels on a connection of their own. Returns those that are allowed now.
    async fn retry_refused(redis: Config, refused: Vec<String>) -> Vec<String> {
        let mut allowed = Vec::new();
        for channel in refused {
            let Ok(connected) = connect(&redis, Role::Commands).await else { break };
            if matches!(subscribe(&connected, &channel).await, Ok(None)) {
                allowed.push(channel);
            }
        }
        allowed
    }

    /// A channel that was refused is heard from now on.
    fn allowed(&mut self, channel: &str) {
        let now = self.stamper.now();
        if let Some(at) = self.refused.iter().position(|(name, ..)| name == channel) {
            let (channel, since, _) = self.refused.swap_remove(at);
            info!(source = self.name, channel, "Redis allows a channel that it refused before");
            self.delivery.hole(GapReason::NotListening, (since, now), Some(channel), None);
        }
        let refused: Vec<_> = self.refused.iter().map(|(name, ..)| name.clone()).collect();
        let error = self.refused.first().map(|(name, _, reason)| format!("`{name}` is refused: {reason}"));
        self.status.up(self.name, &refused, error, now);
    }
}

/// Subscribes to one channel and waits until Redis has taken it. `Some`: it is refused, and why.
async fn subscribe(connected: &Connected, channel: &str) -> Result<Option<String>, OpenError> {
    let client = &connected.client;
    let sent = if is_pattern(channel) { client.psubscribe(channel).await } else { client.subscribe(channel).await };
    sent.map_err(OpenError::Subscribe)?;
    let text = format!("subscribed {channel}");
    match client.ping::<String>(Some(text.clone())).await {
        Ok(answer) if answer == text => Ok(None),
        Ok(_) => Ok(Some("the answers of Redis are out of step".into())),
        Err(error) if error.details().contains("NOPERM") => Ok(Some(error.details().to_owned())),
        Err(error) => Err(OpenError::Subscribe(error)),
    }
}
