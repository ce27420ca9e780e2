//! Deletes rows that have outlived their time, a bounded number at each call.
//!
//! Most tables have an index on `expires_at`. Metrics do not (their long texts, a table of their own, do): it would cost as much as
//! the row itself. Their runs are visited in turn instead; the rows of a run expire about in the order of their times, so a look at
//! its oldest rows tells whether there is anything to delete. A late row that hides others only postpones them; readers skip what is
//! past its time anyway.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use tokio::time::Instant;

use crate::units::{self, Micros};

/// How far the wall clock may be set forward without rows being kept back from deletion.
const SLACK: Micros = 86_400_000_000;

/// How fast the time that is believed catches up with the wall clock, in multiples of the time that passes.
const CATCH_UP: Micros = 4;

/// The wall clock, held against one that nobody sets: a clock that jumps ahead by ten years must not empty the archive, and what
/// is written while it is ten years behind must not be gone once it is right again.
///
/// The file knows the last time that was believed, in the minutes of its `user_version`, so that a restart does not make a wrong
/// clock right. After a long rest the time believed lags behind, and catches up at [`CATCH_UP`]: deletion is late, never early.
/// A file that is new believes the wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    known: Micros,
    since: Instant,
}

const MINUTE: Micros = 60_000_000;

impl Clock {
    pub fn start() -> Self {
        Self { known: units::now(), since: Instant::now() }
    }

    /// As the file says.
    pub fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let minutes: i64 = connection.query_row("PRAGMA user_version", (), |row| row.get(0))?;
        Ok(if minutes > 0 { Self { known: minutes * MINUTE, since: Instant::now() } } else { Self::start() })
    }

    /// Puts into the file what is believed now.
    pub fn keep(&self, connection: &Connection) -> rusqlite::Result<()> {
        let believed = units::now().min(self.ahead(CATCH_UP, self.since.elapsed()));
        // What was believed once stays: the wall clock may be behind for a while.
        let minutes = i32::try_from(believed.max(self.known) / MINUTE).unwrap_or(i32::MAX);
        connection.pragma_update(None, "user_version", minutes)
    }

    /// From when on a row that is written now is kept.
    pub fn keeping(&self) -> Micros {
        self.kept_from(units::now(), self.since.elapsed())
    }

    /// Until when rows have outlived their time for good.
    pub fn deleting(&self) -> Micros {
        self.deleted_to(units::now(), self.since.elapsed())
    }

    fn kept_from(&self, wall: Micros, elapsed: Duration) -> Micros {
        wall.max(self.ahead(1, elapsed))
    }

    fn deleted_to(&self, wall: Micros, elapsed: Duration) -> Micros {
        wall.min(self.ahead(CATCH_UP, elapsed).saturating_add(SLACK))
    }

    fn ahead(&self, speed: Micros, elapsed: Duration) -> Micros {
        let elapsed = Micros::try_from(elapsed.as_micros()).unwrap_or(Micros::MAX);
        self.known.saturating_add(elapsed.saturating_mul(speed))
    }
}

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

const NEXT_RUN: &str = "SELECT run_id FROM training_metrics_rows WHERE run_id > ?1 ORDER BY run_id LIMIT 1";

const RUN_DUE: &str = "SELECT 1 FROM (SELECT expires_at FROM training_metrics_rows WHERE run_id = ?1
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
        const YEARS: Micros = 10 * 365 * SLACK;
        let clock = Clock { known: 1_000, since: Instant::now() };
        let second = Duration::from_secs(1);
        for (name, wall, kept, deleted) in [
            ("right", 1_001_000, 1_001_000, 1_001_000),
            ("an hour ahead", 3_601_001_000, 3_601_001_000, 3_601_001_000),
            ("years ahead", YEARS, YEARS, 4_001_000 + SLACK),
            ("years behind", -YEARS, 1_001_000, -YEARS),
        ] {
            assert_eq!((clock.kept_from(wall, second), clock.deleted_to(wall, second)), (kept, deleted), "{name}");
        }
    }

    #[test]
    fn a_restart_does_not_make_a_wrong_clock_right() {
        let connection = Connection::open_in_memory().unwrap();
        let new = Clock::of(&connection).unwrap();
        assert!(units::now() - new.deleting() < MINUTE, "a new file believes the wall clock");
        // The file was last written ten years ago, says the clock.
        let ago = units::now() - 3_650 * SLACK;
        Clock { known: ago, since: Instant::now() }.keep(&connection).unwrap();
        for _ in 0..100 {
            let clock = Clock::of(&connection).unwrap();
            assert!(clock.deleting() < ago + SLACK + MINUTE, "no restart gains anything");
            clock.keep(&connection).unwrap();
        }
        let now = units::now();
        let clock = Clock::of(&connection).unwrap();
        assert_eq!(clock.kept_from(now, Duration::ZERO), now, "what is written now is kept by the clock of now");
        // A right clock after two months of rest: late by less each day.
        let rested = Clock { known: now - 60 * SLACK, since: Instant::now() };
        let day = |n: i64| Duration::from_micros((n * SLACK).unsigned_abs());
        assert!(rested.deleted_to(now + 10 * SLACK, day(10)) < now);
        assert_eq!(rested.deleted_to(now + 20 * SLACK, day(20)), now + 20 * SLACK);
    }
}
