//! The names of a run's other numbers: which are stored, and which are to be written with the run's row.
//!
//! Pure. A name is known by its hash, so that a run with a thousand names is small, and metrics that say what the last ones said
//! cost one pass over their names and no look into the set. At most [`METRIC_NAMES_MAX`] names of a run are kept, the first ones: of a
//! run that is stored already its names are read before another one is added.

use std::{
    collections::{BTreeMap, HashSet},
    mem,
};

use tracing::warn;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use crate::store::METRIC_NAMES_MAX;

/// Bytes that a name takes here once it is written.
const KNOWN: usize = 16;

/// The names of one run.
#[derive(Debug, Default)]
pub struct Names {
    known: HashSet<u64>,
    /// Names that are in no write yet.
    fresh: Vec<String>,
    /// The sum of the hashes of metrics of which every name was known (or one too many).
    last: u64,
    /// Whether `known` has every stored name.
    complete: bool,
    /// Whether there were more than are kept.
    full: bool,
}

impl Names {
    /// Takes the names of a metrics row. `true`: one of them is to be written.
    pub fn note(&mut self, run_id: Uuid, extra: &BTreeMap<String, f64>) -> bool {
        if extra.is_empty() {
            return false;
        }
        let sum = extra.keys().fold(1_u64, |sum, name| sum.wrapping_add(xxh3_64(name.as_bytes())));
        if mem::replace(&mut self.last, sum) == sum {
            return false;
        }
        let before = self.fresh.len();
        for name in extra.keys() {
            let hash = xxh3_64(name.as_bytes());
            if self.known.contains(&hash) {
                continue;
            }
            if self.known.len() < METRIC_NAMES_MAX {
                self.known.insert(hash);
                self.fresh.push(name.clone());
            } else {
                self.too_many(run_id);
            }
        }
        self.fresh.len() > before
    }

    /// The run is not stored, so that none of its names is: it is new, or somebody has removed it. What its next metrics say is
    /// written anew.
    pub fn none_stored(&mut self) {
        self.known = self.fresh.iter().map(|name| xxh3_64(name.as_bytes())).collect();
        (self.last, self.complete, self.full) = (0, true, false);
    }

    /// Whether the stored names must be read before any is written.
    pub fn is_wanted(&self) -> bool {
        !self.complete && !self.fresh.is_empty()
    }

    /// The stored names.
    pub fn stored(&mut self, run_id: Uuid, stored: Vec<String>) {
        self.complete = true;
        let noted = mem::take(&mut self.fresh);
        self.known = stored.iter().map(|name| xxh3_64(name.as_bytes())).collect();
        for name in noted {
            let hash = xxh3_64(name.as_bytes());
            if self.known.contains(&hash) {
                continue;
            }
            if self.known.len() < METRIC_NAMES_MAX {
                self.known.insert(hash);
                self.fresh.push(name);
            } else {
                self.too_many(run_id);
            }
        }
    }

    /// Whether there is something to write.
    pub fn is_dirty(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Takes the new names for a write.
    pub fn take(&mut self) -> Vec<String> {
        mem::take(&mut self.fresh)
    }

    /// The write of these names failed.
    pub fn put_back(&mut self, mut names: Vec<String>) {
        names.append(&mut self.fresh);
        self.fresh = names;
    }

    /// Roughly how much memory they take.
    pub fn bytes(&self) -> usize {
        self.known.len() * KNOWN + self.fresh.iter().map(|name| name.len() + size_of::<String>()).sum::<usize>()
    }

    fn too_many(&mut self, run_id: Uuid) {
        if !mem::replace(&mut self.full, true) {
            warn!(run_id = %run_id, kept = METRIC_NAMES_MAX, "run has more names of metrics than are kept; the others are only in `extra`");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extra<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, f64> {
        names.into_iter().map(|name| (name.to_owned(), 0.5)).collect()
    }

    #[test]
    fn a_name_is_written_once_and_again_when_that_failed() {
        let (mut names, run_id) = (Names::default(), Uuid::from_u128(1));
        names.none_stored();
        assert!(!names.note(run_id, &extra([])), "nothing is nothing");
        assert!(names.note(run_id, &extra(["a", "b"])));
        assert!(!names.note(run_id, &extra(["a", "b"])) && !names.note(run_id, &extra(["b"])));
        let taken = names.take();
        assert_eq!((taken.as_slice(), names.is_dirty()), (&["a".to_owned(), "b".to_owned()][..], false));
        assert!(names.note(run_id, &extra(["b", "c"])));
        names.put_back(taken);
        assert_eq!(names.take(), ["a", "b", "c"]);
        names.none_stored();
        assert!(names.note(run_id, &extra(["b", "c"])), "somebody has removed the run with all that was of it");
        assert_eq!(names.take(), ["b", "c"]);
    }

    #[test]
    fn of_a_stored_run_only_new_names_are_written_and_never_too_many() {
        let (mut names, run_id) = (Names::default(), Uuid::from_u128(1));
        assert!(names.note(run_id, &extra(["x", "y", "z"])) && names.is_wanted());
        names.stored(run_id, (2..METRIC_NAMES_MAX).map(|n| format!("n{n}")).chain(["y".to_owned()]).collect());
        assert_eq!((names.take(), names.is_wanted()), (vec!["x".to_owned()], false));
        assert!(!names.note(run_id, &extra(["more", "x", "y"])), "the first stay");
        assert_eq!((names.take().len(), names.full), (0, true));
        let mut names = Names::default();
        names.none_stored();
        let all: Vec<String> = (0..METRIC_NAMES_MAX + 10).map(|n| n.to_string()).collect();
        assert!(names.note(run_id, &extra(all.iter().map(String::as_str))));
        assert_eq!(names.take().len(), METRIC_NAMES_MAX);
    }
}
