//! Whether the server lacks entries that were read from it.
//!
//! Replication is asynchronous: a replica that was behind when it was promoted lacks the newest entries, and its group is where it was
//! then. What this daemon had read of them is stored. What no daemon had read is lost, and no server knows how much that is.

use super::{
    commands::{Commands, StreamError},
    reply::Snapshot,
};
use crate::event::EntryId;

/// What the state of a stream says about an entry that was read from it.
#[derive(Debug, PartialEq, Eq)]
enum Presence {
    /// It was never added there.
    Absent,
    /// It may be there: it has to be asked for.
    Unverified,
    /// It may have been trimmed or deleted.
    Unknown,
}

fn presence(now: &Snapshot, entry: EntryId) -> Presence {
    if now.last_generated < entry {
        return Presence::Absent;
    }
    match now.first {
        Some(first) if first <= entry && !now.deleted_some => Presence::Unverified,
        _ => Presence::Unknown,
    }
}

/// Whether an entry that was read from it is not in the stream, though nothing has removed it.
pub(super) async fn has_rolled_back(commands: &Commands, now: &Snapshot, entry: EntryId) -> bool {
    match presence(now, entry) {
        Presence::Absent => true,
        Presence::Unknown => false,
        // Without the permission it is not known. A lost connection is noticed by the next command.
        Presence::Unverified => matches!(commands.has(entry).await, Ok(false)),
    }
}

impl Commands {
    /// Whether an entry is in the stream.
    async fn has(&self, entry: EntryId) -> Result<bool, StreamError> {
        let id = entry.to_string();
        let found = self.send("XRANGE", vec![self.key.clone(), id.clone(), id]).await?;
        Ok(found.array_len().is_some_and(|entries| entries > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_beyond_what_was_ever_added_is_not_there_and_one_before_the_first_may_have_been_trimmed() {
        let id = |millis| EntryId { millis, sequence: 0 };
        let stream = Snapshot { first: Some(id(10)), last_generated: id(20), ..Snapshot::default() };
        let deleted = Snapshot { deleted_some: true, ..stream.clone() };
        let emptied = Snapshot { first: None, ..stream.clone() };
        for (stream, entry, expected) in [
            (&stream, 21, Presence::Absent),
            (&stream, 20, Presence::Unverified),
            (&stream, 10, Presence::Unverified),
            (&stream, 9, Presence::Unknown),
            (&deleted, 15, Presence::Unknown),
            (&deleted, 21, Presence::Absent),
            (&emptied, 20, Presence::Unknown),
            (&emptied, 21, Presence::Absent),
        ] {
            assert_eq!(presence(stream, id(entry)), expected, "{entry}");
        }
    }
}
