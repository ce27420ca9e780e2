//! Deletion of runs, as a store offers it.

use std::{collections::HashMap, time::Duration};

use uuid::Uuid;

use super::{BoxFuture, StoreError};
use crate::units::Micros;

/// Deleted runs, and when they were: records of such a run that were received up to then are not written.
pub type Deletions = HashMap<Uuid, Micros>;

/// How long a deletion is recorded.
pub const DELETION_RETENTION: Duration = Duration::from_secs(90 * 86_400);

/// How long a writer may write after it began to read the deletions: then it must have read them again.
pub const DELETIONS_VALID: Duration = Duration::from_secs(7);

/// Deletes runs, and tells writers of it.
pub trait DeletionStore: Send + Sync {
    /// Deletes everything of a run and records that. When it returns, no writer writes any longer what was received up to the time
    /// of the deletion, and everything that was received later is kept. Cassandra: that takes ten seconds, because each writer has to
    /// read of the deletion first.
    fn delete_run<'a>(&'a self, run_id: Uuid, deleted_by: Option<&'a str>) -> BoxFuture<'a, Result<(), StoreError>>;

    /// The deleted runs that are still recorded.
    fn deletions(&self) -> BoxFuture<'_, Result<Deletions, StoreError>>;

    /// For the writer, after each read of the deletions: from now on it sends no row that they forbid, and no call with such a row is in
    /// flight.
    fn deletions_applied(&self, _: &Deletions) {}

    /// A counter that grows when a run was deleted: the writer must read and apply the deletions before its next write.
    /// Stays 0 where the store cannot tell; the writer reads them every few seconds anyway.
    fn deletion_count(&self) -> u64 {
        0
    }
}
