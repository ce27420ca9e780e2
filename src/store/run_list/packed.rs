//! Places of many runs in little memory, to sort them.

use std::cmp::Ordering;

use uuid::Uuid;

use super::{RunsSort, SortKey, SortPosition, sort::OrderRank};
use crate::units::Micros;

/// Places of runs, each with a number that names its run.
#[derive(Debug, Default)]
pub(in crate::store) struct PackedPositions {
    entries: Vec<Entry>,
    /// The texts of all keys.
    texts: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    rank: OrderRank,
    /// The bits of a number; of a text, its place in `texts`: its begin above, its length in the lowest 16 bits.
    value: u64,
    start: Micros,
    run_id: Uuid,
    row: i64,
}

impl PackedPositions {
    /// Adds a place.
    pub fn push(&mut self, position: &SortPosition, row: i64) {
        let value = match &position.key {
            SortKey::Number(number) => number.to_bits(),
            SortKey::Text(text) => {
                let begin = self.texts.len() as u64;
                self.texts.extend_from_slice(text.as_bytes());
                begin << 16 | text.len() as u64
            }
            SortKey::Nan | SortKey::Absent => 0,
        };
        let SortPosition { key, start, run_id } = position;
        self.entries.push(Entry { rank: key.rank(), value, start: *start, run_id: *run_id, row });
    }

    /// Size in memory.
    pub fn bytes(&self) -> usize {
        self.entries.len() * size_of::<Entry>() + self.texts.len()
    }

    /// The numbers of the runs, in the order of [`RunsSort`].
    pub fn sorted(&mut self, descending: bool) -> Vec<i64> {
        let texts = &self.texts;
        self.entries.sort_unstable_by(|a, b| {
            let values = match (a.rank, b.rank) {
                (OrderRank::Number, OrderRank::Number) => f64::from_bits(a.value).total_cmp(&f64::from_bits(b.value)),
                (OrderRank::Text, OrderRank::Text) => text(texts, a.value).cmp(text(texts, b.value)),
                _ => Ordering::Equal,
            };
            let keys = RunsSort::order(a.rank.cmp(&b.rank), values, descending);
            keys.then_with(|| b.start.cmp(&a.start)).then_with(|| a.run_id.cmp(&b.run_id))
        });
        self.entries.iter().map(|entry| entry.row).collect()
    }
}

fn text(texts: &[u8], place: u64) -> &[u8] {
    let (begin, length) = ((place >> 16) as usize, (place & 0xffff) as usize);
    &texts[begin..begin + length]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::run_list::SortBy;

    fn key() -> impl Strategy<Value = SortKey> {
        prop_oneof![
            prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(0.0), -2.0..2.0].prop_map(SortKey::Number),
            "[aé日]{0,2}".prop_map(SortKey::Text),
            Just(SortKey::Nan),
            Just(SortKey::Absent),
        ]
    }

    proptest! {
        #[test]
        fn packed_places_have_the_order_of_lists(keys in prop::collection::vec((key(), 0_i64..3), 0..40), descending: bool) {
            let sort = RunsSort { by: SortBy::Column("status"), descending };
            let position = |(n, (key, start)): (usize, &(SortKey, i64))| {
                SortPosition { key: key.clone(), start: *start, run_id: Uuid::from_u128((n as u128 * 7919) % 41) }
            };
            let positions: Vec<_> = keys.iter().enumerate().map(position).collect();
            let mut packed = PackedPositions::default();
            positions.iter().zip(0..).for_each(|(position, row)| packed.push(position, row));
            let mut expected: Vec<_> = (0..positions.len()).collect();
            expected.sort_by(|a, b| sort.compare(&positions[*a], &positions[*b]));
            let sorted = packed.sorted(descending);
            prop_assert_eq!(sorted, expected.into_iter().map(|n| n as i64).collect::<Vec<_>>());
        }
    }
}
