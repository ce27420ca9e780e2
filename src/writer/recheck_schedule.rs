//! When the stored row of an updated run is read again, for a store that does not report changes by other processes.
//!
//! Pure. Each run at most once per [`CHECK_INTERVAL`]; all together at most about 200 reads a second, whatever the number of runs.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use tokio::time::Instant;
use uuid::Uuid;

/// Between two looks at one run: with the look and the write after it, a row that vanished is back within 5 s.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(4_500);
/// What one read takes of the common allowance: with a full [`READ_BURST`], 200 of them within any second.
const READ_COST: Duration = Duration::from_micros(5_600);
/// How much allowance may be saved up.
const READ_BURST: Duration = Duration::from_millis(100);

/// Runs that are to be looked at.
#[derive(Debug, Default)]
pub struct Checks {
    due: BinaryHeap<Reverse<(Instant, Uuid)>>,
    /// Nothing is looked at before: the allowance is used up.
    free_at: Option<Instant>,
}

impl Checks {
    /// The run is to be looked at, then.
    pub fn add(&mut self, at: Instant, run_id: Uuid) {
        self.due.push(Reverse((at, run_id)));
    }

    /// When the next look is due.
    pub fn due_at(&self) -> Option<Instant> {
        let Reverse((at, _)) = self.due.peek()?;
        Some(self.free_at.map_or(*at, |free_at| free_at.max(*at)))
    }

    /// The next run that is due.
    pub fn next(&mut self, now: Instant) -> Option<Uuid> {
        self.due_at().filter(|at| *at <= now)?;
        self.due.pop().map(|Reverse((_, run_id))| run_id)
    }

    /// A look that takes so many reads begins.
    pub fn charge(&mut self, reads: u32, now: Instant) {
        let saved = now.checked_sub(READ_BURST).unwrap_or(now);
        self.free_at = Some(self.free_at.map_or(saved, |free_at| free_at.max(saved)) + READ_COST * reads);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_two_hundred_reads_at_most() {
        let (mut checks, start) = (Checks::default(), Instant::now());
        (0..10_000).for_each(|n| checks.add(start, Uuid::from_u128(n)));
        let mut now = start + Duration::from_secs(60);
        let mut reads = Vec::new();
        while reads.len() < 1_000 {
            while checks.next(now).is_some() {
                checks.charge(2, now);
                reads.extend([now; 2]);
            }
            now += Duration::from_millis(1);
        }
        let most = reads
            .iter()
            .map(|from| reads.iter().filter(|at| (*from..*from + Duration::from_secs(1)).contains(at)).count());
        let most = most.max().unwrap();
        assert!((150..=200).contains(&most), "{most}");
        assert_eq!(Checks::default().next(now), None);
    }
}
