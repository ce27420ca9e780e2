//! The deleted runs, as the writer knows them.
//!
//! Records of a deleted run that were received up to its deletion are not written. The deletions are read at the start, every
//! [`READ_INTERVAL`], and whenever the store reports one; nothing is written [`DELETIONS_VALID`] after the last read began, so that
//! a store may rely on every writer having read of a deletion by then. Pure.
//!
//! The age of a read is that by the clock that says more: the monotonic clock stands still while a machine sleeps, and the wall clock may
//! be set back.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    backoff,
    store::{DELETIONS_VALID, Deletions, Problem, StoreError},
    units::{self, Micros},
};

/// How often the deletions are read.
const READ_INTERVAL: Duration = Duration::from_secs(5);

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the monotonic clock.
    pub at: Instant,
    /// By the wall clock.
    pub wall: Micros,
}

impl Moment {
    /// Now.
    pub fn now(at: Instant) -> Self {
        Self { at, wall: units::now() }
    }

    /// The time since an earlier moment.
    fn since(self, earlier: Self) -> Duration {
        let by_wall =
            u64::try_from(self.wall.saturating_sub(earlier.wall)).map_or(Duration::ZERO, Duration::from_micros);
        self.at.saturating_duration_since(earlier.at).max(by_wall)
    }
}

/// The deletions, and when they were read.
#[derive(Debug)]
pub struct KnownDeletions {
    runs: Deletions,
    /// When the last successful read began; `None`: nothing is known yet.
    read_at: Option<Moment>,
    /// When the next read begins.
    due: Instant,
    /// When the read in flight began, and the store's [count](crate::store::Store::deletion_count) then.
    in_flight: Option<(Moment, u64)>,
    /// The store's count when the last successful read began.
    count: u64,
    /// Some are new: records that were taken before may be of these runs.
    unapplied: bool,
    /// Why the last read failed.
    pub problem: Option<Problem>,
}

impl KnownDeletions {
    /// Nothing known yet; the first read is due.
    pub fn new(now: Instant) -> Self {
        Self {
            runs: Deletions::new(),
            read_at: None,
            due: now,
            in_flight: None,
            count: 0,
            unapplied: false,
            problem: None,
        }
    }

    /// Whether the first read has succeeded: until then no record is taken.
    pub fn is_known(&self) -> bool {
        self.read_at.is_some()
    }

    /// Whether the writer may write. `count` is the store's now.
    pub fn allow_writes(&self, now: Moment, count: u64) -> bool {
        !self.unapplied
            && self.count == count
            && self.read_at.is_some_and(|read_at| now.since(read_at) < DELETIONS_VALID)
    }

    /// Whether a read begins now.
    pub fn begin_read(&mut self, now: Moment, count: u64) -> bool {
        // After a failure a read waits for its time, however many deletions there are.
        let is_old = || self.count != count || self.read_at.is_some_and(|read_at| now.since(read_at) >= READ_INTERVAL);
        let is_due = now.at >= self.due || (self.problem.is_none() && is_old());
        let begins = self.in_flight.is_none() && is_due;
        if begins {
            self.in_flight = Some((now, count));
        }
        begins
    }

    /// When the next read is due.
    pub fn due_at(&self) -> Option<Instant> {
        self.in_flight.is_none().then_some(self.due)
    }

    /// Takes the result of a read. Returns whether there are deletions that were not known.
    pub fn on_read(&mut self, result: Result<Deletions, StoreError>, now: Instant) -> bool {
        let (began, count) = self.in_flight.take().unwrap_or((Moment::now(now), self.count));
        match result {
            Ok(found) => {
                let is_new = |(run_id, at): (&Uuid, &Micros)| self.runs.get(run_id).is_none_or(|known| known < at);
                let has_new = found.iter().any(is_new);
                // The first are applied before any record is taken.
                self.unapplied |= has_new && self.read_at.is_some();
                (self.runs, self.read_at, self.count, self.problem) = (found, Some(began), count, None);
                self.due = began.at + READ_INTERVAL;
                has_new
            }
            Err(error) => {
                let since = self.problem.take().map_or_else(units::now, |problem| problem.since);
                self.problem = Some(Problem::of("deletions", &error, since));
                self.due = now + backoff::OPERATOR;
                false
            }
        }
    }

    /// Whether records that were taken may be of runs that were deleted meanwhile.
    pub fn must_rewind(&self) -> bool {
        self.unapplied
    }

    /// Every record that was taken is forgotten, and will be read again.
    pub fn applied(&mut self) -> &Deletions {
        self.unapplied = false;
        &self.runs
    }

    /// All that are known.
    pub fn runs(&self) -> &Deletions {
        &self.runs
    }

    /// Whether records of this run that were received at this time are not written.
    pub fn forbid(&self, run_id: Uuid, received_at: Micros) -> bool {
        self.runs.get(&run_id).is_some_and(|deleted_at| received_at <= *deleted_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Uuid = Uuid::from_u128(1);

    fn deletions(deleted_at: Micros) -> Deletions {
        [(RUN, deleted_at)].into()
    }

    #[test]
    fn writing_needs_a_recent_read_and_a_new_deletion_to_be_applied() {
        let start = Instant::now();
        let at = |seconds: u64, wall| Moment { at: start + Duration::from_secs(seconds), wall };
        // The wall clock stands still, and is at 0.
        let after = |seconds| at(seconds, 0);
        let mut known = KnownDeletions::new(start);
        assert!(!known.allow_writes(after(0), 0) && !known.is_known());
        assert!(known.begin_read(after(0), 0));
        assert!(!known.begin_read(after(9), 0), "one read at a time");
        assert!(known.on_read(Ok(deletions(10)), after(1).at));
        assert!(!known.must_rewind(), "no record was taken yet");
        assert!(known.forbid(RUN, 10) && !known.forbid(RUN, 11) && !known.forbid(Uuid::nil(), 1));
        assert!(known.allow_writes(after(6), 0), "counted from the beginning of the read");
        assert!(!known.allow_writes(after(7), 0));
        assert!(known.due_at() == Some(after(5).at) && !known.begin_read(after(4), 0));

        assert!(!known.allow_writes(after(4), 1) && known.begin_read(after(4), 1), "the store knows of another one");
        assert!(known.on_read(Ok(deletions(20)), after(4).at) && known.must_rewind());
        assert!(!known.allow_writes(after(4), 1));
        assert_eq!(known.applied(), &deletions(20));
        assert!(known.allow_writes(after(4), 1));

        assert!(known.begin_read(after(9), 1));
        assert!(!known.on_read(Err(StoreError::Unavailable("away".into())), after(10).at));
        assert!(known.problem.is_some() && known.allow_writes(after(10), 1) && !known.begin_read(after(10), 2));
        assert!(known.begin_read(after(11), 2) && !known.on_read(Ok(deletions(20)), after(11).at));
        assert!(known.problem.is_none() && known.allow_writes(after(17), 2));
        assert!(
            known.begin_read(after(17), 2) && !known.on_read(Ok(Deletions::new()), after(17).at),
            "forgotten in time"
        );
    }

    #[test]
    fn a_machine_that_slept_reads_before_it_writes() {
        let start = Instant::now();
        let at =
            |seconds: u64, wall: Micros| Moment { at: start + Duration::from_secs(seconds), wall: wall * 1_000_000 };
        let mut known = KnownDeletions::new(start);
        assert!(known.begin_read(at(0, 100), 0) && known.on_read(Ok(deletions(10)), start));
        assert!(known.allow_writes(at(1, 101), 0) && !known.begin_read(at(1, 101), 0));
        // It slept for an hour, which the monotonic clock does not count.
        assert!(!known.allow_writes(at(2, 3_702), 0) && known.begin_read(at(2, 3_702), 0));
        assert!(!known.on_read(Ok(deletions(10)), at(2, 3_702).at) && known.allow_writes(at(3, 3_703), 0));
        // The clock is set back; the monotonic clock counts.
        assert!(known.allow_writes(at(8, 0), 0) && !known.allow_writes(at(9, 1), 0));
    }
}
