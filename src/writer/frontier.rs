//! The frontier: the first offset of which a part is not confirmed by the store yet.
//!
//! Pure. Records are numbered by tokens without gaps, so that a token finds its entry by subtraction, whatever holes the
//! offsets have; every operation is O(1), amortised.

use std::collections::VecDeque;

use crate::units::Micros;

/// Names a record between [`Frontier::register`] and the moment it is stored.
pub type RecordToken = u64;

/// The records taken that the frontier has not passed.
#[derive(Debug)]
pub struct Frontier {
    entries: VecDeque<Entry>,
    /// The token of the first entry.
    first_token: RecordToken,
    /// The offset after the newest record taken.
    pub next_offset: u64,
}

#[derive(Debug)]
struct Entry {
    offset: u64,
    received_at: Micros,
    pending_parts: u32,
}

impl Frontier {
    /// Nothing taken; the next record is expected at `offset`.
    pub fn new(offset: u64) -> Self {
        Self { entries: VecDeque::new(), first_token: 0, next_offset: offset }
    }

    /// A record of `parts` parts, after all records taken before.
    pub fn register(&mut self, offset: u64, received_at: Micros, parts: u32) -> RecordToken {
        debug_assert!(offset >= self.next_offset, "records come in order");
        self.next_offset = offset + 1;
        self.entries.push_back(Entry { offset, received_at, pending_parts: parts });
        self.first_token + self.entries.len() as u64 - 1
    }

    /// One part of a record is stored.
    pub fn confirm_part(&mut self, token: RecordToken) {
        let entry = self.entry(token);
        debug_assert!(entry.pending_parts > 0, "released more often than taken");
        entry.pending_parts = entry.pending_parts.saturating_sub(1);
    }

    /// Passes every record at the front that is wholly stored, and returns the frontier.
    pub fn advance(&mut self) -> u64 {
        while self.entries.front().is_some_and(|entry| entry.pending_parts == 0) {
            self.entries.pop_front();
            self.first_token += 1;
        }
        self.entries.front().map_or(self.next_offset, |entry| entry.offset)
    }

    /// The record of a token: its offset and when it was received.
    pub fn record(&mut self, token: RecordToken) -> (u64, Micros) {
        let entry = self.entry(token);
        (entry.offset, entry.received_at)
    }

    /// When the oldest record that is not stored was received.
    pub fn oldest_received_at(&self) -> Option<Micros> {
        self.entries.front().map(|entry| entry.received_at)
    }

    /// Records taken and not yet passed.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn entry(&mut self, token: RecordToken) -> &mut Entry {
        let index = token.checked_sub(self.first_token).expect("a record is passed only when no part is missing");
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
        let a = frontier.register(10, 1, 2);
        let b = frontier.register(11, 2, 1);
        let c = frontier.register(20, 3, 0);
        frontier.confirm_part(b);
        assert_eq!(frontier.advance(), 10, "a is missing two parts");
        frontier.confirm_part(a);
        assert_eq!(frontier.advance(), 10, "a is missing one part");
        assert_eq!((frontier.oldest_received_at(), frontier.record(c)), (Some(1), (20, 3)));
        frontier.confirm_part(a);
        assert_eq!(
            (frontier.advance(), frontier.len(), frontier.oldest_received_at()),
            (21, 0, None),
            "holes are passed"
        );
        let d = frontier.register(21, 4, 1);
        assert_eq!(frontier.advance(), 21);
        frontier.confirm_part(d);
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
            let mut open: Vec<(u64, RecordToken)> = Vec::new();
            for (index, &n) in parts.iter().enumerate() {
                let offset = index as u64 * 3;
                let token = frontier.register(offset, 0, n);
                open.extend((0..n).map(|_| (offset, token)));
            }
            for pick in order {
                let expected = open.iter().map(|(offset, _)| *offset).min().unwrap_or(frontier.next_offset);
                proptest::prop_assert_eq!(frontier.advance(), expected);
                if open.is_empty() {
                    break;
                }
                let (_, token) = open.swap_remove(pick % open.len());
                frontier.confirm_part(token);
            }
        }
    }
}
