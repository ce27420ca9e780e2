//! Live events for a process without a pipeline: it listens for itself, and tells what the daemon makes of the same messages.
//!
//! Nothing is kept of what is heard, and while nobody watches nothing is even decoded. The rows that are told are those that
//! the daemon stores, because a row is a function of its message; where it is not, the daemon's word is asked for:
//! * the run of a message without an id is what the daemon decided and shares in Redis (`<prefix>ingest:run:<channel>`), asked
//!   for again each [`REFRESH`]. Both hear the same messages in the same order, so what has been heard says where in it a run
//!   began, and a run begins here only when the daemon says so. One that began for a reason that is not heard here (`reset`)
//!   is noticed with its next messages; those before are told of the run before, and told as skipped when that is noticed;
//! * a message without a time of its own is told at the time at which it was received here, the daemon's own being some
//!   milliseconds off; the row replaces it when the store is read.
//!
//! What was not heard (a lost connection, a full queue), and what cannot be told (the daemon is silent about a run, or several
//! began at once) is told as skipped: whoever watches reads the store then.

use std::{collections::HashMap, convert::Infallible, io, sync::Arc, time::Duration};

use jiff::tz::TimeZone;
use serde_json::Value;
use tokio::{
    sync::{broadcast, mpsc},
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::shared_runs::read_open_run;
use crate::{
    config::Settings,
    event::{Kind, Resolved, implicit_run_id},
    frame::{Frame, IntakeItem},
    lifecycle::{Readiness, Signal},
    live::{Item, Live},
    metrics::Metrics,
    redis::{Link, RunShare},
    runs::{EventTime, OpenRun, Resolver, RunHints},
    source::{self, QueuedBytes, SourceStatus, pubsub::Source, queue},
    units::{self, Micros},
    wire::{self, Limits},
};

/// How old the daemon's word on a channel may be.
const REFRESH: Duration = Duration::from_millis(100);
/// A channel without a run is asked about this often, at most.
const UNKNOWN: Duration = Duration::from_millis(50);
/// A run that has just begun is asked for this often …
const AGAIN: Duration = Duration::from_millis(20);
/// … and this long after it was heard; then for as long not at all: who is silent about one run is silent about the next.
const PATIENCE: Duration = Duration::from_secs(1);
/// How far the daemon's clock may be from ours, and we behind it.
const SKEW: Micros = 500_000;
/// Channels on which the daemon's word is remembered.
const CHANNELS_MAX: usize = 1_024;
/// The longest receipt that is passed on.
const RECEIPT_BYTES: usize = 64 << 10;

/// What a process without a pipeline hears.
pub struct Heard {
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
    live: &Live,
    link: &Link,
    receipts: broadcast::Sender<Arc<str>>,
    stop: Signal,
) -> io::Result<(Heard, impl Future<Output = Result<(), source::ThreadEnded>> + Send + 'static)> {
    let redis = &settings.redis;
    let (queue, arrivals, bytes) = queue(redis.queue_frames, settings.http.stream_buffer.as_usize());
    let status = SourceStatus::new(Readiness::default());
    // Counted apart: what is missed here is no loss of the archive's.
    let listener = Source::listener(redis, queue, status.clone(), Metrics::new());
    let ended = source::receive(vec![listener], stop.clone())?;
    let follower = Follower {
        limits: settings.limits.clone(),
        zone: TimeZone::get(&settings.intake.time_zone).unwrap_or(TimeZone::UTC),
        ack: redis.ack_channel(),
        bytes,
        live: live.clone(),
        receipts,
        share: RunShare::new(link.clone(), &redis.key_prefix),
        resolver: Resolver::new(settings.intake.timeouts()).with_channels(settings.intake.channels_max),
        words: HashMap::new(),
        silent: HashMap::new(),
        began: Instant::now(),
    };
    Ok((Heard { status, follower, arrivals, stop }, ended))
}

impl Heard {
    /// Tells what is heard until nothing more comes, or nobody wants it any more: what still waits then is in the store.
    ///
    /// # Errors
    /// None.
    pub async fn tell(self) -> Result<(), Infallible> {
        let Self { follower, arrivals, mut stop, .. } = self;
        tokio::select! {
            () = stop.stopped() => {}
            () = follower.tell(arrivals) => {}
        }
        Ok(())
    }
}

struct Follower {
    limits: Limits,
    zone: TimeZone,
    ack: String,
    bytes: QueuedBytes,
    live: Live,
    receipts: broadcast::Sender<Arc<str>>,
    share: RunShare,
    resolver: Resolver,
    /// The daemon's word on a channel, and when it was asked for.
    words: HashMap<Arc<str>, (Instant, Option<OpenRun>)>,
    /// Channels on which it did not say what began, and until when nobody waits for that.
    silent: HashMap<Arc<str>, Instant>,
    began: Instant,
}

impl Follower {
    async fn tell(mut self, mut arrivals: mpsc::Receiver<IntakeItem>) {
        while let Some(arrival) = arrivals.recv().await {
            match arrival {
                IntakeItem::Frame(frame) => {
                    self.take(&frame).await;
                    self.bytes.taken(&frame);
                }
                IntakeItem::Gap(_) => self.live.skip(),
                // Only intake is told these; a listener's queue never has them.
                IntakeItem::FrameWithAck(..) | IntakeItem::Receipt(_) | IntakeItem::CloseRuns => {}
            }
        }
    }

    async fn take(&mut self, frame: &Frame) {
        if *frame.channel == *self.ack {
            return self.receipt(&frame.payload);
        }
        if !self.live.is_watched() {
            // What happens meanwhile is not seen; the daemon knows it.
            self.resolver.close_all();
            self.words.clear();
            self.silent.clear();
            return;
        }
        // What the daemon rejects is not told either.
        let Ok(message) = wire::decode(&frame.payload, &self.limits) else { return };
        let time = message.time(frame.received_at, &self.zone);
        let facts = RunHints::of(
            &message,
            EventTime { micros: time.event_time, from_message: time.from_message },
            frame.received_at,
            &frame.payload,
        );
        let Some((run_id, opened)) = self.run_of(&frame.channel, &facts).await else {
            return self.live.skip();
        };
        let decided = Resolved {
            run_id,
            event_time: time.event_time,
            received_at: frame.received_at,
            has_event_time: time.from_message,
            opened_run: opened,
        };
        self.live.offer(|| Item::new(message.kind(), decided, frame.channel.clone(), frame.payload.clone()));
    }

    /// Anybody may publish there: only what is one JSON object is passed on.
    fn receipt(&self, payload: &[u8]) {
        if payload.len() <= RECEIPT_BYTES
            && let Ok(receipt @ Value::Object(_)) = serde_json::from_slice(payload)
        {
            // Nobody may be there to hear it.
            let _ = self.receipts.send(receipt.to_string().into());
        }
    }

    /// The run of a message, and whether the message opened it; `None`: the daemon's word is not clear.
    async fn run_of(&mut self, channel: &Arc<str>, facts: &RunHints<'_>) -> Option<(Uuid, bool)> {
        let subscribed = self.began.elapsed();
        if facts.run_id.is_some() {
            let choice = self.resolver.decide(channel, facts, subscribed);
            return Some((choice.run_id, choice.opened_run));
        }
        let known = self.resolver.open_run(channel).map(|run| run.run_id);
        if let Some(word) = self.word(channel, known.is_some()).await {
            if opened_by(&word, channel, facts) {
                return self.begin(channel, facts, word);
            }
            match known {
                Some(known) if known == word.run_id => _ = self.resolver.adopt(channel, word, subscribed),
                // One that has begun just now: before this message, or behind it.
                _ if word.opened_at >= facts.received_at - SKEW => return None,
                // One that began before. If that went unnoticed, something was told of the wrong run.
                _ => {
                    self.resolver.replace(channel, Some(word), subscribed);
                    known.is_none().then_some(())?;
                }
            }
        }
        let known = self.resolver.open_run(channel).map(|run| run.run_id);
        let choice = self.resolver.decide(channel, facts, subscribed);
        if known == Some(choice.run_id) {
            return Some((choice.run_id, choice.opened_run));
        }
        // A run begins by the daemon's word alone.
        match self.begun(channel, facts).await {
            Some(run) => self.begin(channel, facts, run),
            None => {
                self.resolver.replace(channel, None, subscribed);
                None
            }
        }
    }

    /// Goes on with a run that this message has opened.
    fn begin(&mut self, channel: &str, facts: &RunHints<'_>, run: OpenRun) -> Option<(Uuid, bool)> {
        let run_id = run.run_id;
        self.silent.remove(channel);
        self.resolver.replace(channel, Some(run), self.began.elapsed());
        Some((run_id, facts.kind != Kind::RunStart))
    }

    /// The daemon's newest word on a channel, not older than [`REFRESH`].
    async fn word(&mut self, channel: &Arc<str>, known: bool) -> Option<OpenRun> {
        let patience = if known { REFRESH } else { UNKNOWN };
        match self.words.get(channel) {
            Some((asked, word)) if asked.elapsed() < patience => word.clone(),
            _ => self.ask(channel).await,
        }
    }

    /// The run that the daemon has opened with this message, once it says so.
    async fn begun(&mut self, channel: &Arc<str>, facts: &RunHints<'_>) -> Option<OpenRun> {
        if self.silent.get(channel).is_some_and(|until| Instant::now() < *until) {
            return None;
        }
        // All others wait meanwhile. One that has waited already is not waited for again, or they would fall back ever further.
        let age = Duration::from_micros(u64::try_from(units::now() - facts.received_at).unwrap_or_default());
        let until = Instant::now() + PATIENCE.saturating_sub(age);
        loop {
            match self.ask(channel).await {
                Some(word) if opened_by(&word, channel, facts) => return Some(word),
                // The daemon is further already, and does not tell of the runs between.
                Some(word) if word.opened_at > facts.received_at => return None,
                _ if Instant::now() >= until => break,
                _ => sleep(AGAIN).await,
            }
        }
        if self.silent.len() >= CHANNELS_MAX {
            self.silent.clear();
        }
        self.silent.insert(Arc::clone(channel), Instant::now() + PATIENCE);
        None
    }

    async fn ask(&mut self, channel: &Arc<str>) -> Option<OpenRun> {
        let json = self.share.fetch(channel).await;
        let word = json.and_then(|json| read_open_run(&json));
        if self.words.len() >= CHANNELS_MAX {
            self.words.clear();
        }
        self.words.insert(Arc::clone(channel), (Instant::now(), word.clone()));
        word
    }
}

/// Whether the run is named after this message: an implicit id is made of the channel, the message and its time, which is that
/// of its receipt where it has none of its own. Of several messages without a time that are the same to the byte, each could have
/// opened it: where such open runs within a moment, one may be told under the run of another. The store has each in its own.
fn opened_by(run: &OpenRun, channel: &str, facts: &RunHints<'_>) -> bool {
    let at = if facts.has_event_time { facts.event_time } else { run.opened_at };
    implicit_run_id(channel, at, facts.payload) == run.run_id
}
