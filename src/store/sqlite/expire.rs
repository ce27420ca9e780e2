//! Deletes expired rows, a bounded number per call.
//!
//! Most tables have an index on `expires_at`. Metrics do not (their long texts, in a separate table, do): the index would cost as
//! much as the row. Instead their runs are swept in turn; the rows of a run expire roughly in time order, so a probe of its
//! oldest rows tells whether any are expired. A late row that hides expired ones only postpones their deletion; reads skip
//! expired rows anyway.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use tokio::time::Instant;

use crate::units::{self, Micros};

/// Forward clock jump up to which deletion is not delayed.
const CLOCK_SLACK: Micros = 86_400_000_000;

/// Rate at which the trusted time catches up with the wall clock, as a multiple of elapsed time.
const CATCH_UP_RATE: Micros = 4;

/// The trusted time (`believed`): the wall clock, limited by a monotonic clock. A wall clock that jumps ten years ahead must not empty the
/// archive, and rows written while it is ten years behind must not be expired once it is corrected.
///
/// The last trusted time is stored in the file (`user_version`, in minutes), so that a wrong clock is not trusted after a
/// restart. After a long downtime the trusted time lags and catches up at [`CATCH_UP_RATE`]: deletion is late, never early. For a
/// new file the wall clock is trusted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    believed: Micros,
    since: Instant,
}

const MINUTE: Micros = 60_000_000;

impl Clock {
    pub fn start() -> Self {
        Self { believed: units::now(), since: Instant::now() }
    }

    /// Reads the trusted time from the file.
    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let minutes: i64 = connection.query_row("PRAGMA user_version", (), |row| row.get(0))?;
        Ok(if minutes > 0 { Self { believed: minutes * MINUTE, since: Instant::now() } } else { Self::start() })
    }

    /// Stores the trusted time in the file.
    pub fn save(&self, connection: &Connection) -> rusqlite::Result<()> {
        let believed = units::now().min(self.advanced(CATCH_UP_RATE, self.since.elapsed()));
        // The trusted time never goes back: the wall clock may be temporarily behind.
        let minutes = i32::try_from(believed.max(self.believed) / MINUTE).unwrap_or(i32::MAX);
        connection.pragma_update(None, "user_version", minutes)
    }

    /// The time from which retention of a row written now counts.
    pub fn write_time(&self) -> Micros {
        self.write_time_at(units::now(), self.since.elapsed())
    }

    /// Rows that expire before this time are deleted.
    pub fn expiry_cutoff(&self) -> Micros {
        self.expiry_cutoff_at(units::now(), self.since.elapsed())
    }

    fn write_time_at(&self, wall: Micros, elapsed: Duration) -> Micros {
        wall.max(self.advanced(1, elapsed))
    }

    fn expiry_cutoff_at(&self, wall: Micros, elapsed: Duration) -> Micros {
        wall.min(self.advanced(CATCH_UP_RATE, elapsed).saturating_add(CLOCK_SLACK))
    }

    fn advanced(&self, speed: Micros, elapsed: Duration) -> Micros {
        let elapsed = Micros::try_from(elapsed.as_micros()).unwrap_or(Micros::MAX);
        self.believed.saturating_add(elapsed.saturating_mul(speed))
    }
}

/// Rows probed per run, and runs visited per call.
const PROBE_ROWS: i64 = 16;
const RUNS_PER_STEP: usize = 50;

/// Position of the sweep over the runs.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    run_id: String,
}

impl Sweep {
    /// Whether the last step has reached the last run.
    pub fn is_complete(&self) -> bool {
        self.run_id.is_empty()
    }

    /// Deletes at most `limit` rows of each table, oldest first; returns the number.
    pub fn step(&mut self, connection: &Connection, now: Micros, limit: i64) -> rusqlite::Result<usize> {
        let mut deleted = 0;
        for (due, delete) in INDEXED {
            // Usually no row is due, and then no lock is taken.
            if connection.prepare_cached(due)?.exists([now])? {
                deleted += connection.prepare_cached(delete)?.execute(params![now, limit])?;
            }
        }
        for _ in 0..RUNS_PER_STEP {
            let next: Option<String> =
                connection.prepare_cached(NEXT_RUN)?.query_row([&self.run_id], |row| row.get(0)).optional()?;
            let Some(run_id) = next else {
                self.run_id.clear();
                break;
            };
            if connection.prepare_cached(RUN_HAS_EXPIRED)?.exists(params![run_id, now, PROBE_ROWS])? {
                let rows = connection.prepare_cached(RUN_DELETE)?.execute(params![run_id, now, limit])?;
                deleted += rows;
                if i64::try_from(rows).is_ok_and(|rows| rows >= limit) {
                    // The next call resumes with this run.
                    break;
                }
            }
            self.run_id = run_id;
        }
        Ok(deleted)
    }
}

const NEXT_RUN: &str = "SELECT run_id FROM training_metrics_rows WHERE run_id > ?1 ORDER BY run_id LIMIT 1";

const RUN_HAS_EXPIRED: &str = "SELECT 1 FROM (SELECT expires_at FROM training_metrics_rows WHERE run_id = ?1
    ORDER BY timestamp, event_id LIMIT ?3) WHERE expires_at <= ?2";

/// Probes the oldest rows only: a scan of a long run would hold the lock throughout.
const RUN_DELETE: &str = "DELETE FROM training_metrics_rows WHERE run_id = ?1 AND (timestamp, event_id) IN
    (SELECT timestamp, event_id FROM (SELECT timestamp, event_id, expires_at FROM training_metrics_rows WHERE run_id = ?1
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

const INDEXED: [(&str, &str); 6] = [
    indexed!("network_topology"),
    indexed!("training_events"),
    indexed!("control_log"),
    indexed!("ingest_gaps"),
    indexed!("training_metrics_long"),
    indexed!("run_deletions"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_jump_neither_deletes_rows_nor_shortens_retention() {
        const YEARS: Micros = 10 * 365 * CLOCK_SLACK;
        let clock = Clock { believed: 1_000, since: Instant::now() };
        let second = Duration::from_secs(1);
        for (name, wall, kept, deleted) in [
            ("right", 1_001_000, 1_001_000, 1_001_000),
            ("an hour ahead", 3_601_001_000, 3_601_001_000, 3_601_001_000),
            ("years ahead", YEARS, YEARS, 4_001_000 + CLOCK_SLACK),
            ("years behind", -YEARS, 1_001_000, -YEARS),
        ] {
            assert_eq!(
                (clock.write_time_at(wall, second), clock.expiry_cutoff_at(wall, second)),
                (kept, deleted),
                "{name}"
            );
        }
    }

    #[test]
    fn a_wrong_clock_is_not_trusted_after_a_restart() {
        let connection = Connection::open_in_memory().unwrap();
        let new = Clock::load(&connection).unwrap();
        assert!(units::now() - new.expiry_cutoff() < MINUTE, "for a new file the wall clock is trusted");
        // The file was last written ten years ago, by the clock.
        let ago = units::now() - 3_650 * CLOCK_SLACK;
        Clock { believed: ago, since: Instant::now() }.save(&connection).unwrap();
        for _ in 0..100 {
            let clock = Clock::load(&connection).unwrap();
            assert!(clock.expiry_cutoff() < ago + CLOCK_SLACK + MINUTE, "a restart does not advance the trusted time");
            clock.save(&connection).unwrap();
        }
        let now = units::now();
        let clock = Clock::load(&connection).unwrap();
        assert_eq!(clock.write_time_at(now, Duration::ZERO), now, "retention of new rows counts from the current time");
        // A correct clock after two months of downtime: the lag shrinks each day.
        let rested = Clock { believed: now - 60 * CLOCK_SLACK, since: Instant::now() };
        let day = |n: i64| Duration::from_micros((n * CLOCK_SLACK).unsigned_abs());
        assert!(rested.expiry_cutoff_at(now + 10 * CLOCK_SLACK, day(10)) < now);
        assert_eq!(rested.expiry_cutoff_at(now + 20 * CLOCK_SLACK, day(20)), now + 20 * CLOCK_SLACK);
    }
}
