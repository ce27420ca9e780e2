//! Curves of a run: what is made of the numbers in its metrics, in one pass and bounded memory.
//!
//! Rows are walked from the newest to the oldest, because only what came later says whether a value still counts: a run that is
//! resumed from a checkpoint goes back in epochs and replaces what it had reported beyond ([`Effective`]). Everything here takes
//! values and does no I/O; every fold takes pages of [`Samples`].

mod aggregate;
mod bucket;
mod effective;
mod growth;
mod reduce;
#[cfg(test)]
mod tests;

pub use self::{
    aggregate::{Aggregate, Aggregates, Place},
    bucket::{Bucket, Spread},
    effective::Effective,
    growth::{Growth, Level},
    reduce::{Axis, Curve, POINTS_MIN, Reducer, SHIFT_MAX},
};
use crate::units::Micros;

/// A number that metrics rows may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// A column, by its place in [`COLUMNS`].
    Column(usize),
    /// A number in `extra`, by its name.
    Extra(String),
}

/// The columns that are numbers.
pub const COLUMNS: [&str; 6] =
    ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "hidden_units"];

impl Field {
    /// Training loss.
    pub const TRAIN_LOSS: Self = Self::Column(0);

    /// The field of this name: a column, one of its short names, else a number in `extra`.
    pub fn named(name: &str) -> Self {
        let canonical = match name {
            "loss" => "train_loss",
            "accuracy" => "train_accuracy",
            "lr" => "learning_rate",
            name => name,
        };
        match COLUMNS.iter().position(|column| *column == canonical) {
            Some(at) => Self::Column(at),
            None => Self::Extra(canonical.to_owned()),
        }
    }

    /// The losses, the accuracies and the learning rate: what a curve shows unless told otherwise.
    pub fn usual() -> Vec<Self> {
        (0..5).map(Self::Column).collect()
    }

    /// Its name in rows and answers.
    pub fn name(&self) -> &str {
        match self {
            Self::Column(at) => COLUMNS[*at],
            Self::Extra(name) => name,
        }
    }

    /// Whether less is better.
    pub fn less_is_better(&self) -> bool {
        !self.name().contains("acc")
    }
}

/// What a row says beside the numbers asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the columns of the contract, by name")]
pub struct Sample {
    pub timestamp: Micros,
    pub event_id: i64,
    pub epoch: Option<i32>,
    pub step: Option<i32>,
    pub hidden_units: Option<i32>,
    pub seq: Option<i64>,
    /// In [`Samples::phases`].
    pub phase: Option<u16>,
}

/// A page of rows, reduced to some of their numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// In the order that was asked for.
    pub rows: Vec<Sample>,
    /// The numbers of all rows, one after the other, as many a row as fields were asked for.
    pub values: Vec<Option<f64>>,
    /// The phases that occur on this page.
    pub phases: Vec<String>,
}

impl Samples {
    /// The place of a phase in the table; beyond 65,535 different ones, all others are the last.
    pub fn phase(&mut self, name: &str) -> u16 {
        let known = self.phases.iter().rposition(|known| known == name);
        let at = known.unwrap_or_else(|| {
            if self.phases.len() < usize::from(u16::MAX) {
                self.phases.push(name.to_owned());
            }
            self.phases.len() - 1
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    /// Each row with its numbers; `fields` as many as were asked for.
    pub fn iter(&self, fields: usize) -> impl Iterator<Item = (&Sample, &[Option<f64>])> {
        self.rows.iter().enumerate().map(move |(n, row)| (row, &self.values[n * fields..(n + 1) * fields]))
    }
}

/// Takes pages of rows, the newest first.
pub trait Fold {
    /// The next page, older than all before.
    fn add(&mut self, page: &Samples);
}

/// Gives phases a number that holds from page to page.
#[derive(Debug, Default)]
pub(crate) struct Phases(Vec<String>);

impl Phases {
    /// The numbers of a page's phases, in the order of its table.
    fn of(&mut self, page: &Samples) -> Vec<u16> {
        let known = |name: &String| {
            let at = self.0.iter().position(|known| known == name).unwrap_or_else(|| {
                self.0.push(name.clone());
                self.0.len() - 1
            });
            u16::try_from(at).unwrap_or(u16::MAX)
        };
        page.phases.iter().map(known).collect()
    }

    fn name(&self, phase: Option<u16>) -> Option<String> {
        self.0.get(usize::from(phase?)).cloned()
    }
}
