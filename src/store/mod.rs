//! Where rows are kept: one trait, written against by the writer and read through by the API and the command line.
//!
//! Backends: [`sqlite`] (one file, the default) and [`cassandra`].

pub mod cassandra;
pub mod merge;
mod problem;
pub mod samples;
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

pub use self::server::Server;
use crate::{
    curve::{Field, Samples},
    event::{
        ControlRow, DatasetRow, EventKey, EventRow, GapRow, MemSize, MetricsRow, Partition, Row, RunRow, Table,
        TopologyRow, total_bytes,
    },
    files,
    units::{self, Micros},
};

pub use self::problem::Problem;
pub(crate) use self::problem::{ErrorWithRemedy, remedy};

/// Which store, and how long it keeps rows.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `sqlite` or `cassandra`.
    pub kind: StoreKind,
    /// The file.
    pub sqlite: sqlite::Config,
    /// The cluster.
    pub cassandra: cassandra::Config,
    /// Lifetimes of rows.
    pub retention: Retention,
}

impl Config {
    /// Adds what is wrong with these settings; those of a store that is not used do not matter.
    pub fn problems(&self, problems: &mut Vec<String>) {
        match self.kind {
            StoreKind::Sqlite => {}
            StoreKind::Cassandra => self.cassandra.problems(problems),
        }
    }

    /// Adds what is wrong with the files that the settings of the store that is used name.
    pub fn file_problems(&self, problems: &mut Vec<String>) {
        match self.kind {
            StoreKind::Sqlite => {}
            StoreKind::Cassandra => self.cassandra.file_problems(problems),
        }
    }

    /// Adds what is dangerous about the settings of the store that is used.
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

/// How long rows are kept; zero: for ever. Runs and datasets are kept for ever.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
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
    /// How long rows of this table are kept; zero: for ever.
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
        let days = |n: u64| Duration::from_secs(n * 86_400);
        Self { metrics: days(30), topology: days(90), events: days(30), control: days(30), gaps: days(30) }
    }
}

/// A boxed future, so that the trait can be used as `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Any error.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Rows of one partition of one table.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Where they go.
    pub table: Table,
    /// The partition all of them share.
    pub partition: Partition,
    /// At least one row.
    pub rows: Vec<Row>,
}

/// What a failed call means for the caller.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Try the same again, later. The write may have been applied.
    #[error("store is unavailable")]
    Unavailable(#[source] BoxError),
    /// A person must mend the schema or the login; hold, keep spooling, show the message, which says how.
    #[error("store needs attention")]
    Misconfigured(#[source] BoxError),
    /// Trying again cannot help; set the rows aside.
    #[error("store rejects this")]
    Rejected(#[source] BoxError),
}

/// Which of the newest runs.
#[derive(Clone, Debug)]
pub struct RunsQuery {
    /// At most this many.
    pub limit: usize,
    /// An answer may end with the one that passes this many bytes: the configuration of a run may be megabytes.
    pub bytes: usize,
    /// Only with this stored status.
    pub status: Option<String>,
    /// Only of this dataset.
    pub dataset: Option<String>,
    /// Only runs that sort after this one (newest first): the cursor of the previous page.
    pub before: Option<(Micros, Uuid)>,
}

impl Default for RunsQuery {
    fn default() -> Self {
        Self { limit: 0, bytes: READ_BYTES, status: None, dataset: None, before: None }
    }
}

impl RunsQuery {
    /// As [`RangeQuery::is_filled`].
    pub fn is_filled(&self, runs: &[RunRow]) -> bool {
        runs.len() >= self.limit || total_bytes(runs) >= self.bytes
    }
}

/// Some of the newest runs.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    /// Newest first.
    pub rows: Vec<RunRow>,
    /// Where to go on, as [`RunsQuery::before`], when the store has stopped looking for what the query wants before it had enough.
    pub scanned_to: Option<(Micros, Uuid)>,
}

impl From<Vec<RunRow>> for Runs {
    fn from(rows: Vec<RunRow>) -> Self {
        Self { rows, scanned_to: None }
    }
}

/// Names of other numbers that are kept of a run, at most.
pub const METRIC_NAMES_MAX: usize = 4_096;

/// What one read brings of large rows unless told otherwise, beyond the last of them.
pub const READ_BYTES: usize = 2 << 20;

/// Which rows of an event table, newest first unless `ascending`.
#[derive(Clone, Debug)]
pub struct RangeQuery {
    /// The run.
    pub run_id: Uuid,
    /// First moment, inclusive.
    pub start: Option<Micros>,
    /// Last moment, inclusive.
    pub end: Option<Micros>,
    /// At most this many.
    pub limit: usize,
    /// Whole rows end with the one that passes this many bytes, because one may be megabytes ([`is_filled`](Self::is_filled)).
    pub bytes: usize,
    /// Oldest first.
    pub ascending: bool,
    /// Only rows that sort strictly after this `(timestamp, event_id)` in the chosen order.
    pub after: Option<(Micros, i64)>,
    /// Bytes of the largest row of the previous page, for a read that continues; 0: unknown. A store whose server counts rows only
    /// limits the rows of a page by it.
    pub largest_row: usize,
    /// For a read that continues: the store may prefetch the next page while this one is used. That page is as old as its request.
    pub prefetch: Option<Prefetch>,
}

/// The page that a store prefetches because the next query is expected to continue behind this one. The caller passes the same
/// value from query to query; dropping it cancels the request.
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

    /// Whether an answer ended because of a limit, so that there may be more behind it.
    pub fn is_filled<T: MemSize>(&self, rows: &[T]) -> bool {
        rows.len() >= self.limit || total_bytes(rows) >= self.bytes
    }
}

/// Keys of metrics rows, with their `seq`.
pub type Seqs = Vec<(EventKey, Option<i64>)>;

/// Which numbers of which metrics rows.
#[derive(Clone, Debug)]
pub struct SamplesQuery {
    /// The rows.
    pub range: RangeQuery,
    /// The numbers.
    pub fields: Vec<Field>,
}

/// Which partition-by-day rows (gaps, control log), newest first.
#[derive(Clone, Debug)]
pub struct DaysQuery {
    /// First moment, inclusive.
    pub start: Micros,
    /// Last moment, inclusive.
    pub end: Micros,
    /// At most this many.
    pub limit: usize,
}

/// The archive. Every call is bounded in time and in rows, and safe to repeat.
pub trait Store: Send + Sync + 'static {
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

    /// Adds names to those of the run's other numbers (the keys of [`MetricsRow::extra`]); they never expire. The caller keeps to
    /// [`METRIC_NAMES_MAX`] a run.
    fn write_metric_names<'a>(&'a self, run_id: Uuid, names: &'a [String]) -> BoxFuture<'a, Result<(), StoreError>>;

    /// The names of a run's other numbers, each once, in the order of their bytes; at most [`METRIC_NAMES_MAX`].
    fn metric_names(&self, run_id: Uuid) -> BoxFuture<'_, Result<Vec<String>, StoreError>>;

    /// Whether the index of recent runs has this run under this start time.
    fn is_listed(&self, run_id: Uuid, start: Micros) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// A counter that grows when another process has changed what is stored, at the latest when a write after that is confirmed.
    /// `None`: this store cannot tell, and what is stored must be looked at.
    fn outside_changes(&self) -> Option<u64> {
        None
    }

    /// What is known to be wrong with the store, without asking it.
    fn problem(&self) -> Option<Problem> {
        None
    }

    /// One cheap round trip.
    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The newest runs by start time, through the index.
    fn runs<'a>(&'a self, query: &'a RunsQuery) -> BoxFuture<'a, Result<Runs, StoreError>>;

    /// Metrics of a run.
    fn metrics<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<MetricsRow>, StoreError>>;

    /// The `seq` of metrics of a run, without the rest of the rows.
    fn seqs<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Seqs, StoreError>> {
        Box::pin(async move { Ok(self.metrics(query).await?.iter().map(|row| (row.key, row.columns.seq)).collect()) })
    }

    /// Some numbers of metrics rows, for those who read many: nothing else of a row is fetched.
    fn samples<'a>(&'a self, query: &'a SamplesQuery) -> BoxFuture<'a, Result<Samples, StoreError>>;

    /// Number of metrics rows of a run.
    fn count_metrics(&self, run_id: Uuid) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Topology snapshots of a run.
    fn topology<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<TopologyRow>, StoreError>>;

    /// Lifecycle and other events of a run.
    fn events<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<EventRow>, StoreError>>;

    /// One dataset.
    fn dataset(&self, dataset_id: Uuid) -> BoxFuture<'_, Result<Option<DatasetRow>, StoreError>>;

    /// What was missed.
    fn gaps<'a>(&'a self, query: &'a DaysQuery) -> BoxFuture<'a, Result<Vec<GapRow>, StoreError>>;

    /// Commands that were received.
    fn control_log<'a>(&'a self, query: &'a DaysQuery) -> BoxFuture<'a, Result<Vec<ControlRow>, StoreError>>;

    /// What the server says about itself, within two seconds; absent: there is no server.
    fn server(&self) -> BoxFuture<'_, Option<Server>> {
        Box::pin(async { None })
    }

    /// A counter that grows when rows acknowledged before may have been forgotten (a node has gone down, or is back): the
    /// writer then reads again from the checkpoint. It grows at once when a node goes down, because the checkpoint moves on
    /// with time.
    fn restart_count(&self) -> u64 {
        0
    }

    /// Whether a killed server may forget rows it has acknowledged (one replica with a periodic commit log): then what is
    /// committed in the spool trails what the store confirmed by `spool.checkpoint_delay`.
    fn acks_may_be_lost(&self) -> bool {
        false
    }
}
