//! The names of a run's extra metrics: which are stored, and which are to be written with the run row.
//!
//! Pure. A name is found by its hash, and metrics that say what the last ones said cost one pass over their names and no look into
//! the table. The names themselves are kept, too, as long as there is room for all runs' names: what the store has lost is written
//! again. At most [`METRIC_NAMES_MAX`] names of a run are kept, the first ones: of a run that is stored already its names are read
//! before another one is added.

use std::{
    collections::{BTreeMap, HashSet},
    mem,
};

use tracing::warn;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::frontier::RecordToken;
use crate::store::METRIC_NAMES_MAX;

/// Bytes that a name takes here once it is written, without its text.
const KNOWN_NAME_BYTES: usize = 24;

/// A name that is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewName {
    /// The name.
    pub name: String,
    /// The record that brought it; `None`: it was stored before.
    pub token: Option<RecordToken>,
}

/// The names of one run.
#[derive(Debug, Default)]
pub struct Names {
    /// Their hashes.
    known: HashSet<u64>,
    /// The names, but for those that the store has refused; none, when they are `dropped`.
    texts: Vec<Box<str>>,
    /// Bytes of `texts`.
    texts_bytes: usize,
    /// There was no room for the texts.
    dropped: bool,
    /// Names that are in no write yet.
    pub unwritten: Vec<NewName>,
    /// The sum of the hashes of metrics of which every name was known (or one too many).
    last_sum: u64,
    /// Whether `known` has every stored name.
    complete: bool,
    /// Whether there were more than are kept.
    full: bool,
}

impl Names {
    /// Takes the names of a metrics row. `true`: one of them is to be written.
    pub fn observe(&mut self, run_id: Uuid, extra: &BTreeMap<String, f64>, token: RecordToken) -> bool {
        if extra.is_empty() {
            return false;
        }
        let sum = extra.keys().fold(1_u64, |sum, name| sum.wrapping_add(hash(name)));
        if mem::replace(&mut self.last_sum, sum) == sum {
            return false;
        }
        let before = self.unwritten.len();
        for name in extra.keys() {
            self.add(run_id, name, Some(token));
        }
        self.unwritten.len() > before
    }

    /// The run is new in the store, so that none of its names is stored.
    pub fn mark_run_new(&mut self) {
        self.forget_written();
        self.complete = true;
    }

    /// The stored row of the run has vanished, wholly or in part, and the names perhaps too: all are to be written again.
    pub fn mark_lost(&mut self) {
        if !self.complete {
            // Those that are known are all new. Which are stored is read before they are written.
            return;
        }
        if self.dropped {
            // Without the texts they cannot be written: names in later metrics come back, the rest does not.
            return self.forget_written();
        }
        let unwritten: HashSet<&str> = self.unwritten.iter().map(|new| &*new.name).collect();
        let written = self.texts.iter().filter(|name| !unwritten.contains(&***name));
        let mut again: Vec<_> = written.map(|name| NewName { name: (**name).to_owned(), token: None }).collect();
        again.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.put_back(again);
    }

    /// Forgets all but the names that are in no write yet.
    fn forget_written(&mut self) {
        let unwritten = mem::take(&mut self.unwritten);
        *self = Self::default();
        for new in &unwritten {
            self.remember(&new.name);
        }
        self.unwritten = unwritten;
    }

    /// Whether the stored names must be read before any is written.
    pub fn needs_stored_names(&self) -> bool {
        !self.complete && !self.unwritten.is_empty()
    }

    /// The stored names.
    pub fn merge_stored(&mut self, run_id: Uuid, stored: Vec<String>) {
        let unwritten = mem::take(&mut self.unwritten);
        *self = Self { complete: true, last_sum: self.last_sum, ..Self::default() };
        for name in &stored {
            self.remember(name);
        }
        for new in unwritten {
            self.add(run_id, &new.name, new.token);
        }
    }

    /// The write of these names failed.
    pub fn put_back(&mut self, mut names: Vec<NewName>) {
        names.append(&mut self.unwritten);
        self.unwritten = names;
    }

    /// The store refuses this name: it is not written again.
    pub fn discard_refused(&mut self, name: &str) {
        if let Some(at) = self.texts.iter().position(|text| **text == *name) {
            self.texts_bytes -= text_bytes(&self.texts.swap_remove(at));
        }
    }

    /// Roughly how much memory those take that are to be written.
    pub fn unwritten_bytes(&self) -> usize {
        self.unwritten.iter().map(|new| new.name.len() + size_of::<NewName>()).sum()
    }

    /// Roughly how much memory the written names take.
    pub fn known_bytes(&self) -> usize {
        self.known.len() * KNOWN_NAME_BYTES + self.texts_bytes
    }

    /// There is no room for the texts: only their hashes are kept.
    pub fn drop_texts(&mut self) {
        (self.texts, self.texts_bytes, self.dropped) = (Vec::new(), 0, true);
    }

    /// Takes a name that is to be written, unless it is known or one too many.
    fn add(&mut self, run_id: Uuid, name: &str, token: Option<RecordToken>) {
        if self.known.contains(&hash(name)) {
            return;
        }
        if self.known.len() < METRIC_NAMES_MAX {
            self.remember(name);
            self.unwritten.push(NewName { name: name.to_owned(), token });
        } else if !mem::replace(&mut self.full, true) {
            warn!(run_id = %run_id, kept = METRIC_NAMES_MAX, "run has more names of metrics than are kept; the others are only in `extra`");
        }
    }

    fn remember(&mut self, name: &str) {
        if self.known.insert(hash(name)) && !self.dropped {
            self.texts_bytes += text_bytes(name);
            self.texts.push(name.into());
        }
    }
}

fn text_bytes(text: &str) -> usize {
    text.len() + size_of::<Box<str>>()
}

fn hash(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extra<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, f64> {
        names.into_iter().map(|name| (name.to_owned(), 0.5)).collect()
    }

    fn taken(names: &mut Names) -> Vec<(String, Option<RecordToken>)> {
        mem::take(&mut names.unwritten).into_iter().map(|new| (new.name, new.token)).collect()
    }

    #[test]
    fn a_name_is_written_once_and_again_when_that_failed() {
        let (mut names, run_id) = (Names::default(), Uuid::from_u128(1));
        names.mark_run_new();
        assert!(!names.observe(run_id, &extra([]), 0), "nothing is nothing");
        assert!(names.observe(run_id, &extra(["a", "b"]), 1));
        assert!(!names.observe(run_id, &extra(["a", "b"]), 2) && !names.observe(run_id, &extra(["b"]), 3));
        let first = mem::take(&mut names.unwritten);
        assert_eq!((first.len(), !names.unwritten.is_empty()), (2, false));
        assert!(names.observe(run_id, &extra(["b", "c"]), 4));
        names.put_back(first);
        let expected = [("a".to_owned(), Some(1)), ("b".to_owned(), Some(1)), ("c".to_owned(), Some(4))];
        assert_eq!(taken(&mut names), expected);
    }

    #[test]
    fn what_the_store_has_lost_is_written_again_but_for_what_it_refused() {
        let (mut names, run_id) = (Names::default(), Uuid::from_u128(1));
        assert!(names.observe(run_id, &extra(["a", "b", "c"]), 1));
        names.mark_lost();
        assert!(names.needs_stored_names(), "which are stored is not known yet");
        names.merge_stored(run_id, vec!["old".to_owned()]);
        assert_eq!(mem::take(&mut names.unwritten).len(), 3);
        names.discard_refused("b");
        let before = names.known_bytes();
        assert!(names.observe(run_id, &extra(["a", "d"]), 2));
        names.mark_lost();
        let past = |name: &str| (name.to_owned(), None);
        assert_eq!(taken(&mut names), [past("a"), past("c"), past("old"), ("d".to_owned(), Some(2))]);
        assert_eq!((names.known_bytes(), names.unwritten_bytes()), (before + KNOWN_NAME_BYTES + text_bytes("d"), 0));
        assert!(!names.observe(run_id, &extra(["a", "b"]), 3), "a refused name is not tried with every message");
    }

    #[test]
    fn without_their_texts_names_are_known_and_those_still_said_come_back() {
        let (mut names, run_id) = (Names::default(), Uuid::from_u128(1));
        names.mark_run_new();
        assert!(names.observe(run_id, &extra(["a", "b"]), 1));
        names.unwritten.clear();
        names.drop_texts();
        assert_eq!(names.known_bytes(), 2 * KNOWN_NAME_BYTES);
        assert!(!names.observe(run_id, &extra(["b"]), 2), "it is known");
        assert!(names.observe(run_id, &extra(["c"]), 3));
        names.mark_lost();
        assert!(names.observe(run_id, &extra(["b", "c"]), 4) && names.needs_stored_names());
        names.merge_stored(run_id, Vec::new());
        assert_eq!(taken(&mut names), [("c".to_owned(), Some(3)), ("b".to_owned(), Some(4))]);
    }

    #[test]
    fn of_a_stored_run_only_new_names_are_written_and_never_too_many() {
        let (mut names, run_id) = (Names::default(), Uuid::from_u128(1));
        assert!(names.observe(run_id, &extra(["x", "y", "z"]), 1) && names.needs_stored_names());
        names.merge_stored(run_id, (2..METRIC_NAMES_MAX).map(|n| format!("n{n}")).chain(["y".to_owned()]).collect());
        assert_eq!((taken(&mut names), names.needs_stored_names()), (vec![("x".to_owned(), Some(1))], false));
        assert!(!names.observe(run_id, &extra(["more", "x", "y"]), 2), "the first stay");
        assert_eq!((mem::take(&mut names.unwritten).len(), names.full), (0, true));
        let mut names = Names::default();
        names.mark_run_new();
        let all: Vec<String> = (0..METRIC_NAMES_MAX + 10).map(|n| n.to_string()).collect();
        assert!(names.observe(run_id, &extra(all.iter().map(String::as_str)), 3));
        assert_eq!(mem::take(&mut names.unwritten).len(), METRIC_NAMES_MAX);
    }
}
