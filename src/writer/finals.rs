//! The final values of a run: which of those that its metrics and its ends gave is shown.
//!
//! Pure. The newest value of metrics and the newest value of ends are kept apart, column by column, each with its time. A value
//! that an end gave is shown until the run has started again and metrics newer than that start give another: so the order of
//! arrival does not matter, nor does what arrived in between.

use super::{
    bit_eq::BitEq,
    columns::{ColumnSet, TIMED_COLUMNS},
};
use crate::{event::RunRow, units::Micros};

/// Calls the macro with every column: its number here, its bit and its name.
macro_rules! finals {
    ($call:ident) => {
        $call! { 0 4 final_epoch, 1 5 final_train_loss, 2 6 final_train_accuracy, 3 7 final_val_loss, 4 8 final_val_accuracy }
    };
}

const FINAL_COLUMNS: usize = 5;

/// The newest values of one source.
#[derive(Clone, Debug)]
pub struct Finals {
    final_epoch: Option<i32>,
    final_train_loss: Option<f64>,
    final_train_accuracy: Option<f64>,
    final_val_loss: Option<f64>,
    final_val_accuracy: Option<f64>,
    times: [Micros; FINAL_COLUMNS],
}

impl Default for Finals {
    fn default() -> Self {
        Self {
            final_epoch: None,
            final_train_loss: None,
            final_train_accuracy: None,
            final_val_loss: None,
            final_val_accuracy: None,
            times: [Micros::MIN; FINAL_COLUMNS],
        }
    }
}

impl Finals {
    /// What is in a row, all of it said at `time`.
    pub fn of(row: &RunRow, time: Micros) -> Self {
        let mut finals = Self::default();
        finals.merge(row, time);
        finals
    }

    /// Takes the final values of a row that are not older than what is known.
    pub fn merge(&mut self, values: &RunRow, time: Micros) {
        macro_rules! take {
            ($($at:literal $bit:literal $name:ident),+) => {$(
                if values.$name.is_some() && (self.$name.is_none() || time >= self.times[$at]) {
                    self.$name = values.$name;
                    self.times[$at] = time;
                }
            )+};
        }
        finals!(take);
    }

    /// Takes what a later summary of the same source holds.
    pub fn merge_later(&mut self, later: &Self) {
        macro_rules! join {
            ($($at:literal $bit:literal $name:ident),+) => {$(
                if later.$name.is_some() && (self.$name.is_none() || later.times[$at] >= self.times[$at]) {
                    self.$name = later.$name;
                    self.times[$at] = later.times[$at];
                }
            )+};
        }
        finals!(join);
    }

    /// Values of which only an upper bound of the time was known are at least as old as `time`, for all that is known now.
    pub fn lower_times(&mut self, floor: Micros, time: Micros) {
        for known in &mut self.times {
            if *known <= floor {
                *known = time.min(*known);
            }
        }
    }

    /// When the values that the row shows were said, by their bits, as far as they are these.
    pub fn value_times(&self, row: &RunRow, times: &mut [Micros; TIMED_COLUMNS]) {
        macro_rules! note {
            ($($at:literal $bit:literal $name:ident),+) => {$(
                if matches!((&self.$name, &row.$name), (Some(value), Some(shown)) if value.bit_eq(shown)) {
                    times[$bit] = self.times[$at];
                }
            )+};
        }
        finals!(note);
    }

    /// Forgets the values of these columns that the row shows.
    pub fn discard(&mut self, row: &RunRow, columns: ColumnSet) {
        macro_rules! forget {
            ($($at:literal $bit:literal $name:ident),+) => {$(
                if columns & (1 << $bit) != 0
                    && matches!((&self.$name, &row.$name), (Some(value), Some(shown)) if value.bit_eq(shown))
                {
                    (self.$name, self.times[$at]) = (None, Micros::MIN);
                }
            )+};
        }
        finals!(forget);
    }

    /// Whether one of these would take the place of another value in the row.
    pub fn differs_from(&self, row: &RunRow) -> bool {
        macro_rules! differ {
            ($($at:literal $bit:literal $name:ident),+) => {
                false $(|| matches!((&self.$name, &row.$name), (Some(new), Some(old)) if !new.bit_eq(old)))+
            };
        }
        finals!(differ)
    }
}

/// Puts what is to be shown into the row, and returns the columns that changed. `restarts` are the starts after the first.
pub fn select_finals(row: &mut RunRow, measured: &Finals, given: &Finals, restarts: &[Micros]) -> ColumnSet {
    let mut changed = 0;
    macro_rules! show {
        ($($at:literal $bit:literal $name:ident),+) => {$(
            let value = match (measured.$name, given.$name) {
                (Some(measured_value), Some(given_value)) => {
                    let (from, to) = (given.times[$at], measured.times[$at]);
                    let freed = restarts.iter().any(|start| (from..=to).contains(start));
                    Some(if freed { measured_value } else { given_value })
                }
                (measured, given) => measured.or(given),
            };
            if let Some(value) = value && !row.$name.is_some_and(|old| old.bit_eq(&value)) {
                row.$name = Some(value);
                changed |= 1 << $bit;
            }
        )+};
    }
    finals!(show);
    changed
}
