//! Time conversions for Cassandra: millisecond timestamps, days and months as text.

use scylla::value::CqlTimestamp;
use uuid::Uuid;

pub(super) use crate::store::dates::{day, month};
use crate::units::Micros;

/// Milliseconds since the epoch.
pub(super) fn millis(time: Micros) -> i64 {
    time.div_euclid(1_000)
}

/// Converts to a CQL `timestamp`.
pub(super) fn cql(time: Micros) -> CqlTimestamp {
    CqlTimestamp(millis(time))
}

/// Converts from a CQL `timestamp`.
pub(super) fn micros(time: CqlTimestamp) -> Micros {
    time.0.saturating_mul(1_000)
}

/// Lowest and highest `event_id` for the microsecond of this time.
pub(super) fn event_ids(time: Micros) -> (i64, i64) {
    let low = time.rem_euclid(1_000) << 43;
    (low, low | ((1 << 43) - 1))
}

/// Cassandra's order of UUIDs: by version, then version 1 by time, then by bytes.
pub(super) fn uuid_order(a: Uuid, b: Uuid) -> std::cmp::Ordering {
    fn key(id: Uuid) -> (u64, u64, u64) {
        let (high, low) = id.as_u64_pair();
        let version = (high >> 12) & 0xf;
        let time = if version == 1 { (high & 0x0fff) << 48 | (high & 0xffff_0000) << 16 | high >> 32 } else { high };
        (version, time, low)
    }
    key(a).cmp(&key(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_months_are_utc() {
        let time = 1_763_683_199_999_999; // 2025-11-20T23:59:59.999999Z
        assert_eq!((day(time), month(time)), ("2025-11-20".into(), "2025-11".into()));
        assert_eq!(day(time + 1), "2025-11-21");
        assert_eq!(day(-1), "1969-12-31");
    }

    #[test]
    fn event_ids_of_a_microsecond_enclose_every_id_made_in_it() {
        for time in [0, 999, 1_763_683_199_123_456, -1] {
            let (low, high) = event_ids(time);
            let id = crate::event::event_id(time, "c", b"payload");
            assert!(low <= id && id <= high, "{time}");
            assert!(high < event_ids(time.div_euclid(1_000) * 1_000 + 999).1 || time.rem_euclid(1_000) == 999);
        }
    }

    #[test]
    fn uuids_sort_as_cassandra_sorts_them() {
        let v1_early: Uuid = "ffffffff-0000-1000-8000-000000000000".parse().unwrap();
        let v1_late: Uuid = "00000000-0000-1001-8000-000000000000".parse().unwrap();
        let v4: Uuid = "00000000-0000-4000-8000-000000000000".parse().unwrap();
        let v5: Uuid = "00000000-0000-5000-8000-000000000000".parse().unwrap();
        let mut ids = [v5, v4, v1_late, v1_early];
        ids.sort_by(|a, b| uuid_order(*a, *b));
        assert_eq!(ids, [v1_early, v1_late, v4, v5]);
    }
}
