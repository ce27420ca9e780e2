//! Receives on one connection until it is lost.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use fred::types::Message;
use tokio::{
    sync::broadcast::error::{RecvError, TryRecvError},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tracing::{info, warn};

use super::{
    session::{Former, Session},
    subscriber::{Subscriber, retry_refused},
};
use crate::{
    backoff,
    frame::Frame,
    gaps::GapReason,
    lifecycle::Signal,
    memory::LARGE_VALUE,
    redis::{Lost, PING_INTERVAL, SILENCE_TIMEOUT, answers},
    source::{queue_sender::Loss, role::Role},
    units::Micros,
};

/// How long the last ping may take when stopping.
const FINAL_PING_TIMEOUT: Duration = Duration::from_millis(250);
/// Messages taken before the other tasks of this thread run.
const MAX_PER_TURN: usize = 2_048;
/// Bytes handed over together; the bound of the queue does not count them yet.
const HANDOFF_BYTES: usize = 256 << 10;

/// How long a former primary is listened to: Sentinel demotes one that works about ten seconds after it has named another, and only
/// then closes the connections of its publishers.
const FORMER_PRIMARY: Duration = Duration::from_secs(15);

/// How a session ended.
pub(super) enum End {
    /// Told to stop, or intake has ended.
    Stopped,
    /// The connection is lost.
    Lost,
}

/// A reply that is awaited while messages are received.
type PendingReply<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Subscriber {
    /// Receives until the connection is lost; `outage` then says since when.
    pub(super) async fn receive(&mut self, mut session: Session, stop: &mut Signal) -> End {
        let mut confirmed = (self.clock.now(), Instant::now());
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let client = session.connected.client.clone();
        let mut refused_next = Instant::now() + backoff::REFUSED_CHANNEL;
        let mut pong: Option<PendingReply<Option<(Micros, Instant)>>> = None;
        let mut probe: Option<PendingReply<Vec<(String, String)>>> = None;
        let mut moved = false;
        loop {
            let first = tokio::select! {
                biased;
                () = stop.stopped() => {
                    self.drain_at_stop(&mut session, confirmed.0).await;
                    return End::Stopped;
                }
                answered = wait(&mut pong) => {
                    pong = None;
                    if let Some((asked_at, asked)) = answered {
                        // Redis was alive when it was asked; what was published since then may still be missed.
                        confirmed = (if asked > confirmed.1 { asked_at } else { confirmed.0 }, Instant::now());
                        self.source.status.set_received_through(confirmed.0);
                    }
                    continue;
                }
                still_refused = wait(&mut probe) => {
                    probe = None;
                    match self.subscribe_allowed(&client, still_refused).await {
                        Ok(()) => continue,
                        Err(_) => break,
                    }
                }
                now = pings.tick() => {
                    self.source.metrics.source_queue_depth.set(self.sender.depth() as i64);
                    if self.sender.flush_gaps(now).is_err() {
                        return End::Stopped;
                    }
                    if now.duration_since(confirmed.1) >= SILENCE_TIMEOUT {
                        // Where this process was stopped, messages are waiting.
                        let Some((1.., at)) = self.drain(&mut session, None).await else {
                            warn!("Redis is silent");
                            break;
                        };
                        confirmed = (at, Instant::now());
                    }
                    if pong.is_none() {
                        let (client, asked) = (client.clone(), (self.clock.now(), now));
                        pong = Some(Box::pin(async move { answers(&client).await.then_some(asked) }));
                    }
                    if probe.is_none() && now >= refused_next {
                        refused_next = now + backoff::REFUSED_CHANNEL;
                        probe = self.probe_refused();
                    }
                    continue;
                }
                first = session.messages.recv() => first,
                taken = next_of_former(&mut self.former) => {
                    if self.drain_former(taken).await.is_none() {
                        return End::Stopped;
                    }
                    continue;
                }
                lost = session.connected.lost() => {
                    if let Lost::Moved(unseen) = lost {
                        let unseen = i64::try_from(unseen.as_micros()).unwrap_or(i64::MAX);
                        confirmed.0 = confirmed.0.min(self.clock.now().saturating_sub(unseen));
                        moved = true;
                    }
                    break;
                }
            };
            let first = match first {
                Ok(message) => Some(message),
                Err(RecvError::Lagged(lost)) => {
                    self.lagged(lost, confirmed.0);
                    None
                }
                Err(RecvError::Closed) => break,
            };
            let Some((count, at)) = self.drain(&mut session, first).await else { return End::Stopped };
            if count > 0 {
                confirmed = (at, Instant::now());
                self.source.status.set_received_through(at);
            }
            if self.sender.has_pending_gaps() && self.sender.flush_gaps(Instant::now()).is_err() {
                return End::Stopped;
            }
        }
        self.on_disconnect(session, confirmed.0, moved).await
    }

    /// Receives what has arrived from a former primary. `None`: intake has ended.
    async fn drain_former(&mut self, taken: Result<Message, RecvError>) -> Option<()> {
        let mut former = self.former.take()?;
        match taken {
            Ok(message) => _ = self.drain(&mut former.session, Some(message)).await?,
            Err(RecvError::Lagged(lost)) => {
                let now = self.clock.now();
                self.lagged(lost, now);
            }
            Err(RecvError::Closed) => {
                info!("the former primary is left");
                return Some(());
            }
        }
        self.former = Some(former);
        Some(())
    }

    /// Receives what Redis has sent by now.
    async fn drain_at_stop(&mut self, session: &mut Session, confirmed_at: Micros) {
        // Redis answers in order: the answer comes behind everything that it had sent before.
        let answered = timeout(FINAL_PING_TIMEOUT, answers(&session.connected.client)).await;
        while let Some((1.., _)) = self.drain(session, None).await {}
        if let Some(mut former) = self.former.take() {
            while let Some((1.., _)) = self.drain(&mut former.session, None).await {}
        }
        if matches!(answered, Ok(true)) {
            self.source.status.set_received_through(self.clock.now());
        } else {
            self.outage = Some((confirmed_at, GapReason::Disconnected));
        }
    }

    /// Asks whether the refused channels are still refused, if there are any.
    fn probe_refused(&self) -> Option<PendingReply<Vec<(String, String)>>> {
        let names: Vec<_> = self.refused.iter().map(|(name, _, reason)| (name.clone(), reason.clone())).collect();
        let probe = (!names.is_empty()).then(|| retry_refused(self.source.redis.clone(), names))?;
        Some(Box::pin(probe))
    }

    async fn on_disconnect(&mut self, mut session: Session, confirmed_at: Micros, moved: bool) -> End {
        let mut since = confirmed_at;
        while let Some((count @ 1.., at)) = self.drain(&mut session, None).await {
            since = since.max(at);
            if count < MAX_PER_TURN {
                break;
            }
        }
        self.outage = Some((since, GapReason::Disconnected));
        self.source.metrics.source_connected.of(self.source.role.as_str()).set(0);
        let now = self.clock.now();
        self.source.status.down("the connection to Redis was lost".into(), now);
        if moved {
            self.former = Some(Former { session, until: Instant::now() + FORMER_PRIMARY });
        } else {
            warn!("lost the connection to Redis");
        }
        End::Lost
    }

    /// Takes the messages that have arrived: their number, and when the last one was received. `None`: intake has ended.
    ///
    /// They are handed over together: intake, woken by the first, would sync it as a group of its own, and the others would wait for the
    /// next sync.
    async fn drain(&mut self, session: &mut Session, first: Option<Message>) -> Option<(usize, Micros)> {
        let (mut count, mut bytes, mut at) = (0, 0, 0);
        let control = self.source.role == Role::Control;
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
            if self.source.is_ignored(&message.channel) {
                continue;
            }
            at = self.clock.now();
            let received = message.value.as_bytes().unwrap_or_default();
            (count, bytes) = (count + 1, bytes + received.len());
            let channel = session.name(&message.channel);
            if received.len() >= LARGE_VALUE {
                self.hand_over(&mut handoff).await?;
                handoff_bytes = 0;
                if !self.sender.has_room(received.len()) {
                    self.sender.refuse(&channel, at, Instant::now());
                    continue;
                }
            }
            // A copy: the payload is a slice of the socket's buffer, and would keep all of it.
            let payload = Bytes::copy_from_slice(received);
            handoff_bytes += payload.len();
            handoff.push(Frame { channel, payload, received_at: at, received: Instant::now(), control, entry: None });
            if handoff_bytes >= HANDOFF_BYTES {
                self.hand_over(&mut handoff).await?;
                handoff_bytes = 0;
            }
        }
        self.hand_over(&mut handoff).await?;
        self.source.metrics.source_messages.inc_by(count as u64);
        self.source.metrics.source_bytes.inc_by(bytes as u64);
        Some((count, at))
    }

    /// `None`: intake has ended.
    async fn hand_over(&mut self, frames: &mut Vec<Frame>) -> Option<()> {
        self.sender.deliver(frames).await.ok()
    }

    fn lagged(&mut self, lost: u64, since: Micros) {
        let now = self.clock.now();
        let loss = Loss { reason: GapReason::ClientLag, started_at: since, ended_at: now, channel: None, lost };
        self.sender.record_drop(loss, Instant::now());
    }
}

/// The next message of a former primary; [`RecvError::Closed`] when it need not be listened to any longer.
async fn next_of_former(former: &mut Option<Former>) -> Result<Message, RecvError> {
    let Some(Former { session, until }) = former else { return std::future::pending().await };
    tokio::select! {
        biased;
        message = session.messages.recv() => message,
        () = session.connected.closed() => Err(RecvError::Closed),
        () = sleep_until(*until) => Err(RecvError::Closed),
    }
}

/// The output of a future, if there is one; otherwise never returns.
async fn wait<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
