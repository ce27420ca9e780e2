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
//! The server has a count of its own of what the group has read. Redis before 7.2.6 counts entries one by one as they are read; newer
//! versions, and Valkey, let the count jump to the place of the entry, so that the number falls back to zero once the group reads on, and
//! what was trimmed while it read is not seen. The daemons' count is too high after entries were read twice, and too low after some were
//! acknowledged by another program. So a number is exact only where both counts show it, and where they differ the daemons' count is set
//! to the server's.

use super::reply::{ReportState, Snapshot};

/// What a snapshot shows beside what was reported before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// What is to be kept as reported.
    pub(super) total: u64,
    /// Entries to report.
    pub(super) lost: u64,
    /// Whether all of them were trimmed before they were read; otherwise it is a bound.
    pub(super) exact: bool,
    pub(super) recount: Recount,
}

/// What becomes of the count of acknowledged entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recount {
    /// It is right.
    Keep,
    /// It changes by so many: then both counts show the same.
    By(i64),
    /// It is wrong, and the server has none now: it is made anew later.
    Drop,
}

/// Entries that were ever removed.
pub(super) fn removed(now: &Snapshot) -> Option<u64> {
    now.added?.checked_sub(now.length)
}

/// Entries that are there and were not read; `None`: the snapshot does not show that.
fn unread(now: &Snapshot) -> Option<u64> {
    let group = now.group.as_ref()?;
    match now.first {
        _ if group.last_delivered >= now.last_generated => Some(0),
        None => Some(0),
        Some(first) if first > group.last_delivered => Some(now.length),
        Some(_) => None,
    }
}

/// What the group has read, as the server counts it.
fn server_read(now: &Snapshot) -> Option<u64> {
    let group = now.group.as_ref()?;
    group.read.or((group.last_delivered == Default::default()).then_some(0))
}

/// What is missing by the server's count; `None`: that does not show it.
pub(super) fn missing(now: &Snapshot) -> Option<u64> {
    now.added?.checked_sub(server_read(now)?)?.checked_sub(unread(now)?)
}

/// What is to be reported, where the daemons count together. So many entries were removed when all of what was lost was reported last, if
/// this daemon knows: no more than were removed since, or ever, can be lost. `None`: the snapshot does not show it.
pub(super) fn find(now: &Snapshot, state: &ReportState, removed_before: Option<u64>) -> Option<Finding> {
    let (added, unread, pending) = (now.added?, unread(now)?, now.group.as_ref()?.pending);
    let reported = state.trimmed.unwrap_or(0);
    let removed = removed(now)?;
    let at_most = removed.saturating_sub(removed_before.unwrap_or(0));
    let bound = |entries: u64| entries.saturating_sub(reported).min(at_most);
    let acknowledged = now.acknowledged?;
    let counted = added.checked_sub(acknowledged + pending).and_then(|entries| entries.checked_sub(unread));
    Some(match (counted, missing(now)) {
        (Some(entries), Some(server)) if entries == server => Finding {
            total: entries,
            lost: entries.saturating_sub(reported),
            exact: !now.deleted_some,
            recount: Recount::Keep,
        },
        (counted, Some(server)) => {
            // Pending entries that are to be read once more count as read already.
            let read = server_read(now)?.max(pending);
            let total = added.saturating_sub(read).saturating_sub(unread);
            let by = i64::try_from(read - pending).ok()?.checked_sub_unsigned(acknowledged)?;
            let lost = bound(counted.map_or(server, |counted| counted.max(server)));
            Finding { total, lost, exact: false, recount: Recount::By(by) }
        }
        (Some(entries), None) if entries >= reported => {
            Finding { total: entries, lost: bound(entries), exact: false, recount: Recount::Keep }
        }
        (_, None) => Finding { total: removed, lost: bound(removed), exact: false, recount: Recount::Drop },
    })
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
            report_state: None,
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
            assert_eq!(missing(&snapshot), expected, "{name}");
        }
    }

    /// What is found when the daemons have acknowledged and reported so many.
    fn found(snapshot: Snapshot, acknowledged: u64, reported: u64, removed_before: Option<u64>) -> Option<Finding> {
        let state = ReportState { trimmed: Some(reported), ..ReportState::default() };
        find(&Snapshot { acknowledged: Some(acknowledged), ..snapshot }, &state, removed_before)
    }

    fn finding(total: u64, lost: u64, exact: bool, recount: Recount) -> Option<Finding> {
        Some(Finding { total, lost, exact, recount })
    }

    #[test]
    fn a_number_is_exact_where_both_counts_show_it() {
        let trimmed = snapshot(71, 100, 50, Some(50));
        assert_eq!(found(trimmed.clone(), 50, 0, None), finding(20, 20, true, Recount::Keep));
        assert_eq!(found(trimmed.clone(), 50, 20, None), finding(20, 0, true, Recount::Keep));
        let pending = Group { pending: 5, ..trimmed.group.clone().unwrap() };
        let pending = Snapshot { group: Some(pending), ..trimmed.clone() };
        assert_eq!(found(pending, 45, 0, None), finding(20, 20, true, Recount::Keep));
        let deleted = Snapshot { deleted_some: true, ..trimmed };
        assert_eq!(found(deleted, 50, 0, None), finding(20, 20, false, Recount::Keep));
        // The server's count has jumped: what was reported before is forgotten with it.
        let jumped = snapshot(71, 100, 100, Some(100));
        assert_eq!(found(jumped.clone(), 80, 20, None), finding(0, 0, false, Recount::By(20)));
        // 5 more were trimmed while the group read.
        assert_eq!(found(jumped, 75, 20, None), finding(0, 5, false, Recount::By(25)));
        // The server does not know how many were read.
        let unknown = snapshot(71, 100, 50, None);
        assert_eq!(found(unknown, 50, 5, None), finding(20, 15, false, Recount::Keep));
    }

    #[test]
    fn after_entries_were_read_twice_what_is_trimmed_later_is_counted() {
        // All 100 were read once more.
        let again = found(snapshot(1, 100, 100, Some(100)), 200, 0, Some(0));
        assert_eq!(again, finding(0, 0, false, Recount::By(-100)));
        assert_eq!(found(snapshot(121, 150, 100, Some(100)), 100, 0, Some(0)), finding(20, 20, true, Recount::Keep));
        // Not noticed before some were trimmed: a bound.
        let late = found(snapshot(121, 150, 100, Some(100)), 200, 0, Some(0));
        assert_eq!(late, finding(20, 20, false, Recount::By(-100)));
        // The group was set back, and has read nothing yet: what was read before and trimmed is not lost.
        let back = found(snapshot(61, 100, 0, None), 100, 0, Some(60));
        assert_eq!(back, finding(60, 0, false, Recount::By(-100)));
        // The server does not know where it is.
        let unknown = found(snapshot(71, 100, 70, None), 150, 0, Some(65));
        assert_eq!(unknown, finding(70, 5, false, Recount::Drop));
    }

    #[test]
    fn entries_that_another_program_has_acknowledged_are_no_exact_loss() {
        // 30 of 100 left the pending ones without being counted; later all were trimmed.
        let read = snapshot(101, 100, 100, Some(100));
        assert_eq!(found(read.clone(), 70, 0, Some(0)), finding(0, 30, false, Recount::By(30)));
        assert_eq!(found(read.clone(), 70, 0, Some(90)), finding(0, 10, false, Recount::By(30)), "10 went since");
        assert_eq!(found(read, 100, 0, Some(0)), finding(0, 0, true, Recount::Keep));
        let untouched = snapshot(1, 100, 100, Some(100));
        assert_eq!(
            found(untouched.clone(), 70, 0, Some(0)),
            finding(0, 0, false, Recount::By(30)),
            "nothing was trimmed"
        );
        // Nor to a daemon that has just started.
        assert_eq!(found(untouched, 70, 0, None), finding(0, 0, false, Recount::By(30)));
        // A server that was killed has forgotten what it had counted.
        let forgotten = snapshot(1, 100, 100, Some(7));
        assert_eq!(found(forgotten, 100, 0, None), finding(93, 0, false, Recount::By(-93)));
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
