//! Who stays connected when more want to be than there is room for.
//!
//! A connection either waits for its client (for the head of a request, at first or after an answer), or is being answered.
//! When every seat is taken, the client that has kept the server waiting longest loses its seat to whoever comes: clients that
//! hold connections open, and send a byte now and then, cannot shut out one that asks something. When all are being answered
//! (slow bodies, slow readers), or when one address has its share, a connection gets a seat of the reserve. There the head of
//! its request is read and judged: an authenticated request keeps the seat until it is answered; any other may lose it at any
//! moment to whoever comes, so that slow clients cannot keep the reserve from operators and from probes.

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

/// Seats of the reserve beyond those that authenticated requests may keep (`http.reserved_connections`): for probes, and for
/// heads that are being read.
pub const UNRESERVED: usize = 32;
/// Nobody loses a seat sooner: the head of somebody who has just connected is under way. It also bounds what a flood of
/// connections costs.
const GRACE: Duration = Duration::from_millis(100);
/// While fewer connections than this wait for their client and the rest is being answered, they make room for too few who come:
/// so many every [`GRACE`].
const FEW: usize = 16;

/// Connections beyond their address' share that may wait for a seat, apart from all others. Any more are closed.
const QUEUED: usize = 256;

/// Which requests a seat is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// All.
    Any,
    /// Authenticated ones, and short ones that anybody may make.
    Reserve,
}

/// How many seats there are.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For all requests.
    pub any: usize,
    /// For authenticated requests alone.
    pub reserved: usize,
    /// Seats for all requests that one address may have.
    pub per_address: usize,
}

/// All seats.
#[derive(Debug)]
pub struct Seats {
    rows: Mutex<Rows>,
    changed: Notify,
    /// Places in the queue of connections beyond their address' share.
    queue: Arc<Semaphore>,
    /// The turn of the first of them.
    turn: Semaphore,
}

#[derive(Debug)]
struct Rows {
    any: Free,
    reserve: Free,
    /// Seats of the reserve that authenticated requests may still keep.
    reserved: usize,
    /// Seats for all requests that one address may have.
    per_address: usize,
    /// Those that addresses with a limit have.
    shares: HashMap<IpAddr, usize>,
    /// Counts the waits, so that they are in order.
    waits: u64,
}

/// What is free in a row, or may become so.
#[derive(Debug)]
struct Free {
    all: usize,
    seats: usize,
    /// The connections that wait for their client, the longest first.
    waiting: BTreeMap<u64, (Instant, Arc<Ticket>)>,
}

/// What a connection and its seat know of each other.
#[derive(Debug, Default)]
struct Ticket {
    lost: AtomicBool,
    told: Notify,
}

/// A seat; given back when dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    row: Row,
    /// The address that has it as a part of its share.
    peer: Option<IpAddr>,
    ticket: Arc<Ticket>,
    own: Mutex<Own>,
}

/// What a seat is doing.
#[derive(Debug, Default)]
struct Own {
    /// How many [`Asked`] there are.
    asked: usize,
    /// Whether it is of the reserve, and kept by an authenticated request.
    admitted: bool,
    /// Its wait, while there is none.
    wait: Option<u64>,
}

/// While it lives, the connection of the seat is being answered.
#[derive(Debug)]
pub struct Asked(Arc<Seat>);

impl Rows {
    fn row(&mut self, row: Row) -> &mut Free {
        match row {
            Row::Any => &mut self.any,
            Row::Reserve => &mut self.reserve,
        }
    }

    /// A seat for somebody who comes now; else when to look again: at a moment, or (`None`) when something has changed. `peer`: a
    /// [`network`], here and below.
    fn take(&mut self, now: Instant, peer: Option<IpAddr>) -> Result<Row, Option<Instant>> {
        if peer.is_some_and(|peer| self.is_beyond(peer)) {
            return self.reserve.take(now).map(|()| Row::Reserve);
        }
        let due = match self.any.take(now) {
            Ok(()) => {
                peer.into_iter().for_each(|peer| *self.shares.entry(peer).or_default() += 1);
                return Ok(Row::Any);
            }
            // A seat for everything in a moment is worth more than one of the reserve now, unless there are few such moments:
            // operators and probes would queue behind everybody.
            Err(Some(due)) if !self.any.is_busy() => return Err(Some(due)),
            Err(due) => due,
        };
        match self.reserve.take(now) {
            Ok(()) => Ok(Row::Reserve),
            Err(other) => Err(due.into_iter().chain(other).min()),
        }
    }

    /// Whether an address has its share.
    fn is_beyond(&self, peer: IpAddr) -> bool {
        self.shares.get(&peer).is_some_and(|taken| *taken >= self.per_address)
    }

    /// Takes a seat of an address' share back.
    fn leave(&mut self, peer: IpAddr) {
        if let Some(taken) = self.shares.get_mut(&peer) {
            *taken -= 1;
            if *taken == 0 {
                self.shares.remove(&peer);
            }
        }
    }
}

impl Free {
    /// As [`Rows::take`], of this row.
    fn take(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        if self.seats > 0 {
            self.seats -= 1;
            return Ok(());
        }
        let Some(longest) = self.waiting.first_entry() else { return Err(None) };
        let due = longest.get().0 + GRACE;
        if due > now {
            return Err(Some(due));
        }
        let (_, ticket) = longest.remove();
        ticket.lost.store(true, Ordering::Relaxed);
        ticket.told.notify_one();
        Ok(())
    }

    /// Whether nearly all of a full row are being answered.
    fn is_busy(&self) -> bool {
        self.waiting.len() < FEW.min(self.all / 2)
    }
}

impl Seats {
    /// As many as the limits say, and [`UNRESERVED`] more.
    pub fn new(limits: Limits) -> Arc<Self> {
        let free = |seats| Free { all: seats, seats, waiting: BTreeMap::new() };
        let rows = Mutex::new(Rows {
            any: free(limits.any),
            reserve: free(UNRESERVED + limits.reserved),
            reserved: limits.reserved,
            per_address: limits.per_address,
            shares: HashMap::new(),
            waits: 0,
        });
        let queue = Arc::new(Semaphore::new(QUEUED));
        Arc::new(Self { rows, changed: Notify::new(), queue, turn: Semaphore::new(1) })
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an address has its share. Its next connection waits apart, so that it does not hold up those of others.
    pub fn is_beyond(&self, peer: IpAddr) -> bool {
        self.rows().is_beyond(network(peer))
    }

    /// A place to wait in for such a connection; `None`: it is to be closed.
    pub fn queue(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.queue).try_acquire_owned().ok()
    }

    /// As [`take`](Self::take), in the order of the queue.
    pub async fn take_queued(self: &Arc<Self>, peer: IpAddr, _place: OwnedSemaphorePermit) -> Seat {
        let _turn = self.turn.acquire().await;
        self.take(Some(peer)).await
    }

    /// A seat, as soon as there is one. `peer`: an address that may have no more than its share. Dropping the future takes none.
    pub async fn take(self: &Arc<Self>, peer: Option<IpAddr>) -> Seat {
        let peer = peer.map(network);
        loop {
            let changed = self.changed.notified();
            let taken = self.rows().take(Instant::now(), peer);
            match taken {
                Ok(row) => {
                    let (seats, peer) = (Arc::clone(self), peer.filter(|_| row == Row::Any));
                    let seat = Seat { seats, row, peer, ticket: Arc::default(), own: Mutex::default() };
                    seat.waits();
                    return seat;
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

impl Seat {
    /// Which requests it is good for.
    pub fn row(&self) -> Row {
        self.row
    }

    /// Returns once the seat is somebody else's.
    pub async fn lost(&self) {
        self.ticket.told.notified().await;
    }

    /// A request has come, or something of an answer is still to be written.
    pub fn asked(self: &Arc<Self>) -> Asked {
        self.own().asked += 1;
        if self.is_kept() {
            self.busy();
        }
        Asked(Arc::clone(self))
    }

    /// An authenticated request keeps this seat of the reserve, if fewer than the limit do.
    pub fn admit(&self) -> bool {
        let mut rows = self.seats.rows();
        if self.own().admitted {
            return true;
        }
        if rows.reserved == 0 {
            return false;
        }
        rows.reserved -= 1;
        self.own().admitted = true;
        drop(rows);
        self.busy();
        true
    }

    /// Whether it is kept while its connection is being answered.
    fn is_kept(&self) -> bool {
        self.row == Row::Any || self.own().admitted
    }

    fn waits(&self) {
        let mut rows = self.seats.rows();
        rows.waits += 1;
        let wait = rows.waits;
        rows.row(self.row).waiting.insert(wait, (Instant::now(), Arc::clone(&self.ticket)));
        self.own().wait = Some(wait);
        drop(rows);
        self.seats.changed.notify_one();
    }

    fn busy(&self) {
        let wait = self.own().wait.take();
        if let Some(wait) = wait {
            self.seats.rows().row(self.row).waiting.remove(&wait);
        }
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.busy();
        let admitted = self.own().admitted;
        let mut rows = self.seats.rows();
        self.peer.into_iter().for_each(|peer| rows.leave(peer));
        rows.reserved += usize::from(admitted);
        if !self.ticket.lost.load(Ordering::Relaxed) {
            rows.row(self.row).seats += 1;
        }
        drop(rows);
        self.seats.changed.notify_one();
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let asked = {
            let mut own = self.0.own();
            own.asked -= 1;
            own.asked
        };
        // A seat that was lost meanwhile is nobody's to lose again; one that was not kept has been waiting all the time.
        if asked == 0 && self.0.is_kept() && !self.0.ticket.lost.load(Ordering::Relaxed) {
            self.0.waits();
        }
    }
}

#[cfg(test)]
mod tests;
