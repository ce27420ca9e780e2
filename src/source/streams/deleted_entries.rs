//! Own pending entries that are no longer in the stream: they cannot be delivered, and are acknowledged. Pure.
//!
//! They are reported as lost, unless this process knows that they are on its disk: its connection may have been lost between the disk and
//! the acknowledgement. Their number is a bound, because a process that was killed there does not know it.

use std::collections::BTreeSet;

use super::{
    ack_tracker::{AckTracker, Earlier},
    reply::plausible_time,
};
use crate::{event::EntryId, units::Micros};

/// Own pending entries that are no longer in the stream, of the present session.
#[derive(Debug, Default)]
pub(super) struct DeletedEntries {
    /// Still to be acknowledged.
    found: BTreeSet<EntryId>,
    /// The newest batch of lost ones: its first entry, and the time that its gap is known by.
    last_batch: Option<(EntryId, Micros)>,
}

/// Entries to acknowledge.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DeletedBatch {
    /// They are on disk.
    pub(super) durable: Vec<EntryId>,
    /// They are lost, as far as this process knows.
    pub(super) lost: Vec<EntryId>,
    /// First and last moment of that loss; absent: the ids are no times.
    pub(super) time: Option<(Micros, Micros)>,
}

impl DeletedEntries {
    /// An entry was delivered without a message.
    pub(super) fn insert(&mut self, id: EntryId) {
        self.found.insert(id);
    }

    pub(super) fn contains(&self, id: EntryId) -> bool {
        self.found.contains(&id)
    }

    /// A session begins: its pending entries are read from the first one on.
    pub(super) fn begin_session(&mut self) {
        self.found.clear();
    }

    /// Takes so many entries at most. Those that an earlier session has delivered wait until it is known whether they are on disk.
    pub(super) fn take(&mut self, acks: &AckTracker, max: usize) -> DeletedBatch {
        let mut batch = DeletedBatch::default();
        for id in &self.found {
            match acks.earlier(*id) {
                Earlier::InFlight => {}
                Earlier::Durable => batch.durable.push(*id),
                Earlier::Unknown => batch.lost.push(*id),
            }
            if batch.durable.len() + batch.lost.len() >= max {
                break;
            }
        }
        for id in batch.durable.iter().chain(&batch.lost) {
            self.found.remove(id);
        }
        batch.time = self.time_of(&batch.lost);
        batch
    }

    /// The time of a loss is that of its entries. So a batch that has to be reported once more, because it was not acknowledged after it
    /// had been reported, replaces the row that begins with the same entry, also after a restart. No other batch is reported before it is
    /// acknowledged.
    fn time_of(&mut self, lost: &[EntryId]) -> Option<(Micros, Micros)> {
        let (first, last) = (*lost.first()?, *lost.last()?);
        let (first_at, last_at) = (plausible_time(first)?, plausible_time(last)?);
        let started_at = match self.last_batch {
            Some((before, at)) if before == first => at,
            // Entries of one millisecond, beyond the microseconds of their ids.
            Some((before, at)) if before < first => first_at.max(at + 1),
            _ => first_at,
        };
        self.last_batch = Some((first, started_at));
        Some((started_at, last_at.max(started_at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Settled;

    fn id(sequence: u64) -> EntryId {
        EntryId { millis: 1_764_400_000_000, sequence }
    }

    fn batch(durable: &[EntryId], lost: &[EntryId], time: Option<(Micros, Micros)>) -> DeletedBatch {
        DeletedBatch { durable: durable.to_vec(), lost: lost.to_vec(), time }
    }

    #[test]
    fn entries_that_this_process_has_on_its_disk_are_not_lost() {
        let (mut acks, mut deleted) = (AckTracker::default(), DeletedEntries::default());
        (1..=3).for_each(|n| acks.delivered(id(n), 10));
        acks.settle(&[Settled { first: 0, last: 0, durable: true }]);
        acks.begin_session();
        // Some may be delivered twice, because they were read again before they were acknowledged.
        [1, 2, 3, 4, 4].into_iter().for_each(|n| deleted.insert(id(n)));
        let at = id(4).micros();
        assert_eq!(deleted.take(&acks, 10), batch(&[id(1)], &[id(4)], Some((at, at))));
        assert_eq!(deleted.take(&acks, 10), batch(&[], &[], None), "two are on their way");
        acks.settle(&[Settled { first: 1, last: 1, durable: true }, Settled { first: 2, last: 2, durable: false }]);
        let at = id(3).micros();
        assert_eq!(deleted.take(&acks, 10), batch(&[id(2)], &[id(3)], Some((at, at))));
        assert!(!deleted.contains(id(3)));
    }

    #[test]
    fn a_batch_that_is_reported_again_has_the_same_time_and_another_one_has_not() {
        let (acks, mut deleted) = (AckTracker::default(), DeletedEntries::default());
        let insert = |deleted: &mut DeletedEntries, ids: &[u64]| ids.iter().for_each(|n| deleted.insert(id(*n)));
        insert(&mut deleted, &[5, 7]);
        let first = deleted.take(&acks, 10).time;
        assert_eq!(first, Some((id(5).micros(), id(7).micros())));
        // It was not acknowledged, and one more is there after the reconnect.
        deleted.begin_session();
        insert(&mut deleted, &[5, 7, 8]);
        assert_eq!(deleted.take(&acks, 10).time.unwrap().0, first.unwrap().0);
        insert(&mut deleted, &[1_500, 1_501, 2_500]);
        let [one, other] = [2, 2].map(|max| deleted.take(&acks, max).time.unwrap().0);
        assert_eq!(other, one + 1, "ids of one millisecond have the same time beyond its last microsecond");
        deleted.insert(EntryId { millis: 5, sequence: 1 });
        assert_eq!(deleted.take(&acks, 10).time, None, "the id is no time");
    }
}
