//! The runs with recent updates: which must be read, which must be written and when, and which records wait for that.
//!
//! Pure: returns [`RunCall`]s and takes their results. A run is read at its first update, written when it has changed (the first
//! time at once, then at most once per [`MIN_WRITE_INTERVAL`], or [`MIN_URGENT_INTERVAL`] where it begins or ends), and never has two
//! calls at a time. It is read again before a write of columns that depend on the stored value: another process may have written a
//! higher best. The table is bounded in runs, in bytes of text, and in bytes of names. At a bound clean runs are evicted; their next
//! update reads them again. While no run is clean, no record is taken.
//!
//! A stored row may vanish while its run is in memory (a file was removed, rows were deleted). A run with updates is read again when
//! another process has changed the store, or at intervals where the store does not report that ([`Checks`]); lost columns are written
//! again.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    mem,
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    frontier::RecordToken,
    pending_records::{RunMention, WriteOutcome},
    recheck_schedule::Checks,
    run::{NAME_BYTES_MAX, Run, RunMemory, RunState},
    run_call::{RunCall, RunRead},
    run_columns,
    store_call::{RefusedPart, RefusedValue},
};
use crate::{
    event::{Row, RunUpdate},
    lifecycle::next_tick,
};

/// Time between two writes of one run's row.
pub const MIN_WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// The same where the run has begun or ended: who waits for the end of a training looks at its row next.
pub const MIN_URGENT_INTERVAL: Duration = Duration::from_millis(100);
/// All other writes of run rows are due at multiples of this, so that those of many runs come together, and with those of batches.
const WRITE_TICK: Duration = Duration::from_millis(250);
/// Updates up to this age make a run recent when another process changes the store: its row may have vanished before.
const RECENT_UPDATE: Duration = Duration::from_secs(5);

/// When a run may be written again that was written then.
fn next_write(written: Instant, is_urgent: bool) -> Instant {
    if is_urgent { written + MIN_URGENT_INTERVAL } else { next_tick(written + MIN_WRITE_INTERVAL, WRITE_TICK) }
}

/// The run update of a record.
#[derive(Debug)]
pub struct RecordUpdate<'a> {
    /// What to merge into its row.
    pub update: RunUpdate,
    /// The rows of the record: they name other numbers and describe the dataset.
    pub rows: &'a [Row],
    /// The record.
    pub token: RecordToken,
}

/// The table of runs.
#[derive(Debug)]
pub struct RunTable {
    runs: HashMap<Uuid, Run>,
    runs_max: usize,
    text_max: usize,
    size: RunMemory,
    /// To be read or written now.
    due_now: VecDeque<Uuid>,
    /// To be written when their time has come. An entry whose time is not that of its run is left over: the run's turn came earlier.
    due_later: BinaryHeap<Reverse<(Instant, Uuid)>>,
    /// Runs in `due_later`, each counted once.
    waiting: usize,
    /// Runs that were clean, oldest first: the first to be evicted.
    clean: VecDeque<Uuid>,
    /// Updated runs whose stored rows are to be read again.
    checks: Checks,
    /// Whether the store does not report changes by other processes.
    checks_by_time: bool,
    /// Whether other daemons take some of the events of the same runs.
    shared: bool,
}

impl RunTable {
    /// Keeps at most `runs_max` runs and about `text_max` bytes of their texts.
    pub fn new(runs_max: usize, text_max: usize) -> Self {
        Self {
            runs: HashMap::new(),
            runs_max,
            text_max,
            size: RunMemory::default(),
            due_now: VecDeque::new(),
            due_later: BinaryHeap::new(),
            waiting: 0,
            clean: VecDeque::new(),
            checks: Checks::default(),
            checks_by_time: false,
            shared: false,
        }
    }

    /// For a store that does not report changes by other processes: updated runs are read again at intervals.
    pub fn checked_by_time(mut self, yes: bool) -> Self {
        self.checks_by_time = yes;
        self
    }

    /// Other daemons take some of the events of the same runs.
    pub fn shared(mut self, yes: bool) -> Self {
        self.shared = yes;
        self
    }

    /// Whether another update may be taken.
    pub fn has_room(&self) -> bool {
        // A run that is alone has room whatever it holds: there is nothing that could be forgotten for it.
        self.runs.len() < 2
            || (self.runs.len() < self.runs_max && self.size.text < self.text_max)
            || !self.clean.is_empty()
    }

    /// Merges the update of a record. `true`: the record waits for a write of the run.
    pub fn update(&mut self, run_id: Uuid, says: RecordUpdate<'_>, now: Instant) -> bool {
        if !self.runs.contains_key(&run_id) {
            self.evict();
            let mut run = Run::new(run_id, now);
            run.shared = self.shared;
            self.runs.insert(run_id, run);
            self.due_now.push_back(run_id);
        }
        let run = self.runs.get_mut(&run_id).expect("it was just inserted");
        run.last_update = now;
        if self.checks_by_time || run.maybe_stale {
            if mem::take(&mut run.maybe_stale) && run.check_at() <= now {
                // Its record waits for what comes of it.
                run.needs_recheck = true;
            } else if !run.check_queued && run.summary.loaded {
                run.check_queued = true;
                self.checks.add(run.check_at().max(now), run_id);
            }
        }
        let RecordUpdate { update, rows, token } = says;
        let mention = RunMention { token, time: update.event_time, columns: run_columns::mentioned(&update) };
        let (begins_or_ends, tags) = (update.lifecycle.is_some(), update.values.tags.iter().cloned().collect());
        let mut changed = run.summary.apply(update);
        for row in rows {
            match row {
                Row::Metrics(row) => changed |= run.names.observe(run_id, &row.extra, token),
                Row::Dataset(row) => {
                    run.merge_dataset(row);
                    run.update_size(&mut self.size);
                }
                _ => {}
            }
        }
        if !changed && !run.needs_recheck && !run.restoring {
            // Whatever it says is said already: by what is stored, or by an earlier record that waits.
            return false;
        }
        run.pending.push(mention, tags);
        run.update_size(&mut self.size);
        run.is_urgent |= begins_or_ends;
        let is_clean = matches!(run.state, RunState::Clean);
        if is_clean {
            run.state = RunState::Queued;
        }
        if is_clean || (begins_or_ends && run.due_later.is_some()) {
            self.queue(run_id, now);
        }
        true
    }

    /// Gives a queued run its turn: now, or when it may be written again.
    fn queue(&mut self, run_id: Uuid, now: Instant) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        let due = run.last_written.map(|written| next_write(written, run.is_urgent)).filter(|due| *due > now);
        if due.is_some() && due == run.due_later {
            return;
        }
        self.waiting -= usize::from(run.due_later.is_some());
        run.due_later = due;
        match due {
            Some(due) => {
                self.waiting += 1;
                self.due_later.push(Reverse((due, run_id)));
            }
            None => self.due_now.push_back(run_id),
        }
    }

    /// Another process has changed the store: any row may have vanished. Runs with recent updates are read again now, all others at
    /// their next update.
    pub fn recheck_all(&mut self, now: Instant) {
        for (run_id, run) in &mut self.runs {
            run.maybe_stale = true;
            let is_touched = now < run.last_update + RECENT_UPDATE || !matches!(run.state, RunState::Clean);
            if is_touched && !mem::replace(&mut run.check_queued, true) {
                self.checks.add(run.check_at().max(now), *run_id);
            }
        }
    }

    /// From now on only what is needed to come to an end.
    pub fn stop_checks(&mut self) {
        (self.checks, self.checks_by_time) = (Checks::default(), false);
    }

    /// The next thing to do, if any is due; `urgent`: everything is.
    pub fn next_call(&mut self, now: Instant, urgent: bool) -> Option<RunCall> {
        let run_id = self.next_due(now, urgent)?;
        Some(self.runs.get_mut(&run_id)?.next_call(run_id, now))
    }

    /// The run whose turn it is.
    fn next_due(&mut self, now: Instant, urgent: bool) -> Option<Uuid> {
        if let Some(run_id) = self.due_now.pop_front() {
            return Some(run_id);
        }
        while self.due_later.peek().is_some_and(|Reverse((at, _))| urgent || *at <= now) {
            let Some(Reverse((at, run_id))) = self.due_later.pop() else { break };
            if let Some(run) = self.runs.get_mut(&run_id).filter(|run| run.due_later == Some(at)) {
                run.due_later = None;
                self.waiting -= 1;
                return Some(run_id);
            }
        }
        while let Some(run_id) = self.checks.next(now) {
            let Some(run) = self.runs.get_mut(&run_id).filter(|run| run.check_queued) else { continue };
            if run.check_at() > now {
                // It was read meanwhile for another reason, and may have been changed after that.
                self.checks.add(run.check_at(), run_id);
                continue;
            }
            (run.check_queued, run.maybe_stale) = (false, false);
            (run.needs_recheck, run.last_checked) = (true, Some(now));
            if self.checks_by_time {
                self.checks.charge(run.extra_checks().reads(), now);
            }
            if matches!(run.state, RunState::Clean) {
                return Some(run_id);
            }
            // It has its turn anyway.
        }
        None
    }

    /// Whether no run waits for its turn, now or later.
    pub fn is_idle(&self) -> bool {
        self.due_now.is_empty() && self.waiting == 0
    }

    /// When the next job is due.
    pub fn due_at(&self, now: Instant) -> Option<Instant> {
        if !self.due_now.is_empty() {
            return Some(now);
        }
        let later = self.due_later.peek().map(|Reverse((at, _))| *at);
        [later, self.checks.due_at()].into_iter().flatten().min()
    }

    /// What was read of the run. Returns the records that need not wait any longer.
    pub fn on_read(&mut self, run_id: Uuid, known: RunRead) -> Vec<RecordToken> {
        let Some(run) = self.runs.get_mut(&run_id) else { return Vec::new() };
        run.apply_read(run_id, known);
        run.update_size(&mut self.size);
        if run.is_pending() {
            run.state = RunState::Queued;
            self.due_now.push_back(run_id);
            return Vec::new();
        }
        // Another process has restored what was missing.
        (run.just_read, run.restoring) = (false, false);
        let free = mem::take(&mut run.pending);
        self.mark_clean(run_id);
        free.tokens()
    }

    /// The write is confirmed, but for what is refused. Returns the records that waited for it.
    pub fn on_written(&mut self, run_id: Uuid, refused: Vec<RefusedValue>, now: Instant) -> WriteOutcome {
        let Some(run) = self.runs.get_mut(&run_id) else { return WriteOutcome::default() };
        run.last_written = Some(now);
        let RunState::Writing(write) = mem::replace(&mut run.state, RunState::Queued) else {
            return WriteOutcome::default();
        };
        run.stored_start = write.start;
        (run.restoring, run.dataset_missing) = (false, false);
        for refused in &refused {
            match &refused.part {
                RefusedPart::Column(column) => run.summary.discard_refused(*column),
                RefusedPart::Tag(tag) => run.summary.discard_refused_tag(tag),
                RefusedPart::Name(name) => run.names.discard_refused(name),
            }
        }
        run.update_size(&mut self.size);
        let mut outcome = write.assign_refusals(refused);
        if run.is_pending() {
            self.queue(run_id, now);
        } else {
            // What came meanwhile said nothing that is not stored now: there is nothing to write for it.
            outcome.stored.append(&mut mem::take(&mut run.pending).tokens());
            self.mark_clean(run_id);
        }
        outcome
    }

    /// The read or the write failed and must be repeated, before anything else.
    pub fn on_failed(&mut self, run_id: Uuid) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        run.just_read = false;
        match mem::replace(&mut run.state, RunState::Queued) {
            RunState::Writing(write) => {
                run.summary.dirty |= write.columns;
                run.names.put_back(write.names);
                run.pending.put_back(write.records);
            }
            // What was looked for is still not known.
            _ => run.needs_recheck |= run.summary.loaded,
        }
        self.due_now.push_front(run_id);
    }

    /// What is stored of the run cannot be read, and asking again cannot help. Returns the records that wait for it, and whether
    /// that is news.
    pub fn on_unreadable(&mut self, run_id: Uuid, now: Instant) -> (Vec<RecordToken>, bool) {
        let Some(run) = self.runs.get_mut(&run_id) else { return Default::default() };
        let (records, before) = run.reset_unreadable(run_id, now);
        run.update_size(&mut self.size);
        self.mark_clean(run_id);
        (records, !before)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.runs_max, self.text_max).checked_by_time(self.checks_by_time).shared(self.shared);
    }

    fn mark_clean(&mut self, run_id: Uuid) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        run.state = RunState::Clean;
        if !mem::replace(&mut run.in_clean_queue, true) {
            self.clean.push_back(run_id);
        }
    }

    /// Makes room for one more run, if clean ones are there.
    fn evict(&mut self) {
        while self.runs.len() >= self.runs_max
            || self.size.text >= self.text_max
            // Of so many names even the hashes are too many.
            || self.size.names >= 2 * NAME_BYTES_MAX
        {
            let Some(run_id) = self.clean.pop_front() else { return };
            let Some(run) = self.runs.get_mut(&run_id) else { continue };
            run.in_clean_queue = false;
            if matches!(run.state, RunState::Clean) {
                self.size.text -= run.size.text;
                self.size.names -= run.size.names;
                self.runs.remove(&run_id);
            }
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.runs.len()
    }
}
