//! Limits the connections: which are evicted when all slots are taken.
//!
//! A connection either waits for its client (for the head of a request, at first or after an answer), or is being answered.
//! When every slot is taken, the client that has kept the server waiting longest loses its slot to the next connection: clients that
//! hold connections open, and send a byte now and then, cannot shut out one that asks something. When all are being answered
//! (slow bodies, slow readers), or when one address has its share, a connection gets a slot of the reserve. There the head of
//! its request is read and judged: an authenticated request keeps the slot until it is answered; any other may lose it at any
//! moment to the next connection, so that slow clients cannot keep the reserve from operators and from probes.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

use super::client::network;

/// Slots of the reserve beyond those that authenticated requests may keep (`http.reserved_connections`): for probes, and for
/// heads that are being read.
pub const PROBE_SLOTS: usize = 32;
/// A connection is not evicted sooner: the head of its first request is under way. It also bounds what a flood of
/// connections costs.
const EVICTION_GRACE: Duration = Duration::from_millis(100);
/// Below this many idle connections, eviction (each at most once per [`EVICTION_GRACE`]) cannot keep up with new clients, so the
/// reserve is used too.
const MIN_IDLE: usize = 16;

/// Connections beyond their address' share that may wait for a slot, in a queue of their own. Any more are closed.
const MAX_QUEUED: usize = 256;

/// Which requests a slot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// All.
    General,
    /// Authenticated ones, and short ones that anybody may make.
    Reserve,
}

/// How many slots there are.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// For all requests.
    pub general: usize,
    /// For authenticated requests alone.
    pub reserved: usize,
    /// Slots for all requests that one address may have.
    pub per_address: usize,
}

/// All slots.
#[derive(Debug)]
pub struct ConnectionLimiter {
    pools: Mutex<Pools>,
    changed: Notify,
    /// Slots in the queue of connections beyond their address' share.
    queue_slots: Arc<Semaphore>,
    /// Held by the first of them.
    queue_head: Semaphore,
}

#[derive(Debug)]
struct Pools {
    general: Pool,
    reserve: Pool,
    /// Slots of the reserve that authenticated requests may still keep.
    reserved: usize,
    /// Slots for all requests that one address may have.
    per_address: usize,
    /// Those that addresses with a limit have.
    shares: HashMap<IpAddr, usize>,
    /// Numbers the idle connections, so that they are in order.
    idle_sequence: u64,
}

/// A pool of slots: what is available, and which connections are idle and may be evicted.
#[derive(Debug)]
struct Pool {
    capacity: usize,
    available: usize,
    /// The connections that wait for their client, the longest first.
    idle: BTreeMap<u64, (Instant, Arc<Eviction>)>,
}

/// Tells a connection that its slot was taken away.
#[derive(Debug, Default)]
struct Eviction {
    evicted: AtomicBool,
    notify: Notify,
}

/// A connection slot; released when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    class: Class,
    /// The address that has it as a part of its share.
    peer: Option<IpAddr>,
    eviction: Arc<Eviction>,
    activity: Mutex<Activity>,
}

/// What a connection is doing.
#[derive(Debug, Default)]
struct Activity {
    /// How many [`RequestGuard`] there are.
    requests: usize,
    /// Whether it is of the reserve, and kept by an authenticated request.
    admitted: bool,
    /// Its key among the idle, while there is no request.
    idle_key: Option<u64>,
}

/// While it lives, the connection of the permit is being answered.
#[derive(Debug)]
pub struct RequestGuard(Arc<ConnectionPermit>);

impl Pools {
    fn pool(&mut self, class: Class) -> &mut Pool {
        match class {
            Class::General => &mut self.general,
            Class::Reserve => &mut self.reserve,
        }
    }

    /// A slot for a connection that comes now; else when to look again: at a moment, or (`None`) when something has changed. `peer`: a
    /// [`network`], here and below.
    fn try_acquire(&mut self, now: Instant, peer: Option<IpAddr>) -> Result<Class, Option<Instant>> {
        if peer.is_some_and(|peer| self.exceeds_share(peer)) {
            return self.reserve.try_acquire(now).map(|()| Class::Reserve);
        }
        let due = match self.general.try_acquire(now) {
            Ok(()) => {
                peer.into_iter().for_each(|peer| *self.shares.entry(peer).or_default() += 1);
                return Ok(Class::General);
            }
            // A slot for everything in a moment is worth more than one of the reserve now, unless there are few such moments:
            // operators and probes would queue behind all other clients.
            Err(Some(due)) if !self.general.has_few_idle() => return Err(Some(due)),
            Err(due) => due,
        };
        match self.reserve.try_acquire(now) {
            Ok(()) => Ok(Class::Reserve),
            Err(other) => Err(due.into_iter().chain(other).min()),
        }
    }

    /// Whether an address has its share.
    fn exceeds_share(&self, peer: IpAddr) -> bool {
        self.shares.get(&peer).is_some_and(|taken| *taken >= self.per_address)
    }

    /// Takes a slot of an address' share back.
    fn release_share(&mut self, peer: IpAddr) {
        if let Some(taken) = self.shares.get_mut(&peer) {
            *taken -= 1;
            if *taken == 0 {
                self.shares.remove(&peer);
            }
        }
    }
}

impl Pool {
    /// As [`Pools::try_acquire`], of this pool.
    fn try_acquire(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        if self.available > 0 {
            self.available -= 1;
            return Ok(());
        }
        let Some(longest) = self.idle.first_entry() else { return Err(None) };
        let due = longest.get().0 + EVICTION_GRACE;
        if due > now {
            return Err(Some(due));
        }
        let (_, eviction) = longest.remove();
        eviction.evicted.store(true, Ordering::Relaxed);
        eviction.notify.notify_one();
        Ok(())
    }

    /// Whether nearly all of a full pool are being answered.
    fn has_few_idle(&self) -> bool {
        self.idle.len() < MIN_IDLE.min(self.capacity / 2)
    }
}

impl ConnectionLimiter {
    /// As many as the limits say, and [`PROBE_SLOTS`] more.
    pub fn new(limits: ConnectionLimits) -> Arc<Self> {
        let pool_of = |slots| Pool { capacity: slots, available: slots, idle: BTreeMap::new() };
        let pools = Mutex::new(Pools {
            general: pool_of(limits.general),
            reserve: pool_of(PROBE_SLOTS + limits.reserved),
            reserved: limits.reserved,
            per_address: limits.per_address,
            shares: HashMap::new(),
            idle_sequence: 0,
        });
        let queue = Arc::new(Semaphore::new(MAX_QUEUED));
        Arc::new(Self { pools, changed: Notify::new(), queue_slots: queue, queue_head: Semaphore::new(1) })
    }

    fn pools(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an address has its share. Its next connection waits apart, so that it does not hold up connections of other addresses.
    pub fn exceeds_share(&self, peer: IpAddr) -> bool {
        self.pools().exceeds_share(network(peer))
    }

    /// A queue slot for such a connection; `None`: it is to be closed.
    pub fn try_queue(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.queue_slots).try_acquire_owned().ok()
    }

    /// As [`acquire`](Self::acquire), in the order of the queue.
    pub async fn acquire_queued(self: &Arc<Self>, peer: IpAddr, _slot: OwnedSemaphorePermit) -> ConnectionPermit {
        let _head = self.queue_head.acquire().await;
        self.acquire(Some(peer)).await
    }

    /// A slot, as soon as there is one. `peer`: an address that may have no more than its share. Dropping the future takes none.
    pub async fn acquire(self: &Arc<Self>, peer: Option<IpAddr>) -> ConnectionPermit {
        let peer = peer.map(network);
        loop {
            let changed = self.changed.notified();
            let taken = self.pools().try_acquire(Instant::now(), peer);
            match taken {
                Ok(class) => {
                    let (limiter, peer) = (Arc::clone(self), peer.filter(|_| class == Class::General));
                    let permit =
                        ConnectionPermit { limiter, class, peer, eviction: Arc::default(), activity: Mutex::default() };
                    permit.mark_idle();
                    return permit;
                }
                Err(None) => changed.await,
                Err(Some(due)) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(due) => {}
                },
            }
        }
    }
}

impl ConnectionPermit {
    /// Which requests it is good for.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Returns once the slot has been given to another connection.
    pub async fn evicted(&self) {
        self.eviction.notify.notified().await;
    }

    /// A request has come, or something of an answer is still to be written.
    pub fn begin_request(self: &Arc<Self>) -> RequestGuard {
        self.activity().requests += 1;
        if self.is_pinned() {
            self.mark_busy();
        }
        RequestGuard(Arc::clone(self))
    }

    /// An authenticated request keeps this slot of the reserve, if fewer than the limit do.
    pub fn admit(&self) -> bool {
        let mut pools = self.limiter.pools();
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

    /// Whether it is kept while its connection is being answered.
    fn is_pinned(&self) -> bool {
        self.class == Class::General || self.activity().admitted
    }

    fn mark_idle(&self) {
        let mut pools = self.limiter.pools();
        pools.idle_sequence += 1;
        let idle_key = pools.idle_sequence;
        pools.pool(self.class).idle.insert(idle_key, (Instant::now(), Arc::clone(&self.eviction)));
        self.activity().idle_key = Some(idle_key);
        drop(pools);
        self.limiter.changed.notify_one();
    }

    fn mark_busy(&self) {
        let idle_key = self.activity().idle_key.take();
        if let Some(idle_key) = idle_key {
            self.limiter.pools().pool(self.class).idle.remove(&idle_key);
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
        let mut pools = self.limiter.pools();
        self.peer.into_iter().for_each(|peer| pools.release_share(peer));
        pools.reserved += usize::from(admitted);
        if !self.eviction.evicted.load(Ordering::Relaxed) {
            pools.pool(self.class).available += 1;
        }
        drop(pools);
        self.limiter.changed.notify_one();
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let requests = {
            let mut activity = self.0.activity();
            activity.requests -= 1;
            activity.requests
        };
        // An evicted slot cannot be evicted again; one that was not pinned has been idle all the time.
        if requests == 0 && self.0.is_pinned() && !self.0.eviction.evicted.load(Ordering::Relaxed) {
            self.0.mark_idle();
        }
    }
}

#[cfg(test)]
mod tests;
