//! The live feed of a process without a pipeline: it subscribes to the same channels, and publishes the rows that the daemon makes of
//! the same messages. Entries of streams: [`live_streams`](super::live_streams).
//!
//! No message is kept, and without a subscriber none is decoded. A row is a function of its message, with two exceptions:
//! * the run of a message without an id is decided by the daemon and shared in Redis (`<prefix>ingest:run:<channel>`), fetched again
//!   after [`SHARED_RUN_MAX_AGE`]. Both processes receive the same messages in the same order, so the shared run names the message that
//!   opened it, and a run is opened here only when the daemon has opened it. A run that was opened for another reason (`reset`) is
//!   noticed with its next messages; until then events carry the run before, and are reported as skipped afterwards;
//! * a message without a time of its own is shown at its time of receipt here, which is milliseconds off the daemon's; the row
//!   replaces it when the store is read.
//!
//! Messages that were missed (a lost connection, a full queue), or whose run is unknown, are reported as skipped; a client then reads
//! the store.

use std::{collections::HashMap, convert::Infallible, io, sync::Arc, time::Duration};

use jiff::tz::TimeZone;
use serde_json::Value;
use tokio::{
    sync::{broadcast, mpsc},
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::{
    config::Settings,
    event::{Kind, implicit_run_id},
    frame::{Frame, IntakeItem},
    intake::read_open_run,
    lifecycle::{Readiness, Signal},
    live::{LiveEvent, LiveFeed},
    metrics::Metrics,
    redis::{Link, RunShare},
    runs::{OpenRun, Resolver, RunHints},
    source::{self, Input, QueueUsage, SourceStatus, pubsub::PubSub, queue},
    units::{self, Micros},
    wire::{self, Limits},
};

/// How old the fetched run of a channel may be.
const SHARED_RUN_MAX_AGE: Duration = Duration::from_millis(100);
/// The same of a channel without a run.
const NO_RUN_MAX_AGE: Duration = Duration::from_millis(50);
/// The run that a message has opened is fetched this often …
const NEW_RUN_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// … until this long after its receipt; then it is not fetched for as long, because the daemon may be away.
const NEW_RUN_TIMEOUT: Duration = Duration::from_secs(1);
/// How far the clocks of both processes, and their times of receipt, may differ.
const CLOCK_SKEW_MAX: Micros = 500_000;
/// Channels whose fetched run is kept.
const CHANNELS_MAX: usize = 1_024;
/// The longest receipt that is passed on.
const RECEIPT_BYTES: usize = 64 << 10;

/// The live feed of a process without a pipeline.
pub struct Mirror {
    /// Its connection.
    pub status: SourceStatus,
    follower: Follower,
    arrivals: mpsc::Receiver<IntakeItem>,
    stop: Signal,
}

/// Starts to listen; with the future that ends when the listening does.
///
/// # Errors
/// When the system gives no thread.
pub fn listen(
    settings: &Settings,
    live: &LiveFeed,
    link: &Link,
    receipts: broadcast::Sender<Arc<str>>,
    stop: Signal,
) -> io::Result<(Mirror, impl Future<Output = Result<(), source::ThreadEnded>> + Send + 'static)> {
    let redis = &settings.redis;
    let (queue, arrivals, bytes) = queue(redis.queue_frames, settings.http.stream_buffer.as_usize());
    let status = SourceStatus::new(Readiness::default());
    // Metrics of its own: a loss here is none of the archive.
    let metrics = Metrics::new();
    let listener = PubSub::listener(redis, &status, Arc::clone(&metrics));
    let ended = source::receive(vec![Input::new(listener, queue)], metrics, stop.clone())?;
    let follower = Follower {
        limits: settings.limits.clone(),
        zone: TimeZone::get(&settings.intake.time_zone).unwrap_or(TimeZone::UTC),
        ack: redis.ack_channel(),
        bytes,
        live: live.clone(),
        receipts,
        share: RunShare::new(link.clone(), &redis.key_prefix),
        resolver: Resolver::new(settings.intake.timeouts()).with_channels(settings.intake.channels_max),
        shared_runs: HashMap::new(),
        backoff_until: HashMap::new(),
        began: Instant::now(),
    };
    Ok((Mirror { status, follower, arrivals, stop }, ended))
}

impl Mirror {
    /// Publishes until the source ends, or until told to stop.
    ///
    /// # Errors
    /// None.
    pub async fn run(self) -> Result<(), Infallible> {
        let Self { follower, arrivals, mut stop, .. } = self;
        tokio::select! {
            () = stop.stopped() => {}
            () = follower.run(arrivals) => {}
        }
        Ok(())
    }
}

struct Follower {
    limits: Limits,
    zone: TimeZone,
    ack: String,
    bytes: QueueUsage,
    live: LiveFeed,
    receipts: broadcast::Sender<Arc<str>>,
    share: RunShare,
    resolver: Resolver,
    /// The fetched run of a channel, and when it was fetched.
    shared_runs: HashMap<Arc<str>, (Instant, Option<OpenRun>)>,
    /// Channels whose new run was not shared in time, and until when it is not fetched again.
    backoff_until: HashMap<Arc<str>, Instant>,
    began: Instant,
}

impl Follower {
    async fn run(mut self, mut arrivals: mpsc::Receiver<IntakeItem>) {
        while let Some(arrival) = arrivals.recv().await {
            match arrival {
                IntakeItem::Frames(frames) => {
                    for frame in frames {
                        self.on_frame(&frame).await;
                        self.bytes.taken(&frame);
                    }
                }
                IntakeItem::Gap(_) | IntakeItem::GapWithAck(..) => self.live.mark_lost(),
                // Only intake gets these.
                IntakeItem::TrackedFrames(_)
                | IntakeItem::FrameWithAck(..)
                | IntakeItem::Batch(_)
                | IntakeItem::Receipt(_)
                | IntakeItem::CloseRuns(_)
                | IntakeItem::CloseDeletedRun(..) => {}
            }
        }
    }

    async fn on_frame(&mut self, frame: &Frame) {
        if *frame.channel == *self.ack {
            return self.receipt(&frame.payload);
        }
        if !self.live.has_subscribers() {
            // Runs may change meanwhile; the daemon knows them.
            self.resolver.close(|_, _| true);
            self.shared_runs.clear();
            self.backoff_until.clear();
            return;
        }
        // The daemon rejects it, too.
        let Ok(message) = wire::decode(&frame.payload, &self.limits) else { return };
        let time = message.time(frame.received_at, &self.zone);
        let facts = RunHints::of(&message, time, frame.received_at, &frame.payload);
        let Some((run_id, opened)) = self.run_of(&frame.channel, &facts).await else {
            return self.live.mark_lost();
        };
        let decided = time.resolve(frame.received_at, run_id, opened);
        self.live.publish(|| LiveEvent::new(message.kind(), decided, frame.channel.clone(), frame.payload.clone()));
    }

    /// Other programs may publish on this channel: only a JSON object is passed on.
    fn receipt(&self, payload: &[u8]) {
        if payload.len() <= RECEIPT_BYTES
            && let Ok(receipt @ Value::Object(_)) = serde_json::from_slice(payload)
        {
            // There may be no receiver.
            let _ = self.receipts.send(receipt.to_string().into());
        }
    }

    /// The run of a message, and whether the message opened it; `None`: unknown.
    async fn run_of(&mut self, channel: &Arc<str>, facts: &RunHints<'_>) -> Option<(Uuid, bool)> {
        let subscribed = self.began.elapsed();
        if facts.run_id.is_some() {
            let choice = self.resolver.decide(channel, facts, subscribed);
            return Some((choice.run_id, choice.opened_run));
        }
        let known = self.resolver.open_run(channel).map(|run| run.run_id);
        if let Some(shared) = self.shared_run(channel, known.is_some()).await {
            if opened_by(&shared, channel, facts) {
                return self.open_new_run(channel, facts, shared);
            }
            match known {
                Some(known) if known == shared.run_id => _ = self.resolver.adopt(channel, shared, subscribed),
                // It was opened just now: before this message, or behind it.
                _ if shared.opened_at >= facts.received_at - CLOCK_SKEW_MAX => return None,
                // It was opened earlier. If that went unnoticed, events were shown under the wrong run.
                _ => {
                    self.resolver.replace(channel, Some(shared), subscribed);
                    known.is_none().then_some(())?;
                }
            }
        }
        let known = self.resolver.open_run(channel).map(|run| run.run_id);
        let choice = self.resolver.decide(channel, facts, subscribed);
        if known == Some(choice.run_id) {
            return Some((choice.run_id, choice.opened_run));
        }
        // Only the daemon opens a run.
        match self.await_new_run(channel, facts).await {
            Some(run) => self.open_new_run(channel, facts, run),
            None => {
                self.resolver.replace(channel, None, subscribed);
                None
            }
        }
    }

    /// Continues with the run that this message has opened.
    fn open_new_run(&mut self, channel: &str, facts: &RunHints<'_>, run: OpenRun) -> Option<(Uuid, bool)> {
        let run_id = run.run_id;
        self.backoff_until.remove(channel);
        self.resolver.replace(channel, Some(run), self.began.elapsed());
        Some((run_id, facts.kind != Kind::RunStart))
    }

    /// The shared run of a channel, not older than [`SHARED_RUN_MAX_AGE`].
    async fn shared_run(&mut self, channel: &Arc<str>, known: bool) -> Option<OpenRun> {
        let max_age = if known { SHARED_RUN_MAX_AGE } else { NO_RUN_MAX_AGE };
        match self.shared_runs.get(channel) {
            Some((asked, shared)) if asked.elapsed() < max_age => shared.clone(),
            _ => self.fetch_shared_run(channel).await,
        }
    }

    /// The run that the daemon has opened with this message, once it is shared.
    async fn await_new_run(&mut self, channel: &Arc<str>, facts: &RunHints<'_>) -> Option<OpenRun> {
        if self.backoff_until.get(channel).is_some_and(|until| Instant::now() < *until) {
            return None;
        }
        // Other messages wait meanwhile. The time since its receipt counts, or the delay would grow with each message.
        let age = Duration::from_micros(u64::try_from(units::now() - facts.received_at).unwrap_or_default());
        let until = Instant::now() + NEW_RUN_TIMEOUT.saturating_sub(age);
        loop {
            match self.fetch_shared_run(channel).await {
                Some(shared) if opened_by(&shared, channel, facts) => return Some(shared),
                // The daemon has opened a later run already; the one between is not shared any more.
                Some(shared) if shared.opened_at > facts.received_at => return None,
                _ if Instant::now() >= until => break,
                _ => sleep(NEW_RUN_POLL_INTERVAL).await,
            }
        }
        if self.backoff_until.len() >= CHANNELS_MAX {
            self.backoff_until.clear();
        }
        self.backoff_until.insert(Arc::clone(channel), Instant::now() + NEW_RUN_TIMEOUT);
        None
    }

    async fn fetch_shared_run(&mut self, channel: &Arc<str>) -> Option<OpenRun> {
        let json = self.share.fetch(channel).await;
        let shared = json.and_then(|json| read_open_run(&json));
        if self.shared_runs.len() >= CHANNELS_MAX {
            self.shared_runs.clear();
        }
        self.shared_runs.insert(Arc::clone(channel), (Instant::now(), shared.clone()));
        shared
    }
}

/// Whether the run is named after this message: an implicit id is made of the channel, the message and its time, which is that
/// of its receipt where it has none of its own. Of several messages without a time that are the same to the byte, each could have
/// opened it: where such open runs within a moment, one may be told under the run of another. The store has each in its own.
fn opened_by(run: &OpenRun, channel: &str, facts: &RunHints<'_>) -> bool {
    let at = if facts.has_event_time { facts.event_time } else { run.opened_at };
    implicit_run_id(channel, at, facts.payload) == run.run_id
}
