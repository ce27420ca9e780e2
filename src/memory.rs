//! Memory budget of large messages and large rows: queued payloads, texts made of them, and the temporary copies for a store,
//! Redis or an HTTP client.
//!
//! Received data is charged and never waits: the sources bound it ([`redis.queue_bytes`](crate::redis)). Data derived from it
//! waits for memory: first the writer's rows, because storing them frees memory; then latest keys and HTTP responses. Small
//! values do not wait behind large ones while spare memory is left ([`SPARE_BYTES`]).
//! Only values of at least [`LARGE_VALUE`] bytes are counted. Smaller ones are bounded by their queues; counting them would cost
//! time per event.
//!
//! The writer gets any amount once little else is in use ([`WRITER_FLOOR`]): its demand is bounded by `limits.text`, and it must
//! not starve. While it waits, owners of large values that wait for a client or for Redis (untaken responses, values kept for a
//! Redis reconnect) are asked to release them ([`MemoryLimit::pressure`]).

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

/// Values of at least this size are counted.
pub const LARGE_VALUE: usize = 1 << 20;
/// See [`MemoryLimit::default`].
const DEFAULT_LIMIT: usize = 40 << 20;
/// Values up to this size fall back to [`SPARE_BYTES`]: they wait neither for a large response to a slow client nor for a writer
/// that is storing a large row.
const SMALL_VALUE_MAX: usize = 4 << 20;
const SPARE_BYTES: usize = 8 << 20;
/// While at most this much is in use, the writer gets any amount.
const WRITER_FLOOR: usize = 8 << 20;
/// Time the writer waits before owners of large values are asked to release them, and between two such requests.
const PRESSURE_DELAY: Duration = Duration::from_secs(1);
/// Time for which the longest row seen serves as the estimate for the next read.
const MAX_ROW_TTL: Duration = Duration::from_secs(60);

/// Bytes and a guard that is dropped with their last reference: their memory reservation.
struct Guarded<B, G> {
    bytes: B,
    _guard: G,
}

impl<B: AsRef<[u8]>, G> AsRef<[u8]> for Guarded<B, G> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// Attaches `guard` to the bytes; it is dropped with their last reference.
pub fn guarded<B: AsRef<[u8]> + Send + 'static, G: Send + 'static>(bytes: B, guard: G) -> Bytes {
    Bytes::from_owner(Guarded { bytes, _guard: guard })
}

/// The budget. Cloning shares it.
#[derive(Clone, Debug)]
pub struct MemoryLimit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    /// Remaining spare memory for small values.
    spare: Mutex<usize>,
    used: Mutex<usize>,
    /// Waiting writers: they get memory first.
    waiting_writers: AtomicUsize,
    released: Notify,
    /// Number of requests to owners of large values to release them.
    pressure: watch::Sender<u64>,
    max_row: Mutex<Option<(usize, Instant)>>,
}

/// A reservation, returned to the budget when dropped.
#[derive(Debug)]
pub struct Reserved {
    budget: Arc<Inner>,
    bytes: usize,
    /// The part taken from the spare memory.
    spare: usize,
}

/// A waiting writer; it keeps its priority between two reservations.
#[derive(Debug)]
pub struct WriterWait {
    limit: MemoryLimit,
    same_row_bytes: usize,
    pressure_at: Instant,
}

impl Default for MemoryLimit {
    /// The daemon's budget: 256 MiB less its base memory, the Redis client's buffers, and the copies of a row that the writer
    /// gets beyond its limit.
    fn default() -> Self {
        Self::with_spare(DEFAULT_LIMIT, SPARE_BYTES)
    }
}

impl MemoryLimit {
    /// A budget of this many bytes.
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

    /// Bytes in use.
    pub fn used(&self) -> usize {
        *lock(&self.0.used)
    }

    /// Whether more than the limit is in use: received data is charged without waiting.
    pub fn is_exceeded(&self) -> bool {
        self.used() > self.0.limit
    }

    /// Records the length of a row.
    pub fn note_row(&self, row: usize) {
        let mut max_row = lock(&self.0.max_row);
        if max_row.is_none_or(|(known, at)| row >= known || at.elapsed() > MAX_ROW_TTL) {
            *max_row = Some((row, Instant::now()));
        }
    }

    /// The longest row of the last minute: an estimate for the next read.
    pub fn max_row(&self) -> usize {
        lock(&self.0.max_row).filter(|(_, at)| at.elapsed() <= MAX_ROW_TTL).map_or(0, |(row, _)| row)
    }

    /// Charges received data, which is already in memory; never waits.
    pub fn charge(&self, bytes: usize) -> Reserved {
        *lock(&self.0.used) += bytes;
        Reserved { budget: Arc::clone(&self.0), bytes, spare: 0 }
    }

    /// Reserves memory if it is free now and no writer waits, or spare memory for a small value.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reserved> {
        let is_free = self.0.waiting_writers.load(Ordering::Acquire) == 0;
        // Memory floor 0: with nothing in use, any amount is given, because no release would follow.
        is_free.then(|| self.try_take(bytes, 0)).flatten().or_else(|| self.try_take_spare(bytes))
    }

    /// Reserves memory once it is free and no writer waits, or spare memory for a small value. More than the limit is given while
    /// nothing else is in use.
    pub async fn reserve(&self, bytes: usize) -> Reserved {
        self.wait_for(|| self.try_reserve(bytes)).await
    }

    /// Reserves memory for a writer; while it waits, other reservations get only spare memory. `same_row_bytes` of the memory in
    /// use already belong to the same row.
    pub async fn reserve_for_writer(&self, bytes: usize, same_row_bytes: usize) -> Reserved {
        let mut wait = self.writer_waits();
        wait.same_row_bytes = same_row_bytes;
        wait.reserve(bytes).await
    }

    /// Registers a waiting writer.
    pub fn writer_waits(&self) -> WriterWait {
        self.0.waiting_writers.fetch_add(1, Ordering::AcqRel);
        WriterWait { limit: self.clone(), same_row_bytes: 0, pressure_at: Instant::now() + PRESSURE_DELAY }
    }

    /// Changes when owners of large values that wait for a client or for Redis should release them.
    pub fn pressure(&self) -> watch::Receiver<u64> {
        self.0.pressure.subscribe()
    }

    /// Returns once `done` is true; it is checked now and after every release.
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
    /// Reserves memory once it is free or little else is in use. Dropping the future keeps the writer registered as waiting.
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
    /// Reserved bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Absorbs another reservation of the same budget.
    pub fn merge(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
        self.spare += std::mem::take(&mut other.spare);
    }

    /// Reduces the reservation to at most this many bytes.
    pub fn shrink(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        // Spare memory is returned last: waiting reservations need the regular part.
        let spare = less.saturating_sub(self.bytes - self.spare);
        self.bytes -= less;
        self.spare -= spare;
        *lock(&self.budget.used) -= less - spare;
        *lock(&self.budget.spare) += spare;
        self.budget.released.notify_waiters();
    }
}

/// The values are plain, so a panic leaves them valid.
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
    async fn reservations_wait_and_the_writer_is_first() {
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
    async fn the_writer_gets_any_amount_while_little_is_used() {
        let limit = MemoryLimit::new(100 * MIB);
        let little = limit.charge(WRITER_FLOOR);
        let row = timeout(SHORT, limit.reserve_for_writer(40 * MIB, 0)).await.expect("there is room");
        let copies =
            timeout(SHORT, limit.reserve_for_writer(80 * MIB, 40 * MIB)).await.expect("the writer must not starve");
        assert!(limit.try_reserve(1).is_none());
        drop((row, copies));
        let more = limit.charge(1);
        assert!(timeout(SHORT, limit.reserve_for_writer(120 * MIB, 0)).await.is_err());
        drop((little, more));
        assert!(limit.try_reserve(1_000 * MIB).is_some(), "a writer that gave up blocks no reservation");
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_writer_signals_pressure_repeatedly() {
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
    fn small_values_do_not_wait_for_a_large_one() {
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
        assert_eq!(limit.used(), 10, "spare memory is returned last");
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
