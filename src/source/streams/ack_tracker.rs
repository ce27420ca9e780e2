//! Which entries are on their way to the disk, and which are there and not acknowledged yet. Pure.
//!
//! An id is what an entry is known by only within a session: after a failover, and in a stream that was deleted, it may be that of
//! another entry. So a session acknowledges only what it has delivered itself; what an earlier one has left is delivered once more. Where
//! it cannot be delivered, because it was trimmed meanwhile, [`earlier`](AckTracker::earlier) says what is known of it.

use std::{
    collections::{HashSet, VecDeque},
    mem,
};

use crate::{event::EntryId, frame::Settled};

/// The entries of one consumer, from their delivery to their acknowledgement.
#[derive(Debug, Default)]
pub(super) struct AckTracker {
    /// Delivered to intake, by the number of the frame: that of the first, and each entry with its size until it is settled.
    first: u64,
    in_flight: VecDeque<Option<InFlight>>,
    /// Everything that is not acknowledged.
    known: HashSet<EntryId>,
    /// Durable, and still to be acknowledged.
    durable: Vec<EntryId>,
    /// Sent, and not answered.
    sent: Vec<EntryId>,
    bytes: usize,
    /// Of the entries in flight, the number of those of earlier sessions.
    left: usize,
    earlier: EarlierSessions,
}

/// An entry on its way to the disk.
#[derive(Debug)]
struct InFlight {
    id: EntryId,
    /// Whether it was delivered by an earlier session.
    earlier: bool,
    bytes: usize,
}

/// Entries of earlier sessions that were not acknowledged.
#[derive(Debug, Default)]
struct EarlierSessions {
    in_flight: HashSet<EntryId>,
    durable: HashSet<EntryId>,
}

/// What is known of an entry of an earlier session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Earlier {
    /// It is on its way to the disk.
    InFlight,
    /// It is on disk, and was not acknowledged.
    Durable,
    /// Nothing: it may never have reached the disk.
    Unknown,
}

impl AckTracker {
    /// A session begins: nothing that was delivered before is acknowledged any more.
    pub(super) fn begin_session(&mut self) {
        self.known.clear();
        self.earlier.durable.extend(self.durable.drain(..).chain(self.sent.drain(..)));
        for entry in self.in_flight.iter_mut().flatten().filter(|entry| !entry.earlier) {
            entry.earlier = true;
            self.left += 1;
            self.earlier.in_flight.insert(entry.id);
        }
    }

    /// What is known of an entry that an earlier session may have delivered.
    pub(super) fn earlier(&self, id: EntryId) -> Earlier {
        match &self.earlier {
            earlier if earlier.durable.contains(&id) => Earlier::Durable,
            earlier if earlier.in_flight.contains(&id) => Earlier::InFlight,
            _ => Earlier::Unknown,
        }
    }

    /// Forgets what earlier sessions have delivered: the server is another one, or has lost entries, so ids may be those of other entries.
    pub(super) fn forget_earlier(&mut self) {
        self.earlier = EarlierSessions::default();
    }

    /// All entries that were pending at the beginning of the session are read. Of earlier sessions, only these are still asked about.
    pub(super) fn keep_earlier(&mut self, is_asked_about: impl Fn(EntryId) -> bool) {
        self.earlier.durable.retain(|id| is_asked_about(*id));
        self.earlier.in_flight.retain(|id| is_asked_about(*id));
    }

    /// Whether an entry has to be delivered: not when it is known.
    pub(super) fn is_new(&self, id: EntryId) -> bool {
        !self.known.contains(&id)
    }

    /// An entry is delivered, with the next number.
    pub(super) fn delivered(&mut self, id: EntryId, bytes: usize) {
        self.known.insert(id);
        self.in_flight.push_back(Some(InFlight { id, earlier: false, bytes }));
        self.bytes += bytes;
    }

    /// Takes in what became of entries. Returns how many were refused: they have to be delivered again.
    pub(super) fn settle(&mut self, settled: &[Settled]) -> usize {
        let mut refused = 0;
        for of in settled {
            for number in of.first..=of.last {
                let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
                let Some(entry) = at.and_then(|at| self.in_flight.get_mut(at)).and_then(Option::take) else {
                    continue;
                };
                self.bytes -= entry.bytes;
                if entry.earlier {
                    self.left -= 1;
                    if self.earlier.in_flight.remove(&entry.id) && of.durable {
                        self.earlier.durable.insert(entry.id);
                    }
                } else if of.durable {
                    self.durable.push(entry.id);
                } else {
                    self.known.remove(&entry.id);
                    refused += 1;
                }
            }
        }
        while matches!(self.in_flight.front(), Some(None)) {
            self.in_flight.pop_front();
            self.first += 1;
        }
        refused
    }

    /// Takes entries to acknowledge.
    pub(super) fn take_durable(&mut self, max: usize) -> Vec<EntryId> {
        self.sent = self.durable.drain(..self.durable.len().min(max)).collect();
        self.sent.clone()
    }

    /// Those that were taken last are acknowledged. Returns their number.
    pub(super) fn acknowledged(&mut self) -> u64 {
        for id in &self.sent {
            self.known.remove(id);
        }
        mem::take(&mut self.sent).len() as u64
    }

    /// They may not be acknowledged, and have to be once more.
    pub(super) fn not_acknowledged(&mut self) {
        self.durable.append(&mut self.sent);
    }

    /// Entries to acknowledge.
    pub(super) fn durable(&self) -> usize {
        self.durable.len()
    }

    /// Entries that are not acknowledged, or on their way to the disk.
    pub(super) fn entries(&self) -> usize {
        self.known.len() + self.left
    }

    /// Whether entries are on their way to the disk.
    pub(super) fn is_awaiting(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Bytes on their way to the disk.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(millis: u64) -> EntryId {
        EntryId { millis, sequence: 0 }
    }

    fn settled(first: u64, last: u64, durable: bool) -> Settled {
        Settled { first, last, durable }
    }

    #[test]
    fn an_entry_is_known_until_it_is_acknowledged_or_refused() {
        let mut acks = AckTracker::default();
        (1..=4).for_each(|n| acks.delivered(id(n), 10));
        assert!(!acks.is_new(id(1)) && acks.is_new(id(5)));
        assert_eq!(acks.settle(&[settled(2, 2, false), settled(0, 0, true)]), 1);
        assert!(acks.is_new(id(3)), "refused");
        assert_eq!((acks.entries(), acks.bytes()), (3, 20));
        let first = acks.take_durable(10);
        assert_eq!(first, [id(1)]);
        assert!(!acks.is_new(id(1)), "not acknowledged yet");
        acks.not_acknowledged();
        assert_eq!(acks.settle(&[settled(1, 3, true), settled(9, 9, true)]), 0);
        acks.delivered(id(3), 10);
        assert_eq!(acks.settle(&[settled(4, 4, true)]), 0);
        let all = acks.take_durable(10);
        assert_eq!(all, [id(1), id(2), id(4), id(3)]);
        assert_eq!(acks.acknowledged(), 4);
        assert!((1..=4).all(|n| acks.is_new(id(n))));
        assert_eq!((acks.entries(), acks.bytes(), acks.is_awaiting()), (0, 0, false));
    }

    #[test]
    fn a_session_acknowledges_what_it_has_delivered_itself() {
        let mut acks = AckTracker::default();
        (1..=3).for_each(|n| acks.delivered(id(n), 10));
        acks.settle(&[settled(0, 0, true)]);
        acks.begin_session();
        assert!((1..=3).all(|n| acks.is_new(id(n))), "they may be other entries with these ids");
        assert_eq!((acks.durable(), acks.entries(), acks.bytes()), (0, 2, 20), "two are on their way");
        acks.delivered(id(2), 10);
        assert_eq!((acks.entries(), acks.bytes()), (3, 30));
        assert_eq!(acks.settle(&[settled(1, 2, true)]), 0);
        assert!(acks.durable() == 0 && !acks.is_new(id(2)), "the entry of this session is not on disk");
        acks.settle(&[settled(3, 3, true)]);
        assert_eq!(acks.take_durable(10), [id(2)]);
        assert_eq!((acks.acknowledged(), acks.entries(), acks.bytes()), (1, 0, 0));
    }

    #[test]
    fn what_an_earlier_session_has_brought_to_the_disk_is_known_until_the_pending_entries_are_read() {
        let mut acks = AckTracker::default();
        (1..=4).for_each(|n| acks.delivered(id(n), 10));
        acks.settle(&[settled(0, 1, true)]);
        assert_eq!(acks.take_durable(1), [id(1)], "sent, and not answered");
        acks.begin_session();
        let known = |acks: &AckTracker| (1..=5).map(|n| acks.earlier(id(n))).collect::<Vec<_>>();
        use Earlier::{Durable, InFlight, Unknown};
        assert_eq!(known(&acks), [Durable, Durable, InFlight, InFlight, Unknown]);
        acks.settle(&[settled(2, 2, true), settled(3, 3, false)]);
        assert_eq!(known(&acks), [Durable, Durable, Durable, Unknown, Unknown]);
        acks.keep_earlier(|asked_about| asked_about == id(3));
        assert_eq!(known(&acks), [Unknown, Unknown, Durable, Unknown, Unknown]);
        // What is in flight when the server turns out to be another one does not count, either.
        acks.delivered(id(5), 10);
        acks.begin_session();
        acks.forget_earlier();
        acks.settle(&[settled(4, 4, true)]);
        assert_eq!((known(&acks), acks.entries()), (vec![Unknown; 5], 0));
    }
}
