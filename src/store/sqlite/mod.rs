//! SQLite backend: one file, for a single machine.
//!
//! One thread writes and a few threads read; write-ahead logging lets them run concurrently, also with other processes. The file
//! is created (mode 0600) and migrated at first use. Startup never fails: an unusable file fails each call, and the next call
//! reopens it.

pub mod copy;
mod database;
mod deletions;
mod edits;
mod encode;
mod error;
mod expire;
mod long;
mod read;
mod rows;
mod run_list;
mod samples;
mod write;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::error;
use uuid::Uuid;

pub use self::database::migrations;
use self::{
    database::{Database, OpenDatabase},
    deletions::SharedDeletions,
    error::{OperatorError, TransientError},
    run_list::RunOrders,
    write::{WriteOp, WriteRequest, Writer},
};
use super::{
    Batch, BoxFuture, DaysQuery, DeletionStore, Deletions, EditStore, RangeQuery, Retention, Runs, RunsQuery,
    SamplesQuery, Seqs, Store, StoreError,
};
use crate::{
    curve::Samples,
    event::{ControlRow, DatasetRow, EventRow, GapRow, MetricsRow, RunEdit, RunRow, TopologyRow},
    logging::{Chain, stage},
    metrics::Metrics,
    units::Micros,
};

/// Capacity of the write queue, for the smallest batches and all calls about runs at once; callers wait while it is full.
const WRITES_MAX: usize = 256;
/// Capacity of the read queue; callers wait while it is full.
const READS_MAX: usize = 64;
/// Reading threads: with two, one long read does not block the rest.
const READERS: usize = 2;

/// Niceness of the reading threads relative to the writing thread.
const READER_NICENESS: i32 = 5;

/// Settings of the SQLite file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Path; empty: `<state_dir>/cascor.db`.
    pub path: PathBuf,
}

type ReadTask = Box<dyn FnOnce(&mut Reader) + Send>;

/// A file open for reading and writing; dropping it ends its threads after the queued work.
#[derive(Debug)]
pub struct SqliteStore {
    writes: mpsc::Sender<WriteRequest>,
    reads: mpsc::Sender<ReadTask>,
    metrics: Arc<Metrics>,
    database: Database,
    outside_changes: Arc<AtomicU64>,
    deletions: Arc<SharedDeletions>,
    orders: RunOrders,
}

/// Opens the file of `config`, creating and migrating it as needed (now if possible, else at the first call that can).
pub fn open(config: &Config, retention: &Retention, metrics: Arc<Metrics>) -> SqliteStore {
    start(Database { path: config.path.clone(), create: true }, retention, metrics)
}

/// Opens the file to read: never creates or migrates it, and writes nothing that is received, so that a reader run by another user
/// cannot interfere with the daemon. Changes by people are written, if this user may write the file.
pub fn open_read_only(config: &Config, retention: &Retention, metrics: Arc<Metrics>) -> SqliteStore {
    start(Database { path: config.path.clone(), create: false }, retention, metrics)
}

fn start(database: Database, retention: &Retention, metrics: Arc<Metrics>) -> SqliteStore {
    metrics.store_errors.show(StoreError::CLASSES);
    metrics.store_latency_seconds.show(["write"]);
    let (writes, queue) = mpsc::channel(WRITES_MAX);
    let outside_changes = Arc::new(AtomicU64::new(0));
    let deletions = Arc::new(SharedDeletions::default());
    let (changes, shared) = (Arc::clone(&outside_changes), Arc::clone(&deletions));
    let writer = Writer::new(database.clone(), retention.clone(), metrics.clone(), changes, shared);
    spawn("sqlite-write", move || writer.run(queue));
    let (reads, queue) = mpsc::channel::<ReadTask>(READS_MAX);
    let queue = Arc::new(Mutex::new(queue));
    let orders = RunOrders::new(database.clone());
    let store = SqliteStore { writes, reads, metrics, database, outside_changes, deletions, orders };
    for _ in 0..READERS {
        let (queue, mut reader) = (queue.clone(), Reader { database: store.database.clone(), open: None });
        store.spawn_reader("sqlite-read", move || {
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
                let Some(read) = next else { return };
                read(&mut reader);
            }
        });
    }
    store
}

/// If the thread cannot start (`false`), the queue has no receiver and every call fails.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> bool {
    let work = move || {
        let _span = stage("sqlite").entered();
        work();
    };
    let thread = thread::Builder::new().name(name.into()).spawn(work);
    if let Err(error) = &thread {
        error!(error = %Chain(error), name, "cannot start a database thread");
    }
    thread.is_ok()
}

/// State of a reading thread.
struct Reader {
    database: Database,
    open: Option<OpenDatabase>,
}

impl Reader {
    fn read<T>(&mut self, query: impl FnOnce(&OpenDatabase) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        if self.open.as_ref().is_some_and(|open| self.database.was_replaced(open)) {
            self.open = None;
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => self.database.reader()?,
        };
        // A connection that failed is not kept.
        let result = query(&open).map_err(|e| error::classify(e, &self.database.path))?;
        self.open = Some(open);
        Ok(result)
    }
}

impl SqliteStore {
    /// Starts a thread that reads; the writer has priority.
    fn spawn_reader(&self, name: &str, work: impl FnOnce() + Send + 'static) -> bool {
        let read_only = !self.database.create;
        spawn(name, move || {
            // Applies to this thread only.
            if !read_only {
                let _ = rustix::process::setpriority_process(None, READER_NICENESS);
            }
            work();
        })
    }

    async fn submit(&self, kind: &'static str, work: WriteOp) -> Result<(), StoreError> {
        self.measured(kind, async {
            if !self.database.create && !work.is_by_people() {
                return Err(error::misconfigured(OperatorError::ReadOnly(self.database.path.clone())));
            }
            let (done, answer) = oneshot::channel();
            let gone = || error::unavailable(TransientError::ThreadEnded);
            self.writes.send(WriteRequest { op: work, done }).await.map_err(|_| gone())?;
            answer.await.unwrap_or_else(|_| Err(gone()))
        })
        .await
    }

    async fn query<T, F>(&self, kind: &'static str, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.query_file(kind, move |open| query(&open.connection)).await
    }

    async fn query_file<T, F>(&self, kind: &'static str, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&OpenDatabase) -> rusqlite::Result<T> + Send + 'static,
    {
        self.measured(kind, async {
            let (done, answer) = oneshot::channel();
            let gone = || error::unavailable(TransientError::ThreadEnded);
            let read: ReadTask = Box::new(move |reader| {
                // A request whose caller is gone is skipped.
                if !done.is_closed() {
                    let _ = done.send(reader.read(query));
                }
            });
            self.reads.send(read).await.map_err(|_| gone())?;
            answer.await.unwrap_or_else(|_| Err(gone()))
        })
        .await
    }

    async fn measured<T>(
        &self,
        kind: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        let result = call.await;
        let seconds = began.elapsed().as_secs_f64();
        self.metrics.store_latency_seconds.of(kind).observe(seconds);
        if let Err(error) = &result {
            self.metrics.store_errors.of(error.class()).inc();
        }
        result
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.orders.close();
    }
}

impl Store for SqliteStore {
    fn write<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.submit("write", WriteOp::Rows(batch.clone())))
    }

    fn read_run(&self, run_id: Uuid) -> BoxFuture<'_, Result<Option<RunRow>, StoreError>> {
        Box::pin(self.query("read_run", move |connection| read::run(connection, run_id)))
    }

    fn write_run<'a>(
        &'a self,
        change: &'a RunRow,
        stored_start: Option<Micros>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.submit("write_run", WriteOp::Run { change: Box::new(change.clone()), stored_start }))
    }

    fn write_metric_names<'a>(&'a self, run_id: Uuid, names: &'a [String]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.submit("write_metric_names", WriteOp::Names { run_id, names: names.to_vec() }))
    }

    fn metric_names(&self, run_id: Uuid) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        Box::pin(self.query("metric_names", move |connection| read::metric_names(connection, run_id)))
    }

    fn is_listed(&self, run_id: Uuid, start: Micros) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.query("is_listed", move |connection| read::is_listed(connection, run_id, start)))
    }

    fn outside_changes(&self) -> Option<u64> {
        Some(self.outside_changes.load(Ordering::Acquire))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        if !self.database.create {
            return Box::pin(self.query("ping", |connection| connection.query_row("SELECT 1", (), |_| Ok(()))));
        }
        Box::pin(self.submit("ping", WriteOp::Ping))
    }

    fn runs<'a>(&'a self, query: &'a RunsQuery) -> BoxFuture<'a, Result<Runs, StoreError>> {
        Box::pin(self.list_runs(query))
    }

    fn metrics<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<MetricsRow>, StoreError>> {
        let query = query.clone();
        Box::pin(self.query("metrics", move |connection| read::metrics(connection, &query)))
    }

    fn seqs<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Seqs, StoreError>> {
        let query = query.clone();
        Box::pin(self.query("seqs", move |connection| read::seqs(connection, &query)))
    }

    fn samples<'a>(&'a self, query: &'a SamplesQuery) -> BoxFuture<'a, Result<Samples, StoreError>> {
        let query = query.clone();
        Box::pin(self.query("samples", move |connection| samples::read(connection, &query)))
    }

    fn count_metrics(&self, run_id: Uuid) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.query("count_metrics", move |connection| read::count_metrics(connection, run_id)))
    }

    fn topology<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<TopologyRow>, StoreError>> {
        let query = query.clone();
        Box::pin(self.query("topology", move |connection| read::topology(connection, &query)))
    }

    fn events<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<EventRow>, StoreError>> {
        let query = query.clone();
        Box::pin(self.query("events", move |connection| read::events(connection, &query)))
    }

    fn dataset(&self, dataset_id: Uuid) -> BoxFuture<'_, Result<Option<DatasetRow>, StoreError>> {
        Box::pin(self.query("dataset", move |connection| read::dataset(connection, dataset_id)))
    }

    fn gaps<'a>(&'a self, query: &'a DaysQuery) -> BoxFuture<'a, Result<Vec<GapRow>, StoreError>> {
        let query = query.clone();
        Box::pin(self.query("gaps", move |connection| read::gaps(connection, &query)))
    }

    fn control_log<'a>(&'a self, query: &'a DaysQuery) -> BoxFuture<'a, Result<Vec<ControlRow>, StoreError>> {
        let query = query.clone();
        Box::pin(self.query("control_log", move |connection| read::control_log(connection, &query)))
    }
}

impl DeletionStore for SqliteStore {
    fn delete_run<'a>(&'a self, run_id: Uuid, deleted_by: Option<&'a str>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.submit("delete_run", WriteOp::Delete { run_id, deleted_by: deleted_by.map(str::to_owned) }))
    }

    fn deletions(&self) -> BoxFuture<'_, Result<Deletions, StoreError>> {
        Box::pin(self.query("deletions", deletions::deletions))
    }

    fn deletions_applied(&self, deletions: &Deletions) {
        self.deletions.apply(deletions);
    }

    fn deletion_count(&self) -> u64 {
        self.deletions.count()
    }
}

impl EditStore for SqliteStore {
    fn write_edit<'a>(&'a self, change: &'a RunEdit) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.submit("write_edit", WriteOp::Edit(Box::new(change.clone()))))
    }

    fn read_edits<'a>(&'a self, runs: &'a [Uuid]) -> BoxFuture<'a, Result<Vec<RunEdit>, StoreError>> {
        let runs = runs.to_vec();
        Box::pin(self.query("read_edits", move |connection| edits::read(connection, &runs)))
    }

    fn runs_named<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Uuid>, StoreError>> {
        let name = name.to_owned();
        Box::pin(self.query("runs_named", move |connection| edits::named(connection, &name)))
    }
}

#[cfg(test)]
mod tests;
