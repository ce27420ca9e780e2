//! The newest value of each key, in memory. Taking an update costs a lock and a comparison; rendering happens in the flusher.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

use super::{config::Config, kind::LatestKind};
use crate::{
    event::Resolved,
    memory::{LARGE_VALUE, MemoryLimit},
    metrics::Metrics,
    units::Micros,
};

/// Bytes of large messages that are kept to be written again after a reconnect; the newest is always kept.
pub(super) const LARGE_BYTES: usize = 32 << 20;
/// Bytes of metrics messages that wait to become history; a few huge ones must not fill the memory.
const HISTORY_BACKLOG_BYTES: usize = 4 << 20;

/// An event that may become a latest value.
#[derive(Clone, Debug)]
pub struct Update {
    /// Which keys.
    pub kind: LatestKind,
    /// The message as received.
    pub payload: Bytes,
    /// What intake decided about it.
    pub decided: Resolved,
    /// The producer's sequence number.
    pub seq: Option<i64>,
    /// When it was received, on the monotonic clock: lifetimes count from here.
    pub received: Instant,
}

/// The newest values. Shared by intake, which updates, and the flusher, which writes.
#[derive(Debug)]
pub struct LatestState {
    enabled: bool,
    pub(super) prefix: String,
    pub(super) changed: Notify,
    pub(super) status_changed: Notify,
    /// Held while keys are written or deleted, so that a deletion is not undone by a write already under way.
    pub(super) write_lock: tokio::sync::Mutex<()>,
    /// Budget of large values while they are written.
    pub(super) memory: MemoryLimit,
    metrics: Arc<Metrics>,
    pub(super) state: Mutex<Inner>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    /// Why Redis does not take the keys, if it does not.
    problem: Option<String>,
    /// Its lifetimes may be replaced.
    config: Config,
    pub(super) slots: [ValueSlot; LatestKind::ALL.len()],
    pub(super) runs: HashMap<Uuid, RunSlots>,
    /// Evicted runs, whose keys may exist.
    evicted: Vec<Uuid>,
    pub(super) history_backlog: VecDeque<Arc<Update>>,
    pub(super) history_backlog_bytes: usize,
    pub(super) dirty: bool,
    cleared: u64,
    /// Deleted runs, and when they were: their objects are still in the history.
    pub(super) deleted: Vec<(Uuid, Micros)>,
    /// The large values in the slots, oldest first.
    pub(super) large: VecDeque<Arc<Update>>,
}

#[derive(Debug, Default)]
pub(super) struct ValueSlot {
    pub(super) value: Option<Arc<Update>>,
    pub(super) dirty: bool,
}

#[derive(Debug)]
pub(super) struct RunSlots {
    pub(super) metrics: ValueSlot,
    pub(super) topology: ValueSlot,
    last_update: Instant,
    /// Whether its keys may exist.
    may_have_keys: bool,
}

impl RunSlots {
    /// The slots, by kind.
    pub(super) fn all(&mut self) -> [(LatestKind, &mut ValueSlot); 2] {
        [(LatestKind::Metrics, &mut self.metrics), (LatestKind::Topology, &mut self.topology)]
    }

    /// The slot of this kind; `None`: runs have no key of it.
    pub(super) fn slot(&mut self, kind: LatestKind) -> Option<&mut ValueSlot> {
        match kind {
            LatestKind::Metrics => Some(&mut self.metrics),
            LatestKind::Topology => Some(&mut self.topology),
            LatestKind::State => None,
        }
    }
}

/// A value that has to be written.
#[derive(Debug)]
pub(super) struct PendingWrite {
    pub(super) kind: LatestKind,
    /// The run, of a run's own key; absent: the key of all runs.
    pub(super) run: Option<Uuid>,
    pub(super) update: Arc<Update>,
}

/// The changes since the last call.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) writes: Vec<PendingWrite>,
    /// Keys of evicted runs, to be deleted before anything is written.
    pub(super) stale: Vec<String>,
    pub(super) history: VecDeque<Arc<Update>>,
    /// Whether objects of the history were left.
    pub(super) has_backlog: bool,
    /// Changes when everything was cleared.
    pub(super) cleared: u64,
    /// Deleted runs, to be removed from the history.
    pub(super) deleted: Vec<(Uuid, Micros)>,
}

impl ValueSlot {
    /// Returns whether a value was replaced that had not been written.
    fn update(&mut self, update: &Arc<Update>, ttl: Duration) -> bool {
        if self.value.as_ref().is_some_and(|held| !supersedes(update, held, ttl)) {
            return false;
        }
        self.value = Some(Arc::clone(update));
        std::mem::replace(&mut self.dirty, true)
    }

    fn take(&mut self) -> Option<Arc<Update>> {
        if std::mem::take(&mut self.dirty) { self.value.clone() } else { None }
    }
}

/// Within a run the newest wins by time, `seq`, arrival, as long as the held value lives; between runs by arrival.
fn supersedes(update: &Update, held: &Update, ttl: Duration) -> bool {
    if update.decided.run_id != held.decided.run_id || update.received.duration_since(held.received) >= ttl {
        return true;
    }
    match update.decided.event_time.cmp(&held.decided.event_time) {
        std::cmp::Ordering::Equal => update.seq.zip(held.seq).is_none_or(|(new, old)| new >= old),
        order => order.is_gt(),
    }
}

impl LatestState {
    /// No values yet, for keys under `prefix`.
    pub fn new(config: &Config, prefix: &str, memory: MemoryLimit, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            enabled: config.enabled,
            prefix: prefix.to_owned(),
            changed: Notify::new(),
            status_changed: Notify::new(),
            write_lock: tokio::sync::Mutex::default(),
            memory,
            metrics,
            state: Mutex::new(Inner { config: config.clone(), ..Inner::default() }),
        })
    }

    /// Takes over the lifetimes of `config`; sizes and `enabled` stay as they were at the start.
    pub fn set_ttls(&self, config: &Config) {
        let mut state = self.lock();
        let old = &state.config;
        state.config = Config {
            enabled: old.enabled,
            history_objects: old.history_objects,
            history_bytes: old.history_bytes,
            runs: old.runs,
            ..config.clone()
        };
    }

    /// The status of the daemon is written to Redis now, not with the next tick: a person who has just sent a command looks at it.
    pub fn status_changed(&self) {
        self.status_changed.notify_one();
    }

    /// Why Redis does not take the keys, as it last said; `None`: it does.
    pub fn problem(&self) -> Option<String> {
        self.lock().problem.clone()
    }

    pub(super) fn set_problem(&self, problem: Option<String>) {
        self.lock().problem = problem;
    }

    /// How long the status of the daemon lives in Redis.
    pub fn status_ttl(&self) -> Duration {
        self.lock().config.status_ttl
    }

    pub(super) fn config(&self) -> Config {
        self.lock().config.clone()
    }

    /// Takes an update; never waits for Redis.
    pub fn update(&self, update: Update) {
        if !self.enabled {
            return;
        }
        let update = Arc::new(update);
        let kind = update.kind;
        let mut state = self.lock();
        let ttl = kind.ttl(&state.config);
        let mut skipped = u64::from(state.slots[kind as usize].update(&update, ttl));
        if kind.has_run_key() {
            let runs_max = state.config.runs;
            let slot = state.run_slots(&update, runs_max).slot(kind);
            skipped += u64::from(slot.is_some_and(|slot| slot.update(&update, ttl)));
        }
        if update.payload.len() >= LARGE_VALUE {
            // While memory is short, no more than the newest.
            let bytes_max = if self.memory.is_exceeded() { 0 } else { LARGE_BYTES };
            skipped += state.retain_large(&update, bytes_max);
        }
        if kind == LatestKind::Metrics {
            let objects = state.config.history_objects;
            state.push_history(update, objects);
        }
        let first = !std::mem::replace(&mut state.dirty, true);
        drop(state);
        if skipped > 0 {
            self.metrics.latest_skipped.inc_by(skipped);
        }
        if first {
            self.changed.notify_one();
        }
    }

    /// What has to be written now. With `all`, every value that lives, written before or not. Without `history` its objects stay
    /// here, where the older ones make room for the newer: what will never be shown is never rendered.
    pub(super) fn take_changes(&self, now: Instant, all: bool, history: bool) -> Changes {
        let mut state = self.lock();
        state.dirty = false;
        state.expire(now);
        let mut writes = Vec::new();
        for kind in LatestKind::ALL {
            let slot = &mut state.slots[kind as usize];
            slot.dirty |= all && slot.value.is_some();
            writes.extend(slot.take().map(|update| PendingWrite { kind, run: None, update }));
        }
        for (id, run) in &mut state.runs {
            let mut has_values = false;
            for (kind, slot) in run.all() {
                slot.dirty |= all && slot.value.is_some();
                let value = slot.take();
                has_values |= value.is_some();
                writes.extend(value.map(|update| PendingWrite { kind, run: Some(*id), update }));
            }
            run.may_have_keys |= has_values;
        }
        let evicted = std::mem::take(&mut state.evicted);
        let stale = evicted.into_iter().flat_map(|id| self.run_keys(id)).collect();
        let deleted = std::mem::take(&mut state.deleted);
        let mut changes = Changes { writes, stale, cleared: state.cleared, deleted, ..Changes::default() };
        if history {
            state.history_backlog_bytes = 0;
            changes.history = std::mem::take(&mut state.history_backlog);
        } else {
            changes.has_backlog = !state.history_backlog.is_empty();
        }
        changes
    }

    /// Lets go of the values that live no longer: they may be large, and whatever comes replaces them.
    pub(super) fn expire(&self, now: Instant) {
        self.lock().expire(now);
    }

    /// Forgets everything. Returns the names of the keys that may exist.
    pub(super) fn reset(&self) -> Vec<String> {
        let mut state = self.lock();
        let mut keys: Vec<_> = LatestKind::ALL.iter().map(|kind| self.key(*kind, None)).collect();
        keys.extend(["history:latest", "control:latest"].map(|name| format!("{}{name}", self.prefix)));
        for id in state.runs.keys().chain(&state.evicted) {
            keys.extend(self.run_keys(*id));
        }
        *state = Inner { config: state.config.clone(), cleared: state.cleared + 1, ..Inner::default() };
        keys
    }

    /// The keys of a run of its own.
    fn run_keys(&self, run: Uuid) -> [String; 2] {
        [LatestKind::Metrics, LatestKind::Topology].map(|kind| self.key(kind, Some(run)))
    }

    pub(super) fn key(&self, kind: LatestKind, run: Option<Uuid>) -> String {
        let (prefix, name) = (&self.prefix, kind.name());
        match run {
            Some(run) => format!("{prefix}{name}:{run}:latest"),
            None => format!("{prefix}{name}:latest"),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves plain values behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn expire(&mut self, now: Instant) {
        let ttl = LatestKind::ALL.map(|kind| kind.ttl(&self.config));
        let of_runs = self.runs.values_mut().flat_map(RunSlots::all);
        for (kind, slot) in LatestKind::ALL.into_iter().zip(&mut self.slots).chain(of_runs) {
            if slot.value.as_ref().is_some_and(|held| now.duration_since(held.received) >= ttl[kind as usize]) {
                *slot = ValueSlot::default();
            }
        }
        self.prune_replaced();
    }

    /// The slots of the update's run; the run that was silent for longest makes room.
    fn run_slots(&mut self, update: &Update, runs_max: usize) -> &mut RunSlots {
        let id = update.decided.run_id;
        if self.runs.len() >= runs_max
            && !self.runs.contains_key(&id)
            && let Some(oldest) = self.runs.iter().min_by_key(|(_, run)| run.last_update).map(|(id, _)| *id)
        {
            let evicted = self.runs.remove(&oldest);
            // At most as many as there are runs between two writes.
            if evicted.is_some_and(|run| run.may_have_keys) {
                self.evicted.push(oldest);
            }
        }
        let active = update.received;
        let run = self.runs.entry(id).or_insert_with(|| RunSlots {
            metrics: ValueSlot::default(),
            topology: ValueSlot::default(),
            last_update: active,
            may_have_keys: false,
        });
        run.last_update = active;
        run
    }

    fn push_history(&mut self, update: Arc<Update>, objects: usize) {
        self.history_backlog_bytes += update.payload.len();
        self.history_backlog.push_back(update);
        while self.history_backlog.len() > objects
            || (self.history_backlog_bytes > HISTORY_BACKLOG_BYTES && self.history_backlog.len() > 1)
        {
            let Some(oldest) = self.history_backlog.pop_front() else { break };
            self.history_backlog_bytes -= oldest.payload.len();
        }
    }
}
