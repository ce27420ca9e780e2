//! One connection: confirmed, receiving, lost.

use std::{borrow::Cow, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use fred::{
    clients::Client,
    interfaces::ClientLike,
    types::{InfoKind, Message},
};
use tokio::{
    sync::broadcast::{
        Receiver,
        error::{RecvError, TryRecvError},
    },
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::warn;
use xxhash_rust::xxh3::xxh3_64;

use super::{RETRY_REFUSED, Source};
use crate::{
    frame::{Frame, GapReason},
    lifecycle::Signal,
    memory::LARGE_VALUE,
    metrics::Label,
    redis::{Acl, CHANNEL_BYTES, Connected, Resource, answers},
    units::Micros,
};

/// How often a connection is pinged.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Silence after which a connection counts as lost.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the answer to a last ping is waited for when stopping.
const FINAL_PING_TIMEOUT: Duration = Duration::from_millis(250);
/// Messages taken before others on this thread have their turn.
const MAX_PER_TURN: usize = 2_048;
/// Bytes handed over together; the queue does not know of them yet.
const HANDOFF_BYTES: usize = 256 << 10;
/// Channel names kept, for patterns that match many.
const NAMES_MAX: usize = 1_024;

/// How a session ended.
pub(super) enum End {
    /// We were asked to stop, or intake is gone.
    Stopped,
    /// The connection is gone.
    Lost,
}

/// Something asked beside the receiving.
type PendingReply<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A confirmed connection.
pub(super) struct Session {
    pub(super) connected: Connected,
    messages: Receiver<Message>,
    names: Vec<Arc<str>>,
}

/// What a server says about itself, to tell why it closed a connection.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ServerInfo {
    run_id: String,
    output_buffer_disconnects: Option<u64>,
}

impl ServerInfo {
    fn parse(info: &str) -> Self {
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        Self {
            run_id: field("run_id").unwrap_or_default().to_owned(),
            output_buffer_disconnects: field("client_output_buffer_limit_disconnections").and_then(|n| n.parse().ok()),
        }
    }

    /// Whether the same server, seen again, has closed a connection meanwhile because its output buffer was full. Servers
    /// that do not count that leave it open.
    pub(super) fn evicted_client(&self, now: &Self) -> bool {
        self.run_id == now.run_id
            && self
                .output_buffer_disconnects
                .zip(now.output_buffer_disconnects)
                .is_some_and(|(before, now)| now > before)
    }
}

/// What the server says about itself; empty where it may not be asked: a cut by Redis is not told from any other then.
pub(super) async fn server_info(client: &Client, acl: &Acl) -> ServerInfo {
    let mut info = String::new();
    for kind in [InfoKind::Server, InfoKind::Stats] {
        match client.info::<String>(Some(kind)).await {
            Ok(part) => info.push_str(&part),
            Err(error) => acl.warn(&error, Resource::None),
        }
    }
    ServerInfo::parse(&info)
}

/// The name of a channel as it is kept. A pattern matches names of any length, and each message that waits has its own: of a long one
/// the beginning is kept, and a hash of the whole, which tells it from others.
fn bounded_name(channel: &str) -> Cow<'_, str> {
    if channel.len() <= CHANNEL_BYTES {
        return Cow::Borrowed(channel);
    }
    let hash = format!("…{:016x}", xxh3_64(channel.as_bytes()));
    let head = &channel[..channel.floor_char_boundary(CHANNEL_BYTES - hash.len())];
    Cow::Owned(format!("{head}{hash}"))
}

impl Session {
    pub(super) fn new(connected: Connected, messages: Receiver<Message>) -> Self {
        Self { connected, messages, names: Vec::new() }
    }

    /// The channel's shared name; most messages come on few channels.
    fn name(&mut self, channel: &str) -> Arc<str> {
        let channel = &*bounded_name(channel);
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
    /// Receives until the connection is gone. Afterwards `outage` says since when.
    pub(super) async fn receive(&mut self, mut session: Session, stop: &mut Signal) -> End {
        let mut confirmed = (self.clock.now(), Instant::now());
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let client = session.connected.client.clone();
        let mut refused_next = Instant::now() + RETRY_REFUSED;
        let mut pong: Option<PendingReply<Option<(Micros, Instant)>>> = None;
        let mut probe: Option<PendingReply<Vec<(String, String)>>> = None;
        loop {
            let first = tokio::select! {
                biased;
                () = stop.stopped() => {
                    // Redis answers in order: what it had sent before is here when the answer is.
                    let answered = timeout(FINAL_PING_TIMEOUT, answers(&client)).await;
                    while let Some((1.., _)) = self.drain(&mut session, None) {}
                    if matches!(answered, Ok(true)) {
                        self.status.set_received_through(self.name, self.clock.now());
                    } else {
                        self.outage = Some((confirmed.0, GapReason::Disconnected));
                    }
                    return End::Stopped;
                }
                answered = wait(&mut pong) => {
                    pong = None;
                    if let Some((asked_at, asked)) = answered {
                        // Redis was there when we asked, or later; what was published since then may still be missed.
                        confirmed = (if asked > confirmed.1 { asked_at } else { confirmed.0 }, Instant::now());
                        self.status.set_received_through(self.name, confirmed.0);
                    }
                    continue;
                }
                still_refused = wait(&mut probe) => {
                    probe = None;
                    match self.subscribe_allowed(&session, still_refused).await {
                        Ok(()) => continue,
                        Err(_) => break,
                    }
                }
                now = pings.tick() => {
                    self.metrics.source_queue_depth.set(self.sender.depth() as i64);
                    if self.sender.flush_gaps(now).is_err() {
                        return End::Stopped;
                    }
                    if now.duration_since(confirmed.1) >= SILENCE_TIMEOUT {
                        // If it was us who slept, messages are waiting.
                        match self.drain(&mut session, None) {
                            Some((1.., at)) => confirmed = (at, Instant::now()),
                            _ => {
                                warn!(source = self.name, "Redis is silent");
                                break;
                            }
                        }
                    }
                    if pong.is_none() {
                        let (client, asked) = (client.clone(), (self.clock.now(), now));
                        pong = Some(Box::pin(async move { answers(&client).await.then_some(asked) }));
                    }
                    if !self.refused.is_empty() && probe.is_none() && now >= refused_next {
                        refused_next = now + RETRY_REFUSED;
                        let names = self.refused.iter().map(|(name, _, reason)| (name.clone(), reason.clone())).collect();
                        probe = Some(Box::pin(Self::retry_refused(self.redis.clone(), names)));
                    }
                    continue;
                }
                first = session.messages.recv() => first,
                _ = &mut session.connected.task => break,
            };
            let drained = match first {
                Ok(message) => self.drain(&mut session, Some(message)),
                Err(RecvError::Lagged(lost)) => {
                    self.lagged(lost, confirmed.0);
                    self.drain(&mut session, None)
                }
                Err(RecvError::Closed) => break,
            };
            let Some((count, at)) = drained else { return End::Stopped };
            if count > 0 {
                self.traffic.set();
                confirmed = (at, Instant::now());
                self.status.set_received_through(self.name, at);
            }
            if self.sender.has_pending_gaps() && self.sender.flush_gaps(Instant::now()).is_err() {
                return End::Stopped;
            }
        }
        self.on_disconnect(session, confirmed.0)
    }

    fn on_disconnect(&mut self, mut session: Session, confirmed_at: Micros) -> End {
        let mut since = confirmed_at;
        while let Some((count @ 1.., at)) = self.drain(&mut session, None) {
            since = since.max(at);
            if count < MAX_PER_TURN {
                break;
            }
        }
        self.outage = Some((since, GapReason::Disconnected));
        self.metrics.source_connected.get_or_create(&Label::of(self.name)).set(0);
        let now = self.clock.now();
        self.status.down(self.name, "the connection to Redis was lost".into(), now);
        warn!(source = self.name, "lost the connection to Redis");
        End::Lost
    }

    /// Takes what is there. `None`: intake is gone. Else how many, and when the last one was received.
    ///
    /// Handed over together: intake, woken by the first of them, would make it a group of its own, and the others would wait
    /// for the next sync.
    fn drain(&mut self, session: &mut Session, first: Option<Message>) -> Option<(usize, Micros)> {
        let (mut count, mut bytes, mut at) = (0, 0, 0);
        let (mut handoff, mut handoff_bytes) = (Vec::new(), 0);
        let mut next = first;
        loop {
            let message = match next.take() {
                Some(message) => message,
                None if count >= MAX_PER_TURN => break,
                None => match session.messages.try_recv() {
                    Ok(message) => message,
                    Err(TryRecvError::Lagged(lost)) => {
                        let since = if at > 0 { at } else { self.clock.now() };
                        self.lagged(lost, since);
                        continue;
                    }
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                },
            };
            if self.is_ignored(&message.channel) {
                continue;
            }
            at = self.clock.now();
            let received = message.value.as_bytes().unwrap_or_default();
            (count, bytes) = (count + 1, bytes + received.len());
            let channel = session.name(&message.channel);
            if received.len() >= LARGE_VALUE {
                self.hand_over(&mut handoff)?;
                handoff_bytes = 0;
                if !self.sender.has_room(received.len()) {
                    self.sender.refuse(&channel, at, Instant::now());
                    continue;
                }
            }
            // The payload is a slice of the socket's buffer: kept as it is, it would keep the whole buffer.
            let payload = Bytes::copy_from_slice(received);
            handoff_bytes += payload.len();
            handoff.push(Frame { channel, payload, received_at: at, received: Instant::now(), control: self.control });
            if handoff_bytes >= HANDOFF_BYTES {
                self.hand_over(&mut handoff)?;
                handoff_bytes = 0;
            }
        }
        self.hand_over(&mut handoff)?;
        self.metrics.source_messages.inc_by(count as u64);
        self.metrics.source_bytes.inc_by(bytes as u64);
        Some((count, at))
    }

    /// `None`: intake is gone.
    fn hand_over(&mut self, frames: &mut Vec<Frame>) -> Option<()> {
        frames.drain(..).try_for_each(|frame| self.sender.send(frame)).ok()
    }

    fn lagged(&mut self, lost: u64, since: Micros) {
        let now = self.clock.now();
        self.sender.record_drop(GapReason::ClientLag, (since, now), None, lost, Instant::now());
    }
}

/// The answer of a future that may be under way; never, when none is.
async fn wait<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_length_are_kept_short_and_apart() {
        let exact = "é".repeat(CHANNEL_BYTES / 2);
        assert_eq!(bounded_name(&exact), exact);
        let [one, other] = ["1", "2"].map(|end| "é".repeat(1 << 20) + end);
        let (one, other) = (bounded_name(&one), bounded_name(&other));
        assert!(one.len() <= CHANNEL_BYTES && one.len() > CHANNEL_BYTES - 4, "{}", one.len());
        assert!(one.starts_with("ééé") && one != other);
    }
}
