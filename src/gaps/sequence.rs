//! Gaps in the producers' `seq`, which is contiguous per start of a run: a jump is a gap of known size.
//!
//! Gaps are coalesced: one per run and [`GAP_WINDOW`] while losses go on. A message that was only late is no longer lost; one that
//! is sent again changes nothing.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    gap::{Gap, GapReason},
    missing::MissingRanges,
};
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
    /// Event time of the last start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started: Option<Micros>,
    /// The run was started, and no `seq` of that start was seen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    begins: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OpenSeqGap {
    started_at: Micros,
    ended_at: Micros,
    /// Lowest `seq` that was missing when the gap opened: earlier versions want it in the file.
    first: i64,
    lost: u64,
    channel: String,
    /// Absent in files of earlier versions: then what is lost stays lost.
    #[serde(default, skip_serializing_if = "MissingRanges::is_empty")]
    missing: MissingRanges,
}

impl SeqTracker {
    /// A start of `run` was received, with this event time: its `seq` begins anew with the next one that is seen, which is that of
    /// the start if it has one. The same start once more changes nothing.
    pub fn start(&mut self, run: Uuid, event_time: Micros, received_at: Micros) {
        if !self.runs.contains_key(&run) {
            self.evict_runs();
        }
        let new = Track { last: 0, last_at: received_at, gap: None, started: None, begins: true };
        let track = self.runs.entry(run).or_insert(new);
        if track.started.is_some_and(|started| event_time <= started) {
            return;
        }
        (track.started, track.begins, track.last_at) = (Some(event_time), true, received_at);
        if let Some(gap) = &mut track.gap {
            // Which start a late message belongs to is not known: what was lost before stays lost.
            gap.first = i64::MAX;
            gap.missing.clear();
        }
    }

    /// A message of `run` with this `seq` was received.
    pub fn observe(&mut self, run: Uuid, seq: i64, channel: &str, received_at: Micros) {
        let Some(track) = self.runs.get_mut(&run) else {
            self.evict_runs();
            // Following begins at the first `seq` seen: whether a producer counts from 0 or 1 is not known.
            let track = Track { last: seq, last_at: received_at, gap: None, started: None, begins: false };
            self.runs.insert(run, track);
            return;
        };
        if std::mem::take(&mut track.begins) {
            track.last = seq;
        } else if seq > track.last {
            let missing = seq.abs_diff(track.last) - 1;
            if missing > 0 {
                let gap = track.gap.get_or_insert_with(|| OpenSeqGap {
                    started_at: track.last_at,
                    ended_at: received_at,
                    first: track.last + 1,
                    lost: 0,
                    channel: channel.to_owned(),
                    missing: MissingRanges::default(),
                });
                gap.lost = gap.lost.saturating_add(missing);
                gap.missing.push(track.last + 1, seq - 1);
                gap.ended_at = received_at;
            }
            track.last = seq;
        } else if let Some(gap) = &mut track.gap
            && gap.missing.remove(seq)
        {
            gap.lost = gap.lost.saturating_sub(1); // it was only late
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
mod tests;
