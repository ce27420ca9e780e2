//! Days and months as text, by which both stores partition tables.

use jiff::Timestamp;

use crate::units::Micros;

/// The UTC day, `2026-11-20`.
pub(super) fn day(time: Micros) -> String {
    format(time, "%Y-%m-%d")
}

/// The UTC month, `2026-11`.
pub(super) fn month(time: Micros) -> String {
    format(time, "%Y-%m")
}

fn format(time: Micros, how: &str) -> String {
    // Times beyond the years ±9999 share the last partition on that side.
    let fallback = if time < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_microsecond(time).unwrap_or(fallback).strftime(how).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_utc() {
        assert_eq!((day(1_763_633_700_000_000), month(1_763_633_700_000_000)), ("2025-11-20".into(), "2025-11".into()));
        assert_eq!(day(-1), "1969-12-31");
        assert_eq!(day(i64::MAX), "9999-12-30");
    }
}
