//! The remembered order of all runs: the row ids of `training_runs`, sorted.
//!
//! Runs that were changed since are named by `run_changes`. They have no place in the remembered order any longer: their rows are
//! read again for each page. An order is outdated when the file no longer says what was changed since.

use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension};
use tokio::time::Instant;
use uuid::Uuid;

use super::rows;
use crate::{
    event::{EditedRun, status},
    store::{
        run_list::{PackedPositions, RunsQuery, RunsSort, SortBy},
        sqlite::{
            database::OpenDatabase,
            read::{parse_uuid, text},
        },
    },
    units::Micros,
};

/// Maximum memory of the places while they are sorted: 2,400,000 numbers, or 1,000,000 texts of 64 bytes.
const SORT_BYTES: usize = 112 << 20;
/// Runs between two updates of the number of runs read.
const PROGRESS_RUNS: usize = 1_000;
/// Maximum number of changed runs. With more, reading them takes too long, and the order is outdated.
const CHANGED_MAX: usize = 4_000;
/// Number of changed runs from which the runs are sorted again while the order is still in use,
const REFRESH_CHANGED: usize = 400;
/// How far the time before which runs are stale may go back while an order is in use: a clock may be set back a little.
const CLOCK_STEP: Micros = 300_000_000;
/// and the pause before that, as a multiple of the time that sorting takes.
const REFRESH_PAUSE: u32 = 10;

/// All runs in order, and in the reverse order.
#[derive(Debug)]
pub(in crate::store::sqlite) struct RunOrder {
    ascending: Vec<i64>,
    descending: Vec<i64>,
    /// Running runs that become stale without a change. They are treated as changed.
    unsettled: Vec<Uuid>,
    /// Time before which running runs were stale.
    stale_before: Micros,
    file: FileState,
    changes: Mutex<Changes>,
    built_at: Instant,
    build_time: Duration,
}

/// What tells whether `run_changes` names all that was changed since.
#[derive(Clone, Copy, Debug)]
struct FileState {
    identity: (u64, u64),
    /// Grows with VACUUM, which may number the rows anew, and when a backup is restored.
    schema_version: i64,
    last_change: i64,
}

#[derive(Debug)]
struct Changes {
    read_to: i64,
    runs: HashSet<Uuid>,
}

impl RunOrder {
    /// Reads all runs and sorts them; `None` when they need more than the permitted memory. `progress` is the number of runs read.
    pub fn build(
        open: &OpenDatabase,
        by: &SortBy,
        stale_before: Micros,
        progress: &AtomicUsize,
    ) -> rusqlite::Result<Option<Self>> {
        let built_at = Instant::now();
        let transaction = open.connection.unchecked_transaction()?;
        let file = FileState::read(open, &transaction)?;
        let sort = RunsSort { by: by.clone(), descending: false };
        let query = RunsQuery { sort: Some(sort.clone()), ..RunsQuery::default() };
        let (mut positions, mut unsettled, mut read) = (PackedPositions::default(), Vec::new(), 0);
        {
            let mut statement = transaction.prepare(&rows::all(&query))?;
            let mut stored = statement.query(())?;
            while let Some(row) = stored.next()? {
                read += 1;
                if read % PROGRESS_RUNS == 0 {
                    progress.store(read, Ordering::Relaxed);
                    if positions.bytes() > SORT_BYTES {
                        return Ok(None);
                    }
                }
                let run = rows::edited(row)?;
                if *by == SortBy::Column("status") && is_unsettled(&run, stale_before) {
                    unsettled.push(run.row.run_id);
                } else if let Some(position) = sort.position(&run, stale_before) {
                    positions.push(&position, rows::row_id(row)?);
                }
            }
        }
        progress.store(read, Ordering::Relaxed);
        let (ascending, descending) = (positions.sorted(false), positions.sorted(true));
        let changes = Mutex::new(Changes { read_to: file.last_change, runs: HashSet::new() });
        let build_time = built_at.elapsed();
        Ok(Some(Self { ascending, descending, unsettled, stale_before, file, changes, built_at, build_time }))
    }

    /// Size in memory.
    pub fn bytes(&self) -> usize {
        (self.ascending.len() + self.descending.len()) * size_of::<i64>()
    }

    /// The row ids in order.
    pub fn rows(&self, descending: bool) -> &[i64] {
        if descending { &self.descending } else { &self.ascending }
    }

    /// Number of runs that were sorted.
    pub fn len(&self) -> usize {
        self.ascending.len() + self.unsettled.len()
    }

    /// Runs that have no place in this order, or another than they had; `None`: the order is outdated.
    pub fn changed(
        &self,
        open: &OpenDatabase,
        snapshot: &Connection,
        stale_before: Micros,
    ) -> rusqlite::Result<Option<HashSet<Uuid>>> {
        let file = FileState::read(open, snapshot)?;
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = file.identity == self.file.identity && file.schema_version == self.file.schema_version;
        // A clock that was set back makes stale runs running ones.
        let is_later =
            file.last_change >= self.file.last_change && stale_before >= self.stale_before.saturating_sub(CLOCK_STEP);
        if !is_same || !is_later || first_change(snapshot)?.is_some_and(|first| first > changes.read_to + 1) {
            return Ok(None);
        }
        let Changes { read_to, runs } = &mut *changes;
        let sql = "SELECT DISTINCT run_id FROM run_changes WHERE number > ?1";
        let mut statement = snapshot.prepare_cached(sql)?;
        let mut found = statement.query([*read_to])?;
        while let Some(row) = found.next()? {
            runs.extend(text(row, 0)?.map(parse_uuid).transpose()?);
            if runs.len() > CHANGED_MAX {
                return Ok(None);
            }
        }
        *read_to = file.last_change.max(*read_to);
        Ok(Some(runs.iter().chain(&self.unsettled).copied().collect()))
    }

    /// Whether so much was changed that the runs should be sorted again.
    pub fn needs_refresh(&self) -> bool {
        let changed = self.changes.lock().unwrap_or_else(PoisonError::into_inner).runs.len();
        changed > REFRESH_CHANGED && self.built_at.elapsed() > self.build_time * REFRESH_PAUSE
    }
}

impl FileState {
    fn read(open: &OpenDatabase, snapshot: &Connection) -> rusqlite::Result<Self> {
        let last: Option<i64> =
            snapshot.prepare_cached("SELECT max(number) FROM run_changes")?.query_row((), |row| row.get(0))?;
        let schema_version = snapshot.prepare_cached("PRAGMA schema_version")?.query_row((), |row| row.get(0))?;
        Ok(Self { identity: open.identity, schema_version, last_change: last.unwrap_or(0) })
    }
}

fn first_change(snapshot: &Connection) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT number FROM run_changes ORDER BY number LIMIT 1";
    snapshot.prepare_cached(sql)?.query_row((), |row| row.get(0)).optional()
}

/// Whether a run may become stale while the order is in use, also with a clock that is set back a little.
fn is_unsettled(run: &EditedRun, stale_before: Micros) -> bool {
    let last = run.row.last_event_time.or(run.row.start_time);
    run.row.status.as_deref() == Some(status::RUNNING)
        && last.is_some_and(|last| last >= stale_before.saturating_sub(CLOCK_STEP))
}
