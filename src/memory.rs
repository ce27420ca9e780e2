//! One budget for what large messages and large rows take: payloads that wait, texts made of them, the copies that a store, Redis or
//! a client needs meanwhile.
//!
//! What is received is charged and never waits: the sources bound it ([`redis.queue_bytes`](crate::redis)). Whoever would make more
//! of it waits until there is room: the writer first, because it makes room; then the latest keys and answers to HTTP requests.
//! Only values of [`LARGE`] bytes and more are counted. The rest is bounded where it is, and counting it would cost each event.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

/// From this size on a value is counted.
pub const LARGE: usize = 1 << 20;
/// See [`MemoryLimit::default`]. What needs more is alone with it.
const LIMIT: usize = 96 << 20;
/// How long the writer waits for clients to take their answers before those with large ones are cut off.
const CLIENTS_TIMEOUT: Duration = Duration::from_secs(2);

/// The budget. Cloning shares it.
#[derive(Clone, Debug)]
pub struct MemoryLimit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    used: Mutex<usize>,
    /// Writers that wait: nobody else gets anything before them.
    writers: AtomicUsize,
    /// The longest row seen so far.
    largest: AtomicUsize,
    released: Notify,
    pressure: Notify,
}

/// Some bytes of the budget, given back when dropped.
#[derive(Debug)]
pub struct Reserved {
    of: Arc<Inner>,
    bytes: usize,
}

impl Default for MemoryLimit {
    /// What a daemon has: 256 MiB, less what it takes by itself and what the buffers of the Redis client keep.
    fn default() -> Self {
        Self::new(LIMIT)
    }
}

impl MemoryLimit {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Inner {
            limit,
            used: Mutex::default(),
            writers: AtomicUsize::new(0),
            largest: AtomicUsize::new(0),
            released: Notify::new(),
            pressure: Notify::new(),
        }))
    }

    /// Bytes that are in use.
    pub fn used(&self) -> usize {
        *self.0.used()
    }

    /// There are rows as long as this.
    pub fn note(&self, row: usize) {
        self.0.largest.fetch_max(row, Ordering::AcqRel);
    }

    /// The longest row seen so far: what somebody reads may be as long.
    pub fn largest(&self) -> usize {
        self.0.largest.load(Ordering::Acquire)
    }

    /// Counts what is there already.
    pub fn charge(&self, bytes: usize) -> Reserved {
        *self.0.used() += bytes;
        Reserved { of: Arc::clone(&self.0), bytes }
    }

    /// So many bytes, if there is room for them now and no writer waits.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reserved> {
        if self.0.writers.load(Ordering::Acquire) > 0 { None } else { self.take(bytes) }
    }

    /// So many bytes, as soon as there is room for them and no writer waits. More than all there is: all of it.
    pub async fn reserve(&self, bytes: usize) -> Reserved {
        self.until(|| self.try_reserve(bytes)).await
    }

    /// The same for the writer, whose waiting holds up all others. Clients that keep large answers meanwhile are cut off after
    /// two seconds ([`pressure`](Self::pressure)).
    pub async fn reserve_for_writer(&self, bytes: usize) -> Reserved {
        if let Some(reserved) = self.take(bytes) {
            return reserved;
        }
        let _waiting = Waiting::new(&self.0);
        loop {
            match timeout(CLIENTS_TIMEOUT, self.until(|| self.take(bytes))).await {
                Ok(reserved) => return reserved,
                Err(_) => self.0.pressure.notify_waiters(),
            }
        }
    }

    /// Returns when those who hold large values for somebody else shall let go of them.
    pub async fn pressure(&self) {
        self.0.pressure.notified().await;
    }

    fn take(&self, bytes: usize) -> Option<Reserved> {
        let mut used = self.0.used();
        // Nothing can be waited for when nothing is used.
        if *used > 0 && *used + bytes > self.0.limit {
            return None;
        }
        *used += bytes;
        Some(Reserved { of: Arc::clone(&self.0), bytes })
    }

    async fn until(&self, take: impl Fn() -> Option<Reserved>) -> Reserved {
        loop {
            let released = self.0.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if let Some(reserved) = take() {
                return reserved;
            }
            released.await;
        }
    }
}

impl Inner {
    fn used(&self) -> MutexGuard<'_, usize> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        *self.of.used() -= self.bytes;
        self.of.released.notify_waiters();
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
    }

    /// Keeps no more than so many bytes.
    pub fn shrink(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        self.bytes -= less;
        *self.of.used() -= less;
        self.of.released.notify_waiters();
    }
}

/// A writer that waits; also when its future is dropped.
struct Waiting<'l>(&'l Inner);

impl<'l> Waiting<'l> {
    fn new(inner: &'l Inner) -> Self {
        inner.writers.fetch_add(1, Ordering::AcqRel);
        Self(inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.writers.fetch_sub(1, Ordering::AcqRel);
        self.0.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_makes_more_waits_and_the_writer_is_first() {
        let limit = MemoryLimit::new(100);
        let received = limit.charge(70);
        assert!(limit.try_reserve(31).is_none());
        let answer = limit.try_reserve(30).expect("there is room");
        let short = Duration::from_millis(1);
        assert!(timeout(short, limit.reserve(1)).await.is_err());
        let writer = limit.reserve_for_writer(60);
        tokio::pin!(writer);
        assert!(timeout(short, &mut writer).await.is_err());
        drop(answer);
        assert!(timeout(short, limit.reserve(1)).await.is_err(), "a writer waits");
        assert!(timeout(short, &mut writer).await.is_err());
        drop(received);
        let mut row = timeout(short, writer).await.expect("room for the writer");
        assert!(timeout(short, limit.reserve(40)).await.is_ok());
        row.shrink(10);
        assert_eq!(limit.used(), 10);
        drop(row);
        assert_eq!(limit.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_there_is_waits_for_nothing_but_the_others() {
        let limit = MemoryLimit::new(100);
        let all = limit.reserve(1_000).await;
        let pressed = limit.clone();
        let mut client = tokio::task::JoinSet::new();
        client.spawn(async move { timeout(CLIENTS_TIMEOUT * 2, pressed.pressure()).await.is_ok() });
        tokio::task::yield_now().await;
        assert!(timeout(CLIENTS_TIMEOUT + Duration::from_secs(1), limit.reserve_for_writer(1)).await.is_err());
        assert!(client.join_next().await.expect("a task").expect("its end"), "clients are told to let go");
        drop(all);
        assert!(limit.try_reserve(1_000).is_some(), "a writer that gave up holds up nobody");
    }
}
