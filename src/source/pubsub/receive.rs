//! Receives on one connection until it is lost.

use std::{future::pending, io, pin::Pin, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
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
    logging::Chain,
    memory::LARGE_VALUE,
    redis::{PING_INTERVAL, Received, SILENCE_TIMEOUT, Subscription, moved_away},
    source::role::Role,
    units::{self, Micros},
};

/// How long the last ping, and reading what has arrived, may take when stopping.
const FINAL_TIMEOUT: Duration = Duration::from_millis(250);
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

/// The subscriptions that are still refused, and why, while messages are received.
type Probe = Pin<Box<dyn Future<Output = Vec<(String, String)>> + Send>>;

/// What is known of a connection.
struct Progress {
    /// Until when everything was received, on the wall clock and on the monotonic one.
    confirmed: (Micros, Instant),
    /// When the ping was sent that Redis has not answered yet.
    asked: Option<(Micros, Instant)>,
}

impl Progress {
    fn new(now: Micros) -> Self {
        Self { confirmed: (now, Instant::now()), asked: None }
    }
}

/// What was taken of a connection at once.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    messages: usize,
    /// When the last one was received.
    at: Micros,
    pong: bool,
}

impl Subscriber {
    /// Receives until the connection is lost; `outage` then says since when.
    pub(super) async fn receive(&mut self, mut session: Session, stop: &mut Signal) -> End {
        let mut progress = Progress::new(self.clock.now());
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refused_next = Instant::now() + backoff::REFUSED_CHANNEL;
        let mut probe: Option<Probe> = None;
        let mut moved = false;
        // Messages may have come behind the confirmations.
        let mut arrived = Ok(());
        loop {
            let received = match arrived {
                Ok(()) => self.take_confirmed(&mut session, &mut progress).await,
                Err(error) => Err(lost(&error)),
            };
            match received {
                Ok(()) => {}
                Err(End::Stopped) => return End::Stopped,
                Err(End::Lost) => break,
            }
            arrived = tokio::select! {
                biased;
                () = stop.stopped() => {
                    self.receive_at_stop(&mut session, progress.confirmed.0).await;
                    return End::Stopped;
                }
                still_refused = wait(&mut probe) => {
                    probe = None;
                    match self.subscribe_allowed(&mut session.subscription, still_refused).await {
                        Ok(()) => Ok(()),
                        Err(error) => Err(io::Error::other(error)),
                    }
                }
                now = pings.tick() => {
                    self.source.metrics.source_queue_depth.set(self.sender.depth() as i64);
                    if self.sender.flush_gaps(now).is_err() {
                        return End::Stopped;
                    }
                    if probe.is_none() && now >= refused_next {
                        refused_next = now + backoff::REFUSED_CHANNEL;
                        probe = self.probe_refused();
                    }
                    ping(&mut session.subscription, &mut progress, now).await
                }
                arrived = arrived_at_former(&mut self.former) => {
                    if let Err(End::Stopped) = self.take_of_former(arrived).await {
                        return End::Stopped;
                    }
                    Ok(())
                }
                unseen = moved_away(&mut session.watch) => {
                    let unseen = i64::try_from(unseen.as_micros()).unwrap_or(i64::MAX);
                    progress.confirmed.0 = progress.confirmed.0.min(self.clock.now().saturating_sub(unseen));
                    moved = true;
                    break;
                }
                arrived = session.subscription.arrived() => arrived,
            };
        }
        self.on_disconnect(session, progress.confirmed.0, moved).await
    }

    /// Takes what has arrived, and notes until when everything was received.
    async fn take_confirmed(&mut self, session: &mut Session, progress: &mut Progress) -> Result<(), End> {
        let taken = self.take(session).await?;
        if taken.messages > 0 {
            progress.confirmed = (taken.at, Instant::now());
            self.source.status.set_received_through(taken.at);
        }
        if taken.pong
            && let Some((asked_at, asked)) = progress.asked.take()
        {
            // Redis was alive when it was asked; what was published since then may still be missed.
            if asked > progress.confirmed.1 {
                progress.confirmed = (asked_at, asked);
            }
            self.source.status.set_received_through(progress.confirmed.0);
        }
        if self.sender.has_pending_gaps() && self.sender.flush_gaps(Instant::now()).is_err() {
            return Err(End::Stopped);
        }
        Ok(())
    }

    /// Receives what has arrived from a former primary.
    async fn take_of_former(&mut self, arrived: io::Result<()>) -> Result<(), End> {
        let Some(mut former) = self.former.take() else { return Ok(()) };
        if arrived.is_err() {
            info!("the former primary is left");
            return Ok(());
        }
        match self.take(&mut former.session).await {
            Ok(_) => self.former = Some(former),
            Err(End::Lost) => {}
            Err(End::Stopped) => return Err(End::Stopped),
        }
        Ok(())
    }

    /// Receives what Redis has sent by now.
    async fn receive_at_stop(&mut self, session: &mut Session, confirmed_at: Micros) {
        // Redis answers in order: the answer comes behind everything that it had sent before.
        let asked_at = self.clock.now();
        let answered = timeout(FINAL_TIMEOUT, self.receive_until_pong(session)).await;
        self.take_waiting(session).await;
        if let Some(mut former) = self.former.take() {
            self.take_waiting(&mut former.session).await;
        }
        if matches!(answered, Ok(Ok(()))) {
            self.source.status.set_received_through(asked_at);
        } else {
            self.outage = Some((confirmed_at, GapReason::Disconnected));
        }
    }

    async fn receive_until_pong(&mut self, session: &mut Session) -> Result<(), End> {
        session.subscription.ping().await.map_err(|_| End::Lost)?;
        while session.subscription.awaits_pong() {
            session.subscription.arrived().await.map_err(|_| End::Lost)?;
            self.take(session).await?;
        }
        Ok(())
    }

    /// Takes what has arrived, without waiting for more; returns when the last message was received.
    async fn take_waiting(&mut self, session: &mut Session) -> Option<Micros> {
        let until = Instant::now() + FINAL_TIMEOUT;
        let mut last = None;
        loop {
            match self.take(session).await {
                Ok(Taken { messages: 1.., at, .. }) => last = Some(at),
                Ok(_) => {}
                Err(_) => return last,
            }
            let arrived = timeout(Duration::ZERO, session.subscription.arrived()).await;
            if !matches!(arrived, Ok(Ok(()))) || Instant::now() >= until {
                return last;
            }
        }
    }

    /// Asks whether the refused channels are still refused, if there are any.
    fn probe_refused(&self) -> Option<Probe> {
        let names: Vec<_> = self.refused.iter().map(|(name, _, reason)| (name.clone(), reason.clone())).collect();
        let probe = (!names.is_empty()).then(|| retry_refused(self.source.redis.clone(), names))?;
        Some(Box::pin(probe))
    }

    async fn on_disconnect(&mut self, mut session: Session, confirmed_at: Micros, moved: bool) -> End {
        let last = self.take_waiting(&mut session).await;
        // What a former primary still sends says nothing of what is published at the next one.
        let since = last.filter(|_| !moved).map_or(confirmed_at, |at| at.max(confirmed_at));
        self.outage = Some((since, GapReason::Disconnected));
        self.source.metrics.source_connected.of(self.source.role.as_str()).set(0);
        let now = self.clock.now();
        self.source.status.down("the connection to Redis was lost".into(), now);
        if moved {
            self.former = Some(Former { session, until: Instant::now() + FORMER_PRIMARY });
        }
        End::Lost
    }

    /// Takes the messages that have arrived whole.
    ///
    /// They are handed over together: intake, woken by the first, would sync it as a group of its own, and the others would wait for the
    /// next sync.
    async fn take(&mut self, session: &mut Session) -> Result<Taken, End> {
        let (now, received) = (units::now(), Instant::now());
        let control = self.source.role == Role::Control;
        let (mut taken, mut bytes) = (Taken::default(), 0);
        let (mut frames, mut frames_bytes, mut ended) = (Vec::new(), 0, None);
        loop {
            let (channel, payload) = match session.subscription.take() {
                Ok(Some(Received::Message(channel, payload))) => (session.names.of(channel), payload),
                Ok(Some(Received::Pong)) => {
                    taken.pong = true;
                    continue;
                }
                // Of others all is waited for: there may be room by then.
                Ok(Some(Received::Beginning(channel, length))) if !self.sender.may_fit(length) => {
                    let channel = session.names.of(channel);
                    session.subscription.pass_over();
                    if !self.source.is_ignored(&channel) {
                        taken.messages += 1;
                        taken.at = self.clock.at(now);
                        self.sender.refuse(&channel, taken.at, received);
                    }
                    continue;
                }
                Ok(Some(Received::Beginning(..)) | None) => break,
                Err(error) => {
                    ended = Some(error);
                    break;
                }
            };
            if self.source.is_ignored(&channel) {
                continue;
            }
            let received_at = self.clock.at(now);
            (taken.messages, taken.at) = (taken.messages + 1, received_at);
            bytes += payload.len();
            if payload.len() >= LARGE_VALUE || frames_bytes >= HANDOFF_BYTES {
                self.hand_over(&mut frames).await?;
                frames_bytes = 0;
            }
            if payload.len() >= LARGE_VALUE && !self.sender.has_room(payload.len()) {
                self.sender.refuse(&channel, received_at, received);
                continue;
            }
            frames_bytes += payload.len();
            frames.push(Frame { channel, payload, received_at, received, control, entry: None });
        }
        self.hand_over(&mut frames).await?;
        self.source.metrics.source_messages.inc_by(taken.messages as u64);
        self.source.metrics.source_bytes.inc_by(bytes as u64);
        match ended {
            None => Ok(taken),
            Some(error) => Err(lost(&error)),
        }
    }

    async fn hand_over(&mut self, frames: &mut Vec<Frame>) -> Result<(), End> {
        self.sender.deliver(frames).await.map_err(|_| End::Stopped)
    }
}

/// Pings, unless Redis still has to answer. An error: it is silent, or the connection is lost.
async fn ping(subscription: &mut Subscription, progress: &mut Progress, now: Instant) -> io::Result<()> {
    if now.saturating_duration_since(subscription.heard_at()) >= SILENCE_TIMEOUT {
        // Where this process was stopped, messages are waiting.
        let waiting = timeout(Duration::ZERO, subscription.arrived()).await;
        return waiting.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "Redis is silent")));
    }
    if progress.asked.is_none() {
        progress.asked = Some((units::now(), now));
        subscription.ping().await?;
    }
    Ok(())
}

fn lost(error: &io::Error) -> End {
    warn!(error = %Chain(error), "lost the connection to Redis");
    End::Lost
}

/// Reads from a former primary; an error when it need not be listened to any longer.
async fn arrived_at_former(former: &mut Option<Former>) -> io::Result<()> {
    let Some(Former { session, until }) = former else { return pending().await };
    tokio::select! {
        biased;
        arrived = session.subscription.arrived() => arrived,
        () = sleep_until(*until) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// The output of a future, if there is one; otherwise never returns.
async fn wait<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}
