//! The columns of a run's row as bits, and the one rule of most of them: the newest value counts.

use super::bit_eq::BitEq;
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

/// Calls the macro with those columns and the final values: the bit of each and its name.
macro_rules! each_timed {
    ($call:ident) => {
        $call! {
            0 run_name, 1 dataset_name, 2 dataset_size, 3 config_json, 4 final_epoch, 5 final_train_loss,
            6 final_train_accuracy, 7 final_val_loss, 8 final_val_accuracy, 9 total_hidden_units, 10 total_parameters,
            11 notes, 12 created_by
        }
    };
}

/// The number of columns whose newest value counts.
pub const NEWEST_COLUMNS: usize = 8;
/// The number of columns of which the time of their value is known: those, and the final values. Theirs are the lowest bits.
pub const TIMED_COLUMNS: usize = 13;
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
/// Columns whose new value depends on the stored one, which others may have changed since it was read.
pub const READ_MODIFY_WRITE: ColumnSet = START | BEST | BEST_EPOCH | TAGS | END | RESTARTED;
pub(super) use {each_newest, each_timed};

/// The columns that an event says something of, whether or not that changes them.
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
    macro_rules! note {
        ($($column:literal $name:ident),+) => {$( said |= if values.$name.is_some() { 1 << $column } else { 0 }; )+};
    }
    each_timed!(note);
    said
}

/// The newest value by time wins, the later of two equally new ones; an absent column takes any.
pub fn keep_newest<T: BitEq>(
    column: &mut Option<T>,
    value: Option<T>,
    said: &mut Micros,
    time: Micros,
    bit: ColumnSet,
    dirty: &mut ColumnSet,
) {
    let Some(value) = value else { return };
    if column.is_some() && time < *said {
        return;
    }
    *said = time;
    if !column.as_ref().is_some_and(|old| old.bit_eq(&value)) {
        *column = Some(value);
        *dirty |= bit;
    }
}

/// The row with these columns only.
pub fn project(row: &RunRow, columns: ColumnSet) -> RunRow {
    fn keep<T: Clone>(value: &Option<T>, columns: ColumnSet, bit: ColumnSet) -> Option<T> {
        if columns & bit == 0 { None } else { value.clone() }
    }
    // A restart says all of the end: what is absent beside it is cleared.
    let columns = columns | if columns & (RESTARTED | END | DURATION) == 0 { 0 } else { RESTARTED | END | DURATION };
    let mut change = RunRow {
        run_id: row.run_id,
        start_time: keep(&row.start_time, columns, START),
        end_time: keep(&row.end_time, columns, END),
        duration_seconds: keep(&row.duration_seconds, columns, DURATION),
        status: keep(&row.status, columns, STATUS),
        best_val_accuracy: keep(&row.best_val_accuracy, columns, BEST),
        best_epoch: keep(&row.best_epoch, columns, BEST_EPOCH),
        last_event_time: keep(&row.last_event_time, columns, LAST),
        restarted_at: keep(&row.restarted_at, columns, RESTARTED),
        ..RunRow::default()
    };
    if columns & TAGS != 0 {
        change.tags.clone_from(&row.tags);
    }
    macro_rules! take {
        ($($column:literal $name:ident),+) => {$( change.$name = keep(&row.$name, columns, 1 << $column); )+};
    }
    each_timed!(take);
    change
}
