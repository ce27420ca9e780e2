//! A run as it is shown: what people changed of it, laid over its row.
//!
//! The row itself stays as messages made it: the writer merges messages with [`RunRow`] and never sees an [`EditedRun`].

use std::mem;

use super::{MemSize, RunEdit, RunRow, StoredRow, size};
use crate::units::Micros;

impl RunEdit {
    /// Applies a later change: its present values replace, its tags are added and removed one by one.
    pub fn apply(&mut self, change: &Self) {
        let (mut added, mut removed) = (mem::take(&mut self.add_tags), mem::take(&mut self.remove_tags));
        added.retain(|tag| !change.remove_tags.contains(tag));
        removed.retain(|tag| !change.add_tags.contains(tag));
        added.extend(change.add_tags.iter().cloned());
        removed.extend(change.remove_tags.iter().cloned());
        self.merge(change);
        (self.add_tags, self.remove_tags) = (added, removed);
    }
}

/// A run as it is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EditedRun {
    /// Its row, with the notes and tags that people gave it.
    pub row: RunRow,
    /// The name that people gave it; that of its producer is `row.run_name`.
    pub display_name: Option<String>,
    /// Whether lists leave it out unless asked for.
    pub archived: bool,
    /// Time of the last change.
    pub edited_at: Option<Micros>,
    /// Author of the last change.
    pub edited_by: Option<String>,
}

impl EditedRun {
    /// Lays the edit over the row of its run.
    pub fn new(mut row: RunRow, edit: Option<RunEdit>) -> Self {
        let Some(edit) = edit else { return Self { row, ..Self::default() } };
        let non_empty = |text: &String| !text.is_empty();
        if edit.notes.is_some() {
            row.notes = edit.notes.filter(non_empty);
        }
        row.tags.extend(edit.add_tags);
        row.tags.retain(|tag| !edit.remove_tags.contains(tag));
        Self {
            row,
            display_name: edit.display_name.filter(non_empty),
            archived: edit.archived.unwrap_or(false),
            edited_at: edit.edited_at,
            edited_by: edit.edited_by,
        }
    }

    /// The name to show: that which people gave it, else that of its producer.
    pub fn name(&self) -> Option<&str> {
        self.display_name.as_deref().or(self.row.run_name.as_deref())
    }
}

impl MemSize for EditedRun {
    fn bytes(&self) -> usize {
        self.row.bytes() + size::text(&self.display_name) + size::text(&self.edited_by)
    }
}

impl MemSize for RunEdit {
    fn bytes(&self) -> usize {
        let texts = [&self.display_name, &self.notes, &self.edited_by];
        let tags: usize = self.add_tags.iter().chain(&self.remove_tags).map(String::len).sum();
        size::ROW_OVERHEAD_BYTES + texts.into_iter().map(size::text).sum::<usize>() + tags
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn tags(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_last_change_of_a_tag_counts() {
        let row = RunRow { tags: tags(&["own", "kept"]), ..RunRow::default() };
        let mut edit = RunEdit::default();
        for (add, remove, shown) in [
            (&["new"][..], &["own"][..], &["kept", "new"][..]),
            (&["own"], &["new"], &["kept", "own"]),
            (&[], &["own", "absent"], &["kept"]),
            (&["absent"], &[], &["absent", "kept"]),
            (&[], &[], &["absent", "kept"]),
        ] {
            edit.apply(&RunEdit { add_tags: tags(add), remove_tags: tags(remove), ..RunEdit::default() });
            assert_eq!(EditedRun::new(row.clone(), Some(edit.clone())).row.tags, tags(shown), "{add:?} {remove:?}");
        }
    }

    #[test]
    fn present_values_replace_and_empty_texts_clear() {
        let row = RunRow { run_name: Some("r".into()), notes: Some("of the trainer".into()), ..RunRow::default() };
        let shown = |edit: &RunEdit| EditedRun::new(row.clone(), Some(edit.clone()));
        let mut edit = RunEdit::default();
        edit.apply(&RunEdit { display_name: Some("n".into()), archived: Some(true), ..RunEdit::default() });
        let run = shown(&edit);
        assert_eq!((run.name(), run.archived, run.row.notes.as_deref()), (Some("n"), true, Some("of the trainer")));
        edit.apply(&RunEdit { display_name: Some(String::new()), notes: Some(String::new()), ..RunEdit::default() });
        let run = shown(&edit);
        assert_eq!((run.name(), run.archived, run.row.notes.as_deref()), (Some("r"), true, None));
        edit.apply(&RunEdit { notes: Some("ours".into()), archived: Some(false), ..RunEdit::default() });
        assert_eq!((shown(&edit).row.notes.as_deref(), shown(&edit).archived), (Some("ours"), false));
        assert_eq!(EditedRun::new(row.clone(), None).row, row);
    }
}
