//! One connection's life: proven, receiving, lost.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fred::{
    clients::Client,
    interfaces::{ClientInterface, ClientLike},
    types::{InfoKind, Message},
};
use tokio::{
    sync::broadcast::{
        Receiver,
        error::{RecvError, TryRecvError},
    },
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tracing::warn;

use super::{OpenError, RETRY_REFUSED, Source};
use crate::{
    frame::{Frame, GapReason},
    lifecycle::Signal,
    metrics::Label,
    redis::{Connected, is_pattern},
    units::Micros,
};

/// How often a connection is proven.
const PING: Duration = Duration::from_secs(1);
/// Silence after which a connection counts as lost.
const SILENCE: Duration = Duration::from_secs(3);
/// Messages in one round from which on we sleep instead of being woken for each: below it, latency counts, above it, CPU.
const BUSY: usize = 4;
/// How long.
const NAP: Duration = Duration::from_millis(1);
/// Messages taken before others on this thread have their turn.
const ROUND: usize = 2_048;
/// Channel names kept, for patterns that match many.
const NAMES_MAX: usize = 1_024;

/// How a session ended.
pub(super) enum End {
    /// We were asked to stop, or intake is gone.
    Stopped,
    /// The connection is made anew at once.
    Again,
    /// The connection is gone.
    Lost,
}

/// A proven connection.
pub(super) struct Session {
    connected: Connected,
    messages: Receiver<Message>,
    names: Vec<Arc<str>>,
}

/// What a server says about itself, to tell why it closed a connection.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Server {
    run_id: String,
    cut_off: Option<u64>,
}

impl Server {
    fn read(info: &str) -> Self {
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        Self {
            run_id: field("run_id").unwrap_or_default().to_owned(),
            cut_off: field("client_output_buffer_limit_disconnections").and_then(|n| n.parse().ok()),
        }
    }

    /// Whether the same server, seen again, has closed a connection meanwhile because its output buffer was full. Servers
    /// that do not count that leave it open.
    pub(super) fn has_cut_us_off(&self, now: &Self) -> bool {
        self.run_id == now.run_id && self.cut_off.zip(now.cut_off).is_some_and(|(before, now)| now > before)
    }
}

/// Asks Redis how many subscriptions this connection has. Where it may not be asked, the answered pings are the proof.
pub(super) async fn prove(client: &Client, channels: &[String]) -> Result<Server, OpenError> {
    if let Ok(info) = client.client_info::<String>().await {
        let count = |name: &str| {
            let value = info.split_ascii_whitespace().find_map(|field| field.strip_prefix(name));
            value.and_then(|value| value.parse::<u64>().ok())
        };
        if let (Some(plain), Some(patterns)) = (count("sub="), count("psub=")) {
            let patterns_expected = channels.iter().filter(|name| is_pattern(name)).count();
            let expected = (channels.len() - patterns_expected, patterns_expected);
            if (plain, patterns) != (expected.0 as u64, expected.1 as u64) {
                return Err(OpenError::Unproven { expected: channels.len() as u64, found: plain + patterns });
            }
        }
    }
    let mut info = client.info::<String>(Some(InfoKind::Server)).await.unwrap_or_default();
    info.push_str(&client.info::<String>(Some(InfoKind::Stats)).await.unwrap_or_default());
    Ok(Server::read(&info))
}

impl Session {
    pub(super) fn new(connected: Connected, messages: Receiver<Message>) -> Self {
        Self { connected, messages, names: Vec::new() }
    }

    /// The channel's shared name; most messages come on few channels.
    fn name(&mut self, channel: &str) -> Arc<str> {
        if let Some(at) = self.names.iter().position(|name| **name == *channel) {
            if at > 0 {
                self.names.swap(0, at);
            }
            return Arc::clone(&self.names[0]);
        }
        if self.names.len() >= NAMES_MAX {
            self.names.clear();
        }
        let name: Arc<str> = channel.into();
        self.names.insert(0, Arc::clone(&name));
        name
    }
}

impl Source {
    /// Receives until the connection is gone. Afterwards `lost` says since when.
    pub(super) async fn receive(&mut self, mut session: Session, stop: &mut Signal) -> End {
        let mut proven = (self.stamper.now(), Instant::now());
        let mut pings = interval(PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let client = session.connected.client.clone();
        let mut refused_next = Instant::now() + RETRY_REFUSED;
        let mut nap = false;
        let mut pong = None;
        let mut probe = None;
        loop {
            if nap {
                sleep(NAP).await;
            }
            let first = tokio::select! {
                biased;
                () = stop.stopped() => {
                    let _ = self.drain(&mut session, None);
                    return End::Stopped;
                }
                answered = wait(&mut pong) => {
                    pong = None;
                    if let Some(asked) = answered {
                        proven = latest(proven, asked);
                    }
                    continue;
                }
                allowed = wait(&mut probe) => {
                    probe = None;
                    if self.take_allowed(allowed) {
                        // The current connection is given up for one that has all channels: a hole of a round trip.
                        let _ = self.drain(&mut session, None);
                        self.lost = Some((self.stamper.now(), GapReason::Disconnected));
                        return End::Again;
                    }
                    continue;
                }
                now = pings.tick() => {
                    self.metrics.source_queue_depth.set(self.delivery.depth() as i64);
                    if self.delivery.tell(now).is_err() {
                        return End::Stopped;
                    }
                    if now.duration_since(proven.1) >= SILENCE {
                        warn!(source = self.name, "Redis is silent");
                        break;
                    }
                    if pong.is_none() {
                        let (client, asked) = (client.clone(), (self.stamper.now(), now));
                        pong = Some(Box::pin(async move { client.ping::<()>(None).await.is_ok().then_some(asked) }));
                    }
                    if !self.refused.is_empty() && probe.is_none() && now >= refused_next {
                        refused_next = now + RETRY_REFUSED;
                        let names = self.refused.iter().map(|(name, ..)| name.clone()).collect();
                        probe = Some(Box::pin(Self::retry_refused(self.redis.clone(), names)));
                    }
                    continue;
                }
                first = session.messages.recv() => first,
                _ = &mut session.connected.task => break,
            };
            let round = match first {
                Ok(message) => self.drain(&mut session, Some(message)),
                Err(RecvError::Lagged(lost)) => {
                    self.lagged(lost, proven.0);
                    self.drain(&mut session, None)
                }
                Err(RecvError::Closed) => break,
            };
            let Some((count, at)) = round else { return End::Stopped };
            nap = count >= BUSY;
            if count > 0 {
                proven = latest(proven, (at, Instant::now()));
            }
            if self.delivery.pending() && self.delivery.tell(Instant::now()).is_err() {
                return End::Stopped;
            }
        }
        self.gone(session, proven.0)
    }

    fn gone(&mut self, mut session: Session, proven: Micros) -> End {
        let mut since = proven;
        while let Some((count @ 1.., at)) = self.drain(&mut session, None) {
            since = since.max(at);
            if count < ROUND {
                break;
            }
        }
        self.lost = Some((since, GapReason::Disconnected));
        self.metrics.source_connected.get_or_create(&Label::of(self.name)).set(0);
        let now = self.stamper.now();
        self.status.down(self.name, "the connection to Redis was lost".into(), now);
        warn!(source = self.name, "lost the connection to Redis");
        End::Lost
    }

    /// Takes what is there. `None`: intake is gone. Else how many, and when the last one was received.
    fn drain(&mut self, session: &mut Session, first: Option<Message>) -> Option<(usize, Micros)> {
        let (mut count, mut bytes, mut at) = (0, 0, 0);
        let mut next = first;
        loop {
            let message = match next.take() {
                Some(message) => message,
                None if count >= ROUND => break,
                None => match session.messages.try_recv() {
                    Ok(message) => message,
                    Err(TryRecvError::Lagged(lost)) => {
                        let since = if at > 0 { at } else { self.stamper.now() };
                        self.lagged(lost, since);
                        continue;
                    }
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                },
            };
            if self.redis.is_own_channel(&message.channel) {
                continue;
            }
            at = self.stamper.now();
            // The payload is a slice of the socket's buffer: kept as it is, it would keep the whole buffer.
            let payload = Bytes::copy_from_slice(message.value.as_bytes().unwrap_or_default());
            (count, bytes) = (count + 1, bytes + payload.len());
            let channel = session.name(&message.channel);
            let frame = Frame { channel, payload, received_at: at, received: Instant::now(), control: self.control };
            self.delivery.frame(frame).ok()?;
        }
        self.metrics.source_messages.inc_by(count as u64);
        self.metrics.source_bytes.inc_by(bytes as u64);
        Some((count, at))
    }

    fn lagged(&mut self, lost: u64, since: Micros) {
        let now = self.stamper.now();
        warn!(source = self.name, lost, "the receive buffer overflowed");
        self.delivery.hole(GapReason::ClientLag, (since, now), None, Some(lost));
    }

    fn take_allowed(&mut self, allowed: Vec<String>) -> bool {
        for channel in &allowed {
            self.allowed(channel);
        }
        !allowed.is_empty()
    }
}

fn latest(one: (Micros, Instant), other: (Micros, Instant)) -> (Micros, Instant) {
    if other.1 >= one.1 { other } else { one }
}

/// The answer of a future that may be under way; never, when none is.
async fn wait<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
