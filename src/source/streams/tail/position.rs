//! Where the reading of a stream without a group is. Pure.

use crate::{event::EntryId, source::streams::reply::Snapshot};

/// Where the reading of a stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The last entry that was read.
    pub(super) after: EntryId,
    /// Entries that were ever added when there was none behind `after`; absent where the server does not tell.
    added: Option<u64>,
    /// Entries that were read since then.
    read: u64,
    /// The newest entry at the last check.
    newest: EntryId,
}

impl Position {
    /// Behind the newest entry; without a stream behind none.
    pub(super) fn at_end(now: Option<&Snapshot>) -> Self {
        let newest = now.map_or_else(EntryId::default, |now| now.last_generated);
        let added = now.map_or(Some(0), |now| now.added);
        Self { after: newest, added, read: 0, newest }
    }

    /// So many entries were read, up to this one.
    pub(super) fn advance(&mut self, entries: u64, last: EntryId) {
        self.read += entries;
        self.after = self.after.max(last);
    }

    /// Takes in the state of the stream. Returns whether entries were removed before they were read.
    pub(super) fn observe(&mut self, now: Option<&Snapshot>) -> bool {
        let newest = now.map_or_else(EntryId::default, |now| now.last_generated);
        if newest < self.after {
            // The stream was deleted, or the server is a replica that was behind.
            *self = Self::at_end(now);
            return true;
        }
        let Some(now) = now else { return false };
        let is_at_end = newest == self.after;
        let missed = match (self.added, now.added) {
            (Some(before), Some(added)) => match added.checked_sub(before + self.read) {
                Some(unread) => unread > if is_at_end { 0 } else { now.length },
                // It was replaced.
                None => true,
            },
            // What was there at the last check and was not read is gone.
            _ => self.after < self.newest && now.first.is_none_or(|first| first > self.newest),
        };
        self.newest = newest;
        if is_at_end || now.first.is_none() {
            // There is none behind it.
            *self = Self::at_end(Some(now));
        } else if missed {
            self.added = None;
        }
        missed
    }
}
