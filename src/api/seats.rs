//! Who stays connected when more want to be than there is room for.
//!
//! A connection either waits for its client (for the head of a request, at first or after an answer), or is being answered.
//! When every seat is taken, the client that has kept the server waiting longest loses its seat to whoever comes: clients that
//! hold connections open, and send a byte now and then, cannot shut out one that asks something. When all are being answered
//! (slow bodies, slow readers), a few more seats are there for probes alone, so that an operator and a service manager always
//! learn that the process is alive.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Seats beyond `http.connections`, for the routes that are always open.
pub const PROBES: usize = 16;
/// Nobody loses a seat sooner: the head of somebody who has just connected is under way. It also bounds what a flood of
/// connections costs.
const GRACE: Duration = Duration::from_millis(100);
/// While fewer connections than this wait for their client and the rest is being answered, they make room for too few who come:
/// so many every [`GRACE`].
const FEW: usize = 16;

/// Which routes a seat is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// All.
    Any,
    /// Those for probes.
    Probes,
}

/// All seats.
#[derive(Debug)]
pub struct Seats {
    rows: Mutex<Rows>,
    changed: Notify,
}

#[derive(Debug)]
struct Rows {
    any: Free,
    probes: Free,
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
    ticket: Arc<Ticket>,
    own: Mutex<Own>,
}

/// What a seat is doing.
#[derive(Debug, Default)]
struct Own {
    /// How many [`Asked`] there are.
    asked: usize,
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
            Row::Probes => &mut self.probes,
        }
    }

    /// A seat for somebody who comes now; else when to look again: at a moment, or (`None`) when something has changed.
    fn take(&mut self, now: Instant) -> Result<Row, Option<Instant>> {
        let due = match self.any.take(now) {
            Ok(()) => return Ok(Row::Any),
            // A seat for everything in a moment is worth more than one for probes now, unless there are few such moments: probes
            // would queue behind everybody.
            Err(Some(due)) if !self.any.is_busy() => return Err(Some(due)),
            Err(due) => due,
        };
        match self.probes.take(now) {
            Ok(()) => Ok(Row::Probes),
            Err(other) => Err(due.into_iter().chain(other).min()),
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
    /// So many for all routes, and [`PROBES`] more.
    pub fn new(any: usize) -> Arc<Self> {
        let free = |seats| Free { all: seats, seats, waiting: BTreeMap::new() };
        let rows = Mutex::new(Rows { any: free(any), probes: free(PROBES), waits: 0 });
        Arc::new(Self { rows, changed: Notify::new() })
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat, as soon as there is one. Dropping the future takes none.
    pub async fn take(self: &Arc<Self>) -> Seat {
        loop {
            let changed = self.changed.notified();
            let taken = self.rows().take(Instant::now());
            match taken {
                Ok(row) => {
                    let seat = Seat { seats: Arc::clone(self), row, ticket: Arc::default(), own: Mutex::default() };
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
    /// Which routes it is good for.
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
        self.busy();
        Asked(Arc::clone(self))
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
        if !self.ticket.lost.load(Ordering::Relaxed) {
            self.seats.rows().row(self.row).seats += 1;
            self.seats.changed.notify_one();
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let asked = {
            let mut own = self.0.own();
            own.asked -= 1;
            own.asked
        };
        // A seat that was lost meanwhile is nobody's to lose again.
        if asked == 0 && !self.0.ticket.lost.load(Ordering::Relaxed) {
            self.0.waits();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn seat(seats: &Arc<Seats>) -> Arc<Seat> {
        Arc::new(tokio::time::timeout(GRACE * 2, seats.take()).await.expect("a seat"))
    }

    async fn is_lost(seat: &Seat) -> bool {
        tokio::time::timeout(Duration::ZERO, seat.lost()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_the_server_waiting_longest_makes_room() {
        let seats = Seats::new(2);
        let (slow, other) = (seat(&seats).await, seat(&seats).await);
        let (began, third) = (Instant::now(), seat(&seats).await);
        assert_eq!((began.elapsed(), third.row()), (GRACE, Row::Any), "not before the head can have come");
        assert!(is_lost(&slow).await && !is_lost(&other).await);
        drop(slow);
        // One that is being answered stays, however long that takes; afterwards it is the last to go.
        let asked = other.asked();
        tokio::time::advance(Duration::from_secs(60)).await;
        let fourth = seat(&seats).await;
        assert!(is_lost(&third).await && !is_lost(&other).await);
        drop(third);
        // What is still to be written is a part of it.
        let written = other.asked();
        drop(asked);
        tokio::time::advance(GRACE * 2).await;
        let third = seat(&seats).await;
        assert!(is_lost(&fourth).await && !is_lost(&other).await);
        drop((fourth, written));
        let fourth = third;
        tokio::time::advance(GRACE * 2).await;
        let _fifth = seat(&seats).await;
        assert!(is_lost(&fourth).await && !is_lost(&other).await);
    }

    #[tokio::test(start_paused = true)]
    async fn while_all_are_being_answered_there_are_seats_for_probes() {
        let seats = Seats::new(1);
        let first = seat(&seats).await;
        let asked = first.asked();
        let mut probes = Vec::new();
        for _ in 0..PROBES + 5 {
            let probe = seat(&seats).await;
            assert_eq!(probe.row(), Row::Probes);
            probes.push(probe);
        }
        let mut lost = 0;
        for probe in &probes {
            lost += usize::from(is_lost(probe).await);
        }
        assert_eq!(lost, 5, "the oldest of them made room");
        let busy: Vec<_> = probes.drain(5..).map(|probe| probe.asked()).collect();
        assert!(tokio::time::timeout(GRACE * 9, seats.take()).await.is_err(), "nobody can be moved");
        drop(busy);
        assert_eq!(seat(&seats).await.row(), Row::Probes);
        drop((asked, first));
        assert_eq!(seat(&seats).await.row(), Row::Any, "given back");
    }

    #[tokio::test(start_paused = true)]
    async fn probes_do_not_queue_behind_a_flood_while_nearly_all_are_being_answered() {
        let seats = Seats::new(40);
        let mut taken = Vec::new();
        for _ in 0..40 {
            taken.push(seat(&seats).await);
        }
        let answers: Vec<_> = taken.iter().skip(FEW - 1).map(Seat::asked).collect();
        let (began, mut flood) = (Instant::now(), Vec::new());
        for _ in 0..100 {
            flood.push(seat(&seats).await);
        }
        assert!(began.elapsed() <= GRACE * 4, "{:?}: those of both rows make room", began.elapsed());
        assert!(flood.iter().take(PROBES).all(|seat| seat.row() == Row::Probes), "at once");
        drop((flood, answers));
        let full: Vec<_> = [seat(&seats).await, seat(&seats).await].into();
        assert!(full.iter().all(|seat| seat.row() == Row::Any), "there is enough to be moved");
    }

    #[tokio::test(start_paused = true)]
    async fn seats_are_neither_lost_nor_made() {
        let seats = Seats::new(3);
        for _ in 0..10 {
            let mut taken = Vec::new();
            for _ in 0..8 {
                taken.push(seat(&seats).await);
            }
            let _answers: Vec<_> = taken.iter().skip(6).map(Seat::asked).collect();
        }
        let rows = seats.rows();
        assert_eq!((rows.any.seats, rows.probes.seats), (3, PROBES));
        assert!(rows.any.waiting.is_empty() && rows.probes.waiting.is_empty());
    }
}
