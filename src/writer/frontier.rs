//! Which records are wholly stored: the frontier is the first offset of which a part is still missing.
//!
//! Pure. Records are numbered by tickets without holes, so that a ticket finds its entry by subtraction, whatever holes the
//! offsets have; every operation is O(1), amortised.

use std::collections::VecDeque;

use crate::units::Micros;

/// Names a record between [`Frontier::take`] and the moment it is stored.
pub type Ticket = u64;

/// Records taken and not yet passed.
#[derive(Debug)]
pub struct Frontier {
    entries: VecDeque<Entry>,
    /// The ticket of the first entry.
    first: Ticket,
    /// The offset after the newest record taken.
    next: u64,
}

#[derive(Debug)]
struct Entry {
    offset: u64,
    received_at: Micros,
    missing: u32,
}

impl Frontier {
    /// Nothing taken; the next record is expected at `offset`.
    pub fn new(offset: u64) -> Self {
        Self { entries: VecDeque::new(), first: 0, next: offset }
    }

    /// A record of `parts` parts, after all records taken before.
    pub fn take(&mut self, offset: u64, received_at: Micros, parts: u32) -> Ticket {
        debug_assert!(offset >= self.next, "records come in order");
        self.next = offset + 1;
        self.entries.push_back(Entry { offset, received_at, missing: parts });
        self.first + self.entries.len() as u64 - 1
    }

    /// One part of a record is stored.
    pub fn release(&mut self, ticket: Ticket) {
        let entry = self.entry(ticket);
        debug_assert!(entry.missing > 0, "released more often than taken");
        entry.missing = entry.missing.saturating_sub(1);
    }

    /// Passes every record at the front that is wholly stored, and says where the frontier is.
    pub fn advance(&mut self) -> u64 {
        while self.entries.front().is_some_and(|entry| entry.missing == 0) {
            self.entries.pop_front();
            self.first += 1;
        }
        self.entries.front().map_or(self.next, |entry| entry.offset)
    }

    /// The record of a ticket: its offset and when it was received.
    pub fn origin(&mut self, ticket: Ticket) -> (u64, Micros) {
        let entry = self.entry(ticket);
        (entry.offset, entry.received_at)
    }

    /// When the oldest record that is not stored was received.
    pub fn oldest(&self) -> Option<Micros> {
        self.entries.front().map(|entry| entry.received_at)
    }

    /// The offset after the newest record taken.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Records taken and not yet passed.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn entry(&mut self, ticket: Ticket) -> &mut Entry {
        let index = ticket.checked_sub(self.first).expect("a record is passed only when no part is missing");
        &mut self.entries[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_contiguous_prefix_is_passed() {
        let mut frontier = Frontier::new(10);
        assert_eq!(frontier.advance(), 10);
        let a = frontier.take(10, 1, 2);
        let b = frontier.take(11, 2, 1);
        let c = frontier.take(20, 3, 0);
        frontier.release(b);
        assert_eq!(frontier.advance(), 10, "a is missing two parts");
        frontier.release(a);
        assert_eq!(frontier.advance(), 10, "a is missing one part");
        assert_eq!((frontier.oldest(), frontier.origin(c)), (Some(1), (20, 3)));
        frontier.release(a);
        assert_eq!((frontier.advance(), frontier.len(), frontier.oldest()), (21, 0, None), "holes are passed");
        let d = frontier.take(21, 4, 1);
        assert_eq!(frontier.advance(), 21);
        frontier.release(d);
        assert_eq!(frontier.advance(), 22);
    }

    proptest::proptest! {
        /// Against the definition: the smallest offset with a missing part.
        #[test]
        fn any_order_of_release_matches_the_definition(
            parts in proptest::collection::vec(0u32..4, 1..40),
            order in proptest::collection::vec(0usize..1_000, 200),
        ) {
            let mut frontier = Frontier::new(0);
            let mut open: Vec<(u64, Ticket)> = Vec::new();
            for (index, &n) in parts.iter().enumerate() {
                let offset = index as u64 * 3;
                let ticket = frontier.take(offset, 0, n);
                open.extend((0..n).map(|_| (offset, ticket)));
            }
            for pick in order {
                let expected = open.iter().map(|(offset, _)| *offset).min().unwrap_or(frontier.next());
                proptest::prop_assert_eq!(frontier.advance(), expected);
                if open.is_empty() {
                    break;
                }
                let (_, ticket) = open.swap_remove(pick % open.len());
                frontier.release(ticket);
            }
        }
    }
}
