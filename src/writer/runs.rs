//! The runs that were touched lately: which must be read, which must be written and when, and which records wait for that.
//!
//! Pure: hands out [`Job`]s and takes their results. A run is read at its first touch, written when it changed, at most once per
//! [`SPACING`] (the first time at once), and never has two jobs at a time. It is read again before a write of what is combined with
//! the stored value: others may have written meanwhile, and a lower best would take the place of theirs. The table is bounded in runs and in bytes of text:
//! beyond, runs that are clean are forgotten (their next touch reads them again), and when none is, no record is taken until
//! writes have made some clean.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    mem,
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    frontier::Ticket,
    names::Names,
    summary::{Columns, History, Summary, Wanted},
};
use crate::{
    event::{Row, RunRow, RunTouch},
    units::Micros,
};

/// Time between two writes of one run's row.
pub const SPACING: Duration = Duration::from_secs(1);

/// Something to do in the store.
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    /// Read the stored row.
    Read(Uuid),
    /// Read part of the history.
    History(Uuid, Wanted),
    /// Read the stored names of its other numbers.
    Names(Uuid),
    /// Write these columns.
    Write {
        /// The columns that changed.
        change: Box<RunRow>,
        /// Which those are.
        columns: Columns,
        /// The start time in the index now.
        stored_start: Option<Micros>,
        /// Names of other numbers that are new.
        names: Vec<String>,
    },
}

/// The table of runs.
#[derive(Debug)]
pub struct Runs {
    runs: HashMap<Uuid, Run>,
    runs_max: usize,
    text_max: usize,
    text: usize,
    /// To be read or written now.
    now: VecDeque<Uuid>,
    /// To be written when their time has come.
    later: BinaryHeap<Reverse<(Instant, Uuid)>>,
    /// Runs that were clean, oldest first: the first to be forgotten.
    clean: VecDeque<Uuid>,
}

#[derive(Debug)]
struct Run {
    summary: Box<Summary>,
    names: Names,
    text: usize,
    stored_start: Option<Micros>,
    /// Whether it was read just now, for the write that comes next.
    fresh: bool,
    written: Option<Instant>,
    /// Records whose touch is in no write yet.
    waiting: Vec<Ticket>,
    state: State,
    /// Whether it is in `clean`.
    listed: bool,
}

#[derive(Debug)]
enum State {
    /// Nothing to do.
    Clean,
    /// In `now` or `later`.
    Queued,
    Reading,
    /// What is being written, and the records that wait for that.
    Writing {
        columns: Columns,
        names: Vec<String>,
        start: Option<Micros>,
        tickets: Vec<Ticket>,
    },
}

impl Runs {
    /// Keeps at most `runs_max` runs and about `text_max` bytes of their texts.
    pub fn new(runs_max: usize, text_max: usize) -> Self {
        Self {
            runs: HashMap::new(),
            runs_max,
            text_max,
            text: 0,
            now: VecDeque::new(),
            later: BinaryHeap::new(),
            clean: VecDeque::new(),
        }
    }

    /// Whether another touch may be taken.
    pub fn has_room(&self) -> bool {
        (self.runs.len() < self.runs_max && self.text < self.text_max) || !self.clean.is_empty()
    }

    /// Merges what an event says of its run, and takes the names in its rows. `true`: the record waits for a write of the run.
    pub fn touch(&mut self, run_id: Uuid, touch: RunTouch, rows: &[Row], ticket: Ticket) -> bool {
        if !self.runs.contains_key(&run_id) {
            self.forget();
            self.runs.insert(run_id, Run::new(run_id));
            self.now.push_back(run_id);
        }
        let run = self.runs.get_mut(&run_id).expect("it was just inserted");
        let mut is_new = run.summary.apply(touch);
        for row in rows {
            if let Row::Metrics(row) = row {
                is_new |= run.names.note(run_id, &row.extra);
            }
        }
        if !is_new {
            // Whatever it says is said already: by what is stored, or by an earlier record that waits.
            return false;
        }
        run.waiting.push(ticket);
        measure(run, &mut self.text);
        if matches!(run.state, State::Clean) {
            run.state = State::Queued;
            match run.written {
                Some(written) => self.later.push(Reverse((written + SPACING, run_id))),
                None => self.now.push_back(run_id),
            }
        }
        true
    }

    /// The next thing to do, if any is due; `urgent`: everything is.
    pub fn job(&mut self, now: Instant, urgent: bool) -> Option<Job> {
        let run_id = self.now.pop_front().or_else(|| {
            if self.is_due(now, urgent) { self.later.pop().map(|Reverse((_, run_id))| run_id) } else { None }
        })?;
        let run = self.runs.get_mut(&run_id)?;
        if let Some(wanted) = run.summary.wanted() {
            run.state = State::Reading;
            return Some(Job::History(run_id, wanted));
        }
        if !run.summary.is_loaded() || (run.summary.combines() && !run.fresh) {
            run.state = State::Reading;
            return Some(Job::Read(run_id));
        }
        if run.names.is_wanted() {
            run.state = State::Reading;
            return Some(Job::Names(run_id));
        }
        run.fresh = false;
        let columns = run.summary.take_dirty();
        let names = run.names.take();
        let change = Box::new(run.summary.change(columns));
        let tickets = mem::take(&mut run.waiting);
        run.state = State::Writing { columns, names: names.clone(), start: run.summary.start(), tickets };
        Some(Job::Write { change, columns, stored_start: run.stored_start, names })
    }

    /// Whether [`job`](Self::job) has one.
    pub fn is_due(&self, now: Instant, urgent: bool) -> bool {
        !self.now.is_empty() || self.later.peek().is_some_and(|Reverse((at, _))| urgent || *at <= now)
    }

    /// When the next job is due.
    pub fn due_at(&self, now: Instant) -> Option<Instant> {
        if self.now.is_empty() { self.later.peek().map(|Reverse((at, _))| *at) } else { Some(now) }
    }

    /// The stored row, or its absence. Returns the records that need not wait any longer.
    pub fn read(&mut self, run_id: Uuid, stored: Option<RunRow>) -> Vec<Ticket> {
        let Some(run) = self.runs.get_mut(&run_id) else { return Vec::new() };
        run.stored_start = stored.as_ref().and_then(|row| row.start_time);
        if stored.is_none() {
            run.names.none_stored();
        }
        run.summary.load(stored);
        self.go_on(run_id)
    }

    /// Part of its history. Returns the records that need not wait any longer.
    pub fn recall(&mut self, run_id: Uuid, history: History) -> Vec<Ticket> {
        let Some(run) = self.runs.get_mut(&run_id) else { return Vec::new() };
        run.summary.recall(history);
        self.go_on(run_id)
    }

    /// The stored names of its other numbers. Returns the records that need not wait any longer.
    pub fn read_names(&mut self, run_id: Uuid, stored: Vec<String>) -> Vec<Ticket> {
        let Some(run) = self.runs.get_mut(&run_id) else { return Vec::new() };
        run.names.stored(run_id, stored);
        self.go_on(run_id)
    }

    /// Something was read of the run just now: what comes next, if anything does.
    fn go_on(&mut self, run_id: Uuid) -> Vec<Ticket> {
        let Some(run) = self.runs.get_mut(&run_id) else { return Vec::new() };
        run.fresh = true;
        measure(run, &mut self.text);
        if run.summary.dirty() != 0 || run.summary.wanted().is_some() || run.names.is_dirty() {
            run.state = State::Queued;
            self.now.push_back(run_id);
            return Vec::new();
        }
        run.fresh = false;
        let free = mem::take(&mut run.waiting);
        self.rest(run_id);
        free
    }

    /// The write is confirmed. Returns the records that waited for it.
    pub fn written(&mut self, run_id: Uuid, now: Instant) -> Vec<Ticket> {
        let Some(run) = self.runs.get_mut(&run_id) else { return Vec::new() };
        run.written = Some(now);
        let State::Writing { start, tickets, .. } = mem::replace(&mut run.state, State::Queued) else {
            return Vec::new();
        };
        run.stored_start = start;
        if run.summary.dirty() == 0 && run.waiting.is_empty() {
            self.rest(run_id);
        } else {
            self.later.push(Reverse((now + SPACING, run_id)));
        }
        tickets
    }

    /// The read or the write failed and must be repeated, before anything else.
    pub fn failed(&mut self, run_id: Uuid) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        run.fresh = false;
        if let State::Writing { columns, names, mut tickets, .. } = mem::replace(&mut run.state, State::Queued) {
            run.summary.put_back(columns);
            run.names.put_back(names);
            tickets.append(&mut run.waiting);
            run.waiting = tickets;
        }
        self.now.push_front(run_id);
    }

    /// The newest record that waits for the write under way: it names the write in a dead letter.
    pub fn writing(&self, run_id: Uuid) -> Option<Ticket> {
        match &self.runs.get(&run_id)?.state {
            State::Writing { tickets, .. } => tickets.last().copied(),
            _ => None,
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.runs_max, self.text_max);
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
        while self.runs.len() >= self.runs_max || self.text >= self.text_max {
            let Some(run_id) = self.clean.pop_front() else { return };
            let Some(run) = self.runs.get_mut(&run_id) else { continue };
            run.listed = false;
            if matches!(run.state, State::Clean) {
                self.text -= run.text;
                self.runs.remove(&run_id);
            }
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.runs.len()
    }
}

impl Run {
    fn new(run_id: Uuid) -> Self {
        Self {
            summary: Summary::unknown(run_id),
            names: Names::default(),
            text: 0,
            stored_start: None,
            fresh: false,
            written: None,
            waiting: Vec::new(),
            state: State::Queued,
            listed: false,
        }
    }
}

fn measure(run: &mut Run, total: &mut usize) {
    let text = run.summary.text_bytes() + run.names.bytes();
    *total = *total + text - run.text;
    run.text = text;
}
