//! Messages for which the spool had no room, counted by channel, and the gaps that record them. Pure.
//!
//! A gap for which there is no room waits here. Waiting gaps of one kind are merged, so that memory stays bounded and no count is
//! lost.

use std::{collections::BTreeMap, mem, sync::Arc};

use crate::{
    gaps::{Gap, GapReason},
    units::Micros,
};

/// How long the dropped messages of one channel are gathered into one gap.
const DROP_WINDOW: Micros = 1_000_000;
/// Channels with a count of their own; the drops of more are counted together.
const CHANNELS_MAX: usize = 1_024;
/// Waiting gaps; beyond this they are merged by reason alone.
const DEFERRED_MAX: usize = 1_024;

/// Counts drops, and keeps the gaps that wait.
#[derive(Debug, Default)]
pub(super) struct DropCounter {
    dropped: BTreeMap<Arc<str>, Dropped>,
    deferred: Vec<Gap>,
}

#[derive(Clone, Copy, Debug)]
struct Dropped {
    from: Micros,
    to: Micros,
    count: u64,
}

impl DropCounter {
    /// A message was dropped. Returns whether it is the first of its channel's window.
    pub(super) fn count(&mut self, channel: &str, at: Micros) -> bool {
        let room = self.dropped.len() < CHANNELS_MAX || self.dropped.contains_key(channel);
        let channel = if room { channel } else { "" };
        if let Some(dropped) = self.dropped.get_mut(channel) {
            (dropped.from, dropped.to) = (dropped.from.min(at), dropped.to.max(at));
            dropped.count += 1;
            return false;
        }
        self.dropped.insert(channel.into(), Dropped { from: at, to: at, count: 1 });
        true
    }

    /// The gaps whose window is over; all of them when `force`.
    pub(super) fn due(&mut self, now: Micros, force: bool) -> Vec<Gap> {
        let mut due = Vec::new();
        self.dropped.retain(|channel, dropped| {
            if !force && (0..DROP_WINDOW).contains(&(now - dropped.from)) {
                return true;
            }
            due.push(Gap {
                channel: (!channel.is_empty()).then(|| channel.to_string()),
                lost: Some(dropped.count),
                ..Gap::new(GapReason::SpoolFull, "spool", dropped.from, dropped.to)
            });
            false
        });
        due
    }

    /// Keeps a gap for which there was no room.
    pub(super) fn defer(&mut self, gap: Gap) {
        let full = self.deferred.len() >= DEFERRED_MAX;
        let like = |other: &&mut Gap| {
            let same = (&other.source, &other.channel, other.run_id) == (&gap.source, &gap.channel, gap.run_id);
            other.reason == gap.reason && (same || full)
        };
        match self.deferred.iter_mut().find(like) {
            Some(other) => other.merge(&gap),
            None => self.deferred.push(gap),
        }
    }

    /// Takes the waiting gaps, to try again.
    pub(super) fn take_deferred(&mut self) -> Vec<Gap> {
        mem::take(&mut self.deferred)
    }

    /// Whether a gap waits for room.
    pub(super) fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(channel: &str, at: Micros, lost: Option<u64>) -> Gap {
        Gap { channel: Some(channel.into()), lost, ..Gap::new(GapReason::SpoolFull, "spool", at, at + 10) }
    }

    #[test]
    fn a_window_is_one_gap_per_channel() {
        let mut counter = DropCounter::default();
        assert!(counter.count("a", 100) && !counter.count("a", 200) && counter.count("b", 150));
        assert!(counter.due(200, false).is_empty());
        let due = counter.due(DROP_WINDOW + 120, false);
        assert_eq!(due.len(), 1, "b is not due");
        assert_eq!((due[0].lost, due[0].started_at, due[0].ended_at), (Some(2), 100, 200));
        assert_eq!(counter.due(0, true).len(), 1);
        assert!(counter.due(0, true).is_empty());
    }

    #[test]
    fn waiting_gaps_are_merged_and_no_count_is_lost() {
        let mut counter = DropCounter::default();
        counter.defer(gap("a", 100, Some(2)));
        counter.defer(gap("b", 50, Some(1)));
        counter.defer(gap("a", 300, Some(5)));
        let deferred = counter.take_deferred();
        assert_eq!(deferred.len(), 2);
        assert_eq!((deferred[0].lost, deferred[0].started_at, deferred[0].ended_at), (Some(7), 100, 310));
        assert!(!counter.has_deferred());
        counter.defer(gap("a", 1, Some(1)));
        counter.defer(gap("a", 2, None));
        assert_eq!(counter.take_deferred()[0].lost, None, "an unknown number stays unknown");
    }

    #[test]
    fn any_number_of_channels_takes_bounded_memory() {
        let mut counter = DropCounter::default();
        for n in 0..10_000u32 {
            counter.count(&format!("c{n}"), 1);
            counter.defer(gap(&format!("c{n}"), i64::from(n), Some(1)));
        }
        assert!(counter.dropped.len() <= CHANNELS_MAX + 1 && counter.deferred.len() <= DEFERRED_MAX + 1);
        let dropped: u64 = counter.due(0, true).iter().filter_map(|gap| gap.lost).sum();
        let deferred: u64 = counter.take_deferred().iter().filter_map(|gap| gap.lost).sum();
        assert_eq!((dropped, deferred), (10_000, 10_000));
    }
}
