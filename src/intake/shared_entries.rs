//! What daemons share of the runs of streams, as this one has seen it.

use std::{collections::HashMap, sync::Arc};

use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    runs::{OpenRun, close_entry_run, reset_entry_run},
    units::Micros,
};

/// Commands that may wait for one stream.
const WAITING_MAX: usize = 16;

/// What is shared of the streams, as it was last seen.
#[derive(Default)]
pub(super) struct SharedEntries {
    pub(super) streams: HashMap<Arc<str>, Seen>,
    /// Counts the groups: what was seen in an earlier one is asked for again.
    pub(super) group: u64,
    /// The group in which Redis did not answer: it is not waited for again within it.
    unavailable_in: Option<u64>,
    /// What could not be shared yet, and has to be before the next entry gets its run.
    waiting: HashMap<Arc<str>, Vec<Closing>>,
}

/// Why the open run of a stream is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// A `reset` at this time.
    Reset(Micros),
    /// This run was deleted at this time.
    Deleted(Uuid, Micros),
}

impl Closing {
    /// What that changes.
    pub(super) fn change(self, open: &OpenRun, instance: &str) -> Option<OpenRun> {
        match self {
            Self::Reset(at) => Some(reset_entry_run(open, at, instance)),
            Self::Deleted(run_id, at) if open.run_id == run_id => close_entry_run(open, at),
            Self::Deleted(..) => None,
        }
    }
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

    /// Forgets what was seen of a stream: another daemon may have changed it.
    pub(super) fn forget(&mut self, stream: &Arc<str>) {
        if let Some(seen) = self.streams.get_mut(stream) {
            seen.group = 0;
        }
    }

    /// Keeps what could not be shared.
    pub(super) fn wait(&mut self, stream: &Arc<str>, closing: Closing) {
        let waiting = self.waiting.entry(Arc::clone(stream)).or_default();
        if waiting.len() < WAITING_MAX {
            waiting.push(closing);
        }
    }

    /// Takes what waits for a stream.
    pub(super) fn take_waiting(&mut self, stream: &Arc<str>) -> Vec<Closing> {
        if self.waiting.is_empty() { Vec::new() } else { self.waiting.remove(stream).unwrap_or_default() }
    }
}
