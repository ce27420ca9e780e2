//! The final values of a run: which of those that its metrics and its ends gave is shown.
//!
//! Pure. The newest value of metrics and the newest value of ends are kept apart, column by column, each with its time. A value
//! that an end gave is shown until the run has started again and metrics newer than that start give another: so the order of
//! arrival does not matter, nor does what arrived in between.

use super::run_columns::{ColumnSet, TIMED_COLUMNS};
use crate::{event::RunRow, units::Micros};

const FINAL_COLUMNS: usize = 5;
/// The bit of the first final value; those of the rest follow.
const FIRST_BIT: usize = 4;

/// A value and the time of the event that gave it.
#[derive(Clone, Copy, Debug)]
struct TimedValue {
    value: f64,
    time: Micros,
}

/// The newest final values of one source, in the order of their bits.
#[derive(Clone, Debug, Default)]
pub struct Finals([Option<TimedValue>; FINAL_COLUMNS]);

impl Finals {
    /// The final values of a row, all of them given at `time`.
    pub fn of(row: &RunRow, time: Micros) -> Self {
        Self(final_values(row).map(|value| value.map(|value| TimedValue { value, time })))
    }

    /// Takes the final values of a row that are not older than the known ones.
    pub fn merge(&mut self, values: &RunRow, time: Micros) {
        self.merge_later(&Self::of(values, time));
    }

    /// Takes the values of a later summary of the same source that are not older than the known ones.
    pub fn merge_later(&mut self, later: &Self) {
        for (known, later) in self.0.iter_mut().zip(later.0) {
            if later.is_some_and(|later| known.is_none_or(|known| later.time >= known.time)) {
                *known = later;
            }
        }
    }

    /// Lowers to `time` the times of values of which only an upper bound, at most `floor`, was known.
    pub fn lower_times(&mut self, floor: Micros, time: Micros) {
        for known in self.0.iter_mut().flatten().filter(|known| known.time <= floor) {
            known.time = time.min(known.time);
        }
    }

    /// Takes over the stored values that are as new as these, `last` being the time of the latest event of the stored row. Returns the
    /// time of the oldest of these that may be older than what is stored.
    pub fn yield_to(&mut self, stored: &RunRow, last: Micros) -> Option<Micros> {
        let mut older = None;
        for (known, stored) in self.0.iter_mut().zip(final_values(stored)) {
            let (Some(known), Some(stored)) = (known, stored) else { continue };
            if stored.to_bits() == known.value.to_bits() || known.time > last {
                continue;
            }
            if known.time == last {
                known.value = stored;
            } else {
                older = Some(older.map_or(known.time, |older: Micros| older.min(known.time)));
            }
        }
        older
    }

    /// Sets the times, by their bits, of the values that the row shows.
    pub fn value_times(&self, row: &RunRow, times: &mut [Micros; TIMED_COLUMNS]) {
        for (column, shown) in final_values(row).into_iter().enumerate() {
            if let Some(known) = self.0[column].filter(|known| is_same(shown, known.value)) {
                times[FIRST_BIT + column] = known.time;
            }
        }
    }

    /// Forgets the values of these columns that the row shows.
    pub fn discard(&mut self, row: &RunRow, columns: ColumnSet) {
        for (column, shown) in final_values(row).into_iter().enumerate() {
            self.0[column].take_if(|known| columns & bit(column) != 0 && is_same(shown, known.value));
        }
    }

    /// Whether one of these would take the place of another value in the row.
    pub fn differs_from(&self, row: &RunRow) -> bool {
        let differs = |(known, shown): (&Option<TimedValue>, Option<f64>)| {
            known.is_some_and(|known| shown.is_some() && !is_same(shown, known.value))
        };
        self.0.iter().zip(final_values(row)).any(differs)
    }
}

/// Puts the values that are stored into the row: what [`select_finals`] then selects instead is to be written.
pub fn show_stored(row: &mut RunRow, stored: &RunRow, dirty: &mut ColumnSet) {
    let shown = final_values(row);
    for (column, stored) in final_values(stored).into_iter().enumerate() {
        if let (Some(_), Some(stored)) = (shown[column], stored) {
            set_final(row, column, stored);
            *dirty &= !bit(column);
        }
    }
}

/// Puts the values to be shown into the row, and returns the columns that changed. `restarts` are the starts after the first.
pub fn select_finals(row: &mut RunRow, measured: &Finals, given: &Finals, restarts: &[Micros]) -> ColumnSet {
    let mut changed = 0;
    for (column, shown) in final_values(row).into_iter().enumerate() {
        let selected = match (measured.0[column], given.0[column]) {
            (Some(measured), Some(given)) => {
                let is_superseded = restarts.iter().any(|start| (given.time..=measured.time).contains(start));
                Some(if is_superseded { measured } else { given })
            }
            (measured, given) => measured.or(given),
        };
        if let Some(TimedValue { value, .. }) = selected
            && !is_same(shown, value)
        {
            set_final(row, column, value);
            changed |= bit(column);
        }
    }
    changed
}

fn bit(column: usize) -> ColumnSet {
    1 << (FIRST_BIT + column)
}

/// Compares bits: NaN is a value like any other, and does not change into itself.
fn is_same(shown: Option<f64>, value: f64) -> bool {
    shown.is_some_and(|shown| shown.to_bits() == value.to_bits())
}

/// In the order of their bits. A double holds every epoch exactly.
fn final_values(row: &RunRow) -> [Option<f64>; FINAL_COLUMNS] {
    let epoch = row.final_epoch.map(f64::from);
    [epoch, row.final_train_loss, row.final_train_accuracy, row.final_val_loss, row.final_val_accuracy]
}

fn set_final(row: &mut RunRow, column: usize, value: f64) {
    match column {
        0 => row.final_epoch = Some(value as i32),
        1 => row.final_train_loss = Some(value),
        2 => row.final_train_accuracy = Some(value),
        3 => row.final_val_loss = Some(value),
        _ => row.final_val_accuracy = Some(value),
    }
}
