//! Lists of runs: what is asked for, which runs match, and where a list goes on.
//!
//! A store passes its runs, with what people changed of them, to a [`Page`]; which of them match is decided here, so that both
//! stores find the same. Newest first, a list is read along the index of recent runs until its page is full, or until the deadline:
//! then it says where it goes on. In any other order all runs are read ([`TopRuns`]).

mod config_value;
mod fold;
mod packed;
mod sort;
mod words;

use std::{collections::BTreeSet, ops::ControlFlow};

use tokio::time::Instant;
use uuid::Uuid;

pub(in crate::store) use self::{packed::PackedPositions, sort::TopRuns};
pub use self::{
    sort::{CONFIG_PREFIX, RunsSort, SortBy, SortKey, SortPosition, sort_columns},
    words::{WORDS_MAX, Words},
};
use super::READ_BYTES;
use crate::{
    event::{EditedRun, MemSize, RunRow},
    render,
    units::{self, Micros},
};

/// A list of runs.
#[derive(Clone, Debug)]
pub struct RunsQuery {
    /// Maximum number of runs.
    pub limit: usize,
    /// Maximum size of the answer, which has one run at least: the configuration of a run may be megabytes.
    pub bytes: usize,
    /// Filter: the shown status.
    pub status: Option<String>,
    /// Time by which a run is stale.
    pub now: Micros,
    /// Silence after which a running run is stale.
    pub stale_after: Micros,
    /// Filter: dataset.
    pub dataset: Option<String>,
    /// Filter: the run has all of these tags.
    pub tags: BTreeSet<String>,
    /// Filter: whether the run is archived.
    pub archived: Option<bool>,
    /// Filter: words that occur in the run.
    pub words: Words,
    /// Order; absent: newest first.
    pub sort: Option<RunsSort>,
    /// Where the list goes on: [`Runs::next`] of the previous page.
    pub from: RunsCursor,
    /// When a page ends, however few runs it has.
    pub deadline: Option<Instant>,
}

/// Where a list goes on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunsCursor {
    /// Only runs that are older than this one, newest first.
    pub before: Option<(Micros, Uuid)>,
    /// Sorted lists: only runs that are not older than this one.
    pub until: Option<(Micros, Uuid)>,
    /// Sorted lists: only runs after this place.
    pub after: Option<SortPosition>,
}

/// One page of a list.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    /// The runs, in the order of the list.
    pub runs: Vec<EditedRun>,
    /// Where the list goes on; `None`: these are all.
    pub next: Option<RunsCursor>,
    /// Number of runs that were compared with the query.
    pub scanned: usize,
    /// Number of runs that were sorted together, before filtering; while [sorting](Self::is_sorting): that were read so far.
    pub sorted: usize,
    /// Whether a sorted list is one of all runs. If not, it goes on with that of older runs.
    pub sorts_all: bool,
    /// The runs are still being sorted: there is no run yet, and the list goes on where it was asked to.
    pub is_sorting: bool,
}

impl Runs {
    /// The rows without what people changed.
    pub fn rows(self) -> Vec<RunRow> {
        self.runs.into_iter().map(|run| run.row).collect()
    }
}

impl Default for RunsQuery {
    fn default() -> Self {
        Self {
            limit: 0,
            bytes: READ_BYTES,
            status: None,
            now: units::now(),
            stale_after: render::STALE_AFTER,
            dataset: None,
            tags: BTreeSet::new(),
            archived: None,
            words: Words::default(),
            sort: None,
            from: RunsCursor::default(),
            deadline: None,
        }
    }
}

impl RunsQuery {
    /// Whether a run is one of the list.
    pub fn matches(&self, run: &EditedRun) -> bool {
        let row = &run.row;
        self.archived.is_none_or(|archived| run.archived == archived)
            && self.status.as_deref().is_none_or(|status| self.shown_status(run) == Some(status))
            && self.dataset.as_ref().is_none_or(|dataset| row.dataset_name.as_ref() == Some(dataset))
            && self.tags.is_subset(&row.tags)
            && self.words.occur_in(run)
    }

    fn shown_status<'r>(&self, run: &'r EditedRun) -> Option<&'r str> {
        render::shown_status(&run.row, self.now, self.stale_after)
    }

    /// A running run without an event at this time or later is stale.
    pub fn stale_before(&self) -> Micros {
        self.now.saturating_sub(self.stale_after)
    }

    /// Whether matching and sorting need this column of a run's row.
    pub(super) fn needs(&self, column: &str) -> bool {
        let sorted_by = |name: &str| self.sort.as_ref().is_some_and(|sort| sort.by == SortBy::Column(name_of(name)));
        match column {
            "run_id" | "start_time" => true,
            _ if !self.words.is_empty() => true,
            "status" | "last_event_time" if self.status.is_some() || sorted_by("status") => true,
            "dataset_name" if self.dataset.is_some() => true,
            "tags" if !self.tags.is_empty() => true,
            "config_json" if self.sort.as_ref().is_some_and(|sort| matches!(sort.by, SortBy::Config(_))) => true,
            "run_name" if sorted_by("name") => true,
            // A NaN is named here.
            "non_finite" => self.sort.is_some(),
            other => sorted_by(other),
        }
    }

    /// Whether it is time to answer.
    pub(super) fn is_due(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

fn name_of(name: &str) -> &'static str {
    sort_columns().iter().find(|column| **column == name).copied().unwrap_or_default()
}

/// The runs of a page, in the order of the list.
pub(super) struct Page<'q> {
    query: &'q RunsQuery,
    runs: Vec<EditedRun>,
    bytes: usize,
}

impl<'q> Page<'q> {
    /// An empty page.
    pub fn new(query: &'q RunsQuery) -> Self {
        Self { query, runs: Vec::new(), bytes: 0 }
    }

    /// Adds a run; breaks, without it, when the page is full.
    pub fn add(&mut self, run: EditedRun) -> ControlFlow<()> {
        self.bytes += run.bytes();
        if self.runs.len() >= self.query.limit || (self.bytes > self.query.bytes && !self.runs.is_empty()) {
            return ControlFlow::Break(());
        }
        self.runs.push(run);
        ControlFlow::Continue(())
    }

    /// The page of a list that is newest first. `stopped_at` is the last run that was compared, if there are more.
    pub fn newest_first(self, flow: ControlFlow<()>, stopped_at: Option<(Micros, Uuid)>) -> Runs {
        let before = match flow {
            ControlFlow::Break(()) => self.runs.last().and_then(|run| run.row.cursor()).or(self.query.from.before),
            ControlFlow::Continue(()) => stopped_at,
        };
        let next = before.map(|before| RunsCursor { before: Some(before), ..RunsCursor::default() });
        Runs { runs: self.runs, next, sorts_all: true, ..Runs::default() }
    }

    /// The runs.
    pub fn into_runs(self) -> Vec<EditedRun> {
        self.runs
    }
}
