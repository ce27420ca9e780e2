//! Times of the writes to runs.
//!
//! Cassandra gives a write its time when it arrives, however long it was on its way: a daemon or a node may have been stopped
//! meanwhile, or the request kept in a buffer. A late row of a deleted run would then be newer than its deletion, and stay. So a write
//! to a run carries the time at which it was allowed, by the server's clock: that is read before each read of the deletions, and goes
//! on with the daemon's monotonic clock, which need not agree with it. Two bounds hold, whatever is stopped or slow:
//!
//! * No write to a run is later than [`DELETIONS_VALID`] after the time that was read before the deletions. A deletion that this read
//!   did not find lies later than that (`deletions.rs`), and so covers the write whenever it arrives.
//! * A write to a run of which the read found a deletion is later than the deletion: the writer sends only what was received afterwards.
//!
//! The time of a program grows with each write, and is never ahead of the server's clock: a later change of a run's row wins, as with
//! the time of the server. The statements themselves carry no time, only the request.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokio::time::Instant;
use uuid::Uuid;

use crate::{store::DELETIONS_VALID, units::Micros};

/// A read of the deletions.
#[derive(Clone, Debug)]
pub(super) struct DeletionsRead {
    /// Time of the server before it.
    pub(super) server_time: Micros,
    /// When that time had arrived here.
    pub(super) arrived_at: Instant,
    /// The times of the deletions' tombstones.
    pub(super) tombstones: HashMap<Uuid, Micros>,
}

/// What the times of writes depend on.
#[derive(Debug, Default)]
struct State {
    /// The last read of the deletions.
    read: Option<DeletionsRead>,
    /// The last read whose deletions the writer has applied to its records.
    applied: Option<DeletionsRead>,
    /// The time of the last write.
    last: Micros,
}

/// Gives each write to a run its time.
#[derive(Debug, Default)]
pub(super) struct WriteTimes(Mutex<State>);

impl WriteTimes {
    /// The deletions were read.
    pub(super) fn read(&self, read: DeletionsRead) {
        self.with(|state| state.read = Some(read));
    }

    /// The writer sends no row any longer that the deletions of the last read forbid.
    pub(super) fn apply(&self) {
        self.with(|state| state.applied = state.read.take().or(state.applied.take()));
    }

    /// The time of a write to a run that is allowed now. `None`: that of the server, because no writer follows the deletions here.
    pub(super) fn next(&self, run_id: Uuid, now: Instant) -> Option<Micros> {
        self.with(|state| {
            let read = state.applied.as_ref()?;
            let micros = |duration: std::time::Duration| Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX);
            let server_time = read.server_time.saturating_add(micros(now.saturating_duration_since(read.arrived_at)));
            let limit = read.server_time.saturating_add(micros(DELETIONS_VALID));
            let after_tombstone = read.tombstones.get(&run_id).map_or(Micros::MIN, |tombstone| tombstone + 1);
            let wanted = server_time.max(state.last + 1).max(after_tombstone);
            let time = wanted.min(limit).max(after_tombstone);
            state.last = time.max(state.last);
            Some(time)
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RUN: Uuid = Uuid::from_u128(1);
    const DELETED: Uuid = Uuid::from_u128(2);

    fn read(server_time: Micros, arrived_at: Instant, tombstone: Option<Micros>) -> DeletionsRead {
        let tombstones = tombstone.map(|tombstone| (DELETED, tombstone)).into_iter().collect();
        DeletionsRead { server_time, arrived_at, tombstones }
    }

    #[test]
    fn a_write_is_at_most_as_late_as_an_unknown_deletion_and_later_than_a_known_one() {
        let (start, times) = (Instant::now(), WriteTimes::default());
        let after = |millis| start + Duration::from_millis(millis);
        times.read(read(1_000_000, start, None));
        assert_eq!(times.next(RUN, start), None, "no writer");
        times.apply();
        assert_eq!(times.next(RUN, start), Some(1_000_000));
        assert_eq!(times.next(RUN, start), Some(1_000_001), "each write is later");
        assert_eq!(times.next(RUN, after(500)), Some(1_500_000));
        for millis in [7_000, 20_000, 3_600_000] {
            assert_eq!(times.next(RUN, after(millis)), Some(8_000_000), "stopped after it was allowed");
        }

        // A deletion is found, but not yet applied to what the writer holds.
        times.read(read(9_000_000, after(8_000), Some(17_000_000)));
        assert_eq!(times.next(DELETED, after(8_001)), Some(8_000_000));
        times.apply();
        times.apply();
        assert_eq!(times.next(RUN, after(8_000)), Some(9_000_000));
        assert_eq!(times.next(DELETED, after(15_500)), Some(17_000_001), "received after the deletion");
        assert_eq!(times.next(RUN, after(15_000)), Some(16_000_000));
        times.read(read(18_000_000, after(17_010), Some(17_000_000)));
        times.apply();
        assert_eq!(times.next(DELETED, after(17_010)), Some(18_000_000));
    }
}
