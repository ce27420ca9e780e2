//! The committing end of the spool: confirmed offsets become the checkpoint, and segments that are wholly committed are removed.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

use super::{checkpoint, segment::Meta, shared::Shared};
use crate::{
    backoff,
    logging::{Chain, stage},
};

/// The shortest time between two checkpoints.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(200);
/// Confirmations closer together than this linger as one.
const COALESCE: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(crate) struct CommitQueue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What was confirmed, when; in order of both.
    lingering: VecDeque<Acked>,
    linger: Duration,
    /// The highest confirmed offset that has lingered.
    due: u64,
    stop: bool,
    waiting: bool,
}

#[derive(Clone, Copy, Debug)]
struct Acked {
    first_at: Instant,
    last_at: Instant,
    next: u64,
}

impl State {
    fn ack(&mut self, next: u64, now: Instant) {
        if self.linger.is_zero() {
            self.lingering.clear();
            self.due = self.due.max(next);
            return;
        }
        if next <= self.lingering.back().map_or(self.due, |last| last.next) {
            return;
        }
        match self.lingering.back_mut() {
            // The last of the coalesced times counts for all: later is safe, earlier is not.
            Some(last) if now.saturating_duration_since(last.first_at) < COALESCE => {
                (last.last_at, last.next) = (now, next)
            }
            _ => self.lingering.push_back(Acked { first_at: now, last_at: now, next }),
        }
    }

    fn release_due(&mut self, now: Instant) {
        while let Some(acked) = self.lingering.front()
            && now.saturating_duration_since(acked.last_at) >= self.linger
        {
            self.due = self.due.max(acked.next);
            self.lingering.pop_front();
        }
    }
}

impl CommitQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn commit(&self, next: u64) {
        let mut state = self.lock();
        state.ack(next, Instant::now());
        if state.waiting {
            self.changed.notify_all();
        }
    }

    pub(crate) fn set_linger(&self, linger: Duration) {
        self.lock().linger = linger;
        self.changed.notify_all();
    }

    /// Forgets what lingers beyond `offset`; returns the offset to read from.
    pub(crate) fn rewind(&self, shared: &Shared, offset: u64) -> u64 {
        let mut state = self.lock();
        state.release_due(Instant::now());
        let from = offset.max(state.due).max(shared.committed());
        state.lingering.retain(|acked| acked.next <= from);
        from
    }
}

/// Takes confirmed offsets; a thread writes the checkpoints.
#[derive(Debug)]
pub struct Committer {
    commits: Arc<CommitQueue>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub(crate) fn start(shared: Arc<Shared>, commits: Arc<CommitQueue>) -> io::Result<Self> {
        let mut checkpoint_thread = CheckpointThread::new(shared, Arc::clone(&commits));
        let work = move || {
            let _span = stage("checkpoint").entered();
            checkpoint_thread.run();
        };
        let thread = thread::Builder::new().name("spool-commit".into()).spawn(work)?;
        Ok(Self { commits, thread: Some(thread) })
    }

    /// Every record below `next` is stored. Cheap; lower offsets than before are ignored.
    pub fn commit(&self, next: u64) {
        self.commits.commit(next);
    }

    /// How long a confirmation must be ago before the checkpoint covers it. Zero at first.
    pub fn set_linger(&self, linger: Duration) {
        self.commits.set_linger(linger);
    }

    /// Writes the last checkpoint and ends the thread. What lingers is replayed at the next start.
    pub fn close(self) {}
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.commits.lock().stop = true;
        self.commits.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported; the old checkpoint only means a longer replay.
            let _ = thread.join();
        }
    }
}

/// What the thread does: checkpoints, and the removal of what they cover.
#[derive(Debug)]
pub(crate) struct CheckpointThread {
    shared: Arc<Shared>,
    commits: Arc<CommitQueue>,
    /// The offset of the last checkpoint that is durable.
    written: u64,
    failing: bool,
    /// Whether a segment cannot be removed.
    stuck: bool,
}

impl CheckpointThread {
    pub(crate) fn new(shared: Arc<Shared>, commits: Arc<CommitQueue>) -> Self {
        let written = shared.committed();
        commits.lock().due = written;
        Self { shared, commits, written, failing: false, stuck: false }
    }

    fn run(&mut self) {
        loop {
            let (due, stop) = self.wait();
            let pause = self.advance(due);
            if stop {
                return;
            }
            let state = self.commits.lock();
            let _ = self.commits.changed.wait_timeout_while(state, pause, |state| !state.stop);
        }
    }

    /// One round without waiting.
    #[allow(dead_code, reason = "the fault tests step through it")]
    pub(crate) fn step(&mut self) {
        let due = {
            let mut state = self.commits.lock();
            state.release_due(Instant::now());
            state.due
        };
        self.advance(due);
    }

    /// Everything below `due` need not be kept; returns how long to wait before the next round.
    fn advance(&mut self, due: u64) -> Duration {
        let shared = &self.shared;
        let mut pause = CHECKPOINT_INTERVAL;
        if due > self.written {
            // Memory may be given back whether or not the disk takes the checkpoint.
            shared.committed.fetch_max(due, Ordering::AcqRel);
            shared.trim(&mut shared.cache());
            match checkpoint::write(&shared.disk, &shared.dir, shared.id, due) {
                Ok(()) => {
                    self.written = due;
                    shared.checkpoint.store(due, Ordering::Release);
                    if std::mem::take(&mut self.failing) {
                        info!("checkpoint is written again");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        warn!(error = %Chain(&error), "checkpoint could not be written; a restart would replay more");
                    }
                    pause = backoff::DISK;
                }
            }
        }
        // Also without a new checkpoint: a segment may have been closed meanwhile.
        self.stuck = !remove_committed(shared, self.written, self.stuck);
        shared.update_gauges();
        pause
    }

    /// Waits until there is something to write, or a second has passed with closed segments possible.
    fn wait(&self) -> (u64, bool) {
        let mut state = self.commits.lock();
        loop {
            state.release_due(Instant::now());
            if state.stop || state.due > self.written {
                return (state.due, state.stop);
            }
            let lingering = !state.lingering.is_empty();
            state.waiting = !lingering;
            let timeout = if lingering { CHECKPOINT_INTERVAL } else { backoff::DISK };
            let (woken, timed_out) =
                self.commits.changed.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.waiting = false;
            if timed_out.timed_out() && !lingering {
                return (state.due, state.stop);
            }
        }
    }
}

/// Removes the segments whose records are all below the durable checkpoint and are not retained. Whether all could be removed. One
/// that cannot be removed does not keep the rest, or the spool would fill.
fn remove_committed(shared: &Shared, checkpoint: u64, already_reported: bool) -> bool {
    let unneeded = checkpoint.min(shared.retain_from.load(Ordering::Acquire));
    let done = |meta: &&Meta| !meta.active && meta.end <= unneeded;
    let list: Vec<_> = shared.segments.lock().iter().take_while(done).cloned().collect();
    let (mut removed, mut failed) = (false, None);
    for meta in list {
        match shared.disk.discard(&meta.path) {
            Ok(()) => removed = true,
            // Something that is no file has taken its name.
            Err(_) if shared.disk.stat(&meta.path).is_ok_and(|stat| !stat.is_file) => {}
            Err(error) => {
                failed.get_or_insert((meta.path, error));
                continue;
            }
        }
        shared.segments.forget(&meta.path);
    }
    if let Some((path, error)) = &failed
        && !already_reported
    {
        warn!(segment = %path.display(), error = %Chain(error), "committed segment could not be removed; trying again");
    }
    if removed && let Err(error) = shared.disk.sync_dir(&shared.dir) {
        warn!(error = %Chain(&error), "directory of the spool could not be synced");
    }
    failed.is_none()
}
