//! What daemons share of the runs of streams, as this one has seen it.

use std::{collections::HashMap, sync::Arc};

use tokio::time::Instant;

/// What is shared of the streams, as it was last seen.
#[derive(Default)]
pub(super) struct SharedEntries {
    pub(super) streams: HashMap<Arc<str>, Seen>,
    /// Counts the groups: what was seen in an earlier one is asked for again.
    pub(super) group: u64,
    /// The group in which Redis did not answer: it is not waited for again within it.
    unavailable_in: Option<u64>,
}

/// What is shared of one.
pub(super) struct Seen {
    pub(super) json: Option<String>,
    /// The group in which it was seen.
    pub(super) group: u64,
    /// When it was last written.
    pub(super) written: Instant,
}

impl SharedEntries {
    /// The next group begins.
    pub(super) fn begin_group(&mut self) {
        self.group += 1;
    }

    /// Whether Redis has not answered in this group.
    pub(super) fn is_unavailable(&self) -> bool {
        self.unavailable_in == Some(self.group)
    }

    /// Redis did not answer.
    pub(super) fn note_unavailable(&mut self) {
        self.unavailable_in = Some(self.group);
    }

    /// Forgets what was seen: it may have been deleted.
    pub(super) fn clear(&mut self) {
        self.streams.clear();
    }
}
