//! Deletes rows that have outlived their time, a bounded number at each call.
//!
//! Most tables have an index on `expires_at`. Metrics do not (their long texts, a table of their own, do): it would cost as much as
//! the row itself. Their runs are visited in turn instead; the rows of a run expire about in the order of their times, so a look at
//! its oldest rows tells whether there is anything to delete. A late row in front of expired rows only postpones their
//! deletion; readers skip expired rows anyway.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use tokio::time::Instant;

use crate::units::{self, Micros};

/// How far the wall clock may be set forward without rows being kept back from deletion.
const CLOCK_SLACK: Micros = 86_400_000_000;

/// How fast the time that is believed catches up with the wall clock, in multiples of the time that passes.
const CATCH_UP_RATE: Micros = 4;

/// The wall clock, checked against the monotonic clock: a jump ahead by ten years must not empty the archive, and rows written
/// while the clock is ten years behind must not expire once it is corrected.
///
/// The file knows the last time that was believed, in the minutes of its `user_version`, so that a restart does not make a wrong
/// clock right. After a long rest the time believed lags behind, and catches up at [`CATCH_UP_RATE`]: deletion is late, never early.
/// A file that is new believes the wall clock.
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

    /// As the file says.
    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let minutes: i64 = connection.query_row("PRAGMA user_version", (), |row| row.get(0))?;
        Ok(if minutes > 0 { Self { believed: minutes * MINUTE, since: Instant::now() } } else { Self::start() })
    }

    /// Puts into the file what is believed now.
    pub fn save(&self, connection: &Connection) -> rusqlite::Result<()> {
        let believed = units::now().min(self.advanced(CATCH_UP_RATE, self.since.elapsed()));
        // What was believed once stays: the wall clock may be behind for a while.
        let minutes = i32::try_from(believed.max(self.believed) / MINUTE).unwrap_or(i32::MAX);
        connection.pragma_update(None, "user_version", minutes)
    }

    /// From when on a row that is written now is kept.
    pub fn write_time(&self) -> Micros {
        self.write_time_at(units::now(), self.since.elapsed())
    }

    /// Until when rows have outlived their time for good.
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

/// Rows that are looked at, and runs that are visited, at each call.
const PROBE_ROWS: i64 = 16;
const RUNS_PER_STEP: usize = 50;

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
                    // The same run comes first the next time.
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

/// Looks at the oldest rows only: a scan of all rows of a long run would hold the lock for as long as it takes.
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

const INDEXED: [(&str, &str); 5] = [
    indexed!("network_topology"),
    indexed!("training_events"),
    indexed!("control_log"),
    indexed!("ingest_gaps"),
    indexed!("training_metrics_long"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_neither_deletes_nor_shortens() {
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
    fn a_restart_does_not_make_a_wrong_clock_right() {
        let connection = Connection::open_in_memory().unwrap();
        let new = Clock::load(&connection).unwrap();
        assert!(units::now() - new.expiry_cutoff() < MINUTE, "a new file believes the wall clock");
        // The file was last written ten years ago, says the clock.
        let ago = units::now() - 3_650 * CLOCK_SLACK;
        Clock { believed: ago, since: Instant::now() }.save(&connection).unwrap();
        for _ in 0..100 {
            let clock = Clock::load(&connection).unwrap();
            assert!(clock.expiry_cutoff() < ago + CLOCK_SLACK + MINUTE, "no restart gains anything");
            clock.save(&connection).unwrap();
        }
        let now = units::now();
        let clock = Clock::load(&connection).unwrap();
        assert_eq!(clock.write_time_at(now, Duration::ZERO), now, "what is written now is kept by the clock of now");
        // A right clock after two months of rest: late by less each day.
        let rested = Clock { believed: now - 60 * CLOCK_SLACK, since: Instant::now() };
        let day = |n: i64| Duration::from_micros((n * CLOCK_SLACK).unsigned_abs());
        assert!(rested.expiry_cutoff_at(now + 10 * CLOCK_SLACK, day(10)) < now);
        assert_eq!(rested.expiry_cutoff_at(now + 20 * CLOCK_SLACK, day(20)), now + 20 * CLOCK_SLACK);
    }
}
