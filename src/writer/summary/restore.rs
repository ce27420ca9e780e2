//! What is to be written again because the stored row has lost it, and what is not to be written again because it was refused.

use super::{BEST, BEST_EPOCH, Columns, DURATION, END, LAST, START, STATUS, Summary, TAGS};
use crate::{event::RunRow, units::Micros};

impl Summary {
    /// Marks every column that is known here and absent in the stored row (`None`: all of it is), and a start that is earlier
    /// than the stored one. Whether there is any.
    pub fn restore(&mut self, stored: Option<&RunRow>) -> bool {
        let nothing = RunRow::default();
        let (row, stored) = (&self.row, stored.unwrap_or(&nothing));
        let mut lost = 0;
        let mut note = |bit: Columns, is_lost: bool| lost |= if is_lost { bit } else { 0 };
        macro_rules! note_newest {
            ($($column:literal $name:ident),+) => {$(
                note(1 << $column, row.$name.is_some() && stored.$name.is_none());
            )+};
        }
        newest!(note_newest);
        let start = row.start_time.is_some_and(|start| stored.start_time.is_none_or(|stored| start < stored));
        note(START, start);
        // Another process may have seen the run begin again, which clears them.
        let same_status = stored.status.is_none() || stored.status == row.status;
        note(END, same_status && row.end_time.is_some() && stored.end_time.is_none());
        note(DURATION, same_status && row.duration_seconds.is_some() && stored.duration_seconds.is_none());
        note(STATUS, row.status.is_some() && stored.status.is_none());
        note(BEST, row.best_val_accuracy.is_some() && stored.best_val_accuracy.is_none());
        note(BEST_EPOCH, row.best_epoch.is_some() && stored.best_epoch.is_none());
        note(TAGS, !row.tags.is_subset(&stored.tags));
        note(LAST, row.last_event_time.is_some() && stored.last_event_time.is_none());
        let lost = lost & !self.dirty;
        self.dirty |= lost;
        lost != 0
    }

    /// The index of recent runs lacks the run: its start is written again, which brings the entry back.
    pub fn restore_start(&mut self) {
        if self.row.start_time.is_some() {
            self.dirty |= START;
        }
    }

    /// The store refuses the values of these columns: they are forgotten, unless a newer one has come meanwhile, so that none is
    /// written again.
    pub fn forget(&mut self, columns: Columns) {
        let columns = columns & !self.dirty;
        let (row, times) = (&mut self.row, &mut self.times);
        macro_rules! forget {
            ($($column:literal $name:ident),+) => {$(
                if columns & (1 << $column) != 0 {
                    (row.$name, times[$column]) = (None, Micros::MIN);
                }
            )+};
        }
        newest!(forget);
    }

    /// The same for one tag.
    pub fn forget_tag(&mut self, tag: &str) {
        self.row.tags.remove(tag);
    }
}
