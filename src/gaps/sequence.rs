//! Gaps in the producers' `seq`, which is contiguous per run: a jump is a gap of known size.
//!
//! Gaps are coalesced: one per run and [`GAP_WINDOW`] while losses go on. A message that was only late closes its gap again.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::gap::{Gap, GapReason};
use crate::units::Micros;

/// How long the gaps of one run are gathered into one gap.
const GAP_WINDOW: Micros = 1_000_000;

/// Runs whose `seq` is followed at once; the one silent for longest is evicted first.
const RUNS_MAX: usize = 4_096;

/// Follows `seq` per run. Pure: the caller brings the time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SeqTracker {
    runs: HashMap<Uuid, Track>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Track {
    /// Highest `seq` seen.
    last: i64,
    /// When the last message of the run was received.
    last_at: Micros,
    #[serde(rename = "hole")]
    gap: Option<OpenSeqGap>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OpenSeqGap {
    started_at: Micros,
    ended_at: Micros,
    /// Lowest `seq` that was missing when the gap opened.
    first: i64,
    lost: u64,
    channel: String,
}

impl SeqTracker {
    /// A message of `run` with this `seq` was received.
    pub fn observe(&mut self, run: Uuid, seq: i64, channel: &str, received_at: Micros) {
        let Some(track) = self.runs.get_mut(&run) else {
            self.evict_runs();
            // Following begins at the first `seq` seen: whether a producer counts from 0 or 1 is not known.
            self.runs.insert(run, Track { last: seq, last_at: received_at, gap: None });
            return;
        };
        if seq > track.last {
            let missing = seq.abs_diff(track.last) - 1;
            if missing > 0 {
                let gap = track.gap.get_or_insert_with(|| OpenSeqGap {
                    started_at: track.last_at,
                    ended_at: received_at,
                    first: track.last + 1,
                    lost: 0,
                    channel: channel.to_owned(),
                });
                gap.lost += missing;
                gap.ended_at = received_at;
            }
            track.last = seq;
        } else if let Some(gap) = track.gap.as_mut().filter(|gap| seq >= gap.first && seq < track.last) {
            gap.lost -= u64::from(gap.lost > 0); // it was only late
        }
        track.last_at = received_at;
    }

    /// Closes the gap of this run, because the log says that it was reported. So a replay of the log reports none twice.
    pub fn mark_reported(&mut self, run: Uuid) {
        if let Some(track) = self.runs.get_mut(&run) {
            track.gap = None;
        }
    }

    /// The gaps whose window is over; all of them when `force`.
    pub fn drain(&mut self, now: Micros, force: bool) -> Vec<Gap> {
        let over = |gap: &mut OpenSeqGap| force || !(0..GAP_WINDOW).contains(&(now - gap.started_at));
        self.runs
            .iter_mut()
            .filter_map(|(run, track)| Some((*run, track.gap.take_if(over)?)))
            .filter(|(_, gap)| gap.lost > 0)
            .map(|(run, gap)| Gap {
                channel: Some(gap.channel),
                run_id: Some(run),
                lost: Some(gap.lost),
                ..Gap::new(GapReason::Sequence, &format!("seq:{run}"), gap.started_at, gap.ended_at)
            })
            .collect()
    }

    fn evict_runs(&mut self) {
        if self.runs.len() < RUNS_MAX {
            return;
        }
        // Evicts a quarter at once, so that the scan stays rare when there are more runs than room.
        let mut ages: Vec<_> =
            self.runs.values().filter(|track| track.gap.is_none()).map(|track| track.last_at).collect();
        ages.sort_unstable();
        if let Some(limit) = ages.get(ages.len() / 4).copied() {
            self.runs.retain(|_, track| track.gap.is_some() || track.last_at > limit);
        }
        if self.runs.len() >= RUNS_MAX {
            self.runs.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Uuid = Uuid::from_u128(1);

    fn lost(tracker: &mut SeqTracker, now: Micros, force: bool) -> Vec<u64> {
        tracker.drain(now, force).iter().map(|gap| gap.lost.unwrap()).collect()
    }

    #[test]
    fn a_jump_is_a_gap_of_exactly_that_size() {
        let mut tracker = SeqTracker::default();
        for (at, seq) in [(0, 5), (10, 6), (20, 10), (30, 11), (40, 21)] {
            tracker.observe(RUN, seq, "c", at);
        }
        let gaps = tracker.drain(GAP_WINDOW + 10, false);
        assert_eq!(gaps.len(), 1, "one gap a window");
        let gap = &gaps[0];
        assert_eq!((gap.lost, gap.started_at, gap.ended_at, gap.run_id), (Some(12), 10, 40, Some(RUN)));
        assert!(lost(&mut tracker, 9 * GAP_WINDOW, true).is_empty(), "reported once");
    }

    #[test]
    fn a_late_message_is_not_lost() {
        let mut tracker = SeqTracker::default();
        for (at, seq) in [(0, 1), (1, 3), (2, 2), (3, 3), (4, 4)] {
            tracker.observe(RUN, seq, "c", at);
        }
        assert!(lost(&mut tracker, 5, true).is_empty());
    }

    #[test]
    fn gaps_are_gathered_until_their_window_is_over() {
        let mut tracker = SeqTracker::default();
        tracker.observe(RUN, 1, "c", 0);
        tracker.observe(RUN, 3, "c", 100);
        assert!(lost(&mut tracker, 200, false).is_empty());
        assert_eq!(lost(&mut tracker, GAP_WINDOW, false), [1]);
        tracker.observe(RUN, 1, "c", 300);
        assert!(lost(&mut tracker, 0, true).is_empty(), "an old message is no hole");
    }

    #[test]
    fn a_replay_reports_no_gap_twice_and_merges_none() {
        let mut tracker = SeqTracker::default();
        let mut replayed = SeqTracker::default();
        let (mut reported, mut remaining) = (Vec::new(), Vec::new());
        for (at, seq) in [(0, 1), (100, 4), (2 * GAP_WINDOW, 9), (4 * GAP_WINDOW, 12)] {
            tracker.observe(RUN, seq, "c", at);
            replayed.observe(RUN, seq, "c", at);
            let gaps = tracker.drain(at, false);
            gaps.iter().for_each(|_| replayed.mark_reported(RUN));
            reported.extend(gaps);
        }
        remaining.extend(replayed.drain(9 * GAP_WINDOW, true));
        assert!(!reported.is_empty());
        assert_eq!(remaining, tracker.drain(9 * GAP_WINDOW, true), "only what was not told is left");
        let all: u64 = reported.iter().chain(&remaining).filter_map(|gap| gap.lost).sum();
        assert_eq!(all, 2 + 4 + 2);
    }

    #[test]
    fn a_million_runs_take_bounded_memory() {
        let mut tracker = SeqTracker::default();
        for n in 0..1_000_000u128 {
            tracker.observe(Uuid::from_u128(n), 1, "c", n as Micros);
        }
        assert!(tracker.runs.len() <= RUNS_MAX);
    }
}
