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

use super::{Config, large::LARGE_BYTES};
use crate::{
    event::Resolved,
    memory::{LARGE_VALUE, MemoryLimit},
    metrics::Metrics,
};

/// Bytes of metrics messages that wait to become history; a few huge ones must not fill the memory.
const WAITING_BYTES: usize = 4 << 20;

/// Which of the latest keys an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Metrics: its key, its run's key, and the history.
    Metrics,
    /// Topology: its key and its run's key.
    Topology,
    /// State, run start and run end.
    State,
}

impl Subject {
    pub(super) const ALL: [Self; 3] = [Self::Metrics, Self::Topology, Self::State];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Topology => "topology",
            Self::State => "state",
        }
    }

    pub(super) fn ttl(self, config: &Config) -> Duration {
        match self {
            Self::Metrics => config.metrics_ttl,
            Self::Topology => config.topology_ttl,
            Self::State => config.state_ttl,
        }
    }
}

/// An event that may become a latest value.
#[derive(Clone, Debug)]
pub struct Update {
    /// Which keys.
    pub subject: Subject,
    /// The message as received.
    pub payload: Bytes,
    /// What intake decided about it.
    pub decided: Resolved,
    /// The producer's sequence number.
    pub seq: Option<i64>,
    /// When it was received, on the monotonic clock: lifetimes count from here.
    pub received: Instant,
}

/// The newest values. Shared by intake, which offers, and the flusher, which writes.
#[derive(Debug)]
pub struct Board {
    enabled: bool,
    pub(super) prefix: String,
    pub(super) news: Notify,
    /// Held while keys are written or deleted, so that a deletion is not undone by a write already under way.
    pub(super) writing: tokio::sync::Mutex<()>,
    /// Counts what large values take while they are written.
    pub(super) memory: MemoryLimit,
    metrics: Arc<Metrics>,
    pub(super) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Its lifetimes may be replaced.
    config: Config,
    pub(super) slots: [Slot; 3],
    pub(super) runs: HashMap<Uuid, Run>,
    /// Runs that have made room for others, and whose keys may exist.
    evicted: Vec<Uuid>,
    waiting: VecDeque<Arc<Update>>,
    waiting_bytes: usize,
    pub(super) dirty: bool,
    cleared: u64,
    /// The large values in the slots, oldest first.
    pub(super) large: VecDeque<Arc<Update>>,
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) value: Option<Arc<Update>>,
    pub(super) dirty: bool,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) metrics: Slot,
    pub(super) topology: Slot,
    active: Instant,
    /// Whether its keys may exist.
    written: bool,
}

/// A value that has to be written.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) subject: Subject,
    /// The run whose own key it is; absent: everybody's key.
    pub(super) run: Option<Uuid>,
    pub(super) update: Arc<Update>,
}

/// What has come since the last time.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) due: Vec<Due>,
    /// Keys of runs that have made room for others; to be deleted before anything is written.
    pub(super) stale: Vec<String>,
    pub(super) history: VecDeque<Arc<Update>>,
    /// Whether objects of the history were left.
    pub(super) waits: bool,
    /// Changes when everything was cleared.
    pub(super) cleared: u64,
}

impl Slot {
    /// Returns whether a value was replaced that had not been written.
    fn offer(&mut self, update: &Arc<Update>, ttl: Duration) -> bool {
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

impl Board {
    /// An empty board for keys under `prefix`.
    pub fn new(config: &Config, prefix: &str, memory: MemoryLimit, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            enabled: config.enabled,
            prefix: prefix.to_owned(),
            news: Notify::new(),
            writing: tokio::sync::Mutex::default(),
            memory,
            metrics,
            state: Mutex::new(State { config: config.clone(), ..State::default() }),
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

    pub(super) fn config(&self) -> Config {
        self.lock().config.clone()
    }

    /// Takes an update; never waits for Redis.
    pub fn offer(&self, update: Update) {
        if !self.enabled {
            return;
        }
        let update = Arc::new(update);
        let subject = update.subject;
        let mut state = self.lock();
        let ttl = subject.ttl(&state.config);
        let mut skipped = u64::from(state.slots[subject as usize].offer(&update, ttl));
        if subject != Subject::State {
            let runs_max = state.config.runs;
            let run = state.run(&update, runs_max);
            let slot = if subject == Subject::Metrics { &mut run.metrics } else { &mut run.topology };
            skipped += u64::from(slot.offer(&update, ttl));
        }
        if update.payload.len() >= LARGE_VALUE {
            // While memory is short, no more than the newest.
            let bytes_max = if self.memory.is_exceeded() { 0 } else { LARGE_BYTES };
            skipped += state.keep_large(&update, bytes_max);
        }
        if subject == Subject::Metrics {
            let objects = state.config.history_objects;
            state.wait(update, objects);
        }
        let first = !std::mem::replace(&mut state.dirty, true);
        drop(state);
        if skipped > 0 {
            self.metrics.latest_skipped.inc_by(skipped);
        }
        if first {
            self.news.notify_one();
        }
    }

    /// What has to be written now. With `all`, every value that lives, written before or not. Without `history` its objects stay
    /// here, where the older ones make room for the newer: what will never be shown is never rendered.
    pub(super) fn take(&self, now: Instant, all: bool, history: bool) -> News {
        let mut state = self.lock();
        state.dirty = false;
        state.expire(now);
        let mut due = Vec::new();
        for subject in Subject::ALL {
            let slot = &mut state.slots[subject as usize];
            slot.dirty |= all && slot.value.is_some();
            due.extend(slot.take().map(|update| Due { subject, run: None, update }));
        }
        for (id, run) in &mut state.runs {
            for (subject, slot) in [(Subject::Metrics, &mut run.metrics), (Subject::Topology, &mut run.topology)] {
                slot.dirty |= all && slot.value.is_some();
                let value = slot.take();
                run.written |= value.is_some();
                due.extend(value.map(|update| Due { subject, run: Some(*id), update }));
            }
        }
        let evicted = std::mem::take(&mut state.evicted);
        let stale = evicted.into_iter().flat_map(|id| self.keys_of(id)).collect();
        let mut news = News { due, stale, cleared: state.cleared, ..News::default() };
        if history {
            state.waiting_bytes = 0;
            news.history = std::mem::take(&mut state.waiting);
        } else {
            news.waits = !state.waiting.is_empty();
        }
        news
    }

    /// Lets go of the values that live no longer: they may be large, and whatever comes replaces them.
    pub(super) fn expire(&self, now: Instant) {
        self.lock().expire(now);
    }

    /// Forgets everything. Returns the names of the keys that may exist.
    pub(super) fn forget(&self) -> Vec<String> {
        let mut state = self.lock();
        let mut keys: Vec<_> = Subject::ALL.iter().map(|subject| self.key(*subject, None)).collect();
        keys.extend(["history:latest", "control:latest"].map(|name| format!("{}{name}", self.prefix)));
        for id in state.runs.keys().chain(&state.evicted) {
            keys.extend(self.keys_of(*id));
        }
        *state = State { config: state.config.clone(), cleared: state.cleared + 1, ..State::default() };
        keys
    }

    /// The keys of a run of its own.
    fn keys_of(&self, run: Uuid) -> [String; 2] {
        [Subject::Metrics, Subject::Topology].map(|subject| self.key(subject, Some(run)))
    }

    pub(super) fn key(&self, subject: Subject, run: Option<Uuid>) -> String {
        let (prefix, name) = (&self.prefix, subject.name());
        match run {
            Some(run) => format!("{prefix}{name}:{run}:latest"),
            None => format!("{prefix}{name}:latest"),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked left plain values behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn expire(&mut self, now: Instant) {
        let ttl = Subject::ALL.map(|subject| subject.ttl(&self.config));
        let of_runs = self
            .runs
            .values_mut()
            .flat_map(|run| [(Subject::Metrics, &mut run.metrics), (Subject::Topology, &mut run.topology)]);
        for (subject, slot) in Subject::ALL.into_iter().zip(&mut self.slots).chain(of_runs) {
            if slot.value.as_ref().is_some_and(|held| now.duration_since(held.received) >= ttl[subject as usize]) {
                *slot = Slot::default();
            }
        }
        self.forget_replaced();
    }

    /// The slots of the update's run; the run that was silent for longest makes room.
    fn run(&mut self, update: &Update, runs_max: usize) -> &mut Run {
        let id = update.decided.run_id;
        if self.runs.len() >= runs_max
            && !self.runs.contains_key(&id)
            && let Some(oldest) = self.runs.iter().min_by_key(|(_, run)| run.active).map(|(id, _)| *id)
        {
            let evicted = self.runs.remove(&oldest);
            // At most as many as there are runs between two writes.
            if evicted.is_some_and(|run| run.written) {
                self.evicted.push(oldest);
            }
        }
        let active = update.received;
        let run = self.runs.entry(id).or_insert_with(|| Run {
            metrics: Slot::default(),
            topology: Slot::default(),
            active,
            written: false,
        });
        run.active = active;
        run
    }

    fn wait(&mut self, update: Arc<Update>, objects: usize) {
        self.waiting_bytes += update.payload.len();
        self.waiting.push_back(update);
        while self.waiting.len() > objects || (self.waiting_bytes > WAITING_BYTES && self.waiting.len() > 1) {
            let Some(oldest) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= oldest.payload.len();
        }
    }
}
