//! How many entries were trimmed before the group had read them. Pure.
//!
//! The server counts the entries that were ever added, the daemons those that they have acknowledged. Where no entry was deleted but by
//! trimming, what is neither read nor there to be read was trimmed:
//!
//! ```text
//! read = acknowledged + pending
//! trimmed before they were read = added - read - still to be read
//! ```
//! What is still to be read is known when the group has read everything, and when it has read nothing of what is there.
//!
//! The server's own count of what the group has read is used where the daemons may not count. Redis before 7.2.6 counts entries one by
//! one as they are read; newer versions, and Valkey, let the count jump to the place of the entry, so that the number falls back to zero
//! once the group reads on, and what was trimmed while it read is not seen.

use super::reply::Snapshot;

/// Entries that are neither read nor there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) entries: u64,
    /// Whether all of them were trimmed; otherwise some may have been deleted, and it is a bound.
    pub(super) exact: bool,
}

/// What is missing by this snapshot; `None`: it does not show that.
pub(super) fn missing(now: &Snapshot) -> Option<Missing> {
    let group = now.group.as_ref()?;
    let nothing_read = group.last_delivered == Default::default();
    let unread = match now.first {
        _ if group.last_delivered >= now.last_generated => 0,
        None => 0,
        Some(first) if first > group.last_delivered => now.length,
        Some(_) => return None,
    };
    let counted = now.acknowledged.map(|acknowledged| acknowledged + group.pending);
    let read = counted.or(group.read).or(nothing_read.then_some(0))?;
    let entries = now.added?.checked_sub(read)?.checked_sub(unread)?;
    Some(Missing { entries, exact: !now.deleted_some })
}

/// The most that can have been trimmed unread between two snapshots, where the server does not know how many were read.
pub(super) fn bound_since(before: &Snapshot, now: &Snapshot) -> Option<u64> {
    let group = now.group.as_ref()?;
    let unread_began = now.first.is_none_or(|first| first > group.last_delivered);
    let has_unread = group.last_delivered < now.last_generated;
    let gone = |of: &Snapshot| of.added?.checked_sub(of.length);
    let gone = gone(now)?.checked_sub(gone(before)?)?;
    let read_up_to = before.group.as_ref()?.last_delivered;
    // What is gone was read where the group was behind it all the time.
    (unread_began
        && has_unread
        && gone > 0
        && before.first.is_some_and(|first| first > read_up_to || before.last_generated > read_up_to))
    .then_some(gone)
}

#[cfg(test)]
mod tests {
    use super::{super::reply::Group, *};
    use crate::event::EntryId;

    fn id(millis: u64) -> EntryId {
        EntryId { millis, sequence: 0 }
    }

    /// A stream whose entries have the ids from 1 on, of which those from `first` on are there.
    fn snapshot(first: u64, added: u64, delivered: u64, read: Option<u64>) -> Snapshot {
        Snapshot {
            length: added + 1 - first,
            added: Some(added),
            first: (first <= added).then(|| id(first)),
            last_generated: id(added),
            deleted_some: false,
            acknowledged: None,
            notes: None,
            group: Some(Group { last_delivered: id(delivered), read, lag: None, pending: 0 }),
        }
    }

    #[test]
    fn what_is_neither_read_nor_there_was_trimmed() {
        for (name, snapshot, expected) in [
            ("a new stream", snapshot(1, 0, 0, Some(0)), Some(0)),
            ("nothing read yet", snapshot(1, 100, 0, None), Some(0)),
            ("trimmed before the first read", snapshot(61, 100, 0, None), Some(60)),
            ("all trimmed", snapshot(101, 100, 0, Some(0)), Some(100)),
            ("everything read", snapshot(1, 100, 100, Some(100)), Some(0)),
            ("read entries were trimmed", snapshot(101, 100, 100, Some(100)), Some(0)),
            ("in the middle of it", snapshot(1, 100, 50, Some(50)), None),
            ("trimmed up to what is unread", snapshot(51, 100, 50, Some(50)), Some(0)),
            ("trimmed beyond it", snapshot(71, 100, 50, Some(50)), Some(20)),
            ("and read to the end, counted one by one", snapshot(71, 100, 100, Some(80)), Some(20)),
            ("and read to the end, counted by place", snapshot(71, 100, 100, Some(100)), Some(0)),
            ("the server does not know how many were read", snapshot(71, 100, 50, None), None),
        ] {
            let found = missing(&snapshot).map(|missing| missing.entries);
            assert_eq!(found, expected, "{name}");
        }
        // What the daemons have counted holds, wherever the server's count has jumped to.
        let counted = Snapshot { acknowledged: Some(75), ..snapshot(71, 100, 100, Some(100)) };
        assert_eq!(missing(&counted), Some(Missing { entries: 25, exact: true }));
        let pending = Some(Group { pending: 5, ..counted.group.clone().unwrap() });
        assert_eq!(missing(&Snapshot { group: pending, ..counted }), Some(Missing { entries: 20, exact: true }));
        let deleted = Snapshot { deleted_some: true, ..snapshot(71, 100, 50, Some(50)) };
        assert_eq!(missing(&deleted), Some(Missing { entries: 20, exact: false }));
    }

    #[test]
    fn without_a_count_of_what_was_read_what_went_meanwhile_is_a_bound() {
        let before = snapshot(1, 100, 50, None);
        assert_eq!(bound_since(&before, &snapshot(71, 120, 50, None)), Some(70));
        assert_eq!(bound_since(&before, &snapshot(41, 120, 50, None)), None, "all of it was read");
        assert_eq!(bound_since(&before, &snapshot(1, 120, 50, None)), None, "nothing is gone");
        assert_eq!(bound_since(&snapshot(1, 100, 100, None), &snapshot(101, 100, 100, None)), None);
    }
}
