//! The live feed: a bounded ring of the newest messages.
//!
//! Intake publishes the messages of channels, and a reader of its own the entries of streams. Subscribers poll a few times a second, and
//! no side waits for another. Without a subscriber, publishing costs one relaxed load; otherwise a short lock and a push. A slow
//! subscriber loses the oldest events and learns how many; the store has them.
//!
//! The ring is kept for [`RESUME_WINDOW`] after the last subscriber has left, so that a subscriber that reconnects can resume.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};

use crate::{
    event::{Kind, Resolved, Row},
    memory::LARGE_VALUE,
    render::Json,
    units, wire,
};

/// How long the ring is kept after the last subscriber has left.
const RESUME_WINDOW: Duration = Duration::from_secs(30);
/// Memory of an event beside its payload, which is counted twice where it is kept: as received and as rendered.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// One accepted message.
#[derive(Debug)]
pub struct LiveEvent {
    /// Its kind.
    pub kind: Kind,
    /// Its run and its times.
    pub decided: Resolved,
    channel: Arc<str>,
    payload: Bytes,
    length: usize,
    rendered: OnceLock<Option<Box<str>>>,
}

impl LiveEvent {
    /// A message that was accepted.
    pub fn new(kind: Kind, decided: Resolved, channel: Arc<str>, payload: Bytes) -> Self {
        let length = payload.len();
        // A large payload is not shown: the store has it, and its memory is needed.
        let payload = if length < LARGE_VALUE { payload } else { Bytes::new() };
        Self { kind, decided, channel, payload, length, rendered: OnceLock::new() }
    }

    /// Its size as received.
    pub fn bytes(&self) -> usize {
        self.length
    }

    /// The JSON of the row that it becomes, before the store has it; made once, for all subscribers. `None`: it becomes no row of
    /// its own.
    pub fn json(&self) -> Option<&str> {
        self.rendered.get_or_init(|| self.render()).as_deref()
    }

    fn render(&self) -> Option<Box<str>> {
        let message = wire::decode_accepted(&self.payload).ok()?;
        let rows = wire::rows(&message, &self.decided, &self.channel, &self.payload).rows;
        let text = match rows.first()? {
            Row::Metrics(row) => serde_json::to_string(&Json(row)),
            Row::Topology(row) => serde_json::to_string(&Json(row)),
            Row::Event(row) => serde_json::to_string(&Json(row)),
            Row::Dataset(_) | Row::Control(_) | Row::Gap(_) => return None,
        };
        text.ok().map(String::into_boxed_str)
    }

    fn ring_bytes(&self) -> usize {
        2 * self.payload.len() + EVENT_OVERHEAD_BYTES
    }
}

/// A handle to the ring. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct LiveFeed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    has_subscribers: AtomicBool,
    /// Told of each new subscriber.
    subscribed: Notify,
    /// Number of [`FeedOutage`]s.
    outages: AtomicUsize,
    closed: AtomicBool,
    capacity: usize,
    subscribers_max: usize,
    /// Distinguishes the event numbers of this process from those of earlier ones.
    origin: u64,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Arc<LiveEvent>>,
    bytes: usize,
    /// The number of the next event.
    next: u64,
    subscribers: usize,
    last_left_at: Option<Instant>,
}

impl LiveFeed {
    /// A ring of at most `capacity` bytes, for at most `subscribers_max` at once.
    pub fn new(capacity: usize, subscribers_max: usize) -> Self {
        Self(Arc::new(Shared {
            has_subscribers: AtomicBool::new(false),
            subscribed: Notify::new(),
            outages: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            capacity,
            subscribers_max,
            origin: units::now().unsigned_abs(),
            ring: Mutex::default(),
        }))
    }

    /// Adds a message, if there is a subscriber.
    pub fn publish(&self, make: impl FnOnce() -> LiveEvent) {
        if self.0.has_subscribers.load(Ordering::Relaxed) {
            self.push(make());
        }
    }

    #[cold]
    fn push(&self, event: LiveEvent) {
        let cost = event.ring_bytes();
        let mut ring = self.ring();
        if self.is_abandoned(&mut ring) {
            return;
        }
        ring.next += 1;
        ring.events.push_back(Arc::new(event));
        ring.bytes += cost;
        while ring.bytes > self.0.capacity
            && let Some(oldest) = ring.events.pop_front()
        {
            ring.bytes -= oldest.ring_bytes();
        }
    }

    /// Records that messages were missed: every subscriber loses them, and the events that it has not drained.
    pub fn mark_lost(&self) {
        let mut ring = self.ring();
        if self.is_abandoned(&mut ring) {
            return;
        }
        *ring = Ring {
            next: ring.next + 1,
            subscribers: ring.subscribers,
            last_left_at: ring.last_left_at,
            ..Ring::default()
        };
    }

    /// Whether there is a subscriber, or one may resume.
    pub fn has_subscribers(&self) -> bool {
        self.0.has_subscribers.load(Ordering::Relaxed) && !self.is_abandoned(&mut self.ring())
    }

    /// Waits until there is a subscriber, or one may resume.
    pub async fn wait_for_subscriber(&self) {
        loop {
            // Made first: from here on no new subscriber goes unnoticed.
            let subscribed = self.0.subscribed.notified();
            if self.has_subscribers() {
                return;
            }
            subscribed.await;
        }
    }

    /// Some messages do not reach the feed until the result is dropped.
    pub fn outage(&self) -> FeedOutage {
        self.0.outages.fetch_add(1, Ordering::Relaxed);
        FeedOutage(self.clone())
    }

    /// Whether all messages reach the feed.
    pub fn is_live(&self) -> bool {
        self.0.outages.load(Ordering::Relaxed) == 0
    }

    /// Whether no subscriber can resume any more; the ring is then emptied, and closed until the next one.
    fn is_abandoned(&self, ring: &mut Ring) -> bool {
        let abandoned =
            ring.subscribers == 0 && ring.last_left_at.is_none_or(|abandoned| abandoned.elapsed() > RESUME_WINDOW);
        if abandoned {
            self.0.has_subscribers.store(false, Ordering::Relaxed);
            // One number is skipped, so that a subscriber that resumes later sees a loss.
            *ring = Ring { next: ring.next + 1, ..Ring::default() };
        }
        abandoned
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // A panic elsewhere leaves a consistent ring behind.
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new subscriber, from now on, or from behind the event that `last` names. `None`: too many, of which `spare` must stay free.
    pub fn subscribe(&self, last: Option<&str>, spare: usize) -> Option<Subscriber> {
        let mut ring = self.ring();
        if ring.subscribers + spare >= self.0.subscribers_max {
            return None;
        }
        let known = last.and_then(|last| {
            let (origin, next) = last.split_once('-')?;
            let next = next.parse::<u64>().ok()?;
            (origin.parse() == Ok(self.0.origin) && (ring.first()..=ring.next).contains(&next)).then_some(next)
        });
        // Without a subscriber nothing was added to the ring.
        let resumed = known.filter(|_| self.0.has_subscribers.load(Ordering::Relaxed));
        ring.subscribers += 1;
        ring.last_left_at = None;
        self.0.has_subscribers.store(true, Ordering::Relaxed);
        self.0.subscribed.notify_waiters();
        Some(Subscriber { live: self.clone(), next: resumed.unwrap_or(ring.next), resumed: resumed.is_some() })
    }

    /// Ends the feed; subscribers see it as closed.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
    }

    /// Whether the feed has ended.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Relaxed)
    }
}

/// A time in which some messages do not reach the feed; see [`LiveFeed::outage`].
#[derive(Debug)]
pub struct FeedOutage(LiveFeed);

impl Drop for FeedOutage {
    fn drop(&mut self) {
        self.0.0.outages.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Ring {
    /// The number of the oldest event.
    fn first(&self) -> u64 {
        self.next - self.events.len() as u64
    }
}

/// A subscriber. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscriber {
    live: LiveFeed,
    next: u64,
    /// Whether it resumed at the position that it named.
    pub resumed: bool,
}

/// The events since the last drain.
#[derive(Debug)]
pub struct Drained {
    /// In the order of arrival.
    pub events: Vec<Arc<LiveEvent>>,
    /// Number of lost events before them.
    pub skipped: u64,
}

impl Subscriber {
    /// The events since the last call.
    pub fn drain(&mut self) -> Drained {
        let ring = self.live.ring();
        let from = self.next.max(ring.first());
        let skipped = from - self.next;
        let already = usize::try_from(from - ring.first()).unwrap_or(usize::MAX);
        self.next = ring.next;
        Drained { events: ring.events.iter().skip(already).cloned().collect(), skipped }
    }

    /// The position after the last drained event; for [`LiveFeed::subscribe`].
    pub fn resume_token(&self) -> String {
        format!("{}-{}", self.live.0.origin, self.next)
    }

    /// Whether the feed has ended.
    pub fn is_closed(&self) -> bool {
        self.live.is_closed()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let mut ring = self.live.ring();
        ring.subscribers -= 1;
        if ring.subscribers == 0 {
            ring.last_left_at = Some(Instant::now());
        }
    }
}
