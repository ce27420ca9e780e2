//! The orders that are remembered, and the thread that computes them.
//!
//! The first list that is sorted by a column starts the thread; requests meanwhile are told how far it is. The last few orders are
//! kept, for some minutes after their last use; then the thread ends.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::RunOrder;
use crate::{
    store::{
        StoreError,
        run_list::SortBy,
        sqlite::{database::Database, error},
    },
    units::{Micros, now},
};

/// Maximum memory of the orders that are kept: three of a million runs, or one of 3,100,000.
const KEPT_BYTES: usize = 48 << 20;
/// Orders that wait to be computed. A request for one more is refused as one that may come again.
const JOBS_MAX: usize = 16;
/// How long an order is kept after its last use.
const KEPT_UNUSED: Duration = Duration::from_secs(600);

/// What is known of an order.
#[derive(Clone, Debug)]
pub(in crate::store::sqlite) enum OrderState {
    /// The runs are being sorted: the number read.
    Sorting(Arc<AtomicUsize>),
    /// The order.
    Sorted(Arc<RunOrder>),
    /// There are more runs than may be remembered.
    TooMany,
    /// The runs could not be read.
    Failed(Arc<StoreError>),
}

/// What a thread does.
type Work = Box<dyn FnOnce() + Send>;

/// The orders of one file.
#[derive(Clone, Debug)]
pub(in crate::store::sqlite) struct RunOrders {
    database: Database,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    slots: Vec<Slot>,
    /// What the thread is to sort by, while it runs.
    jobs: Option<mpsc::SyncSender<SortBy>>,
}

#[derive(Debug)]
struct Slot {
    by: SortBy,
    /// Silence after which a running run is stale.
    stale_after: Micros,
    state: watch::Sender<OrderState>,
    used_at: Instant,
    /// The order is kept in use while it is computed anew.
    is_refreshing: bool,
}

impl RunOrders {
    /// None yet.
    pub fn new(database: Database) -> Self {
        Self { database, shared: Arc::default() }
    }

    /// The order by a column, which is computed if it is not there. `spawn` starts a thread.
    pub fn get(
        &self,
        by: &SortBy,
        stale_after: Micros,
        spawn: impl FnOnce(Work) -> bool,
    ) -> watch::Receiver<OrderState> {
        let mut shared = self.lock();
        if let Some(slot) = shared.slot(by) {
            slot.used_at = Instant::now();
            return slot.state.subscribe();
        }
        let (state, receiver) = watch::channel(OrderState::Sorting(Arc::default()));
        let (by, used_at) = (by.clone(), Instant::now());
        shared.slots.push(Slot { by: by.clone(), stale_after, state, used_at, is_refreshing: false });
        self.submit(&mut shared, &by, spawn);
        receiver
    }

    /// Forgets an order that is outdated.
    pub fn forget(&self, outdated: &Arc<RunOrder>) {
        let is_it = |state: &OrderState| matches!(state, OrderState::Sorted(order) if Arc::ptr_eq(order, outdated));
        self.lock().slots.retain(|slot| !is_it(&slot.state.borrow()));
    }

    /// Computes an order anew, and keeps it in use meanwhile.
    pub fn refresh(&self, by: &SortBy, spawn: impl FnOnce(Work) -> bool) {
        let mut shared = self.lock();
        if shared.slot(by).is_some_and(|slot| !std::mem::replace(&mut slot.is_refreshing, true)) {
            self.submit(&mut shared, by, spawn);
        }
    }

    /// The thread ends when the last job is done.
    pub fn close(&self) {
        self.lock().jobs = None;
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, shared: &mut Shared, by: &SortBy, spawn: impl FnOnce(Work) -> bool) {
        match shared.jobs.as_ref().map(|jobs| jobs.try_send(by.clone())) {
            Some(Ok(())) => return,
            Some(Err(mpsc::TrySendError::Full(_))) => return shared.withdraw(by),
            Some(Err(mpsc::TrySendError::Disconnected(_))) | None => {}
        }
        let (sender, jobs) = mpsc::sync_channel(JOBS_MAX);
        let _ = sender.try_send(by.clone());
        let orders = self.clone();
        match spawn(Box::new(move || orders.run(&jobs))) {
            true => shared.jobs = Some(sender),
            // The next request tries again.
            false => *shared = Shared::default(),
        }
    }

    fn run(&self, jobs: &mpsc::Receiver<SortBy>) {
        loop {
            match jobs.recv_timeout(KEPT_UNUSED) {
                Ok(by) => self.sort(&by),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let mut shared = self.lock();
                    shared.slots.retain(|slot| slot.used_at.elapsed() < KEPT_UNUSED);
                    // Jobs are submitted under the lock.
                    if shared.slots.is_empty() {
                        shared.jobs = None;
                        return;
                    }
                }
            }
        }
    }

    fn sort(&self, by: &SortBy) {
        let slot = self.lock().slot(by).map(|slot| (slot.state.borrow().clone(), slot.stale_after));
        let (progress, stale_after) = match slot {
            Some((OrderState::Sorting(progress), stale_after)) => (progress, stale_after),
            Some((_, stale_after)) => (Arc::default(), stale_after),
            None => return,
        };
        let built = self.database.reader().and_then(|open| {
            let stale_before = now().saturating_sub(stale_after);
            RunOrder::build(&open, by, stale_before, &progress).map_err(|e| error::classify(e, &self.database.path))
        });
        let state = match built {
            Ok(Some(order)) if order.bytes() <= KEPT_BYTES => OrderState::Sorted(Arc::new(order)),
            Ok(_) => OrderState::TooMany,
            Err(error) => OrderState::Failed(Arc::new(error)),
        };
        let has_failed = matches!(state, OrderState::Failed(_));
        let mut shared = self.lock();
        if let Some(slot) = shared.slot(by) {
            slot.state.send_replace(state);
            slot.is_refreshing = false;
        }
        // The next request tries again.
        shared.slots.retain(|slot| !has_failed || slot.by != *by);
        shared.evict();
    }
}

impl Shared {
    fn slot(&mut self, by: &SortBy) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.by == *by)
    }

    /// Nothing computes this order; its waiting requests end.
    fn withdraw(&mut self, by: &SortBy) {
        self.slots.retain(|slot| slot.by != *by || slot.is_refreshing);
        if let Some(slot) = self.slot(by) {
            slot.is_refreshing = false;
        }
    }

    /// Forgets the orders that were not used for longest.
    fn evict(&mut self) {
        self.slots.sort_by_key(|slot| slot.used_at);
        while self.slots.iter().map(Slot::bytes).sum::<usize>() > KEPT_BYTES
            && let Some(oldest) = self.slots.iter().position(|slot| slot.bytes() > 0)
        {
            self.slots.remove(oldest);
        }
    }
}

impl Slot {
    fn bytes(&self) -> usize {
        match &*self.state.borrow() {
            OrderState::Sorted(order) => order.bytes(),
            OrderState::Sorting(_) | OrderState::TooMany | OrderState::Failed(_) => 0,
        }
    }
}

/// How many runs were read so far.
pub(in crate::store::sqlite) fn progress(read: &AtomicUsize) -> usize {
    read.load(Ordering::Relaxed)
}
