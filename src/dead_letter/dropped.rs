//! The index of dropped dead letters, and of the reasons for which replayed ones failed again. It is a file beside the segments, so
//! that commands can change it while a daemon runs.
//!
//! `marks.json` is replaced as a whole, under a lock of its own. Letters are dropped in ranges of ids; a segment of which every
//! letter is dropped is removed, but for the newest, which may be being written and from which ids go on.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::warn;

use super::{DeadLetterError, DeadLetterInfo};
use crate::{
    files,
    frame::Rejection,
    spool::{disk::Disk, segment},
};

/// New reasons that are kept; beyond, letters that fail again keep the old one.
const REPLAY_REASONS_MAX: usize = 100_000;

/// See the module. `DropIndex<IgnoredAny>` keeps no reasons, which only a list of letters needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DropIndex<Why = Rejection> {
    /// Dropped ids, first to last; neither touching nor overlapping.
    #[serde(default)]
    dropped: BTreeMap<u64, u64>,
    /// Why a letter failed when it was replayed, where that is not why it failed before.
    #[serde(rename = "again", default = "BTreeMap::new")]
    replay_reasons: BTreeMap<u64, Why>,
}

impl<Why> Default for DropIndex<Why> {
    fn default() -> Self {
        Self { dropped: BTreeMap::new(), replay_reasons: BTreeMap::new() }
    }
}

impl<Why: DeserializeOwned> DropIndex<Why> {
    /// The index of a directory; empty where there is no file. What cannot be understood is as good as none: letters that were
    /// dropped are there again, and replaying one changes nothing.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(dir: &Path) -> Result<Self, DeadLetterError> {
        match Disk::read_only().read_all(&path(dir)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                warn!(%error, "marks of dead letters are damaged: all letters count as not dropped");
                Self::default()
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(DeadLetterError::Read(error)),
        }
    }

    /// Whether this letter was dropped.
    pub fn is_dropped(&self, id: u64) -> bool {
        self.dropped.range(..=id).next_back().is_some_and(|(_, last)| id <= *last)
    }

    /// How many of the letters `first..end` are not dropped.
    pub fn remaining(&self, first: u64, end: u64) -> u64 {
        let inside = |(from, to): (&u64, &u64)| (*to + 1).min(end).saturating_sub((*from).max(first));
        let before = self.dropped.range(..first).next_back().into_iter();
        let dropped: u64 = before.chain(self.dropped.range(first..end.max(first))).map(inside).sum();
        end.saturating_sub(first).saturating_sub(dropped)
    }

    /// The first id behind all that the index names.
    pub(super) fn end(&self) -> u64 {
        let dropped = self.dropped.last_key_value().map(|(_, last)| *last);
        let replay_reasons = self.replay_reasons.last_key_value().map(|(id, _)| *id);
        dropped.max(replay_reasons).map_or(0, |last| last.saturating_add(1))
    }
}

impl DropIndex {
    /// Puts the newest reason into a letter's description.
    pub(super) fn apply(&self, info: &mut DeadLetterInfo) {
        if let Some(rejection) = self.replay_reasons.get(&info.id) {
            (info.reason, info.detail) = (rejection.reason, rejection.detail.clone());
        }
    }

    fn drop_entry(&mut self, id: u64) {
        if self.is_dropped(id) {
            return;
        }
        let (mut first, mut last) = (id, id);
        if let Some((from, to)) = self.dropped.range(..id).next_back().map(|(from, to)| (*from, *to))
            && to + 1 == id
        {
            first = from;
        }
        if let Some(to) = self.dropped.remove(&(id + 1)) {
            last = to;
        }
        self.dropped.insert(first, last);
        self.replay_reasons.remove(&id);
    }

    /// Forgets what concerns letters that are gone.
    fn forget_before(&mut self, first: u64) {
        self.dropped.retain(|_, last| *last >= first);
        self.replay_reasons = self.replay_reasons.split_off(&first);
    }
}

/// Drops letters, and records why replayed ones failed again. Durable when it returns `Ok`.
///
/// # Errors
/// When it cannot be written down; then nothing has changed.
pub fn update(
    dir: &Path,
    dropped: impl IntoIterator<Item = u64>,
    replay_reasons: impl IntoIterator<Item = (u64, Rejection)>,
) -> Result<(), DeadLetterError> {
    let failed = |error| DeadLetterError::Mark { dir: dir.to_owned(), error };
    let disk = Disk::default();
    let lock = files::open_lock(&dir.join("marks.lock")).map_err(failed)?;
    lock.lock().map_err(failed)?;
    disk.remove_leftovers(&path(dir));
    let mut index = DropIndex::read(dir)?;
    dropped.into_iter().for_each(|id| index.drop_entry(id));
    for (id, rejection) in replay_reasons {
        if index.replay_reasons.len() < REPLAY_REASONS_MAX {
            index.replay_reasons.insert(id, rejection);
        }
    }
    let list = segment::list(&disk, dir).map_err(failed)?;
    index.forget_before(list.first().map_or(0, |meta| meta.first));
    let bytes = serde_json::to_vec(&index).map_err(|error| failed(error.into()))?;
    disk.replace(&path(dir), &bytes).map_err(failed)?;
    let (_, older) = list.split_last().map_or((None, &list[..]), |(last, older)| (Some(last), older));
    for meta in older.iter().filter(|meta| index.remaining(meta.first, meta.end) == 0) {
        // What cannot be removed is only room that is not given back.
        if let Err(error) = disk.remove(&meta.path) {
            warn!(%error, segment = %meta.path.display(), "segment of dropped dead letters could not be removed");
        }
    }
    Ok(())
}

/// When the index was last replaced.
pub(super) fn changed_at(dir: &Path) -> Option<SystemTime> {
    fs::metadata(path(dir)).and_then(|metadata| metadata.modified()).ok()
}

fn path(dir: &Path) -> PathBuf {
    dir.join("marks.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn dropped_ranges_are_the_set_of_dropped_letters(
            ids in proptest::collection::vec(0u64..40, 0..60),
            first in 0u64..40,
            length in 0u64..40,
        ) {
            let mut index = DropIndex::default();
            ids.iter().for_each(|id| index.drop_entry(*id));
            for id in 0..41 {
                proptest::prop_assert_eq!(index.is_dropped(id), ids.contains(&id));
            }
            let left = (first..first + length).filter(|id| !ids.contains(id)).count() as u64;
            proptest::prop_assert_eq!(index.remaining(first, first + length), left);
            let touching = index.dropped.iter().zip(index.dropped.iter().skip(1)).any(|((_, to), (from, _))| to + 1 >= *from);
            proptest::prop_assert!(!touching, "{:?}", index);
        }
    }

    #[test]
    fn damaged_marks_bring_letters_back_and_stop_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let read = || <DropIndex>::read(dir.path()).unwrap();
        assert_eq!(read(), DropIndex::default());
        update(dir.path(), [3, 4], []).unwrap();
        assert!(read().is_dropped(4));
        fs::write(path(dir.path()), b"{broken").unwrap();
        assert!(!read().is_dropped(4));
    }
}
