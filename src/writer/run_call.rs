//! Calls to the store about a run, and their results.

use uuid::Uuid;

use super::{
    run_columns::ColumnSet,
    summary::{History, HistoryRequest},
};
use crate::{
    event::{DatasetRow, RunRow},
    units::Micros,
};

/// Something to do in the store.
#[derive(Clone, Debug, PartialEq)]
pub enum RunCall {
    /// Read the stored row.
    Read {
        /// The run.
        run_id: Uuid,
        /// What else of it must be stored.
        extra: ExtraChecks,
    },
    /// Read part of the history.
    History(Uuid, HistoryRequest),
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
    pub columns: ColumnSet,
    /// The start time in the index now.
    pub stored_start: Option<Micros>,
    /// Names of other numbers that are new, or must be written again.
    pub names: Vec<String>,
    /// Its dataset, when that must be written again.
    pub dataset: Option<Box<DatasetRow>>,
}

/// What was read of a run.
#[derive(Debug)]
pub enum RunRead {
    /// Its row.
    Row(Box<StoredRun>),
    /// Part of its history.
    History(History),
    /// The stored names of its other numbers.
    Names(Vec<String>),
}

/// What must be stored beside a run's row; `None` is not looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ExtraChecks {
    /// An entry in the index of recent runs, under this start.
    pub start: Option<Micros>,
    /// A dataset.
    pub dataset: Option<Uuid>,
}

/// What is stored of a run.
#[derive(Clone, Debug, Default)]
pub struct StoredRun {
    /// Its row.
    pub row: Option<RunRow>,
    /// The index of recent runs was looked at and lacks it.
    pub missing_in_index: bool,
    /// Its dataset was looked for and is not there.
    pub dataset_missing: bool,
}

impl ExtraChecks {
    /// How many reads it is, with the row.
    pub fn reads(self) -> u32 {
        1 + u32::from(self.start.is_some()) + u32::from(self.dataset.is_some())
    }
}
