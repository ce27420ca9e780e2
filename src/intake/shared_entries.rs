//! What daemons share of the runs of streams, as this one has seen it.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use super::{shared_runs::read_open_run, state::ShareError};
use crate::{
    runs::{OpenRun, close_entry_run, reset_entry_run},
    units::Micros,
};

/// Deletions that are deferred for one stream while Redis does not answer.
const DEFERRED_DELETIONS_MAX: usize = 4_096;

/// What is shared of the streams, as it was last seen.
#[derive(Default)]
pub(super) struct SharedEntries {
    pub(super) streams: HashMap<Arc<str>, Seen>,
    /// Counts the groups: what was seen in an earlier one is asked for again.
    group: u64,
    /// The group in which Redis did not answer: it is not waited for again within it.
    unavailable_in: Option<u64>,
    /// What could not be shared yet, and has to be before the next entry gets its run.
    deferred: HashMap<Arc<str>, Deferred>,
}

/// Why the open run of a stream is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// A `reset` at this time.
    Reset(Micros),
    /// This run was deleted at this time.
    Deleted(Uuid, Micros),
}

impl CloseReason {
    /// The open run after closing.
    pub(super) fn change(self, open: &OpenRun, instance: &str) -> Option<OpenRun> {
        match self {
            Self::Reset(at) => reset_entry_run(open, at, instance),
            Self::Deleted(run_id, at) if open.run_id == run_id => close_entry_run(open, at),
            Self::Deleted(..) => None,
        }
    }

    fn at(self) -> Micros {
        match self {
            Self::Reset(at) | Self::Deleted(_, at) => at,
        }
    }
}

/// The closings of a stream that could not be shared.
#[derive(Debug, Default)]
struct Deferred {
    /// The newest `reset`: what it closes is closed for those before it as well.
    reset: Option<Micros>,
    /// When each run was deleted.
    deleted: HashMap<Uuid, Micros>,
    /// Whether there was no room for a deletion.
    refused: bool,
}

impl Deferred {
    /// Returns whether there is room for it. A `reset` always has room.
    fn push(&mut self, reason: CloseReason) -> bool {
        let is_full = self.deleted.len() >= DEFERRED_DELETIONS_MAX;
        match reason {
            CloseReason::Reset(at) => self.reset = self.reset.max(Some(at)),
            CloseReason::Deleted(run_id, at) => match self.deleted.entry(run_id) {
                Entry::Occupied(mut known) => *known.get_mut() = at.max(*known.get()),
                Entry::Vacant(_) if is_full => return false,
                Entry::Vacant(vacant) => _ = vacant.insert(at),
            },
        }
        true
    }

    /// In the order of their times.
    fn into_reasons(self) -> Vec<CloseReason> {
        let deleted = self.deleted.into_iter().map(|(run_id, at)| CloseReason::Deleted(run_id, at));
        let mut reasons: Vec<_> = self.reset.map(CloseReason::Reset).into_iter().chain(deleted).collect();
        reasons.sort_by_key(|reason| reason.at());
        reasons
    }
}

/// What is shared of one.
pub(super) struct Seen {
    pub(super) json: Option<String>,
    open: Option<OpenRun>,
    /// Whether Redis forbids to read it.
    is_unreadable: bool,
    /// Whether Redis forbade the last change.
    is_unwritable: bool,
    /// The group in which it was seen.
    group: u64,
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

    /// Whether a stream was read in this group.
    pub(super) fn is_seen(&self, stream: &str) -> bool {
        self.streams.get(stream).is_some_and(|seen| seen.group == self.group)
    }

    /// What Redis has of a stream.
    pub(super) fn note_seen(&mut self, stream: &Arc<str>, json: Option<String>) {
        let group = self.group;
        let seen = self.seen_mut(stream);
        if seen.json != json {
            seen.open = json.as_deref().and_then(read_open_run);
            seen.json = json;
        }
        (seen.group, seen.is_unreadable) = (group, false);
    }

    /// Redis forbids to read a stream.
    pub(super) fn note_unreadable(&mut self, stream: &Arc<str>) {
        let group = self.group;
        let seen = self.seen_mut(stream);
        (seen.group, seen.is_unreadable) = (group, true);
    }

    /// Whether Redis forbade the last change of a stream.
    pub(super) fn note_unwritable(&mut self, stream: &Arc<str>, is_unwritable: bool) {
        self.seen_mut(stream).is_unwritable = is_unwritable;
    }

    fn seen_mut(&mut self, stream: &Arc<str>) -> &mut Seen {
        self.streams.entry(Arc::clone(stream)).or_insert_with(|| Seen {
            json: None,
            open: None,
            is_unreadable: false,
            is_unwritable: false,
            group: 0,
            written: Instant::now(),
        })
    }

    /// The open run of a stream, as it was last read.
    ///
    /// # Errors
    /// Redis forbids to read it, or to change it: this daemon decides alone.
    pub(super) fn open_run(&self, stream: &str) -> Result<Option<&OpenRun>, ShareError> {
        match self.streams.get(stream) {
            Some(seen) if seen.is_unreadable || seen.is_unwritable => Err(ShareError::Forbidden),
            seen => Ok(seen.and_then(|seen| seen.open.as_ref())),
        }
    }

    /// Forgets that a stream was read: another daemon may have changed it.
    pub(super) fn forget(&mut self, stream: &str) {
        if let Some(seen) = self.streams.get_mut(stream) {
            seen.group = 0;
        }
    }

    /// Keeps what could not be shared.
    pub(super) fn defer(&mut self, stream: &Arc<str>, reason: CloseReason) {
        let deferred = self.deferred.entry(Arc::clone(stream)).or_default();
        if !deferred.push(reason) && !std::mem::replace(&mut deferred.refused, true) {
            // Told once: there may be thousands.
            warn!(%stream, ?reason, "too many deletions wait for Redis; runs that are open may stay so until the next start");
        }
    }

    /// Whether anything is deferred for a stream.
    pub(super) fn has_deferred(&self, stream: &str) -> bool {
        self.deferred.contains_key(stream)
    }

    /// Takes what is deferred for a stream.
    pub(super) fn take_deferred(&mut self, stream: &str) -> Vec<CloseReason> {
        self.deferred.remove(stream).map(Deferred::into_reasons).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_reset_is_kept_behind_any_number_of_deletions_which_are_bounded() {
        let mut entries = SharedEntries::default();
        let stream: Arc<str> = "s".into();
        let run = |n: usize| Uuid::from_u128(n as u128);
        for n in 0..DEFERRED_DELETIONS_MAX {
            entries.defer(&stream, CloseReason::Deleted(run(n), 1_000));
        }
        for at in [2_000, 900, 1_500] {
            entries.defer(&stream, CloseReason::Reset(at));
        }
        let deferred = entries.deferred.get_mut(&stream).unwrap();
        assert!(!deferred.push(CloseReason::Deleted(run(DEFERRED_DELETIONS_MAX), 1_000)), "there is no room");
        assert!(deferred.push(CloseReason::Deleted(run(7), 3_000)), "it is there already");
        assert!(!deferred.refused);
        entries.defer(&stream, CloseReason::Deleted(run(DEFERRED_DELETIONS_MAX), 1_000));
        assert!(entries.deferred[&stream].refused, "with a warning");
        let taken = entries.take_deferred(&stream);
        assert_eq!(taken.len(), DEFERRED_DELETIONS_MAX + 1);
        let last = [CloseReason::Reset(2_000), CloseReason::Deleted(run(7), 3_000)];
        assert_eq!(taken[DEFERRED_DELETIONS_MAX - 1..], last, "in the order of their times");
        assert!(!entries.has_deferred(&stream) && entries.take_deferred(&stream).is_empty());
    }

    #[test]
    fn where_redis_forbids_to_share_a_run_the_shared_one_does_not_count_until_a_change_is_taken() {
        let mut entries = SharedEntries::default();
        let stream: Arc<str> = "s".into();
        entries.begin_group();
        entries.note_unreadable(&stream);
        assert!(entries.is_seen(&stream), "it is asked once in a group");
        assert_eq!(entries.open_run(&stream), Err(ShareError::Forbidden));
        entries.note_seen(&stream, None);
        assert_eq!(entries.open_run(&stream), Ok(None));
        entries.note_unwritable(&stream, true);
        entries.begin_group();
        assert!(!entries.is_seen(&stream));
        entries.note_seen(&stream, None);
        assert_eq!(entries.open_run(&stream), Err(ShareError::Forbidden), "what this daemon has decided is not there");
        entries.note_unwritable(&stream, false);
        assert_eq!(entries.open_run(&stream), Ok(None));
    }
}
