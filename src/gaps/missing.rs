//! The numbers that are missing in an open gap, as ranges: a late message is told from one that is sent again.

use serde::{Deserialize, Serialize};

/// Ranges of one gap. What is missing beyond them stays lost, also when it comes late: a count is never too low.
const RANGES_MAX: usize = 1_024;

/// Missing numbers, ascending.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MissingRanges(Vec<Range>);

/// Both ends are missing.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Range {
    first: i64,
    last: i64,
}

impl MissingRanges {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds numbers that are higher than all so far.
    pub fn push(&mut self, first: i64, last: i64) {
        if self.0.len() < RANGES_MAX {
            self.0.push(Range { first, last });
        }
    }

    /// Removes a number; `false`: it is not known to be missing.
    pub fn remove(&mut self, number: i64) -> bool {
        let at = self.0.partition_point(|range| range.last < number);
        let has_room = self.0.len() < RANGES_MAX;
        let Some(range) = self.0.get_mut(at).filter(|range| range.first <= number) else { return false };
        match (range.first == number, range.last == number) {
            (true, true) => {
                self.0.remove(at);
            }
            (false, true) => range.last -= 1,
            (false, false) if has_room => {
                let before = Range { first: range.first, last: number - 1 };
                range.first = number + 1;
                self.0.insert(at, before);
            }
            // Without room for a range more, the lower numbers stay lost: late messages mostly come in order.
            (true, false) | (false, false) => range.first = number + 1,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_numbers_stay_lost() {
        let mut missing = MissingRanges::default();
        let limit = i64::try_from(RANGES_MAX).unwrap();
        for n in 0..limit - 1 {
            missing.push(10 * n, 10 * n);
        }
        missing.push(10 * limit, 10 * limit + 8);
        missing.push(11 * limit, 11 * limit);
        assert_eq!(missing.0.len(), RANGES_MAX);
        assert!(!missing.remove(11 * limit), "the last did not fit");
        assert!(missing.remove(10 * limit + 4) && !missing.remove(10 * limit + 4));
        assert!(
            !missing.remove(10 * limit) && missing.remove(10 * limit + 5),
            "only the upper part of a split was kept"
        );
        assert!(missing.remove(0) && missing.remove(10 * limit + 7));
        assert!(missing.remove(10 * limit + 6) && missing.remove(10 * limit + 8), "with room both parts are kept");
    }
}
