//! One remembered run: what is known of it, what it waits for, and what of it may have vanished from the store.

use std::mem;

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    checks,
    columns::Columns,
    frontier::Ticket,
    names::Names,
    summary::{History, Summary, Wanted},
    waiting::{Sent, Waiting},
};
use crate::{
    event::{DatasetRow, RunRow},
    store::merge,
    units::Micros,
};

/// Something to do in the store.
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    /// Read the stored row.
    Read {
        /// The run.
        run_id: Uuid,
        /// What else of it must be stored.
        also: Also,
    },
    /// Read part of the history.
    History(Uuid, Wanted),
    /// Read the stored names of its other numbers.
    Names(Uuid),
    /// Write what has changed.
    Write(Box<RunWrite>),
}

/// What is to be written of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunWrite {
    /// The columns that changed.
    pub change: RunRow,
    /// Which those are.
    pub columns: Columns,
    /// The start time in the index now.
    pub stored_start: Option<Micros>,
    /// Names of other numbers that are new, or must be written again.
    pub names: Vec<String>,
    /// Its dataset, when that must be written again.
    pub dataset: Option<Box<DatasetRow>>,
}

/// What was read of a run.
#[derive(Debug)]
pub enum Known {
    /// Its row.
    Row(Box<Found>),
    /// Part of its history.
    History(History),
    /// The stored names of its other numbers.
    Names(Vec<String>),
}

/// What must be stored beside a run's row; `None` is not looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Also {
    /// An entry in the index of recent runs, under this start.
    pub start: Option<Micros>,
    /// A dataset.
    pub dataset: Option<Uuid>,
}

/// What is stored of a run.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Its row.
    pub row: Option<RunRow>,
    /// The index of recent runs was looked at and lacks it.
    pub unlisted: bool,
    /// Its dataset was looked for and is not there.
    pub dataset_missing: bool,
}

/// Bytes of the names of all runs, beyond which only their hashes are kept.
pub const NAMES_MAX: usize = 32 << 20;

/// What runs take in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// Bytes of the texts, and of names that are to be written.
    pub text: usize,
    /// Bytes of the names that are written.
    pub names: usize,
}

/// A run in the table.
#[derive(Debug)]
pub struct Run {
    /// Its row, as merged.
    pub summary: Box<Summary>,
    /// The names of its other numbers.
    pub names: Names,
    /// Bytes of its texts and names.
    pub size: Size,
    /// The start time in the index now.
    pub stored_start: Option<Micros>,
    /// Whether it was read just now, for the write that comes next.
    pub fresh: bool,
    /// When it was last written.
    pub written: Option<Instant>,
    /// Records whose touch is in no write yet.
    pub waiting: Waiting,
    /// What is being done with it.
    pub state: State,
    /// When a record last touched it.
    pub touched: Instant,
    /// When its stored row was last looked at for what it may have lost.
    pub checked: Option<Instant>,
    /// Whether it is in `checks`.
    pub check_queued: bool,
    /// Others have changed the store since then; the run is looked at when it is touched.
    pub suspect: bool,
    /// Others may have changed the stored row: it is read before the run is clean again.
    pub doubted: bool,
    /// The stored row has lost something that is not written again yet.
    pub restoring: bool,
    /// The dataset that its records described.
    dataset: Option<Box<DatasetRow>>,
    /// The dataset is not stored, and not written again yet.
    pub dataset_missing: bool,
    /// Whether it is in `clean`.
    pub listed: bool,
    /// The store refused to read it the last time.
    pub unreadable: bool,
}

/// What is being done with a run.
#[derive(Debug)]
pub enum State {
    /// Nothing to do.
    Clean,
    /// In `now` or `later`.
    Queued,
    /// Its row, its history or its names are being read.
    Reading,
    /// What is being written, and the records that wait for that.
    Writing(Box<Sent>),
}

impl Run {
    /// Touched for the first time; its stored row is not known yet.
    pub fn new(run_id: Uuid, now: Instant) -> Self {
        Self {
            summary: Summary::unknown(run_id),
            names: Names::default(),
            size: Size::default(),
            stored_start: None,
            fresh: false,
            written: None,
            waiting: Waiting::default(),
            state: State::Queued,
            touched: now,
            checked: None,
            check_queued: false,
            suspect: false,
            doubted: false,
            restoring: false,
            dataset: None,
            dataset_missing: false,
            listed: false,
            unreadable: false,
        }
    }

    /// When its stored row may be looked at again.
    pub fn check_at(&self) -> Instant {
        self.checked.map_or(self.touched, |checked| checked + checks::INTERVAL)
    }

    /// What is looked for beside the row, when others may have changed the store.
    pub fn also(&self) -> Also {
        if !self.doubted || !self.summary.is_loaded() {
            return Also::default();
        }
        Also { start: self.stored_start, dataset: self.dataset.as_ref().map(|dataset| dataset.dataset_id) }
    }

    /// What must be read or written next; the run is queued.
    pub fn job(&mut self, run_id: Uuid, now: Instant) -> Job {
        if let Some(wanted) = self.summary.wanted() {
            self.state = State::Reading;
            return Job::History(run_id, wanted);
        }
        if !self.summary.is_loaded() || self.doubted || (self.summary.combines() && !self.fresh) {
            self.state = State::Reading;
            let also = self.also();
            if mem::take(&mut self.doubted) || !self.summary.is_loaded() {
                self.checked = Some(now);
            }
            return Job::Read { run_id, also };
        }
        if self.names.is_wanted() {
            self.state = State::Reading;
            return Job::Names(run_id);
        }
        self.fresh = false;
        let (columns, names) = (self.summary.take_dirty(), self.names.take());
        let write = Box::new(RunWrite {
            change: self.summary.change(columns),
            columns,
            stored_start: self.stored_start,
            names: names.iter().map(|new| new.name.clone()).collect(),
            dataset: self.lost_dataset(),
        });
        let (said_at, start) = (self.summary.said_at(), self.summary.start());
        let records = mem::take(&mut self.waiting);
        self.state = State::Writing(Box::new(Sent { columns, said_at, names, start, records }));
        Job::Write(write)
    }

    /// What is stored cannot be read: nothing of the run is known, as if it had been forgotten, but for when it may be read again.
    /// Returns the records that wait for it, and whether the store refused already the time before.
    pub fn give_up(&mut self, run_id: Uuid, now: Instant) -> (Vec<Ticket>, bool) {
        let (records, before) = (mem::take(&mut self.waiting), self.unreadable);
        let (size, listed, check_queued) = (self.size, self.listed, self.check_queued);
        *self = Self { size, listed, check_queued, unreadable: true, written: Some(now), ..Self::new(run_id, now) };
        (records.tickets(), before)
    }

    /// Takes in what was read.
    pub fn learn(&mut self, run_id: Uuid, known: Known) {
        self.unreadable = false;
        match known {
            Known::Row(found) => self.load(*found),
            Known::History(history) => self.summary.recall(history),
            Known::Names(names) => self.names.stored(run_id, names),
        }
    }

    fn load(&mut self, found: Found) {
        self.stored_start = found.row.as_ref().and_then(|row| row.start_time);
        let known = self.summary.is_loaded();
        let lost = known && self.restore(found.row.as_ref());
        if !known && found.row.is_none() {
            self.names.none_stored();
        }
        self.summary.load(found.row);
        if known && found.unlisted {
            // As if it had never been listed: the entry is written with the start.
            self.stored_start = None;
            self.summary.restore_start();
        }
        self.restoring |= lost || found.unlisted;
        self.dataset_missing |= found.dataset_missing;
        // What was looked at may have changed since.
        self.fresh = !self.doubted;
    }

    /// The one place that decides what becomes of a row that was stored and is missing, wholly or in part: it is written again
    /// from what is remembered. Whether anything is missing.
    fn restore(&mut self, stored: Option<&RunRow>) -> bool {
        let lost = self.summary.restore(stored);
        if lost || stored.is_none() {
            // What took the row has perhaps taken the names.
            self.names.lost();
        }
        lost
    }

    /// A record of the run describes a dataset.
    pub fn describe(&mut self, dataset: &DatasetRow) {
        match &mut self.dataset {
            Some(known) if known.dataset_id == dataset.dataset_id => merge::apply_dataset(dataset, known),
            other => *other = Some(Box::new(dataset.clone())),
        }
    }

    /// The dataset, where it must be written again.
    fn lost_dataset(&self) -> Option<Box<DatasetRow>> {
        if self.dataset_missing { self.dataset.clone() } else { None }
    }

    /// Whether something is left to be done.
    pub fn is_pending(&self) -> bool {
        self.summary.dirty() != 0
            || self.summary.wanted().is_some()
            || self.names.is_dirty()
            || self.dataset_missing
            || self.doubted
    }

    /// Brings its share of `total` up to date. Of its names only their hashes are kept when those of all runs are too many.
    pub fn measure(&mut self, total: &mut Size) {
        let dataset = self.dataset.as_deref().map_or(0, dataset_bytes);
        let text = self.summary.text_bytes() + self.names.fresh_bytes() + dataset;
        total.text = total.text + text - self.size.text;
        let others = total.names - self.size.names;
        if others + self.names.known_bytes() > NAMES_MAX {
            self.names.drop_texts();
        }
        self.size = Size { text, names: self.names.known_bytes() };
        total.names = others + self.size.names;
    }
}

impl Also {
    /// How many reads it is, with the row.
    pub fn reads(self) -> u32 {
        1 + u32::from(self.start.is_some()) + u32::from(self.dataset.is_some())
    }
}

fn dataset_bytes(dataset: &DatasetRow) -> usize {
    let texts = [&dataset.name, &dataset.description, &dataset.file_path, &dataset.checksum];
    let classes = dataset.class_distribution.keys().map(|name| name.len() + 64);
    size_of::<DatasetRow>() + texts.into_iter().flatten().map(String::len).chain(classes).sum::<usize>()
}
