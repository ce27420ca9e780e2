//! Bounds of the table `run_changes`.

use rusqlite::{Connection, params};

/// Entries that are kept. An order that was not used while this many were written is computed anew.
const KEPT_ENTRIES: i64 = 65_536;
/// Entries removed at once.
const REMOVED_ENTRIES: i64 = 8_192;
/// Changes of runs between two removals.
const TRIM_INTERVAL: usize = 4_096;

/// Removes old entries now and then.
#[derive(Debug, Default)]
pub(in crate::store::sqlite) struct ChangesTrim {
    written: usize,
}

impl ChangesTrim {
    /// Counts changes, and removes old entries when there were enough, within the caller's transaction.
    pub fn after(&mut self, changes: usize, connection: &Connection) -> rusqlite::Result<()> {
        self.written += changes;
        if self.written < TRIM_INTERVAL {
            return Ok(());
        }
        self.written = 0;
        let sql = "DELETE FROM run_changes WHERE number <= (SELECT max(number) FROM run_changes) - ?1
                   AND number < (SELECT min(number) FROM run_changes) + ?2";
        connection.prepare_cached(sql)?.execute(params![KEPT_ENTRIES, REMOVED_ENTRIES]).map(drop)
    }
}
