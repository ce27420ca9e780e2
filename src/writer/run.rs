//! One run in memory: its merged row, pending records, and which of it may have vanished from the store.

use std::mem;

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    frontier::RecordToken,
    names::Names,
    pending_records::{InFlightWrite, PendingRecords},
    recheck_schedule,
    run_call::{ExtraChecks, RunCall, RunRead, RunWrite, StoredRun},
    summary::Summary,
};
use crate::{
    event::{DatasetRow, RunRow, StoredRow},
    units::Micros,
};

/// Bytes of the names of all runs, beyond which only their hashes are kept.
pub const NAME_BYTES_MAX: usize = 32 << 20;

/// What runs take in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunMemory {
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
    pub size: RunMemory,
    /// The start time in the index now.
    pub stored_start: Option<Micros>,
    /// Whether it was read just now, for the write that comes next.
    pub just_read: bool,
    /// When it was last written.
    pub last_written: Option<Instant>,
    /// When its turn is, while it waits in `due_later`.
    pub due_later: Option<Instant>,
    /// It has begun or ended, and that is not written yet.
    pub is_urgent: bool,
    /// Records whose update is in no write yet.
    pub pending: PendingRecords,
    /// What is being done with it.
    pub state: RunState,
    /// When a record last updated it.
    pub last_update: Instant,
    /// When its stored row was last looked at for what it may have lost.
    pub last_checked: Option<Instant>,
    /// Whether it is in `checks`.
    pub check_queued: bool,
    /// Another process has changed the store since then; the run is checked at its next update.
    pub maybe_stale: bool,
    /// Whether other daemons write its row, each from some of its events.
    pub shared: bool,
    /// The stored row may have been changed: it is read before the run is clean again.
    pub needs_recheck: bool,
    /// The stored row has lost something that is not written again yet.
    pub restoring: bool,
    /// The dataset that its records described.
    dataset: Option<Box<DatasetRow>>,
    /// The dataset is not stored, and not written again yet.
    pub dataset_missing: bool,
    /// Whether it is in the queue `clean`.
    pub in_clean_queue: bool,
    /// The store refused to read it the last time.
    pub unreadable: bool,
}

/// What is being done with a run.
#[derive(Debug)]
pub enum RunState {
    /// Nothing to do.
    Clean,
    /// In `due_now` or `due_later`.
    Queued,
    /// Its row, its history or its names are being read.
    Reading,
    /// What is being written, and the records that wait for that.
    Writing(Box<InFlightWrite>),
}

impl Run {
    /// Touched for the first time; its stored row is not known yet.
    pub fn new(run_id: Uuid, now: Instant) -> Self {
        Self {
            summary: Summary::not_loaded(run_id),
            names: Names::default(),
            size: RunMemory::default(),
            stored_start: None,
            shared: false,
            just_read: false,
            last_written: None,
            due_later: None,
            is_urgent: false,
            pending: PendingRecords::default(),
            state: RunState::Queued,
            last_update: now,
            last_checked: None,
            check_queued: false,
            maybe_stale: false,
            needs_recheck: false,
            restoring: false,
            dataset: None,
            dataset_missing: false,
            in_clean_queue: false,
            unreadable: false,
        }
    }

    /// When its stored row may be looked at again.
    pub fn check_at(&self) -> Instant {
        self.last_checked.map_or(self.last_update, |checked| checked + recheck_schedule::CHECK_INTERVAL)
    }

    /// What is checked beside the row when another process may have changed the store.
    pub fn extra_checks(&self) -> ExtraChecks {
        if !self.needs_recheck || !self.summary.loaded {
            return ExtraChecks::default();
        }
        ExtraChecks { start: self.stored_start, dataset: self.dataset.as_ref().map(|dataset| dataset.dataset_id) }
    }

    /// What must be read or written next; the run is queued.
    pub fn next_call(&mut self, run_id: Uuid, now: Instant) -> RunCall {
        if let Some(wanted) = self.summary.history_request() {
            self.state = RunState::Reading;
            return RunCall::History(run_id, wanted);
        }
        let rereads = self.summary.needs_reread() || (self.shared && self.summary.dirty != 0);
        if !self.summary.loaded || self.needs_recheck || (rereads && !self.just_read) {
            self.state = RunState::Reading;
            let extra = self.extra_checks();
            if mem::take(&mut self.needs_recheck) || !self.summary.loaded {
                self.last_checked = Some(now);
            }
            return RunCall::Read { run_id, extra };
        }
        if self.names.needs_stored_names() {
            self.state = RunState::Reading;
            return RunCall::Names(run_id);
        }
        (self.just_read, self.is_urgent) = (false, false);
        let (columns, names) = (mem::take(&mut self.summary.dirty), mem::take(&mut self.names.unwritten));
        let write = Box::new(RunWrite {
            change: self.summary.projected(columns),
            columns,
            stored_start: self.stored_start,
            names: names.iter().map(|new| new.name.clone()).collect(),
            dataset: self.missing_dataset(),
        });
        let (value_times, start) = (self.summary.value_times(), self.summary.start());
        let records = mem::take(&mut self.pending);
        self.state = RunState::Writing(Box::new(InFlightWrite { columns, value_times, names, start, records }));
        RunCall::Write(write)
    }

    /// What is stored cannot be read: nothing of the run is known, as if it had been forgotten, but for when it may be read again.
    /// Returns the records that wait for it, and whether the store refused already the time before.
    pub fn reset_unreadable(&mut self, run_id: Uuid, now: Instant) -> (Vec<RecordToken>, bool) {
        let (records, before) = (mem::take(&mut self.pending), self.unreadable);
        let (size, listed, check_queued, shared) = (self.size, self.in_clean_queue, self.check_queued, self.shared);
        *self = Self {
            size,
            in_clean_queue: listed,
            check_queued,
            shared,
            unreadable: true,
            last_written: Some(now),
            ..Self::new(run_id, now)
        };
        (records.tokens(), before)
    }

    /// Takes in what was read.
    pub fn apply_read(&mut self, run_id: Uuid, known: RunRead) {
        self.unreadable = false;
        match known {
            RunRead::Row(found) => self.apply_row(*found),
            RunRead::History(history) => self.summary.apply_history(history),
            RunRead::Names(names) => self.names.merge_stored(run_id, names),
        }
    }

    fn apply_row(&mut self, found: StoredRun) {
        self.stored_start = found.row.as_ref().and_then(|row| row.start_time);
        let known = self.summary.loaded;
        let lost = known && self.restore_lost(found.row.as_ref());
        if let Some(row) = found.row.as_ref().filter(|_| known && self.shared) {
            self.summary.merge_shared(row);
        }
        if !known && found.row.is_none() {
            self.names.mark_run_new();
        }
        self.summary.merge_stored(found.row);
        if known && found.missing_in_index {
            // As if it had never been listed: the entry is written with the start.
            self.stored_start = None;
            self.summary.restore_start();
        }
        self.restoring |= lost || found.missing_in_index;
        self.dataset_missing |= found.dataset_missing;
        // What was looked at may have changed since.
        self.just_read = !self.needs_recheck;
    }

    /// The one place that decides what becomes of a row that was stored and is missing, wholly or in part: it is written again
    /// from what is remembered. Whether anything is missing.
    fn restore_lost(&mut self, stored: Option<&RunRow>) -> bool {
        let lost = self.summary.restore(stored);
        if lost || stored.is_none() {
            // What took the row has perhaps taken the names.
            self.names.mark_lost();
        }
        lost
    }

    /// A record of the run describes a dataset.
    pub fn merge_dataset(&mut self, dataset: &DatasetRow) {
        match &mut self.dataset {
            Some(known) if known.dataset_id == dataset.dataset_id => known.merge(dataset),
            other => *other = Some(Box::new(dataset.clone())),
        }
    }

    /// The dataset, where it must be written again.
    fn missing_dataset(&self) -> Option<Box<DatasetRow>> {
        if self.dataset_missing { self.dataset.clone() } else { None }
    }

    /// Whether something is left to be done.
    pub fn is_pending(&self) -> bool {
        self.summary.dirty != 0
            || self.summary.history_request().is_some()
            || !self.names.unwritten.is_empty()
            || self.dataset_missing
            || self.needs_recheck
    }

    /// Brings its share of `total` up to date. Of its names only their hashes are kept when those of all runs are too many.
    pub fn update_size(&mut self, total: &mut RunMemory) {
        let dataset = self.dataset.as_deref().map_or(0, dataset_bytes);
        let text = self.summary.text_bytes() + self.names.unwritten_bytes() + dataset;
        total.text = total.text + text - self.size.text;
        let others = total.names - self.size.names;
        if others + self.names.known_bytes() > NAME_BYTES_MAX {
            self.names.drop_texts();
        }
        self.size = RunMemory { text, names: self.names.known_bytes() };
        total.names = others + self.size.names;
    }
}

fn dataset_bytes(dataset: &DatasetRow) -> usize {
    let texts = [&dataset.name, &dataset.description, &dataset.file_path, &dataset.checksum];
    let classes = dataset.class_distribution.keys().map(|name| name.len() + 64);
    size_of::<DatasetRow>() + texts.into_iter().flatten().map(String::len).chain(classes).sum::<usize>()
}
