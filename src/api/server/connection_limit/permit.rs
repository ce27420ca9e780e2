//! The slot of a connection.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use tokio::time::Instant;

use super::admission::{Class, Eviction, Pool, Slots};

/// A connection slot; released when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    slots: Arc<Slots>,
    class: Class,
    /// The address whose share it counts against.
    peer: Option<IpAddr>,
    eviction: Arc<Eviction>,
    activity: Mutex<Activity>,
}

/// What a connection is doing.
#[derive(Debug, Default)]
struct Activity {
    /// How many [`RequestGuard`] there are.
    requests: usize,
    /// Whether an authenticated request keeps this slot of the reserve.
    admitted: bool,
    /// Whether a request that has arrived as a whole is being answered, in a time that does not depend on its client.
    answering: bool,
    /// Its key among the idle connections, while it is idle.
    idle_key: Option<u64>,
    /// Whether its socket was read: until then nothing is known of it.
    read: bool,
}

/// Keeps the connection busy while it lives.
#[derive(Debug)]
pub struct RequestGuard(Arc<ConnectionPermit>);

impl ConnectionPermit {
    /// A slot of this class. Its connection is idle once [`wait_for_client`](Self::wait_for_client) says so. `peer`: the address
    /// whose share it counts against.
    pub fn new(slots: Arc<Slots>, class: Class, peer: Option<IpAddr>) -> Self {
        slots.pools().pool(class).unread += 1;
        Self { slots, class, peer, eviction: Arc::default(), activity: Mutex::default() }
    }

    /// Which requests it is good for.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Returns once the slot has been given to another connection.
    pub async fn evicted(&self) {
        self.eviction.notify.notified().await;
    }

    /// Marks a connection that has not been read before as idle: all that has arrived is read, so it is the client that is late, not
    /// this process.
    pub fn wait_for_client(&self) {
        if self.activity().requests == 0 {
            self.mark_idle();
        }
    }

    /// Marks the connection as busy: a request has arrived, or an answer is still being written.
    pub fn begin_request(self: &Arc<Self>) -> RequestGuard {
        self.activity().requests += 1;
        self.mark_pinned();
        RequestGuard(Arc::clone(self))
    }

    /// Marks a request as one that has arrived as a whole and is answered soon, whatever its client does: until
    /// [`has_answered`](Self::has_answered), it keeps its slot.
    pub fn begin_answer(&self) {
        self.activity().answering = true;
        self.mark_pinned();
    }

    /// Ends [`begin_answer`](Self::begin_answer).
    pub fn has_answered(&self) {
        self.activity().answering = false;
        self.mark_pinned();
    }

    /// Keeps this slot of the reserve for an authenticated request, up to the limit of such slots.
    pub fn admit(&self) -> bool {
        let mut pools = self.slots.pools();
        if self.activity().admitted {
            return true;
        }
        if pools.reserved == 0 {
            return false;
        }
        pools.reserved -= 1;
        self.activity().admitted = true;
        drop(pools);
        self.mark_busy();
        true
    }

    /// Whether it cannot be evicted while it is busy.
    fn is_pinned(&self) -> bool {
        let activity = self.activity();
        self.class == Class::General || activity.admitted || activity.answering
    }

    /// Of a connection with a request.
    fn mark_pinned(&self) {
        if self.is_pinned() { self.mark_busy() } else { self.mark_idle() }
    }

    fn mark_idle(&self) {
        let mut pools = self.slots.pools();
        self.mark_read(pools.pool(self.class));
        if self.activity().idle_key.is_some() || self.eviction.evicted.load(Ordering::Relaxed) {
            return;
        }
        pools.idle_sequence += 1;
        let idle_key = pools.idle_sequence;
        pools.pool(self.class).idle.insert(idle_key, (Instant::now(), Arc::clone(&self.eviction)));
        self.activity().idle_key = Some(idle_key);
        drop(pools);
        self.slots.changed.notify_one();
    }

    fn mark_busy(&self) {
        let mut pools = self.slots.pools();
        let pool = pools.pool(self.class);
        self.mark_read(pool);
        if let Some(idle_key) = self.activity().idle_key.take() {
            pool.idle.remove(&idle_key);
        }
    }

    fn mark_read(&self, pool: &mut Pool) {
        if !std::mem::replace(&mut self.activity().read, true) {
            pool.unread -= 1;
            // A new client that waits for this connection may wait in vain.
            self.slots.changed.notify_one();
        }
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.mark_busy();
        let admitted = self.activity().admitted;
        let mut pools = self.slots.pools();
        self.peer.into_iter().for_each(|peer| pools.release_share(peer));
        pools.reserved += usize::from(admitted);
        if !self.eviction.evicted.load(Ordering::Relaxed) {
            pools.pool(self.class).available += 1;
        }
        drop(pools);
        self.slots.changed.notify_one();
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let requests = {
            let mut activity = self.0.activity();
            activity.requests -= 1;
            activity.requests
        };
        if requests == 0 {
            self.0.mark_idle();
        }
    }
}
