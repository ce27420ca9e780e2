//! Deletion of runs.
//!
//! A deletion is one transaction, and its time is taken while the file is locked: what was received later cannot be written yet.
//! What was received before may still be, by a writer that does not know of the deletion. So each transaction that writes first
//! looks for deletions by other processes, and refuses rows of a run whose deletion its writer has not yet
//! [applied](DeletionCheck::refuses) to its records.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::{read, rows};
use crate::{
    store::{DELETION_RETENTION, Deletions},
    units::{Micros, now},
};

/// Tables with the column `run_id`, all of whose rows with it belong to the run.
const TABLES: [&str; 8] = [
    "training_metrics_rows",
    "training_metrics_long",
    "network_topology",
    "training_events",
    "run_metric_names",
    "run_edits",
    "ingest_gaps",
    "training_runs",
];

/// What the writing thread and its callers share about deletions.
#[derive(Debug, Default)]
pub(super) struct SharedDeletions {
    /// Those that the writer has applied to its records.
    applied: Mutex<Deletions>,
    /// Grows with each deletion that the writing thread finds or makes.
    count: AtomicU64,
}

impl SharedDeletions {
    /// A number that grows when there are deletions that may not be applied.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// The writer sends no row any longer that these deletions forbid.
    pub fn apply(&self, deletions: &Deletions) {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).clone_from(deletions);
    }
}

/// The deletions that the writing thread knows of.
#[derive(Debug, Default)]
pub(super) struct DeletionCheck {
    known: Deletions,
    shared: Arc<SharedDeletions>,
}

impl DeletionCheck {
    /// None known yet.
    pub fn new(shared: Arc<SharedDeletions>) -> Self {
        Self { known: HashMap::new(), shared }
    }

    /// Reads the deletions again, because another connection has changed the file.
    pub fn reload(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let found = deletions(connection)?;
        let is_new = |(run_id, at): (&Uuid, &Micros)| self.known.get(run_id) != Some(at);
        if found.iter().any(is_new) {
            self.known = found;
            self.shared.count.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// This run was deleted by this connection.
    pub fn add(&mut self, run_id: Uuid, deleted_at: Micros) {
        self.known.insert(run_id, deleted_at);
        self.shared.count.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the writer may send rows of this run that were received before its deletion.
    pub fn refuses(&self, run_id: Uuid) -> bool {
        let Some(at) = self.known.get(&run_id).filter(|at| expires_at(**at) > now()) else { return false };
        let applied = self.shared.applied.lock().unwrap_or_else(PoisonError::into_inner);
        applied.get(&run_id).is_none_or(|applied| applied < at)
    }
}

/// Until when a deletion is recorded. [`deletions`] does not return it later, so a writer that has not applied it by then never will.
fn expires_at(deleted_at: Micros) -> Micros {
    deleted_at.saturating_add(i64::try_from(DELETION_RETENTION.as_micros()).unwrap_or(i64::MAX))
}

/// Deletions that are kept.
pub(super) fn deletions(connection: &Connection) -> rusqlite::Result<Deletions> {
    connection
        .prepare_cached("SELECT run_id, deleted_at FROM run_deletions WHERE expires_at > ?1")?
        .query_map([now()], |row| Ok((read::parse_uuid(row.get_ref(0)?.as_str()?)?, row.get(1)?)))?
        .collect()
}

/// Deletes everything of a run within the caller's transaction, and returns the time of the deletion.
pub(super) fn delete_run(connection: &Connection, run_id: Uuid, deleted_by: Option<&str>) -> rusqlite::Result<Micros> {
    let deleted_at = now();
    let id = run_id.to_string();
    let start: Option<Option<Micros>> = connection
        .prepare_cached("SELECT start_time FROM training_runs WHERE run_id = ?1")?
        .query_row([&id], |row| row.get(0))
        .optional()?;
    if let Some(start) = start.flatten() {
        rows::delete_entry(connection, start, &id)?;
    }
    for table in TABLES {
        connection.execute(&format!("DELETE FROM {table} WHERE run_id = ?1"), [&id])?;
    }
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO run_deletions (run_id, deleted_at, deleted_by, expires_at) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![id, deleted_at, deleted_by, expires_at(deleted_at)])?;
    Ok(deleted_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_refused_until_the_deletion_is_applied_or_no_longer_recorded() {
        let (run, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let shared = Arc::new(SharedDeletions::default());
        let mut check = DeletionCheck::new(Arc::clone(&shared));
        assert!(!check.refuses(run));

        let deleted_at = now();
        check.add(run, deleted_at);
        assert!(check.refuses(run) && !check.refuses(other) && shared.count() == 1);
        shared.apply(&[(run, deleted_at)].into());
        assert!(!check.refuses(run));
        check.add(run, deleted_at + 1);
        assert!(check.refuses(run), "deleted again");

        let long_ago = now() - i64::try_from(DELETION_RETENTION.as_micros()).unwrap();
        check.add(other, long_ago);
        assert!(!check.refuses(other), "the clock was set forward meanwhile, or 90 days have passed");
    }
}
