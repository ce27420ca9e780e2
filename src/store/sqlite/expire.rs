//! Deletes rows that have outlived their time, a bounded number at each call.
//!
//! Most tables have an index on `expires_at`. Metrics do not: it would cost as much as the row itself. Their runs are visited in
//! turn instead; the rows of a run expire about in the order of their times, so a look at its oldest rows tells whether there is
//! anything to delete. A late row that hides others only postpones them; readers skip what is past its time anyway.

use rusqlite::{Connection, OptionalExtension, params};

use crate::units::Micros;

/// Rows that are looked at, and runs that are visited, at each call.
const LOOK_ROWS: i64 = 16;
const LOOK_RUNS: usize = 50;

/// Where the visit of the runs has come to.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    run_id: String,
}

impl Sweep {
    /// Deletes at most `limit` rows of each table, oldest first; says how many.
    pub fn step(&mut self, connection: &Connection, now: Micros, limit: i64) -> rusqlite::Result<usize> {
        let mut deleted = 0;
        for (due, delete) in INDEXED {
            // The common answer is no, and then nothing is locked.
            if connection.prepare_cached(due)?.exists([now])? {
                deleted += connection.prepare_cached(delete)?.execute(params![now, limit])?;
            }
        }
        for _ in 0..LOOK_RUNS {
            let next: Option<String> =
                connection.prepare_cached(NEXT_RUN)?.query_row([&self.run_id], |row| row.get(0)).optional()?;
            let Some(run_id) = next else {
                self.run_id.clear();
                break;
            };
            if connection.prepare_cached(RUN_DUE)?.exists(params![run_id, now, LOOK_ROWS])? {
                let rows = connection.prepare_cached(RUN_DELETE)?.execute(params![run_id, now, limit])?;
                deleted += rows;
                if i64::try_from(rows).is_ok_and(|rows| rows >= limit) {
                    // The same run comes first the next time.
                    break;
                }
            }
            self.run_id = run_id;
        }
        Ok(deleted)
    }
}

const NEXT_RUN: &str = "SELECT run_id FROM training_metrics WHERE run_id > ?1 ORDER BY run_id LIMIT 1";

const RUN_DUE: &str = "SELECT 1 FROM (SELECT expires_at FROM training_metrics WHERE run_id = ?1
    ORDER BY timestamp, event_id LIMIT ?3) WHERE expires_at <= ?2";

/// Looks at the oldest rows only: a scan of all rows of a long run would hold the lock for as long as it takes.
const RUN_DELETE: &str = "DELETE FROM training_metrics WHERE run_id = ?1 AND (timestamp, event_id) IN
    (SELECT timestamp, event_id FROM (SELECT timestamp, event_id, expires_at FROM training_metrics WHERE run_id = ?1
     ORDER BY timestamp, event_id LIMIT ?3) WHERE expires_at <= ?2)";

macro_rules! indexed {
    ($table:literal) => {
        (
            concat!("SELECT 1 FROM ", $table, " WHERE expires_at <= ?1"),
            concat!(
                "DELETE FROM ",
                $table,
                " WHERE rowid IN (SELECT rowid FROM ",
                $table,
                " WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)"
            ),
        )
    };
}

const INDEXED: [(&str, &str); 4] =
    [indexed!("network_topology"), indexed!("training_events"), indexed!("control_log"), indexed!("ingest_gaps")];
