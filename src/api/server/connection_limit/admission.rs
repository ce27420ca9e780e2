//! The slots: which are available, and which connections may be evicted.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Slots of the reserve beyond those that authenticated requests may keep (`http.reserved_connections`): for probes, and for
/// heads that are being read.
pub const PROBE_SLOTS: usize = 32;
/// Minimum idle time before an eviction: the head of the first request may still arrive. It also bounds the cost of a flood of
/// connections.
pub const EVICTION_GRACE: Duration = Duration::from_millis(100);
/// Below this many idle connections, eviction (each at most once per [`EVICTION_GRACE`]) cannot keep up with new clients, so the
/// reserve is used too.
pub const MIN_IDLE: usize = 16;

/// Which requests a slot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// All.
    General,
    /// Authenticated requests, and short ones of open routes.
    Reserve,
}

/// How many slots there are.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// For all requests.
    pub general: usize,
    /// For authenticated requests alone.
    pub reserved: usize,
    /// General slots of one address.
    pub per_address: usize,
}

/// All slots, and the notification that one is free or that a connection is idle.
#[derive(Debug)]
pub struct Slots {
    pools: Mutex<Pools>,
    /// Notified after each such change.
    pub changed: Notify,
}

/// The slots by class, and the share of each address.
#[derive(Debug)]
pub struct Pools {
    pub general: Pool,
    pub reserve: Pool,
    /// Slots of the reserve that authenticated requests may still keep.
    pub reserved: usize,
    /// General slots of one address.
    pub per_address: usize,
    /// General slots taken, by limited address.
    pub shares: HashMap<IpAddr, usize>,
    /// Numbers connections in the order in which they become idle.
    pub idle_sequence: u64,
}

/// A pool of slots: what is available, and which connections are idle and may be evicted.
#[derive(Debug)]
pub struct Pool {
    pub capacity: usize,
    pub available: usize,
    /// Connections that were accepted and not read yet: each is soon idle or busy.
    pub unread: usize,
    /// Idle connections, the longest first.
    pub idle: BTreeMap<u64, (Instant, Arc<Eviction>)>,
}

/// Tells a connection that its slot was taken away.
#[derive(Debug, Default)]
pub struct Eviction {
    pub evicted: AtomicBool,
    pub notify: Notify,
}

impl Slots {
    /// All of them available.
    pub fn new(limits: ConnectionLimits) -> Self {
        Self { pools: Mutex::new(Pools::new(limits)), changed: Notify::new() }
    }

    /// Locks the pools.
    pub fn pools(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pools {
    fn new(limits: ConnectionLimits) -> Self {
        let pool_of = |slots| Pool { capacity: slots, available: slots, unread: 0, idle: BTreeMap::new() };
        Self {
            general: pool_of(limits.general),
            reserve: pool_of(PROBE_SLOTS + limits.reserved),
            reserved: limits.reserved,
            per_address: limits.per_address,
            shares: HashMap::new(),
            idle_sequence: 0,
        }
    }

    pub fn pool(&mut self, class: Class) -> &mut Pool {
        match class {
            Class::General => &mut self.general,
            Class::Reserve => &mut self.reserve,
        }
    }

    /// Takes a slot; `Err` tells when to try again: at a time, or (`None`) after a change. `peer` is the network of an address,
    /// here and below.
    pub fn try_acquire(&mut self, now: Instant, peer: Option<IpAddr>) -> Result<Class, Option<Instant>> {
        if peer.is_some_and(|peer| self.exceeds_share(peer)) {
            return self.reserve.try_acquire(now).map(|()| Class::Reserve);
        }
        let due = match self.general.try_acquire(now) {
            Ok(()) => {
                peer.into_iter().for_each(|peer| *self.shares.entry(peer).or_default() += 1);
                return Ok(Class::General);
            }
            // A general slot soon is better than a reserve slot now, unless few connections are idle: operators and probes would
            // queue behind all other clients.
            Err(due) if (due.is_some() || self.general.unread > 0) && !self.general.has_few_idle() => return Err(due),
            Err(due) => due,
        };
        match self.reserve.try_acquire(now) {
            Ok(()) => Ok(Class::Reserve),
            Err(other) => Err(due.into_iter().chain(other).min()),
        }
    }

    /// Whether an address has used up its share.
    pub fn exceeds_share(&self, peer: IpAddr) -> bool {
        self.shares.get(&peer).is_some_and(|taken| *taken >= self.per_address)
    }

    /// Returns a slot to the share of an address.
    pub fn release_share(&mut self, peer: IpAddr) {
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
    pub fn try_acquire(&mut self, now: Instant) -> Result<(), Option<Instant>> {
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

    /// Whether nearly all connections of a full pool are busy.
    pub fn has_few_idle(&self) -> bool {
        self.idle.len() + self.unread < MIN_IDLE.min(self.capacity / 2)
    }
}
