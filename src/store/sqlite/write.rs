//! The writing thread: commits all queued requests in one transaction.
//!
//! One transaction costs one `fsync`, however many batches share it. A faulty batch does not affect the rest: the transaction is
//! rolled back and every batch is retried in its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, TransactionBehavior};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::{debug, warn};
use uuid::Uuid;

use super::{
    database::{Database, OpenDatabase},
    deletions::{self, DeletionCheck, SharedDeletions},
    edits,
    error::{self, TransientError},
    expire::{Clock, Sweep},
    rows,
    run_list::ChangesTrim,
};
use crate::{
    event::{MemSize, Partition, RunEdit, RunRow, Table},
    lifecycle::block_until,
    logging::Chain,
    metrics::Metrics,
    store::{Batch, Retention, StoreError},
    units::Micros,
};

/// Approximate rows per transaction: enough to amortise the `fsync`, few enough to keep latency low.
const GROUP_ROWS: usize = 8_192;
/// Approximate bytes per transaction.
const GROUP_BYTES: usize = 16 << 20;
/// Interval of deleting expired rows, and the maximum deleted per table at once.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(1);
/// The same once no row of any run was expired; they are not read in the meantime.
const IDLE_EXPIRE_INTERVAL: Duration = Duration::from_secs(5);
const EXPIRE_ROWS: i64 = 4_000;
/// Interval of storing the trusted time in the file.
const CLOCK_SAVE_INTERVAL: Duration = Duration::from_secs(600);

/// A write, and the channel for its result.
pub(super) struct WriteRequest {
    pub op: WriteOp,
    pub done: oneshot::Sender<Result<(), StoreError>>,
}

/// A write operation.
pub(super) enum WriteOp {
    Rows(Batch),
    Run {
        change: Box<RunRow>,
        stored_start: Option<Micros>,
    },
    Names {
        run_id: Uuid,
        names: Vec<String>,
    },
    Delete {
        run_id: Uuid,
        deleted_by: Option<String>,
    },
    Edit(Box<RunEdit>),
    /// No write: only checks that the file can be used.
    Ping,
}

impl WriteOp {
    /// Whether people make this change, and its record in `control_log`: any process may write it.
    pub fn is_by_people(&self) -> bool {
        matches!(self, Self::Edit(_) | Self::Delete { .. } | Self::Rows(Batch { table: Table::Control, .. }))
    }

    /// Whether it adds to `run_changes`.
    fn changes_run(&self) -> bool {
        matches!(self, Self::Run { .. } | Self::Edit(_) | Self::Delete { .. })
    }

    fn size(&self) -> (usize, usize) {
        match self {
            Self::Rows(batch) => (batch.rows.len(), batch.rows.iter().map(crate::event::Row::bytes).sum()),
            Self::Run { .. } => (1, 512),
            Self::Names { names, .. } => (names.len(), names.iter().map(|name| name.len() + 64).sum()),
            // Nothing that was queued later may join its transaction.
            Self::Delete { .. } => (GROUP_ROWS, GROUP_BYTES),
            Self::Edit(change) => (1, change.bytes()),
            Self::Ping => (0, 0),
        }
    }

    /// The run that it writes to.
    fn run_id(&self) -> Option<Uuid> {
        match self {
            Self::Rows(Batch { table: Table::Metrics | Table::Topology | Table::Events, partition, .. }) => {
                match partition {
                    Partition::Id(run_id) => Some(*run_id),
                    Partition::Day(_) => None,
                }
            }
            Self::Run { change, .. } => Some(change.run_id),
            Self::Names { run_id, .. } => Some(*run_id),
            Self::Rows(_) | Self::Delete { .. } | Self::Edit(_) | Self::Ping => None,
        }
    }
}

/// State of the writing thread.
pub(super) struct Writer {
    pub database: Database,
    pub retention: Retention,
    pub metrics: Arc<Metrics>,
    pub open: Option<OpenDatabase>,
    /// Grows when another connection has changed the file, or the file was replaced.
    outside_changes: Arc<AtomicU64>,
    /// SQLite's `data_version` when last read; valid for the open file only.
    data_version: Option<i64>,
    deletions: DeletionCheck,
    changes_trim: ChangesTrim,
    clock: Clock,
    clock_saved_at: Instant,
    sweep: Sweep,
}

impl Writer {
    pub fn new(
        database: Database,
        retention: Retention,
        metrics: Arc<Metrics>,
        outside_changes: Arc<AtomicU64>,
        deletions: Arc<SharedDeletions>,
    ) -> Self {
        Self {
            database,
            retention,
            metrics,
            open: None,
            outside_changes,
            data_version: None,
            deletions: DeletionCheck::new(deletions),
            changes_trim: ChangesTrim::default(),
            clock: Clock::start(),
            clock_saved_at: Instant::now(),
            sweep: Sweep::default(),
        }
    }

    /// Serves the queue until all senders are gone and it is empty.
    pub fn run(mut self, mut queue: mpsc::Receiver<WriteRequest>) {
        if self.database.create
            && let Err(error) = self.connect()
        {
            warn!(error = %Chain(&error), "the database cannot be opened yet");
        }
        let mut group = Vec::new();
        let (mut expired_at, mut interval) = (Instant::now(), EXPIRE_INTERVAL);
        loop {
            match block_until(Instant::now() + interval, queue.recv()) {
                Some(Some(job)) => {
                    collect_group(job, &mut queue, &mut group);
                    self.commit_group(&mut group);
                }
                Some(None) => return,
                None => {}
            }
            if expired_at.elapsed() >= interval {
                expired_at = Instant::now();
                interval = if self.expire() { EXPIRE_INTERVAL } else { IDLE_EXPIRE_INTERVAL };
            }
        }
    }

    pub(super) fn commit_group(&mut self, group: &mut Vec<WriteRequest>) {
        match self.commit(group.iter().map(|job| &job.op)) {
            Ok(()) => group.drain(..).for_each(|job| reply(job, Ok(()))),
            Err(error) if error::is_of_one_request(&error) && group.len() > 1 => {
                debug!(error = %Chain(&error), batches = group.len(), "transaction failed; retrying each batch in its own");
                for job in group.drain(..) {
                    let result = self.commit(std::iter::once(&job.op));
                    reply(job, result);
                }
            }
            // The file is at fault: retrying each batch would only repeat the error.
            Err(error) => group.drain(..).for_each(|job| reply(job, Err(error::duplicate(&error)))),
        }
        self.metrics.store_connected.set(i64::from(self.open.is_some()));
    }

    /// One transaction, durable when this returns `Ok`.
    fn commit<'a>(&mut self, ops: impl Iterator<Item = &'a WriteOp>) -> Result<(), StoreError> {
        let path = self.database.path.clone();
        // Connecting first loads the trusted time from the file.
        self.connect()?;
        let (retention, now) = (self.retention.clone(), self.clock.write_time());
        self.connect()?;
        let Some(open) = &mut self.open else { return Err(error::unavailable(TransientError::ThreadEnded)) };
        let (data_version, check, trim) = (self.data_version, &mut self.deletions, &mut self.changes_trim);
        let write = || -> rusqlite::Result<Result<i64, TransientError>> {
            let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if data_version != Some(read_data_version(&transaction)?) {
                check.reload(&transaction)?;
            }
            let (mut deleted, mut run_changes) = (None, 0);
            for op in ops {
                run_changes += usize::from(op.changes_run());
                if op.run_id().is_some_and(|run_id| check.refuses(run_id)) {
                    return Ok(Err(TransientError::RunDeleted));
                }
                match op {
                    WriteOp::Rows(batch) => rows::write(&transaction, batch, now, &retention)?,
                    WriteOp::Run { change, stored_start } => rows::write_run(&transaction, change, *stored_start)?,
                    WriteOp::Names { run_id, names } => rows::write_names(&transaction, *run_id, names)?,
                    WriteOp::Delete { run_id, deleted_by } => {
                        let deleted_at = deletions::delete_run(&transaction, *run_id, deleted_by.as_deref())?;
                        deleted = Some((*run_id, deleted_at));
                    }
                    WriteOp::Edit(change) => edits::write(&transaction, change)?,
                    WriteOp::Ping => {}
                }
            }
            trim.after(run_changes, &transaction)?;
            // Read within the transaction, so that no other change comes between; it takes microseconds, and our own changes do
            // not count.
            let version = read_data_version(&transaction)?;
            transaction.commit()?;
            if let Some((run_id, deleted_at)) = deleted {
                check.add(run_id, deleted_at);
            }
            Ok(Ok(version))
        };
        let result = match write() {
            Ok(done) => done.map_err(error::unavailable),
            Err(error) => Err(error::classify(error, &path)),
        };
        let replaced = self.open.as_ref().is_some_and(|open| self.database.was_replaced(open));
        match result {
            Ok(_) if replaced => {
                self.open = None;
                Err(error::unavailable(TransientError::Replaced(path)))
            }
            Err(error) => {
                if replaced || !error::is_of_one_request(&error) {
                    self.open = None;
                }
                Err(error)
            }
            Ok(version) => {
                if self.data_version.replace(version) != Some(version) {
                    self.outside_changes.fetch_add(1, Ordering::AcqRel);
                }
                Ok(())
            }
        }
    }

    fn connect(&mut self) -> Result<&mut OpenDatabase, StoreError> {
        match self.open.take() {
            Some(open) => Ok(self.open.insert(open)),
            None => {
                let open = self.database.writer()?;
                let path = &self.database.path;
                self.clock = Clock::load(&open.connection).map_err(|e| error::classify(e, path))?;
                if self.database.create {
                    // Stored immediately: a new file has no trusted time, and the clock may be wrong at the next start.
                    self.clock.save(&open.connection).map_err(|e| error::classify(e, path))?;
                }
                self.clock_saved_at = Instant::now();
                self.data_version = None;
                Ok(self.open.insert(open))
            }
        }
    }

    /// Deletes a bounded number of expired rows. Returns whether there may be more.
    fn expire(&mut self) -> bool {
        let Some(open) = self.open.as_ref().filter(|_| self.database.create) else { return true };
        if self.clock_saved_at.elapsed() >= CLOCK_SAVE_INTERVAL {
            self.clock_saved_at = Instant::now();
            // A failure only delays deletion.
            if let Err(error) = self.clock.save(&open.connection) {
                debug!(error = %Chain(&error), "cannot store the trusted time in the database");
            }
        }
        match self.sweep.step(&open.connection, self.clock.expiry_cutoff(), EXPIRE_ROWS) {
            Ok(0) => !self.sweep.is_complete(),
            Ok(rows) => {
                debug!(rows, "deleted expired rows");
                true
            }
            // The next write meets and reports the same error; expired rows are not read meanwhile.
            Err(error) => {
                debug!(error = %Chain(&error), "cannot delete expired rows yet");
                true
            }
        }
    }
}

fn read_data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row((), |row| row.get(0))
}

/// Collects `first` and the requests queued behind it, up to the size of one transaction.
fn collect_group(first: WriteRequest, queue: &mut mpsc::Receiver<WriteRequest>, group: &mut Vec<WriteRequest>) {
    let (mut rows, mut bytes) = first.op.size();
    group.push(first);
    while rows < GROUP_ROWS && bytes < GROUP_BYTES {
        let Ok(job) = queue.try_recv() else { break };
        let size = job.op.size();
        rows += size.0;
        bytes += size.1;
        group.push(job);
    }
}

fn reply(job: WriteRequest, result: Result<(), StoreError>) {
    // If the caller is gone, it will retry; repeating a write changes nothing.
    let _ = job.done.send(result);
}
