//! Which numbers of a producer's `seq` a table lacks.

use std::collections::BTreeMap;

use super::{Fold, Samples};
use crate::units::Micros;

/// Stretches kept; a run with more holes is told that some are left out.
const STRETCHES_MAX: usize = 20_000;

/// Numbers that are not there, between two that are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The first that is missing.
    pub from: i64,
    /// The last.
    pub to: i64,
    /// When the number before was.
    pub after: Micros,
    /// When the number behind was.
    pub before: Micros,
}

#[derive(Clone, Copy, Debug)]
struct Stretch {
    last: i64,
    first_at: Micros,
    last_at: Micros,
}

/// Gathers the numbers that are there, in any order.
#[derive(Debug, Default)]
pub struct Missing {
    /// Stretches without a hole, by their first number.
    stretches: BTreeMap<i64, Stretch>,
    /// Whether there were too many.
    pub truncated: bool,
}

impl Missing {
    fn see(&mut self, seq: i64, at: Micros) {
        let below = self.stretches.range(..=seq).next_back().map(|(first, stretch)| (*first, *stretch));
        if below.is_some_and(|(_, stretch)| stretch.last >= seq) {
            return;
        }
        let above = seq.checked_add(1).and_then(|next| self.stretches.remove(&next));
        let (last, last_at) = above.map_or((seq, at), |stretch| (stretch.last, stretch.last_at));
        match below.filter(|(_, stretch)| stretch.last + 1 == seq) {
            Some((first, stretch)) => {
                self.stretches.insert(first, Stretch { last, last_at, ..stretch });
            }
            None if self.stretches.len() >= STRETCHES_MAX => self.truncated = true,
            None => _ = self.stretches.insert(seq, Stretch { last, first_at: at, last_at }),
        }
    }

    /// The holes, in order.
    pub fn holes(&self) -> impl Iterator<Item = Hole> {
        let pairs = self.stretches.values().zip(self.stretches.iter().skip(1));
        pairs.map(|(one, (next, other))| Hole {
            from: one.last + 1,
            to: next - 1,
            after: one.last_at,
            before: other.first_at,
        })
    }

    /// The first and the last number that is there.
    pub fn bounds(&self) -> Option<(i64, i64)> {
        let (first, _) = self.stretches.first_key_value()?;
        Some((*first, self.stretches.last_key_value()?.1.last))
    }
}

impl Fold for Missing {
    fn add(&mut self, page: &Samples) {
        for sample in &page.rows {
            if let Some(seq) = sample.seq {
                self.see(seq, sample.timestamp);
            }
        }
    }
}
