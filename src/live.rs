//! What is happening now, for those who watch: a bounded ring of the newest messages.
//!
//! Intake offers, watchers take; neither waits for the other. While nobody watches an offer is one relaxed load. While somebody
//! does, it is a short lock and a push: nobody is woken for a message, watchers look by themselves a few times a second. A
//! watcher that is slow finds the oldest gone, and is told how many; it reads them from the store if it wants them.
//!
//! The ring is kept for [`LINGER`] after the last watcher has left, so that one who comes back soon goes on where it was.

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
    units,
    wire::{self, Limits},
};

/// How long the ring is kept when nobody watches any more.
const LINGER: Duration = Duration::from_secs(30);
/// What a message costs beside its payload, which is counted twice: as received and as shown.
const ITEM_BYTES: usize = 256;

/// One message, as intake took it.
#[derive(Debug)]
pub struct Item {
    /// What it is about.
    pub kind: Kind,
    /// Its run and its times.
    pub decided: Resolved,
    channel: Arc<str>,
    payload: Bytes,
    length: usize,
    shown: OnceLock<Option<Box<str>>>,
}

impl Item {
    /// A message that was accepted.
    pub fn new(kind: Kind, decided: Resolved, channel: Arc<str>, payload: Bytes) -> Self {
        let length = payload.len();
        // Nobody is shown a large one: the store has it, and its memory is needed.
        let payload = if length < LARGE_VALUE { payload } else { Bytes::new() };
        Self { kind, decided, channel, payload, length, shown: OnceLock::new() }
    }

    /// Its size as received.
    pub fn bytes(&self) -> usize {
        self.length
    }

    /// The JSON of the row that it becomes: what the store will answer, before the store has it. Made once, for all watchers.
    /// `None`: it becomes no row of its own.
    pub fn json(&self, limits: &Limits) -> Option<&str> {
        self.shown.get_or_init(|| self.render(limits)).as_deref()
    }

    fn render(&self, limits: &Limits) -> Option<Box<str>> {
        let message = wire::decode(&self.payload, limits).ok()?;
        let rows = wire::rows(&message, &self.decided, &self.channel, &self.payload).rows;
        let text = match rows.first()? {
            Row::Metrics(row) => serde_json::to_string(&Json(row)),
            Row::Topology(row) => serde_json::to_string(&Json(row)),
            Row::Event(row) => serde_json::to_string(&Json(row)),
            Row::Dataset(_) | Row::Control(_) | Row::Gap(_) => return None,
        };
        text.ok().map(String::into_boxed_str)
    }

    fn cost(&self) -> usize {
        2 * self.length + ITEM_BYTES
    }
}

/// The ring, and the door to it. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Live(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    watched: AtomicBool,
    closed: AtomicBool,
    capacity: usize,
    watchers_max: usize,
    /// Tells the numbers of this process from those of the one before.
    origin: u64,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    items: VecDeque<Arc<Item>>,
    bytes: usize,
    /// The number of the next item.
    next: u64,
    watchers: usize,
    left: Option<Instant>,
}

impl Live {
    /// A ring of at most `capacity` bytes, for at most `watchers_max` at once.
    pub fn new(capacity: usize, watchers_max: usize) -> Self {
        Self(Arc::new(Shared {
            watched: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            capacity,
            watchers_max,
            origin: units::now().unsigned_abs(),
            ring: Mutex::default(),
        }))
    }

    /// Shows a message, if anybody looks.
    pub fn offer(&self, make: impl FnOnce() -> Item) {
        if self.0.watched.load(Ordering::Relaxed) {
            self.push(make());
        }
    }

    #[cold]
    fn push(&self, item: Item) {
        let cost = item.cost();
        let mut ring = self.ring();
        if self.is_left(&mut ring) {
            return;
        }
        ring.next += 1;
        ring.items.push_back(Arc::new(item));
        ring.bytes += cost;
        while ring.bytes > self.0.capacity
            && let Some(oldest) = ring.items.pop_front()
        {
            ring.bytes -= oldest.cost();
        }
    }

    /// Says that something was not heard: everybody is told to have missed it, and what they had not taken yet.
    pub fn skip(&self) {
        let mut ring = self.ring();
        if self.is_left(&mut ring) {
            return;
        }
        *ring = Ring { next: ring.next + 1, watchers: ring.watchers, left: ring.left, ..Ring::default() };
    }

    /// Whether anybody watches, or may come back soon.
    pub fn is_watched(&self) -> bool {
        self.0.watched.load(Ordering::Relaxed) && !self.is_left(&mut self.ring())
    }

    /// Whether nobody will come back; then the ring is emptied, and closed until somebody watches.
    fn is_left(&self, ring: &mut Ring) -> bool {
        let left = ring.watchers == 0 && ring.left.is_none_or(|left| left.elapsed() > LINGER);
        if left {
            self.0.watched.store(false, Ordering::Relaxed);
            // What follows is not shown, so that whoever comes back knows that it has missed something.
            *ring = Ring { next: ring.next + 1, ..Ring::default() };
        }
        left
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Whoever panicked left a ring behind that is whole.
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new watcher, from now on, or from behind the item that `last` names; `None` when there are too many.
    pub fn watch(&self, last: Option<&str>, spare: usize) -> Option<Watcher> {
        let mut ring = self.ring();
        if ring.watchers + spare >= self.0.watchers_max {
            return None;
        }
        let known = last.and_then(|last| {
            let (origin, next) = last.split_once('-')?;
            let next = next.parse::<u64>().ok()?;
            (origin.parse() == Ok(self.0.origin) && (ring.first()..=ring.next).contains(&next)).then_some(next)
        });
        // Without anybody watching, nothing was put into the ring.
        let resumed = known.filter(|_| self.0.watched.load(Ordering::Relaxed));
        ring.watchers += 1;
        ring.left = None;
        self.0.watched.store(true, Ordering::Relaxed);
        Some(Watcher { live: self.clone(), next: resumed.unwrap_or(ring.next), resumed: resumed.is_some() })
    }

    /// Nothing more is shown; those who watch shall go.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
    }

    /// Whether it is over.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Relaxed)
    }
}

impl Ring {
    /// The number of the oldest item.
    fn first(&self) -> u64 {
        self.next - self.items.len() as u64
    }
}

/// One who watches. Dropping it leaves.
#[derive(Debug)]
pub struct Watcher {
    live: Live,
    next: u64,
    /// Whether it goes on where it was.
    pub resumed: bool,
}

/// What a watcher has not seen yet.
#[derive(Debug)]
pub struct Seen {
    /// In the order of arrival.
    pub items: Vec<Arc<Item>>,
    /// How many before them are gone.
    pub skipped: u64,
}

impl Watcher {
    /// Everything since the last time.
    pub fn take(&mut self) -> Seen {
        let ring = self.live.ring();
        let from = self.next.max(ring.first());
        let skipped = from - self.next;
        let already = usize::try_from(from - ring.first()).unwrap_or(usize::MAX);
        self.next = ring.next;
        Seen { items: ring.items.iter().skip(already).cloned().collect(), skipped }
    }

    /// Names the place up to which everything was taken; for [`Live::watch`].
    pub fn place(&self) -> String {
        format!("{}-{}", self.live.0.origin, self.next)
    }

    /// Whether nothing more will come.
    pub fn is_over(&self) -> bool {
        self.live.is_closed()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut ring = self.live.ring();
        ring.watchers -= 1;
        if ring.watchers == 0 {
            ring.left = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn item(epoch: u32) -> Item {
        let decided = Resolved {
            run_id: Uuid::from_u128(1),
            event_time: 5,
            received_at: 6,
            has_event_time: true,
            opened_run: false,
        };
        let payload = format!("{{\"epoch\": {epoch}, \"loss\": 0.5}}");
        Item::new(Kind::Metrics, decided, "c".into(), payload.into())
    }

    fn epochs(seen: &Seen) -> Vec<i64> {
        let shown =
            |item: &Arc<Item>| serde_json::from_str::<serde_json::Value>(item.json(&Limits::default()).unwrap());
        seen.items.iter().map(|item| shown(item).unwrap()["epoch"].as_i64().unwrap()).collect()
    }

    #[test]
    fn nothing_is_made_while_nobody_watches() {
        let live = Live::new(1 << 20, 8);
        live.offer(|| panic!("made"));
        let mut watcher = live.watch(None, 0).unwrap();
        live.offer(|| item(1));
        live.offer(|| item(2));
        assert_eq!(epochs(&watcher.take()), [1, 2]);
        assert!(watcher.take().items.is_empty());
    }

    #[test]
    fn a_slow_watcher_loses_the_oldest_and_is_told_how_many() {
        let live = Live::new(4 * item(0).cost(), 8);
        let mut watcher = live.watch(None, 0).unwrap();
        (0..10).for_each(|epoch| live.offer(|| item(epoch)));
        let seen = watcher.take();
        assert_eq!((epochs(&seen), seen.skipped), (vec![6, 7, 8, 9], 6));
        live.offer(|| Item::new(Kind::Topology, item(0).decided, "c".into(), vec![b' '; 1 << 20].into()));
        let seen = watcher.take();
        assert_eq!((seen.items.len(), seen.skipped), (0, 1), "one that is larger than the ring");
    }

    #[test]
    fn what_was_not_heard_is_told_as_skipped_and_what_follows_is_seen() {
        let live = Live::new(1 << 20, 8);
        assert!(!live.is_watched());
        let mut watcher = live.watch(None, 0).unwrap();
        assert!(live.is_watched());
        live.offer(|| item(1));
        live.skip();
        live.offer(|| item(2));
        let seen = watcher.take();
        assert_eq!((epochs(&seen), seen.skipped), (vec![2], 2));
        live.skip();
        assert_eq!(watcher.take().skipped, 1);
        assert_eq!(watcher.take().skipped, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_comes_back_soon_goes_on_where_it_was() {
        let live = Live::new(1 << 20, 8);
        let mut watcher = live.watch(None, 0).unwrap();
        live.offer(|| item(1));
        watcher.take();
        let place = watcher.place();
        drop(watcher);
        live.offer(|| item(2));
        let mut again = live.watch(Some(&place), 0).unwrap();
        assert!(again.resumed);
        assert_eq!(epochs(&again.take()), [2]);
        let place = again.place();
        drop(again);
        tokio::time::advance(LINGER + Duration::from_secs(1)).await;
        live.offer(|| item(3));
        live.offer(|| panic!("nobody is coming back"));
        for lost in [place.as_str(), "1-1", "nonsense", ""] {
            let mut late = live.watch(Some(lost), 0).unwrap();
            assert!(!late.resumed && late.take().items.is_empty(), "{lost}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_watches_when_the_last_one_has_left_and_does_not_come_back() {
        let live = Live::new(1 << 20, 8);
        drop(live.watch(None, 0).unwrap());
        live.skip();
        assert!(live.is_watched(), "it may come back");
        tokio::time::advance(LINGER + Duration::from_secs(1)).await;
        assert!(!live.is_watched());
        live.offer(|| panic!("nobody is coming back"));
    }

    #[test]
    fn there_is_room_for_so_many() {
        let live = Live::new(1 << 20, 1);
        let watcher = live.watch(None, 0).unwrap();
        assert!(live.watch(None, 0).is_none());
        drop(watcher);
        assert!(live.watch(None, 0).is_some());
    }
}
