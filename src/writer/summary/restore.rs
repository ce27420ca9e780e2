//! Columns to write again because the stored row has lost them, and columns not to write again because they were refused.

use super::Summary;
use crate::{
    event::RunRow,
    units::Micros,
    writer::run_columns::{self, ColumnSet, DURATION, END, RESTARTED, START, STATUS, TAGS, TIMED, each_newest},
};

impl Summary {
    /// Marks every column that is known here and absent in the stored row (`None`: all of it is), and a start that is earlier
    /// than the stored one. Whether there is any.
    ///
    /// When the run ended is restored with its status only: of a stored row that has one, the [merge](Self::merge_stored) decides that.
    /// Another process may have seen the run begin again, which clears its end.
    pub fn restore(&mut self, stored: Option<&RunRow>) -> bool {
        let nothing = RunRow::default();
        let (row, stored) = (&self.row, stored.unwrap_or(&nothing));
        let mut lost = run_columns::present(row) & !run_columns::present(stored);
        if stored.status.is_some() {
            lost &= !(STATUS | END | DURATION | RESTARTED);
        }
        if stored.start_time.is_some() && row.start_time.is_some_and(|start| Some(start) < stored.start_time) {
            lost |= START;
        }
        if !row.tags.is_subset(&stored.tags) {
            lost |= TAGS;
        }
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
    /// written again. Of a final value the next one counts then: what metrics said, where the end's own was refused.
    pub fn discard_refused(&mut self, columns: ColumnSet) {
        let columns = columns & !self.dirty;
        self.from_metrics.discard(&self.row, columns);
        self.from_end.discard(&self.row, columns);
        macro_rules! forget_times {
            ($($at:literal $bit:literal $name:ident),+) => {$(
                if columns & (1 << $bit) != 0 {
                    self.times[$at] = Micros::MIN;
                }
            )+};
        }
        each_newest!(forget_times);
        run_columns::clear(&mut self.row, columns & TIMED);
        self.recompute(false);
    }

    /// The same for one tag.
    pub fn discard_refused_tag(&mut self, tag: &str) {
        self.row.tags.remove(tag);
    }
}
