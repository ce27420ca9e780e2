//! The runs that were touched lately: which must be read, which must be written and when, and which records wait for that.
//!
//! Pure: hands out [`Job`]s and takes their results. A run is read at its first touch, written when it changed, at most once per
//! [`SPACING`] (the first time at once), and never has two jobs at a time. It is read again before a write of what is combined with
//! the stored value: others may have written meanwhile, and a lower best would take the place of theirs. The table is bounded in runs
//! and in bytes of text, and beside that in bytes of names: beyond, runs that are clean are forgotten (their next touch reads them again), and when none is, no record is taken until
//! writes have made some clean.
//!
//! A stored row may vanish while the run is remembered (a file was removed, rows were deleted): a run that is touched is read again
//! when others have changed the store, or now and then where the store cannot tell ([`Checks`]), and what its row has lost is
//! written again.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    mem,
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    checks::Checks,
    columns,
    flight::{Refused, What},
    frontier::Ticket,
    run::{Job, Known, NAMES_MAX, Run, Size, State},
    waiting::{Said, Written},
};
use crate::event::{Row, RunUpdate};

/// Time between two writes of one run's row.
pub const SPACING: Duration = Duration::from_secs(1);
/// A run whose last touch is not older than this when others change the store: its row may have been gone before.
const LATELY: Duration = Duration::from_secs(5);

/// What a record says of a run.
#[derive(Debug)]
pub struct Says<'a> {
    /// What to merge into its row.
    pub touch: RunUpdate,
    /// The rows of the record: they name other numbers and describe the dataset.
    pub rows: &'a [Row],
    /// The record.
    pub ticket: Ticket,
}

/// The table of runs.
#[derive(Debug)]
pub struct Runs {
    runs: HashMap<Uuid, Run>,
    runs_max: usize,
    text_max: usize,
    size: Size,
    /// To be read or written now.
    now: VecDeque<Uuid>,
    /// To be written when their time has come.
    later: BinaryHeap<Reverse<(Instant, Uuid)>>,
    /// Runs that were clean, oldest first: the first to be forgotten.
    clean: VecDeque<Uuid>,
    /// Touched runs that are to be read again, because of the time or because others have changed the store.
    checks: Checks,
    /// Whether the store cannot tell when others have changed it.
    by_time: bool,
}

impl Runs {
    /// Keeps at most `runs_max` runs and about `text_max` bytes of their texts.
    pub fn new(runs_max: usize, text_max: usize) -> Self {
        Self {
            runs: HashMap::new(),
            runs_max,
            text_max,
            size: Size::default(),
            now: VecDeque::new(),
            later: BinaryHeap::new(),
            clean: VecDeque::new(),
            checks: Checks::default(),
            by_time: false,
        }
    }

    /// For a store that cannot tell whether others have changed it: touched runs are read again now and then.
    pub fn checked_by_time(mut self, yes: bool) -> Self {
        self.by_time = yes;
        self
    }

    /// Whether another touch may be taken.
    pub fn has_room(&self) -> bool {
        // A run that is alone has room whatever it holds: there is nothing that could be forgotten for it.
        self.runs.len() < 2
            || (self.runs.len() < self.runs_max && self.size.text < self.text_max)
            || !self.clean.is_empty()
    }

    /// Merges what a record says of its run. `true`: the record waits for a write of the run.
    pub fn touch(&mut self, run_id: Uuid, says: Says<'_>, now: Instant) -> bool {
        if !self.runs.contains_key(&run_id) {
            self.forget();
            self.runs.insert(run_id, Run::new(run_id, now));
            self.now.push_back(run_id);
        }
        let run = self.runs.get_mut(&run_id).expect("it was just inserted");
        run.touched = now;
        if self.by_time || run.suspect {
            if mem::take(&mut run.suspect) && run.check_at() <= now {
                // Its record waits for what comes of it.
                run.doubted = true;
            } else if !run.check_queued && run.summary.is_loaded() {
                run.check_queued = true;
                self.checks.add(run.check_at().max(now), run_id);
            }
        }
        let Says { touch, rows, ticket } = says;
        let said = Said { ticket, time: touch.event_time, columns: columns::said(&touch) };
        let tags = touch.values.tags.iter().cloned().collect();
        let mut changed = run.summary.apply(touch);
        for row in rows {
            match row {
                Row::Metrics(row) => changed |= run.names.note(run_id, &row.extra, ticket),
                Row::Dataset(row) => {
                    run.describe(row);
                    run.measure(&mut self.size);
                }
                _ => {}
            }
        }
        if !changed && !run.doubted && !run.restoring {
            // Whatever it says is said already: by what is stored, or by an earlier record that waits.
            return false;
        }
        run.waiting.push(said, tags);
        run.measure(&mut self.size);
        if matches!(run.state, State::Clean) {
            run.state = State::Queued;
            match run.written {
                Some(written) => self.later.push(Reverse((written + SPACING, run_id))),
                None => self.now.push_back(run_id),
            }
        }
        true
    }

    /// Others have changed what is stored: no row is known to be there any more. Runs that were touched lately are read again,
    /// the others when they are touched.
    pub fn doubt(&mut self, now: Instant) {
        for (run_id, run) in &mut self.runs {
            run.suspect = true;
            let is_touched = now < run.touched + LATELY || !matches!(run.state, State::Clean);
            if is_touched && !mem::replace(&mut run.check_queued, true) {
                self.checks.add(run.check_at().max(now), *run_id);
            }
        }
    }

    /// From now on only what is needed to come to an end.
    pub fn check_no_more(&mut self) {
        (self.checks, self.by_time) = (Checks::default(), false);
    }

    /// The next thing to do, if any is due; `urgent`: everything is.
    pub fn job(&mut self, now: Instant, urgent: bool) -> Option<Job> {
        let run_id = self.next(now, urgent)?;
        Some(self.runs.get_mut(&run_id)?.job(run_id, now))
    }

    /// The run whose turn it is.
    fn next(&mut self, now: Instant, urgent: bool) -> Option<Uuid> {
        if let Some(run_id) = self.now.pop_front() {
            return Some(run_id);
        }
        if self.later.peek().is_some_and(|Reverse((at, _))| urgent || *at <= now) {
            return self.later.pop().map(|Reverse((_, run_id))| run_id);
        }
        while let Some(run_id) = self.checks.next(now) {
            let Some(run) = self.runs.get_mut(&run_id).filter(|run| run.check_queued) else { continue };
            if run.check_at() > now {
                // It has been looked at meanwhile, for another reason; what others did after that is not known.
                self.checks.add(run.check_at(), run_id);
                continue;
            }
            (run.check_queued, run.suspect) = (false, false);
            (run.doubted, run.checked) = (true, Some(now));
            if self.by_time {
                self.checks.charge(run.also().reads(), now);
            }
            if matches!(run.state, State::Clean) {
                return Some(run_id);
            }
            // It has its turn anyway.
        }
        None
    }

    /// Whether no run waits for its turn, now or later.
    pub fn is_idle(&self) -> bool {
        self.now.is_empty() && self.later.is_empty()
    }

    /// When the next job is due.
    pub fn due_at(&self, now: Instant) -> Option<Instant> {
        if !self.now.is_empty() {
            return Some(now);
        }
        let later = self.later.peek().map(|Reverse((at, _))| *at);
        [later, self.checks.due_at()].into_iter().flatten().min()
    }

    /// What was read of the run. Returns the records that need not wait any longer.
    pub fn read(&mut self, run_id: Uuid, known: Known) -> Vec<Ticket> {
        let Some(run) = self.runs.get_mut(&run_id) else { return Vec::new() };
        run.learn(run_id, known);
        run.measure(&mut self.size);
        if run.is_pending() {
            run.state = State::Queued;
            self.now.push_back(run_id);
            return Vec::new();
        }
        // Whatever was missing is stored again, by others.
        (run.fresh, run.restoring) = (false, false);
        let free = mem::take(&mut run.waiting);
        self.rest(run_id);
        free.tickets()
    }

    /// The write is confirmed, but for what is refused. Returns the records that waited for it.
    pub fn written(&mut self, run_id: Uuid, refused: Vec<Refused>, now: Instant) -> Written {
        let Some(run) = self.runs.get_mut(&run_id) else { return Written::default() };
        run.written = Some(now);
        let State::Writing(sent) = mem::replace(&mut run.state, State::Queued) else {
            return Written::default();
        };
        run.stored_start = sent.start;
        (run.restoring, run.dataset_missing) = (false, false);
        for refused in &refused {
            match &refused.what {
                What::Column(column) => run.summary.forget(*column),
                What::Tag(tag) => run.summary.forget_tag(tag),
                What::Name(name) => run.names.refused(name),
            }
        }
        run.measure(&mut self.size);
        let mut written = sent.settle(refused);
        if run.is_pending() {
            self.later.push(Reverse((now + SPACING, run_id)));
        } else {
            // What came meanwhile said nothing that is not stored now: there is nothing to write for it.
            written.stored.append(&mut mem::take(&mut run.waiting).tickets());
            self.rest(run_id);
        }
        written
    }

    /// The read or the write failed and must be repeated, before anything else.
    pub fn failed(&mut self, run_id: Uuid) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        run.fresh = false;
        match mem::replace(&mut run.state, State::Queued) {
            State::Writing(sent) => {
                run.summary.put_back(sent.columns);
                run.names.put_back(sent.names);
                run.waiting.put_back(sent.records);
            }
            // What was looked for is still not known.
            _ => run.doubted |= run.summary.is_loaded(),
        }
        self.now.push_front(run_id);
    }

    /// What is stored of the run cannot be read, and asking again cannot help. Returns the records that wait for it, and whether
    /// that is news.
    pub fn unreadable(&mut self, run_id: Uuid, now: Instant) -> (Vec<Ticket>, bool) {
        let Some(run) = self.runs.get_mut(&run_id) else { return Default::default() };
        let (records, before) = run.give_up(run_id, now);
        run.measure(&mut self.size);
        self.rest(run_id);
        (records, !before)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.runs_max, self.text_max).checked_by_time(self.by_time);
    }

    fn rest(&mut self, run_id: Uuid) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        run.state = State::Clean;
        if !mem::replace(&mut run.listed, true) {
            self.clean.push_back(run_id);
        }
    }

    /// Makes room for one more run, if clean ones are there.
    fn forget(&mut self) {
        while self.runs.len() >= self.runs_max
            || self.size.text >= self.text_max
            // Of so many names even the hashes are too many.
            || self.size.names >= 2 * NAMES_MAX
        {
            let Some(run_id) = self.clean.pop_front() else { return };
            let Some(run) = self.runs.get_mut(&run_id) else { continue };
            run.listed = false;
            if matches!(run.state, State::Clean) {
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
