//! The live events of streams, of a daemon and of a process without a pipeline alike: the entries are read once more, without a group,
//! while there is a subscriber, and published as the rows that the daemons make of them. So each process shows the entries that any
//! daemon takes.
//!
//! The run of an entry without an id is decided by the daemons, and shared in Redis ([`StreamRuns`]). Entries that were missed (removed
//! before they were read; appended before the reader was connected; large, while there was no memory for them) are reported as skipped; a
//! client then reads the store. While a stream cannot be read, or the runs of its entries are unknown, the feed is not live, and clients
//! ask the store instead.

use std::{convert::Infallible, time::Duration};

use futures_util::future::join_all;
use jiff::tz::TimeZone;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::live_runs::{EntryRun, StreamRuns};
use crate::{
    config::Settings,
    frame::Frame,
    intake::read_open_run,
    lifecycle::Signal,
    live::{FeedOutage, LiveEvent, LiveFeed},
    memory::MemoryLimit,
    redis::{Link, RunShare},
    runs::RunHints,
    source::streams::Tail,
    wire::{self, Limits, Message},
};

/// The run that an entry has opened is fetched this often …
const NEW_RUN_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// … until this long after the entry was read; then none is waited for as long, because the daemons may be away.
const NEW_RUN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long after an entry whose run was unknown the feed is not live.
const UNKNOWN_RUN_OUTAGE: Duration = Duration::from_secs(5);

/// Where the events go.
pub struct StreamFeed<'a> {
    /// The feed.
    pub live: &'a LiveFeed,
    /// Where large entries are counted until they are published.
    pub memory: &'a MemoryLimit,
}

/// Publishes what is appended to the configured streams until told to stop. Each stream is followed for itself: one that waits delays no
/// other.
pub fn run(
    settings: &Settings,
    feed: &StreamFeed<'_>,
    link: &Link,
    limits: &watch::Receiver<Limits>,
    mut stop: Signal,
) -> impl Future<Output = Result<(), Infallible>> + Send + use<> {
    let follower = |tail: Tail| StreamFollower {
        runs: FollowedRuns::new(tail.stream(), settings.intake.run_end_grace),
        tail: tail.charging(feed.memory.clone()),
        live: feed.live.clone(),
        limits: limits.clone(),
        zone: TimeZone::get(&settings.intake.time_zone).unwrap_or(TimeZone::UTC),
        grace: settings.intake.run_end_grace,
        share: RunShare::new(link.clone(), &settings.redis.key_prefix),
        unknown_run_at: None,
        outage: None,
    };
    let followers: Vec<_> = Tail::all(&settings.redis).into_iter().map(follower).collect();
    async move {
        join_all(followers.into_iter().map(|follower| follower.follow(stop.clone()))).await;
        stop.stopped().await;
        Ok(())
    }
}

/// Follows one stream.
struct StreamFollower {
    tail: Tail,
    live: LiveFeed,
    limits: watch::Receiver<Limits>,
    zone: TimeZone,
    grace: Duration,
    share: RunShare,
    runs: FollowedRuns,
    /// When an entry came whose run was unknown.
    unknown_run_at: Option<Instant>,
    /// While the stream is not being read, or runs are unknown.
    outage: Option<FeedOutage>,
}

/// The runs of one stream.
struct FollowedRuns {
    runs: StreamRuns,
    /// Whether they were fetched for the entries that are being shown; absent: not yet.
    is_fetched: Option<bool>,
    /// Until when no new run is waited for.
    backoff_until: Option<Instant>,
}

impl FollowedRuns {
    fn new(stream: &str, grace: Duration) -> Self {
        Self { runs: StreamRuns::new(stream, grace), is_fetched: None, backoff_until: None }
    }
}

impl StreamFollower {
    async fn follow(mut self, mut stop: Signal) {
        loop {
            tokio::select! {
                biased;
                () = stop.stopped() => return,
                () = self.live.wait_for_subscriber() => {}
            }
            while self.live.has_subscribers() {
                tokio::select! {
                    biased;
                    () = stop.stopped() => return,
                    () = self.show_next() => {}
                }
            }
            self.tail.close();
            self.runs = FollowedRuns::new(self.tail.stream(), self.grace);
            (self.unknown_run_at, self.outage) = (None, None);
        }
    }

    /// Waits for entries, and publishes them.
    async fn show_next(&mut self) {
        let tailed = self.tail.next().await;
        self.update_outage();
        if tailed.missed {
            self.live.mark_lost();
        }
        self.runs.is_fetched = None;
        let limits = self.limits.borrow().clone();
        for frame in &tailed.frames {
            // The daemons reject it, too.
            let Ok(message) = wire::decode(&frame.payload, &limits) else { continue };
            let (event, was_wrong) = self.event(frame, &message).await;
            if was_wrong {
                self.live.mark_lost();
            }
            match event {
                Some(event) => self.live.publish(|| event),
                None => self.unknown_run_at = Some(Instant::now()),
            }
        }
        self.update_outage();
    }

    /// While events are lacking the feed is not live. Those whose run was unknown are skipped; what was not read is read later.
    fn update_outage(&mut self) {
        if self.unknown_run_at.is_some_and(|at| at.elapsed() >= UNKNOWN_RUN_OUTAGE) {
            self.unknown_run_at = None;
            self.live.mark_lost();
        }
        if self.tail.has_error() || self.unknown_run_at.is_some() {
            self.outage.get_or_insert_with(|| self.live.outage());
        } else {
            self.outage = None;
        }
    }

    /// The event of an entry, unless its run is unknown, and whether the entry before it was shown under a wrong run.
    async fn event(&mut self, frame: &Frame, message: &Message<'_>) -> (Option<LiveEvent>, bool) {
        let time = message.time(frame.received_at, &self.zone).of_entry(frame.entry);
        let hints = RunHints::of(message, time, frame.received_at, &frame.payload);
        let (found, was_wrong) = self.run_of(frame, &hints).await;
        let event = found.map(|EntryRun { run_id, opened_run }| {
            let decided = time.resolve(frame.received_at, run_id, opened_run);
            LiveEvent::new(message.kind(), decided, frame.event_source(time.from_message), frame.payload.clone())
        });
        (event, was_wrong)
    }

    /// The run of an entry, if it is known, and whether the entry before it was shown under a wrong one.
    async fn run_of(&mut self, frame: &Frame, hints: &RunHints<'_>) -> (Option<EntryRun>, bool) {
        let Self { runs: followed, share, .. } = self;
        let is_named = StreamRuns::is_named(hints);
        let mut was_wrong = false;
        let until = match followed.backoff_until {
            Some(until) if Instant::now() < until => frame.received,
            _ => frame.received + NEW_RUN_TIMEOUT,
        };
        loop {
            if followed.is_fetched.is_none() && !is_named {
                let shared = share.fetch_shared(&frame.channel).await;
                followed.is_fetched = Some(shared.is_ok());
                if let Ok(json) = shared {
                    was_wrong |= followed.runs.refresh(json.as_deref().and_then(read_open_run));
                }
            }
            // Not asked again for each entry: the next may have to wait as long.
            if followed.is_fetched == Some(false) && !is_named {
                return (None, was_wrong);
            }
            if let Some(found) = followed.runs.decide(hints, &frame.payload) {
                return (Some(found), was_wrong);
            }
            if Instant::now() >= until {
                break;
            }
            // A daemon opens it in a moment.
            sleep(NEW_RUN_POLL_INTERVAL).await;
            followed.is_fetched = None;
        }
        if followed.backoff_until.is_none_or(|until| Instant::now() >= until) {
            followed.backoff_until = Some(Instant::now() + NEW_RUN_TIMEOUT);
        }
        (None, was_wrong)
    }
}
