//! A row that other daemons write, too, each from some of the events of the run: entries of a stream are shared by them.
//!
//! The stored row tells when its latest event was, and not which event said what. A value that is newer than all of the row replaces
//! what is stored; a value that is as new yields; of an older one the history of the run says which is the newest, by the rows of all.

use super::{BEST, BEST_EPOCH, LAST, Summary, TAGS};
use crate::{
    event::RunRow,
    units::Micros,
    writer::{final_values, run_columns::each_newest},
};

/// Of the columns whose newest value counts, those that only grow while a run goes on.
const GROWING: [usize; 2] = [4, 5];

impl Summary {
    /// Takes in a stored row that another daemon may have written; before [`merge_stored`](Self::merge_stored) of a known run.
    pub fn merge_shared(&mut self, stored: &RunRow) {
        let Some(last) = stored.last_event_time else { return };
        let older = self.from_metrics.yield_to(stored, last);
        self.from_end.yield_to(stored, last);
        final_values::show_stored(&mut self.row, stored, &mut self.dirty);
        if let Some(from) = older {
            let unmerged = self.unmerged.get_or_insert_with(|| Self::not_loaded(stored.run_id));
            unmerged.oldest = unmerged.oldest.min(from);
        }
        self.yield_newest(stored, last);
        self.keep_greatest(stored);
    }

    /// What only grows, and is less in the stored row, is written again: another daemon had read the row before ours was written.
    fn keep_greatest(&mut self, stored: &RunRow) {
        let number = |best: Option<f64>| best.filter(|best| best.is_finite());
        let (ours, theirs) = (number(self.row.best_val_accuracy), number(stored.best_val_accuracy));
        if ours.is_some_and(|ours| theirs.is_none_or(|theirs| ours > theirs)) {
            self.dirty |= BEST | BEST_EPOCH;
        }
        if self.row.last_event_time > stored.last_event_time {
            self.dirty |= LAST;
        }
        if !self.row.tags.is_subset(&stored.tags) {
            self.dirty |= TAGS;
        }
    }

    fn yield_newest(&mut self, stored: &RunRow, last: Micros) {
        macro_rules! compare {
            ($($at:literal $bit:literal $name:ident),+) => {$(
                if let (Some(ours), Some(theirs)) = (&self.row.$name, &stored.$name) {
                    match (ours == theirs, self.times[$at] > last) {
                        (true, _) => self.dirty &= !(1 << $bit),
                        (false, true) => self.dirty |= 1 << $bit,
                        // What only grows is compared below.
                        (false, false) if GROWING.contains(&$at) => {}
                        (false, false) => {
                            self.row.$name.clone_from(&stored.$name);
                            self.times[$at] = self.times[$at].max(last);
                            self.dirty &= !(1 << $bit);
                        }
                    }
                }
            )+};
        }
        macro_rules! keep_greater {
            ($($at:literal $bit:literal $name:ident),+) => {$(
                if let (Some(ours), Some(theirs)) = (self.row.$name, stored.$name)
                    && self.times[$at] <= last
                {
                    let keeps = ours > theirs;
                    self.row.$name = Some(ours.max(theirs));
                    self.dirty = if keeps { self.dirty | (1 << $bit) } else { self.dirty & !(1 << $bit) };
                }
            )+};
        }
        each_newest!(compare);
        keep_greater!(4 9 total_hidden_units, 5 10 total_parameters);
    }
}
