//! One budget for large values: payloads that wait, texts made of them, and the copies that a store, Redis or a client needs.
//!
//! Received payloads are charged and never wait: the sources bound them ([`redis.queue_bytes`](crate::redis)). Values made of them
//! wait for room: first rows of the writer, because storing them frees memory; then latest keys and answers to HTTP requests. Small
//! ones of these do not wait behind large ones while spare memory is left ([`SPARE_BYTES`]). Only values of [`LARGE_VALUE`] bytes and
//! more are counted: small ones are bounded elsewhere, and counting them would cost time for each event.
//!
//! The writer gets any amount while little else is in use ([`WRITER_FLOOR`]): its need is bounded by `limits.text`, and it must not wait
//! for ever. While it waits, owners of large values that wait for a client or for Redis are asked to release them
//! ([`MemoryLimit::pressure`]).

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

/// From this size on a value is counted.
pub const LARGE_VALUE: usize = 1 << 20;
/// See [`MemoryLimit::default`].
const DEFAULT_LIMIT: usize = 40 << 20;
/// Values up to this size that find no room get some of [`SPARE_BYTES`]: they wait neither for a large answer to a slow client nor for
/// a writer that stores a large row.
const SMALL_VALUE_MAX: usize = 4 << 20;
const SPARE_BYTES: usize = 8 << 20;
/// While no more than this is used, the writer gets any amount.
const WRITER_FLOOR: usize = 8 << 20;
/// How long the writer waits before owners of large values are asked to release them, and between two requests.
const PRESSURE_DELAY: Duration = Duration::from_secs(1);
/// For how long the longest row counts as one that may be read next.
const MAX_ROW_TTL: Duration = Duration::from_secs(60);

/// Bytes, and what is dropped with the last of them: memory that is counted or reserved for them.
struct Guarded<B, G> {
    bytes: B,
    _guard: G,
}

impl<B: AsRef<[u8]>, G> AsRef<[u8]> for Guarded<B, G> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// The same bytes; `guard` is dropped with the last reference to any of them.
pub fn guarded<B: AsRef<[u8]> + Send + 'static, G: Send + 'static>(bytes: B, guard: G) -> Bytes {
    Bytes::from_owner(Guarded { bytes, _guard: guard })
}

/// The budget. Cloning shares it.
#[derive(Clone, Debug)]
pub struct MemoryLimit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    /// What is left for small values that find no room.
    spare: Mutex<usize>,
    used: Mutex<usize>,
    /// Writers that wait: they get memory before any other.
    waiting_writers: AtomicUsize,
    released: Notify,
    /// How often owners of large values were asked to release them.
    pressure: watch::Sender<u64>,
    max_row: Mutex<Option<(usize, Instant)>>,
}

/// Some bytes of the budget, given back when dropped.
#[derive(Debug)]
pub struct Reserved {
    budget: Arc<Inner>,
    bytes: usize,
    /// The part of them that is of the spare memory.
    spare: usize,
}

/// A writer that waits for memory, also between two tries.
#[derive(Debug)]
pub struct WriterWait {
    limit: MemoryLimit,
    same_row_bytes: usize,
    pressure_at: Instant,
}

impl Default for MemoryLimit {
    /// What a daemon has: 256 MiB, less what it takes by itself, what the buffers of the Redis client keep, and the copies of a row
    /// that the writer gets beyond its limit.
    fn default() -> Self {
        Self::with_spare(DEFAULT_LIMIT, SPARE_BYTES)
    }
}

impl MemoryLimit {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Self {
        Self::with_spare(limit, 0)
    }

    fn with_spare(limit: usize, spare: usize) -> Self {
        Self(Arc::new(Inner {
            limit,
            spare: Mutex::new(spare),
            used: Mutex::default(),
            waiting_writers: AtomicUsize::new(0),
            released: Notify::new(),
            pressure: watch::Sender::new(0),
            max_row: Mutex::default(),
        }))
    }

    /// Bytes that are in use.
    pub fn used(&self) -> usize {
        *lock(&self.0.used)
    }

    /// Whether more than the limit is in use: received payloads do not wait for room.
    pub fn is_exceeded(&self) -> bool {
        self.used() > self.0.limit
    }

    /// Notes the length of a row.
    pub fn note_row(&self, row: usize) {
        let mut max_row = lock(&self.0.max_row);
        if max_row.is_none_or(|(known, at)| row >= known || at.elapsed() > MAX_ROW_TTL) {
            *max_row = Some((row, Instant::now()));
        }
    }

    /// The longest row of the last minute: what is read next may be as long.
    pub fn max_row(&self) -> usize {
        lock(&self.0.max_row).filter(|(_, at)| at.elapsed() <= MAX_ROW_TTL).map_or(0, |(row, _)| row)
    }

    /// Counts received bytes, beyond the limit if need be.
    pub fn charge(&self, bytes: usize) -> Reserved {
        *lock(&self.0.used) += bytes;
        Reserved { budget: Arc::clone(&self.0), bytes, spare: 0 }
    }

    /// So many bytes, if there is room for them now and no writer waits; a few are there also otherwise.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reserved> {
        let is_free = self.0.waiting_writers.load(Ordering::Acquire) == 0;
        // Nothing can be waited for when nothing is used.
        is_free.then(|| self.try_take(bytes, 0)).flatten().or_else(|| self.try_take_spare(bytes))
    }

    /// So many bytes, as soon as there is room for them and no writer waits, or spare memory for a small value. More than the limit is
    /// given while nothing else is used.
    pub async fn reserve(&self, bytes: usize) -> Reserved {
        self.wait_for(|| self.try_reserve(bytes)).await
    }

    /// The same for a writer; while it waits, only spare memory is given. Of what is used, `same_row_bytes` are for the same row.
    pub async fn reserve_for_writer(&self, bytes: usize, same_row_bytes: usize) -> Reserved {
        let mut wait = self.writer_waits();
        wait.same_row_bytes = same_row_bytes;
        wait.reserve(bytes).await
    }

    /// A writer begins to wait.
    pub fn writer_waits(&self) -> WriterWait {
        self.0.waiting_writers.fetch_add(1, Ordering::AcqRel);
        WriterWait { limit: self.clone(), same_row_bytes: 0, pressure_at: Instant::now() + PRESSURE_DELAY }
    }

    /// Changes when owners of large values that wait for a client or for Redis should release them.
    pub fn pressure(&self) -> watch::Receiver<u64> {
        self.0.pressure.subscribe()
    }

    /// Returns when something has been given back and `done` says so, or if it says so now.
    pub async fn until_released(&self, done: impl Fn() -> bool) {
        self.wait_for(|| done().then_some(())).await;
    }

    fn try_take(&self, bytes: usize, floor: usize) -> Option<Reserved> {
        let mut used = lock(&self.0.used);
        if *used > floor && *used + bytes > self.0.limit {
            return None;
        }
        *used += bytes;
        Some(Reserved { budget: Arc::clone(&self.0), bytes, spare: 0 })
    }

    fn try_take_spare(&self, bytes: usize) -> Option<Reserved> {
        let mut spare = lock(&self.0.spare);
        if bytes > SMALL_VALUE_MAX || bytes > *spare {
            return None;
        }
        *spare -= bytes;
        Some(Reserved { budget: Arc::clone(&self.0), bytes, spare: bytes })
    }

    async fn wait_for<T>(&self, take: impl Fn() -> Option<T>) -> T {
        loop {
            let released = self.0.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if let Some(taken) = take() {
                return taken;
            }
            released.await;
        }
    }
}

impl WriterWait {
    /// So many bytes, as soon as there is room for them or little else is used. Dropping the future changes nothing: the writer still
    /// waits.
    pub async fn reserve(&mut self, bytes: usize) -> Reserved {
        loop {
            let taken = self.limit.wait_for(|| self.limit.try_take(bytes, WRITER_FLOOR + self.same_row_bytes));
            if let Ok(reserved) = timeout_at(self.pressure_at, taken).await {
                return reserved;
            }
            self.pressure_at = Instant::now() + PRESSURE_DELAY;
            self.limit.0.pressure.send_modify(|times| *times += 1);
        }
    }
}

impl Drop for WriterWait {
    fn drop(&mut self) {
        self.limit.0.waiting_writers.fetch_sub(1, Ordering::AcqRel);
        self.limit.0.released.notify_waiters();
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

impl Reserved {
    /// How many bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes over what another one has of the same budget.
    pub fn merge(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
        self.spare += std::mem::take(&mut other.spare);
    }

    /// Keeps no more than so many bytes.
    pub fn shrink(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        // The spare part is kept longest: a waiting reservation needs the other.
        let spare = less.saturating_sub(self.bytes - self.spare);
        self.bytes -= less;
        self.spare -= spare;
        *lock(&self.budget.used) -= less - spare;
        *lock(&self.budget.spare) += spare;
        self.budget.released.notify_waiters();
    }
}

/// The values are plain: a panic leaves them valid.
fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const MIB: usize = 1 << 20;
    const SHORT: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn who_makes_more_waits_and_the_writer_is_first() {
        let limit = MemoryLimit::new(100 * MIB);
        let received = limit.charge(70 * MIB);
        assert!(limit.try_reserve(31 * MIB).is_none());
        let answer = limit.try_reserve(30 * MIB).expect("there is room");
        assert!(timeout(SHORT, limit.reserve(1)).await.is_err());
        let mut writer = limit.writer_waits();
        assert!(timeout(SHORT, writer.reserve(60 * MIB)).await.is_err());
        drop(answer);
        assert!(timeout(SHORT, limit.reserve(1)).await.is_err(), "a writer waits, also between two tries");
        assert!(timeout(SHORT, writer.reserve(60 * MIB)).await.is_err());
        drop(received);
        let mut row = timeout(SHORT, writer.reserve(60 * MIB)).await.expect("room for the writer");
        drop(writer);
        assert!(timeout(SHORT, limit.reserve(40 * MIB)).await.is_ok());
        row.shrink(10);
        assert_eq!(limit.used(), 10);
        drop(row);
        assert_eq!(limit.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_writer_gets_anything_beside_a_little() {
        let limit = MemoryLimit::new(100 * MIB);
        let little = limit.charge(WRITER_FLOOR);
        let row = timeout(SHORT, limit.reserve_for_writer(40 * MIB, 0)).await.expect("there is room");
        let copies =
            timeout(SHORT, limit.reserve_for_writer(80 * MIB, 40 * MIB)).await.expect("it must not wait for ever");
        assert!(limit.try_reserve(1).is_none());
        drop((row, copies));
        let more = limit.charge(1);
        assert!(timeout(SHORT, limit.reserve_for_writer(120 * MIB, 0)).await.is_err());
        drop((little, more));
        assert!(limit.try_reserve(1_000 * MIB).is_some(), "a writer that gave up holds up nobody");
    }

    #[tokio::test(start_paused = true)]
    async fn others_are_told_to_let_go_while_the_writer_waits_however_often_it_tries() {
        let limit = MemoryLimit::new(100 * MIB);
        let (all, mut pressure) = (limit.charge(100 * MIB), limit.pressure());
        let mut writer = limit.writer_waits();
        for _ in 0..5 {
            assert!(timeout(Duration::from_millis(300), writer.reserve(MIB)).await.is_err());
        }
        assert!(pressure.has_changed().expect("the budget is there"));
        pressure.mark_unchanged();
        for _ in 0..4 {
            assert!(timeout(Duration::from_millis(300), writer.reserve(MIB)).await.is_err());
        }
        assert!(pressure.has_changed().expect("the budget is there"), "again");
        drop(all);
        assert!(timeout(SHORT, writer.reserve(MIB)).await.is_ok());
    }

    #[test]
    fn small_values_need_not_wait_for_a_large_one() {
        let limit = MemoryLimit::default();
        let large = limit.try_reserve(2 * DEFAULT_LIMIT).expect("nothing else is used");
        let _writer = limit.writer_waits();
        assert!(limit.try_reserve(SMALL_VALUE_MAX + 1).is_none());
        let mut small: Vec<_> = std::iter::from_fn(|| limit.try_reserve(SMALL_VALUE_MAX)).collect();
        assert_eq!((small.len(), limit.used()), (SPARE_BYTES / SMALL_VALUE_MAX, 2 * DEFAULT_LIMIT));
        small[0].shrink(1);
        let mut more = limit.try_reserve(SMALL_VALUE_MAX - 1).expect("it was given back");
        let used = limit.charge(10);
        drop(large);
        more.merge(small.pop().expect("one"));
        more.merge(limit.try_take(MIB, 0).expect("there is room"));
        more.shrink(SMALL_VALUE_MAX);
        assert_eq!(limit.used(), 10, "the part that is not spare is given back first");
        drop((small, more, used));
        assert_eq!((limit.used(), *lock(&limit.0.spare)), (0, SPARE_BYTES));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_row_counts_for_a_while() {
        let limit = MemoryLimit::default();
        limit.note_row(20);
        limit.note_row(10);
        assert_eq!(limit.max_row(), 20);
        tokio::time::advance(MAX_ROW_TTL + SHORT).await;
        assert_eq!(limit.max_row(), 0);
        limit.note_row(10);
        assert_eq!(limit.max_row(), 10);
    }
}
