//! Whether the server lacks entries that were read from it.
//!
//! Replication is asynchronous: a replica that was behind when it was promoted lacks the newest entries, and its group is where it was
//! then. What this daemon had read of them is stored. What no daemon had read is lost, and no server knows how much that is.

use super::{
    commands::{Commands, Trouble},
    reply::Snapshot,
};
use crate::event::EntryId;

/// What the state of a stream says about an entry that was read from it.
#[derive(Debug, PartialEq, Eq)]
enum Held {
    /// It was never added there.
    No,
    /// It may be there: it has to be asked for.
    Perhaps,
    /// It may have been trimmed or deleted.
    Unknown,
}

fn held(now: &Snapshot, entry: EntryId) -> Held {
    if now.last_generated < entry {
        return Held::No;
    }
    match now.first {
        Some(first) if first <= entry && !now.deleted_some => Held::Perhaps,
        _ => Held::Unknown,
    }
}

/// Whether an entry that was read from it is not in the stream, though nothing has removed it.
pub(super) async fn lacks(commands: &Commands, now: &Snapshot, entry: EntryId) -> bool {
    match held(now, entry) {
        Held::No => true,
        Held::Unknown => false,
        // Without the permission it is not known. A lost connection is noticed by the next command.
        Held::Perhaps => matches!(commands.has(entry).await, Ok(false)),
    }
}

impl Commands {
    /// Whether an entry is in the stream.
    async fn has(&self, entry: EntryId) -> Result<bool, Trouble> {
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
            (&stream, 21, Held::No),
            (&stream, 20, Held::Perhaps),
            (&stream, 10, Held::Perhaps),
            (&stream, 9, Held::Unknown),
            (&deleted, 15, Held::Unknown),
            (&deleted, 21, Held::No),
            (&emptied, 20, Held::Unknown),
            (&emptied, 21, Held::No),
        ] {
            assert_eq!(held(stream, id(entry)), expected, "{entry}");
        }
    }
}
