//! Which entries are on their way to the disk, and which are there and not acknowledged yet. Pure.
//!
//! An id is what an entry is known by only within a session: after a failover, and in a stream that was deleted, it may be that of
//! another entry. So a session acknowledges only what it has delivered itself; what an earlier one has left is delivered once more.

use std::{
    collections::{HashSet, VecDeque},
    mem,
};

use crate::{event::EntryId, frame::Settled};

/// The entries of one consumer, from their delivery to their acknowledgement.
#[derive(Debug, Default)]
pub(super) struct Ledger {
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
    /// Of the entries in flight, those of earlier sessions.
    left: usize,
}

/// An entry on its way to the disk.
#[derive(Debug)]
struct InFlight {
    /// Absent: it was delivered by an earlier session.
    id: Option<EntryId>,
    bytes: usize,
}

impl Ledger {
    /// A session begins: nothing that was delivered before is acknowledged any more.
    pub(super) fn begin_session(&mut self) {
        self.known.clear();
        self.durable.clear();
        self.sent.clear();
        for entry in self.in_flight.iter_mut().flatten() {
            self.left += usize::from(entry.id.take().is_some());
        }
    }

    /// Whether an entry has to be delivered: not when it is known.
    pub(super) fn is_new(&self, id: EntryId) -> bool {
        !self.known.contains(&id)
    }

    /// An entry is delivered, with the next number.
    pub(super) fn delivered(&mut self, id: EntryId, bytes: usize) {
        self.known.insert(id);
        self.in_flight.push_back(Some(InFlight { id: Some(id), bytes }));
        self.bytes += bytes;
    }

    /// An entry needs an acknowledgement only.
    pub(super) fn settled_otherwise(&mut self, id: EntryId) {
        if self.known.insert(id) {
            self.durable.push(id);
        }
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
                match entry.id {
                    None => self.left -= 1,
                    Some(id) if of.durable => self.durable.push(id),
                    Some(id) => {
                        self.known.remove(&id);
                        refused += 1;
                    }
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
        let mut ledger = Ledger::default();
        (1..=4).for_each(|n| ledger.delivered(id(n), 10));
        assert!(!ledger.is_new(id(1)) && ledger.is_new(id(5)));
        assert_eq!(ledger.settle(&[settled(2, 2, false), settled(0, 0, true)]), 1);
        assert!(ledger.is_new(id(3)), "refused");
        assert_eq!((ledger.entries(), ledger.bytes()), (3, 20));
        let first = ledger.take_durable(10);
        assert_eq!(first, [id(1)]);
        assert!(!ledger.is_new(id(1)), "not acknowledged yet");
        ledger.not_acknowledged();
        assert_eq!(ledger.settle(&[settled(1, 3, true), settled(9, 9, true)]), 0);
        ledger.delivered(id(3), 10);
        assert_eq!(ledger.settle(&[settled(4, 4, true)]), 0);
        let all = ledger.take_durable(10);
        assert_eq!(all, [id(1), id(2), id(4), id(3)]);
        assert_eq!(ledger.acknowledged(), 4);
        assert!((1..=4).all(|n| ledger.is_new(id(n))));
        assert_eq!((ledger.entries(), ledger.bytes(), ledger.is_awaiting()), (0, 0, false));
    }

    #[test]
    fn a_session_acknowledges_what_it_has_delivered_itself() {
        let mut ledger = Ledger::default();
        (1..=3).for_each(|n| ledger.delivered(id(n), 10));
        ledger.settle(&[settled(0, 0, true)]);
        ledger.begin_session();
        assert!((1..=3).all(|n| ledger.is_new(id(n))), "they may be other entries with these ids");
        assert_eq!((ledger.durable(), ledger.entries(), ledger.bytes()), (0, 2, 20), "two are on their way");
        ledger.delivered(id(2), 10);
        assert_eq!((ledger.entries(), ledger.bytes()), (3, 30));
        assert_eq!(ledger.settle(&[settled(1, 2, true)]), 0);
        assert!(ledger.durable() == 0 && !ledger.is_new(id(2)), "the entry of this session is not on disk");
        ledger.settle(&[settled(3, 3, true)]);
        assert_eq!(ledger.take_durable(10), [id(2)]);
        assert_eq!((ledger.acknowledged(), ledger.entries(), ledger.bytes()), (1, 0, 0));
    }
}
