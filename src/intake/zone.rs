//! Detects trainers whose times carry no zone and are read in the wrong one.

use std::{collections::HashMap, sync::Arc};

use tracing::warn;

use crate::{logging::Untrusted, units::Micros};

/// Offsets of time zones are multiples of this.
const QUARTER_HOUR: Micros = 15 * 60 * 1_000_000;
/// How far from such a multiple an offset may be: the delay between an event and its receipt.
const TOLERANCE: Micros = 5 * 1_000_000;
/// The farthest zone is 14 hours away; in quarters.
const QUARTERS_MAX: i64 = 14 * 4;
/// Messages in a row that must be off by the same.
const STEADY_MESSAGES: u32 = 10;
/// Channels that are watched at once.
const CHANNELS_MAX: usize = 1_024;

/// The offsets of each channel.
#[derive(Debug, Default)]
pub(super) struct ZoneCheck {
    channels: HashMap<Arc<str>, OffsetStreak>,
}

#[derive(Clone, Copy, Debug, Default)]
struct OffsetStreak {
    /// The last offset, in quarters of an hour, and how often in a row it was seen.
    quarters: i64,
    count: u32,
    warned: bool,
}

impl ZoneCheck {
    /// Observes a time without a zone, as read in `zone`; warns once for a channel whose times are steadily off.
    pub(super) fn observe(&mut self, channel: &Arc<str>, naive: Micros, received_at: Micros, zone: &str) {
        if let Some(quarters) = self.steady_offset(channel, naive, received_at) {
            warn!(
                channel = %Untrusted(channel.as_bytes()),
                offset = offset(quarters),
                time_zone = zone,
                "times without a zone are steadily off from their receipt by this offset; set `intake.time_zone` to the zone \
                 of the trainers, or publish times with a zone"
            );
        }
    }

    /// The offset, when it has just been found steady.
    fn steady_offset(&mut self, channel: &Arc<str>, naive: Micros, received_at: Micros) -> Option<i64> {
        let off = naive.saturating_sub(received_at);
        let quarters = off.saturating_add(QUARTER_HOUR / 2).div_euclid(QUARTER_HOUR);
        if self.channels.len() >= CHANNELS_MAX && !self.channels.contains_key(channel) {
            self.channels.clear();
        }
        let seen = self.channels.entry(Arc::clone(channel)).or_default();
        let near = off.saturating_sub(quarters.saturating_mul(QUARTER_HOUR)).abs() <= TOLERANCE;
        if quarters == 0 || quarters.abs() > QUARTERS_MAX || !near {
            *seen = OffsetStreak { warned: seen.warned, ..OffsetStreak::default() };
            return None;
        }
        seen.count = if seen.quarters == quarters { seen.count.saturating_add(1) } else { 1 };
        seen.quarters = quarters;
        if seen.count < STEADY_MESSAGES || std::mem::replace(&mut seen.warned, true) {
            return None;
        }
        Some(quarters)
    }
}

/// `-06:00`
fn offset(quarters: i64) -> String {
    let minutes = quarters.abs() * 15;
    format!("{}{:02}:{:02}", if quarters < 0 { '-' } else { '+' }, minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVED: Micros = 1_763_633_710_000_000;

    #[test]
    fn a_steady_offset_by_quarters_of_an_hour_is_reported_once() {
        for (name, offs, found) in [
            ("six hours behind", vec![-6 * 3_600; 30], Some(-24)),
            ("India", vec![5 * 3_600 + 1_800 - 2; 10], Some(22)),
            ("too few", vec![-6 * 3_600; 9], None),
            ("right", vec![-1; 30], None),
            ("no multiple", vec![-6 * 3_600 - 100; 30], None),
            ("not steady", [-3_600, -7_200].repeat(30), None),
            ("a day", vec![-86_400; 30], None),
        ] {
            let (mut check, channel) = (ZoneCheck::default(), Arc::from("c"));
            let told: Vec<_> = offs
                .iter()
                .filter_map(|off: &i64| check.steady_offset(&channel, RECEIVED + off * 1_000_000, RECEIVED))
                .collect();
            assert_eq!(told, Vec::from_iter(found), "{name}");
        }
        assert_eq!((offset(-24), offset(22)), ("-06:00".into(), "+05:30".into()));
    }
}
