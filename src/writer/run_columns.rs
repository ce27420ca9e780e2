//! The columns of a run's row as bits, and the one rule of most of them: the newest value counts.

use crate::{
    event::{Lifecycle, RunRow, RunUpdate},
    units::Micros,
};

/// Columns, as a set of bits.
pub type ColumnSet = u32;

/// Calls the macro with every other column whose newest value counts: its number, its bit and its name. The bits between are those
/// of the final values.
macro_rules! each_newest {
    ($call:ident) => {
        $call! {
            0 0 run_name, 1 1 dataset_name, 2 2 dataset_size, 3 3 config_json, 4 9 total_hidden_units,
            5 10 total_parameters, 6 11 notes, 7 12 created_by
        }
    };
}

/// Calls the macro with every column but `tags`: its bit and its name. The columns of which the time of their value is known come
/// first.
macro_rules! each_column {
    ($call:ident) => {
        $call! {
            0 run_name, 1 dataset_name, 2 dataset_size, 3 config_json, 4 final_epoch, 5 final_train_loss,
            6 final_train_accuracy, 7 final_val_loss, 8 final_val_accuracy, 9 total_hidden_units, 10 total_parameters,
            11 notes, 12 created_by, 13 start_time, 14 end_time, 15 duration_seconds, 16 status, 17 best_val_accuracy,
            18 best_epoch, 20 last_event_time, 21 restarted_at
        }
    };
}

/// The number of columns whose newest value counts.
pub const NEWEST_COLUMNS: usize = 8;
/// The number of columns of which the time of their value is known: those, and the final values. Theirs are the lowest bits.
pub const TIMED_COLUMNS: usize = 13;
/// Those columns.
pub const TIMED: ColumnSet = (1 << TIMED_COLUMNS) - 1;
/// `start_time`.
pub const START: ColumnSet = 1 << 13;
/// `end_time`.
pub const END: ColumnSet = 1 << 14;
/// `duration_seconds`.
pub const DURATION: ColumnSet = 1 << 15;
/// `status`.
pub const STATUS: ColumnSet = 1 << 16;
/// `best_val_accuracy`.
pub const BEST: ColumnSet = 1 << 17;
/// `best_epoch`.
pub const BEST_EPOCH: ColumnSet = 1 << 18;
/// `tags`.
pub const TAGS: ColumnSet = 1 << 19;
/// `last_event_time`.
pub const LAST: ColumnSet = 1 << 20;
/// `restarted_at`.
pub const RESTARTED: ColumnSet = 1 << 21;
/// Columns whose new value depends on the stored value, which another process may have changed since it was read.
pub const READ_MODIFY_WRITE: ColumnSet = START | BEST | BEST_EPOCH | TAGS | END | RESTARTED;
pub(super) use each_newest;

/// The columns that an event mentions, whether or not it changes them.
pub fn mentioned(update: &RunUpdate) -> ColumnSet {
    let values = &update.values;
    // The first event of a run makes its start and its status.
    let mut said = START | STATUS | LAST;
    said |= match update.lifecycle {
        Some(Lifecycle::Start) => RESTARTED | END | DURATION,
        Some(Lifecycle::End(_)) => END | DURATION,
        None => 0,
    };
    said |= if values.final_val_accuracy.is_some() { BEST | BEST_EPOCH } else { 0 };
    said |= if values.tags.is_empty() { 0 } else { TAGS };
    said | (present(values) & TIMED)
}

/// The columns, apart from `tags`, that hold a value.
pub fn present(row: &RunRow) -> ColumnSet {
    let mut present = 0;
    macro_rules! note {
        ($($bit:literal $name:ident),+) => {$( present |= ColumnSet::from(row.$name.is_some()) << $bit; )+};
    }
    each_column!(note);
    present
}

/// Empties these columns.
pub fn clear(row: &mut RunRow, columns: ColumnSet) {
    macro_rules! clear {
        ($($bit:literal $name:ident),+) => {$( if columns & (1 << $bit) != 0 { row.$name = None; } )+};
    }
    each_column!(clear);
    if columns & TAGS != 0 {
        row.tags.clear();
    }
}

/// The newest value by time wins, the later of two equally new ones; an absent column takes any. Whether the column changed.
pub fn keep_newest<T: PartialEq>(column: &mut Option<T>, value: Option<T>, said: &mut Micros, time: Micros) -> bool {
    if value.is_none() || (column.is_some() && time < *said) {
        return false;
    }
    *said = time;
    let changed = *column != value;
    if changed {
        *column = value;
    }
    changed
}

/// The row with these columns only.
pub fn project(row: &RunRow, columns: ColumnSet) -> RunRow {
    // A restart says all of the end: what is absent beside it is cleared.
    let columns = columns | if columns & (RESTARTED | END | DURATION) == 0 { 0 } else { RESTARTED | END | DURATION };
    let mut change = row.clone();
    clear(&mut change, !columns);
    change
}
