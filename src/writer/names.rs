//! The names of a run's other numbers: which are stored, and which are to be written with the run's row.
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

use super::frontier::Ticket;
use crate::store::METRIC_NAMES_MAX;

/// Bytes that a name takes here once it is written, without its text.
const KNOWN: usize = 24;

/// A name that is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewName {
    /// The name.
    pub name: String,
    /// The record that brought it; `None`: it was stored before.
    pub ticket: Option<Ticket>,
}

/// The names of one run.
#[derive(Debug, Default)]
pub struct Names {
    /// Their hashes.
    known: HashSet<u64>,
    /// The names, but for those that the store has refused; none, when they are `dropped`.
    texts: Vec<Box<str>>,
    /// Bytes of `texts`.
    text: usize,
    /// There was no room for the texts.
    dropped: bool,
    /// Names that are in no write yet.
    fresh: Vec<NewName>,
    /// The sum of the hashes of metrics of which every name was known (or one too many).
    last: u64,
    /// Whether `known` has every stored name.
    complete: bool,
    /// Whether there were more than are kept.
    full: bool,
}

impl Names {
    /// Takes the names of a metrics row. `true`: one of them is to be written.
    pub fn note(&mut self, run_id: Uuid, extra: &BTreeMap<String, f64>, ticket: Ticket) -> bool {
        if extra.is_empty() {
            return false;
        }
        let sum = extra.keys().fold(1_u64, |sum, name| sum.wrapping_add(hash(name)));
        if mem::replace(&mut self.last, sum) == sum {
            return false;
        }
        let before = self.fresh.len();
        for name in extra.keys() {
            self.add(run_id, name, Some(ticket));
        }
        self.fresh.len() > before
    }

    /// The run is new in the store, so that none of its names is stored.
    pub fn none_stored(&mut self) {
        let noted = mem::take(&mut self.fresh);
        *self = Self { complete: true, ..Self::default() };
        for new in &noted {
            self.know(&new.name);
        }
        self.fresh = noted;
    }

    /// The stored row of the run has vanished, wholly or in part, and the names perhaps with it: all are to be written again.
    pub fn lost(&mut self) {
        if !self.complete {
            // Those that are known are all new. Which are stored is read before they are written.
            return;
        }
        if self.dropped {
            // They cannot be written from here: those that metrics still say come back with the next ones, the others do not.
            let fresh = mem::take(&mut self.fresh);
            *self = Self::default();
            for new in &fresh {
                self.know(&new.name);
            }
            self.fresh = fresh;
            return;
        }
        let fresh: HashSet<&str> = self.fresh.iter().map(|new| &*new.name).collect();
        let written = self.texts.iter().filter(|name| !fresh.contains(&***name));
        let mut again: Vec<_> = written.map(|name| NewName { name: (**name).to_owned(), ticket: None }).collect();
        again.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.put_back(again);
    }

    /// Whether the stored names must be read before any is written.
    pub fn is_wanted(&self) -> bool {
        !self.complete && !self.fresh.is_empty()
    }

    /// The stored names.
    pub fn stored(&mut self, run_id: Uuid, stored: Vec<String>) {
        let noted = mem::take(&mut self.fresh);
        *self = Self { complete: true, last: self.last, ..Self::default() };
        for name in &stored {
            self.know(name);
        }
        for new in noted {
            self.add(run_id, &new.name, new.ticket);
        }
    }

    /// Whether there is something to write.
    pub fn is_dirty(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Takes the new names for a write.
    pub fn take(&mut self) -> Vec<NewName> {
        mem::take(&mut self.fresh)
    }

    /// The write of these names failed.
    pub fn put_back(&mut self, mut names: Vec<NewName>) {
        names.append(&mut self.fresh);
        self.fresh = names;
    }

    /// The store refuses this name: it is not written again.
    pub fn refused(&mut self, name: &str) {
        if let Some(at) = self.texts.iter().position(|text| **text == *name) {
            self.text -= bytes_of(&self.texts.swap_remove(at));
        }
    }

    /// Roughly how much memory those take that are to be written.
    pub fn fresh_bytes(&self) -> usize {
        self.fresh.iter().map(|new| new.name.len() + size_of::<NewName>()).sum()
    }

    /// Roughly how much memory the others take.
    pub fn known_bytes(&self) -> usize {
        self.known.len() * KNOWN + self.text
    }

    /// There is no room for the texts: only their hashes are kept.
    pub fn drop_texts(&mut self) {
        (self.texts, self.text, self.dropped) = (Vec::new(), 0, true);
    }

    /// Takes a name that is to be written, unless it is known or one too many.
    fn add(&mut self, run_id: Uuid, name: &str, ticket: Option<Ticket>) {
        if self.known.contains(&hash(name)) {
            return;
        }
        if self.known.len() < METRIC_NAMES_MAX {
            self.know(name);
            self.fresh.push(NewName { name: name.to_owned(), ticket });
        } else {
            self.too_many(run_id);
        }
    }

    fn know(&mut self, name: &str) {
        if self.known.insert(hash(name)) && !self.dropped {
            self.text += bytes_of(name);
            self.texts.push(name.into());
        }
    }

    fn too_many(&mut self, run_id: Uuid) {
        if !mem::replace(&mut self.full, true) {
            warn!(run_id = %run_id, kept = METRIC_NAMES_MAX, "run has more names of metrics than are kept; the others are only in `extra`");
        }
    }
}

fn bytes_of(text: &str) -> usize {
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

    fn taken(names: &mut Names) -> Vec<(String, Option<Ticket>)> {
        names.take().into_iter().map(|new| (new.name, new.ticket)).collect()
    }

    #[test]
    fn a_name_is_written_once_and_again_when_that_failed() {
        let (mut names, run_id) = (Names::default(), Uuid::from_u128(1));
        names.none_stored();
        assert!(!names.note(run_id, &extra([]), 0), "nothing is nothing");
        assert!(names.note(run_id, &extra(["a", "b"]), 1));
        assert!(!names.note(run_id, &extra(["a", "b"]), 2) && !names.note(run_id, &extra(["b"]), 3));
        let first = names.take();
        assert_eq!((first.len(), names.is_dirty()), (2, false));
        assert!(names.note(run_id, &extra(["b", "c"]), 4));
        names.put_back(first);
        let expected = [("a".to_owned(), Some(1)), ("b".to_owned(), Some(1)), ("c".to_owned(), Some(4))];
        assert_eq!(taken(&mut names), expected);
    }

    #[test]
    fn what_the_store_has_lost_is_written_again_but_for_what_it_refused() {
        let (mut names, run_id) = (Names::default(), Uuid::from_u128(1));
        assert!(names.note(run_id, &extra(["a", "b", "c"]), 1));
        names.lost();
        assert!(names.is_wanted(), "which are stored is not known yet");
        names.stored(run_id, vec!["old".to_owned()]);
        assert_eq!(names.take().len(), 3);
        names.refused("b");
        let before = names.known_bytes();
        assert!(names.note(run_id, &extra(["a", "d"]), 2));
        names.lost();
        let past = |name: &str| (name.to_owned(), None);
        assert_eq!(taken(&mut names), [past("a"), past("c"), past("old"), ("d".to_owned(), Some(2))]);
        assert_eq!((names.known_bytes(), names.fresh_bytes()), (before + KNOWN + bytes_of("d"), 0));
        assert!(!names.note(run_id, &extra(["a", "b"]), 3), "a refused name is not tried with every message");
    }

    #[test]
    fn without_their_texts_names_are_known_and_those_still_said_come_back() {
        let (mut names, run_id) = (Names::default(), Uuid::from_u128(1));
        names.none_stored();
        assert!(names.note(run_id, &extra(["a", "b"]), 1));
        names.take();
        names.drop_texts();
        assert_eq!(names.known_bytes(), 2 * KNOWN);
        assert!(!names.note(run_id, &extra(["b"]), 2), "it is known");
        assert!(names.note(run_id, &extra(["c"]), 3));
        names.lost();
        assert!(names.note(run_id, &extra(["b", "c"]), 4) && names.is_wanted());
        names.stored(run_id, Vec::new());
        assert_eq!(taken(&mut names), [("c".to_owned(), Some(3)), ("b".to_owned(), Some(4))]);
    }

    #[test]
    fn of_a_stored_run_only_new_names_are_written_and_never_too_many() {
        let (mut names, run_id) = (Names::default(), Uuid::from_u128(1));
        assert!(names.note(run_id, &extra(["x", "y", "z"]), 1) && names.is_wanted());
        names.stored(run_id, (2..METRIC_NAMES_MAX).map(|n| format!("n{n}")).chain(["y".to_owned()]).collect());
        assert_eq!((taken(&mut names), names.is_wanted()), (vec![("x".to_owned(), Some(1))], false));
        assert!(!names.note(run_id, &extra(["more", "x", "y"]), 2), "the first stay");
        assert_eq!((names.take().len(), names.full), (0, true));
        let mut names = Names::default();
        names.none_stored();
        let all: Vec<String> = (0..METRIC_NAMES_MAX + 10).map(|n| n.to_string()).collect();
        assert!(names.note(run_id, &extra(all.iter().map(String::as_str)), 3));
        assert_eq!(names.take().len(), METRIC_NAMES_MAX);
    }
}
