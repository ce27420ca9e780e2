//! One remembered run: what is known of it, what it waits for, and what of it may have vanished from the store.

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    checks,
    summary::{Columns, Summary},
    waiting::Waiting,
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
    /// Write these columns.
    Write {
        /// The columns that changed.
        change: Box<RunRow>,
        /// Which those are.
        columns: Columns,
        /// The start time in the index now.
        stored_start: Option<Micros>,
        /// Its dataset, when that must be written again.
        dataset: Option<Box<DatasetRow>>,
    },
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

/// A run in the table.
#[derive(Debug)]
pub struct Run {
    /// Its row, as merged.
    pub summary: Box<Summary>,
    /// Bytes of its texts.
    pub text: usize,
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
}

/// What is being done with a run.
#[derive(Debug)]
pub enum State {
    /// Nothing to do.
    Clean,
    /// In `now` or `later`.
    Queued,
    /// Its row is being read.
    Reading,
    /// The columns and the start that are being written, and the records that wait for that.
    Writing {
        /// The columns.
        columns: Columns,
        /// The start among them, or before.
        start: Option<Micros>,
        /// The records.
        records: Waiting,
    },
}

impl Run {
    /// Touched for the first time; its stored row is not known yet.
    pub fn new(run_id: Uuid, now: Instant) -> Self {
        Self {
            summary: Summary::unknown(run_id),
            text: 0,
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

    /// Takes in what is stored.
    pub fn load(&mut self, found: Found) {
        self.stored_start = found.row.as_ref().and_then(|row| row.start_time);
        let known = self.summary.is_loaded();
        let lost = known && self.restore(found.row.as_ref());
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
        self.summary.restore(stored)
    }

    /// A record of the run describes a dataset.
    pub fn describe(&mut self, dataset: &DatasetRow) {
        match &mut self.dataset {
            Some(known) if known.dataset_id == dataset.dataset_id => merge::apply_dataset(dataset, known),
            other => *other = Some(Box::new(dataset.clone())),
        }
    }

    /// The dataset, where it must be written again.
    pub fn lost_dataset(&self) -> Option<Box<DatasetRow>> {
        if self.dataset_missing { self.dataset.clone() } else { None }
    }

    /// Whether something is left to be done.
    pub fn is_pending(&self) -> bool {
        self.summary.dirty() != 0 || self.dataset_missing || self.doubted
    }

    /// Brings its share of `total` up to date.
    pub fn measure(&mut self, total: &mut usize) {
        let text = self.summary.text_bytes() + self.dataset.as_deref().map_or(0, dataset_bytes);
        *total = *total + text - self.text;
        self.text = text;
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
