//! The live feed: a bounded ring of the newest messages.
//!
//! Intake publishes, subscribers poll a few times a second; neither waits for the other. Without a subscriber, publishing costs one
//! relaxed load; otherwise a short lock and a push. A slow subscriber loses the oldest events and learns how many; the store has them.
//!
//! The ring is kept for [`RESUME_WINDOW`] after the last subscriber has left, so that a subscriber that reconnects can resume.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    event::{Kind, Resolved, Row},
    memory::LARGE_VALUE,
    render::Json,
    units, wire,
};

/// How long the ring is kept after the last subscriber has left.
const RESUME_WINDOW: Duration = Duration::from_secs(30);
/// Memory of an event beside its payload, which is counted twice: as received and as rendered.
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
        2 * self.length + EVENT_OVERHEAD_BYTES
    }
}

/// A handle to the ring. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct LiveFeed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    has_subscribers: AtomicBool,
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn event(epoch: u32) -> LiveEvent {
        let decided = Resolved {
            run_id: Uuid::from_u128(1),
            event_time: 5,
            received_at: 6,
            has_event_time: true,
            opened_run: false,
        };
        let payload = format!("{{\"epoch\": {epoch}, \"loss\": 0.5}}");
        LiveEvent::new(Kind::Metrics, decided, "c".into(), payload.into())
    }

    fn epochs(drained: &Drained) -> Vec<i64> {
        let rendered = |event: &Arc<LiveEvent>| serde_json::from_str::<serde_json::Value>(event.json().unwrap());
        drained.events.iter().map(|event| rendered(event).unwrap()["epoch"].as_i64().unwrap()).collect()
    }

    #[test]
    fn no_event_is_made_without_a_subscriber() {
        let live = LiveFeed::new(1 << 20, 8);
        live.publish(|| panic!("made"));
        let mut subscriber = live.subscribe(None, 0).unwrap();
        live.publish(|| event(1));
        live.publish(|| event(2));
        assert_eq!(epochs(&subscriber.drain()), [1, 2]);
        assert!(subscriber.drain().events.is_empty());
    }

    #[test]
    fn a_slow_subscriber_loses_the_oldest_events_and_learns_how_many() {
        let live = LiveFeed::new(4 * event(0).ring_bytes(), 8);
        let mut subscriber = live.subscribe(None, 0).unwrap();
        (0..10).for_each(|epoch| live.publish(|| event(epoch)));
        let drained = subscriber.drain();
        assert_eq!((epochs(&drained), drained.skipped), (vec![6, 7, 8, 9], 6));
        live.publish(|| LiveEvent::new(Kind::Topology, event(0).decided, "c".into(), vec![b' '; 1 << 20].into()));
        let drained = subscriber.drain();
        assert_eq!((drained.events.len(), drained.skipped), (0, 1), "one that is larger than the ring");
    }

    #[test]
    fn missed_messages_are_skipped_and_later_ones_are_shown() {
        let live = LiveFeed::new(1 << 20, 8);
        assert!(!live.has_subscribers());
        let mut subscriber = live.subscribe(None, 0).unwrap();
        assert!(live.has_subscribers());
        live.publish(|| event(1));
        live.mark_lost();
        live.publish(|| event(2));
        let drained = subscriber.drain();
        assert_eq!((epochs(&drained), drained.skipped), (vec![2], 2));
        live.mark_lost();
        assert_eq!(subscriber.drain().skipped, 1);
        assert_eq!(subscriber.drain().skipped, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_that_reconnects_soon_resumes() {
        let live = LiveFeed::new(1 << 20, 8);
        let mut subscriber = live.subscribe(None, 0).unwrap();
        live.publish(|| event(1));
        subscriber.drain();
        let token = subscriber.resume_token();
        drop(subscriber);
        live.publish(|| event(2));
        let mut again = live.subscribe(Some(&token), 0).unwrap();
        assert!(again.resumed);
        assert_eq!(epochs(&again.drain()), [2]);
        let token = again.resume_token();
        drop(again);
        tokio::time::advance(RESUME_WINDOW + Duration::from_secs(1)).await;
        live.publish(|| event(3));
        live.publish(|| panic!("nobody is coming back"));
        for lost in [token.as_str(), "1-1", "nonsense", ""] {
            let mut late = live.subscribe(Some(lost), 0).unwrap();
            assert!(!late.resumed && late.drain().events.is_empty(), "{lost}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_feed_has_no_subscriber_once_the_resume_window_is_over() {
        let live = LiveFeed::new(1 << 20, 8);
        drop(live.subscribe(None, 0).unwrap());
        live.mark_lost();
        assert!(live.has_subscribers(), "it may come back");
        tokio::time::advance(RESUME_WINDOW + Duration::from_secs(1)).await;
        assert!(!live.has_subscribers());
        live.publish(|| panic!("nobody is coming back"));
    }

    #[test]
    fn the_number_of_subscribers_has_a_bound() {
        let live = LiveFeed::new(1 << 20, 1);
        let subscriber = live.subscribe(None, 0).unwrap();
        assert!(live.subscribe(None, 0).is_none());
        drop(subscriber);
        assert!(live.subscribe(None, 0).is_some());
    }
}
