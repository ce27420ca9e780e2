//! What the spool had no room for: messages, counted by channel, and the gaps that tell of them.
//!
//! Pure. A gap for which there is no room waits here. Gaps of one kind are merged while they wait, so that memory stays bounded
//! and no count is lost.

use std::{collections::BTreeMap, mem, sync::Arc};

use crate::{
    frame::{Gap, GapReason},
    units::Micros,
};

/// How long the refused messages of one channel are gathered into one gap.
const WINDOW: Micros = 1_000_000;
/// Channels that are counted apart; more are counted together.
const CHANNELS_MAX: usize = 1_024;
/// Gaps that wait apart; more are merged by their reason alone.
const WAITING_MAX: usize = 1_024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Losses {
    refused: BTreeMap<Arc<str>, Refused>,
    waiting: Vec<Gap>,
}

#[derive(Clone, Copy, Debug)]
struct Refused {
    from: Micros,
    to: Micros,
    count: u64,
}

impl Losses {
    /// A message was refused. Returns whether it is the first of its channel's window.
    pub(super) fn count(&mut self, channel: &str, at: Micros) -> bool {
        let room = self.refused.len() < CHANNELS_MAX || self.refused.contains_key(channel);
        let channel = if room { channel } else { "" };
        if let Some(refused) = self.refused.get_mut(channel) {
            (refused.from, refused.to) = (refused.from.min(at), refused.to.max(at));
            refused.count += 1;
            return false;
        }
        self.refused.insert(channel.into(), Refused { from: at, to: at, count: 1 });
        true
    }

    /// The gaps whose window is over; all of them when `force`.
    pub(super) fn due(&mut self, now: Micros, force: bool) -> Vec<Gap> {
        let mut due = Vec::new();
        self.refused.retain(|channel, refused| {
            if !force && (0..WINDOW).contains(&(now - refused.from)) {
                return true;
            }
            due.push(Gap {
                started_at: refused.from,
                ended_at: refused.to,
                reason: GapReason::SpoolFull,
                source: "spool".into(),
                channel: (!channel.is_empty()).then(|| channel.to_string()),
                run_id: None,
                lost: Some(refused.count),
            });
            false
        });
        due
    }

    /// There was no room for this gap.
    pub(super) fn hold(&mut self, gap: Gap) {
        let full = self.waiting.len() >= WAITING_MAX;
        let like = |other: &&mut Gap| {
            let same = (&other.source, &other.channel, other.run_id) == (&gap.source, &gap.channel, gap.run_id);
            other.reason == gap.reason && (same || full)
        };
        let Some(other) = self.waiting.iter_mut().find(like) else { return self.waiting.push(gap) };
        if other.channel != gap.channel {
            other.channel = None;
        }
        if other.run_id != gap.run_id {
            other.run_id = None;
        }
        other.started_at = other.started_at.min(gap.started_at);
        other.ended_at = other.ended_at.max(gap.ended_at);
        other.lost = other.lost.zip(gap.lost).map(|(one, more)| one + more);
    }

    /// Takes what waits, to try again.
    pub(super) fn take_waiting(&mut self) -> Vec<Gap> {
        mem::take(&mut self.waiting)
    }

    /// Whether a gap waits for room.
    pub(super) fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(channel: &str, at: Micros, lost: Option<u64>) -> Gap {
        Gap {
            started_at: at,
            ended_at: at + 10,
            reason: GapReason::SpoolFull,
            source: "spool".into(),
            channel: Some(channel.into()),
            run_id: None,
            lost,
        }
    }

    #[test]
    fn a_window_is_one_gap_per_channel() {
        let mut losses = Losses::default();
        assert!(losses.count("a", 100) && !losses.count("a", 200) && losses.count("b", 150));
        assert!(losses.due(200, false).is_empty());
        let due = losses.due(WINDOW + 120, false);
        assert_eq!(due.len(), 1, "b is not due");
        assert_eq!((due[0].lost, due[0].started_at, due[0].ended_at), (Some(2), 100, 200));
        assert_eq!(losses.due(0, true).len(), 1);
        assert!(losses.due(0, true).is_empty());
    }

    #[test]
    fn gaps_that_wait_are_merged_and_no_count_is_lost() {
        let mut losses = Losses::default();
        losses.hold(gap("a", 100, Some(2)));
        losses.hold(gap("b", 50, Some(1)));
        losses.hold(gap("a", 300, Some(5)));
        let waiting = losses.take_waiting();
        assert_eq!(waiting.len(), 2);
        assert_eq!((waiting[0].lost, waiting[0].started_at, waiting[0].ended_at), (Some(7), 100, 310));
        assert!(!losses.are_waiting());
        losses.hold(gap("a", 1, Some(1)));
        losses.hold(gap("a", 2, None));
        assert_eq!(losses.take_waiting()[0].lost, None, "an unknown number stays unknown");
    }

    #[test]
    fn any_number_of_channels_takes_bounded_memory() {
        let mut losses = Losses::default();
        for n in 0..10_000u32 {
            losses.count(&format!("c{n}"), 1);
            losses.hold(gap(&format!("c{n}"), i64::from(n), Some(1)));
        }
        assert!(losses.refused.len() <= CHANNELS_MAX + 1 && losses.waiting.len() <= WAITING_MAX + 1);
        let refused: u64 = losses.due(0, true).iter().filter_map(|gap| gap.lost).sum();
        let waiting: u64 = losses.take_waiting().iter().filter_map(|gap| gap.lost).sum();
        assert_eq!((refused, waiting), (10_000, 10_000));
    }
}
