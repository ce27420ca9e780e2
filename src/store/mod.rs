//! Storage backends: one trait, used by the writer (writes), the HTTP API and the command line (reads).
//!
//! Backends: [`sqlite`] (one file, the default) and [`cassandra`].

pub mod cassandra;
mod dates;
mod deletions;
mod edits;
pub mod merge;
mod problem;
pub mod run_list;
pub mod server;
pub mod sqlite;

use std::{
    any::Any,
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    curve::{Field, Samples},
    event::{
        ControlRow, DatasetRow, EventKey, EventRow, GapRow, MemSize, MetricsRow, Partition, Row, RunRow, Table,
        TopologyRow, total_bytes,
    },
    files, section,
    units::{self, Micros},
};

pub(crate) use self::problem::{ErrorWithRemedy, remedy};
pub use self::{
    deletions::{DELETION_RETENTION, DELETIONS_VALID, DeletionStore, Deletions},
    edits::{EditStore, NAMED_RUNS_MAX, edited, edited_run},
    problem::Problem,
    run_list::{Runs, RunsCursor, RunsQuery},
    server::Server,
};

/// Selection of the store, and retention.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `sqlite` or `cassandra`.
    pub kind: StoreKind,
    /// Settings of the SQLite file.
    pub sqlite: sqlite::Config,
    /// Settings of the Cassandra cluster.
    pub cassandra: cassandra::Config,
    /// Retention by table.
    pub retention: Retention,
}

impl Config {
    /// Appends the problems of these settings; settings of the unselected store are not checked.
    pub fn problems(&self, problems: &mut Vec<String>) {
        match self.kind {
            StoreKind::Sqlite => {}
            StoreKind::Cassandra => self.cassandra.problems(problems),
        }
    }

    /// Appends the problems of files that the selected store's settings name.
    pub fn file_problems(&self, problems: &mut Vec<String>) {
        match self.kind {
            StoreKind::Sqlite => {}
            StoreKind::Cassandra => self.cassandra.file_problems(problems),
        }
    }

    /// Appends the warnings about the selected store's settings.
    pub fn warnings(&self, warnings: &mut Vec<String>) {
        match self.kind {
            StoreKind::Sqlite => warnings.extend(files::exposure(&self.sqlite.path)),
            StoreKind::Cassandra => self.cassandra.warnings(warnings),
        }
    }
}

/// The backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "self-explanatory")]
pub enum StoreKind {
    #[default]
    Sqlite,
    Cassandra,
}

impl StoreKind {
    /// As the configuration names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Cassandra => "cassandra",
        }
    }
}

/// Retention by table; zero keeps rows for ever. Runs and datasets never expire.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "named like the tables")]
pub struct Retention {
    #[serde(with = "units::duration")]
    pub metrics: Duration,
    #[serde(with = "units::duration")]
    pub topology: Duration,
    #[serde(with = "units::duration")]
    pub events: Duration,
    #[serde(with = "units::duration")]
    pub control: Duration,
    #[serde(with = "units::duration")]
    pub gaps: Duration,
}

impl Retention {
    /// Retention of this table; zero: for ever.
    pub fn of(&self, table: Table) -> Duration {
        match table {
            Table::Metrics => self.metrics,
            Table::Topology => self.topology,
            Table::Events => self.events,
            Table::Datasets => Duration::ZERO,
            Table::Control => self.control,
            Table::Gaps => self.gaps,
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        section::defaults("store.retention")
    }
}

/// A boxed future, so that the trait can be used as `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Any error.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Rows of one partition of one table.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The table.
    pub table: Table,
    /// The partition that all rows share.
    pub partition: Partition,
    /// At least one row. Shared, so that a store that writes on a thread of its own needs no copy of them.
    pub rows: Arc<Vec<Row>>,
}

/// What a failed call means for the caller.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Transient: retry later. The write may have been applied.
    #[error("store is unavailable")]
    Unavailable(#[source] BoxError),
    /// Schema or login must be repaired by hand: keep spooling, and show the message, which says how.
    #[error("store needs attention")]
    Misconfigured(#[source] BoxError),
    /// Permanent: a retry cannot help; the rows become dead letters.
    #[error("store rejects this")]
    Rejected(#[source] BoxError),
}

impl StoreError {
    /// Values of the metric label.
    const CLASSES: [&'static str; 3] = ["unavailable", "misconfigured", "rejected"];

    /// Value of the metric label.
    fn class(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => Self::CLASSES[0],
            Self::Misconfigured(_) => Self::CLASSES[1],
            Self::Rejected(_) => Self::CLASSES[2],
        }
    }
}

/// Maximum number of stored names of extra metrics per run.
pub const METRIC_NAMES_MAX: usize = 4_096;

/// Default size limit of one read of large rows; the last row may exceed it.
pub const READ_BYTES: usize = 2 << 20;

/// A range of an event table, newest first unless `ascending`.
#[derive(Clone, Debug)]
pub struct RangeQuery {
    /// Run id.
    pub run_id: Uuid,
    /// Earliest time, inclusive.
    pub start: Option<Micros>,
    /// Latest time, inclusive.
    pub end: Option<Micros>,
    /// Maximum number of rows.
    pub limit: usize,
    /// Size limit: the answer ends after the row that exceeds it, because one row may be megabytes
    /// ([`is_filled`](Self::is_filled)).
    pub bytes: usize,
    /// Oldest first.
    pub ascending: bool,
    /// Only rows that sort strictly after this `(timestamp, event_id)` in the chosen order.
    pub after: Option<(Micros, i64)>,
    /// Paged reads: bytes of the largest row of the previous page; 0: unknown. Stores whose pages are limited by rows only derive
    /// the page size from it.
    pub largest_row: usize,
    /// Paged reads: lets the store prefetch the next page while this one is consumed. That page shows the data as of its request.
    pub prefetch: Option<Prefetch>,
}

/// A prefetched page for the query that continues where one ends. The caller passes the same value from query to query; dropping
/// it cancels the prefetch.
#[derive(Clone, Default)]
pub struct Prefetch(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl Prefetch {
    pub(crate) fn put(&self, begun: impl Any + Send) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(begun));
    }

    pub(crate) fn take<T: Any>(&self) -> Option<T> {
        let begun = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        begun.downcast().ok().map(|begun| *begun)
    }
}

impl fmt::Debug for Prefetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prefetch")
    }
}

impl RangeQuery {
    /// The newest `limit` rows of a run.
    pub fn newest(run_id: Uuid, limit: usize) -> Self {
        Self {
            run_id,
            start: None,
            end: None,
            limit,
            bytes: READ_BYTES,
            ascending: false,
            after: None,
            largest_row: 0,
            prefetch: None,
        }
    }

    /// Whether a limit ended the answer, so that more rows may follow.
    pub fn is_filled<T: MemSize>(&self, rows: &[T]) -> bool {
        rows.len() >= self.limit || total_bytes(rows) >= self.bytes
    }
}

/// Keys of metrics rows, with their `seq`.
pub type Seqs = Vec<(EventKey, Option<i64>)>;

/// A range of metrics rows, and the fields to read.
#[derive(Clone, Debug)]
pub struct SamplesQuery {
    /// The range of rows.
    pub range: RangeQuery,
    /// The fields.
    pub fields: Vec<Field>,
}

/// A range of a table partitioned by day (gaps, control log), newest first.
#[derive(Clone, Debug)]
pub struct DaysQuery {
    /// Earliest time, inclusive.
    pub start: Micros,
    /// Latest time, inclusive.
    pub end: Micros,
    /// Maximum number of rows.
    pub limit: usize,
}

/// The store interface. Every call is bounded in time and rows, and is safe to repeat.
pub trait Store: EditStore + DeletionStore + 'static {
    /// Writes all rows of the batch, or reports why not. Repeating a batch changes nothing (but renews its TTL).
    fn write<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<(), StoreError>>;

    /// The stored row of a run.
    fn read_run(&self, run_id: Uuid) -> BoxFuture<'_, Result<Option<RunRow>, StoreError>>;

    /// Writes the columns of `change` that are present (`None` and empty leave the stored value alone) and keeps the index of
    /// recent runs: `stored_start` is the start time the index holds now; when `change` moves it, the new entry is written
    /// first, then the old one deleted.
    fn write_run<'a>(
        &'a self,
        change: &'a RunRow,
        stored_start: Option<Micros>,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Adds names of extra metrics (keys of [`MetricsRow::extra`]) to a run; they never expire. The caller enforces
    /// [`METRIC_NAMES_MAX`] per run.
    fn write_metric_names<'a>(&'a self, run_id: Uuid, names: &'a [String]) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Distinct names of a run's extra metrics in byte order; at most [`METRIC_NAMES_MAX`].
    fn metric_names(&self, run_id: Uuid) -> BoxFuture<'_, Result<Vec<String>, StoreError>>;

    /// Whether the index of recent runs has this run under this start time.
    fn is_listed(&self, run_id: Uuid, start: Micros) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// A counter that grows when another process has changed the stored data, at the latest when a later write is confirmed.
    /// `None`: this store cannot tell, and the data must be read.
    fn outside_changes(&self) -> Option<u64> {
        None
    }

    /// The currently known problem of the store, without a query.
    fn problem(&self) -> Option<Problem> {
        None
    }

    /// Liveness check: one cheap round trip.
    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// A list of runs that have a start.
    fn runs<'a>(&'a self, query: &'a RunsQuery) -> BoxFuture<'a, Result<Runs, StoreError>>;

    /// Metrics of a run.
    fn metrics<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<MetricsRow>, StoreError>>;

    /// `seq` of a run's metrics rows, without the other columns.
    fn seqs<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Seqs, StoreError>>;

    /// Selected numbers of metrics rows, for bulk reads: no other columns are fetched.
    fn samples<'a>(&'a self, query: &'a SamplesQuery) -> BoxFuture<'a, Result<Samples, StoreError>>;

    /// Number of metrics rows of a run.
    fn count_metrics(&self, run_id: Uuid) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Topology snapshots of a run.
    fn topology<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<TopologyRow>, StoreError>>;

    /// Lifecycle and other events of a run.
    fn events<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<EventRow>, StoreError>>;

    /// One dataset.
    fn dataset(&self, dataset_id: Uuid) -> BoxFuture<'_, Result<Option<DatasetRow>, StoreError>>;

    /// Recorded gaps.
    fn gaps<'a>(&'a self, query: &'a DaysQuery) -> BoxFuture<'a, Result<Vec<GapRow>, StoreError>>;

    /// Recorded control commands.
    fn control_log<'a>(&'a self, query: &'a DaysQuery) -> BoxFuture<'a, Result<Vec<ControlRow>, StoreError>>;

    /// Description of the server, within two seconds; `None` for an embedded store.
    fn server(&self) -> BoxFuture<'_, Option<Server>> {
        Box::pin(async { None })
    }

    /// A counter that grows when acknowledged rows may have been lost (a node went down, or is back): the writer then replays
    /// from the checkpoint. It grows as soon as a node goes down, because the checkpoint advances with time.
    fn restart_count(&self) -> u64 {
        0
    }

    /// Whether a killed server may lose acknowledged rows (one replica with a periodic commit log): the spool's commit position
    /// then trails confirmation by `spool.checkpoint_delay`.
    fn acks_may_be_lost(&self) -> bool {
        false
    }
}
