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
    aggregate::{Aggregate, Aggregates, Extreme},
    bucket::{Bucket, Spread},
    effective::Effective,
    growth::{Growth, Level},
    reduce::{Axis, Curve, POINTS_MIN, Reducer, SHIFT_MAX},
};
use std::{borrow::Cow, cmp::Ordering, collections::BTreeMap};

use crate::{
    cooperative::YieldEvery,
    event::{ColumnValue, Drawn, EventKey, METRIC_COLUMNS, MetricColumns, extra_label, extra_name},
    units::Micros,
};

/// Ends of the words in the name of a metric of which more is better.
const MORE_IS_BETTER: [&str; 9] = ["acc", "accuracy", "auc", "auroc", "f1", "precision", "r2", "recall", "score"];
/// The same for less.
const LESS_IS_BETTER: [&str; 7] = ["err", "error", "loss", "mae", "mse", "perplexity", "ppl"];

/// A column of metrics rows, or a number in `extra`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// A column, by its position in [`METRIC_COLUMNS`].
    Column(usize),
    /// A number in `extra`, by its name.
    Extra(String),
}

impl Field {
    /// Training loss.
    pub fn train_loss() -> Self {
        Self::named("train_loss")
    }

    /// The field with this label: a column, by its name or its short name, else a number in `extra`.
    pub fn named(label: &str) -> Self {
        let canonical = Self::canonical(label);
        match METRIC_COLUMNS.iter().position(|column| column.name == canonical) {
            Some(at) => Self::Column(at),
            None => Self::Extra(extra_name(label).to_owned()),
        }
    }

    /// The name of a column for its short name; any other name as it is.
    pub fn canonical(name: &str) -> &str {
        METRIC_COLUMNS.iter().find(|column| column.short_name == Some(name)).map_or(name, |column| column.name)
    }

    /// What a curve shows unless told otherwise: the losses, the accuracies and the learning rate.
    pub fn drawn_by_default() -> Vec<Self> {
        Self::columns(|drawn| drawn == Drawn::ByDefault)
    }

    /// Every column that can be drawn.
    pub fn drawn_columns() -> Vec<Self> {
        Self::columns(|drawn| drawn != Drawn::Never)
    }

    fn columns(wanted: impl Fn(Drawn) -> bool) -> Vec<Self> {
        (0..METRIC_COLUMNS.len()).filter(|at| wanted(METRIC_COLUMNS[*at].drawn)).map(Self::Column).collect()
    }

    /// Whether it has curves.
    pub fn is_drawn(&self) -> bool {
        !matches!(self, Self::Column(at) if METRIC_COLUMNS[*at].drawn == Drawn::Never)
    }

    /// Its name in rows and answers, which no other field has.
    pub fn label(&self) -> Cow<'_, str> {
        match self {
            Self::Column(at) => Cow::Borrowed(METRIC_COLUMNS[*at].name),
            Self::Extra(name) => extra_label(name),
        }
    }

    /// Its value in a row, whose numbers without a column are in `extra`.
    fn value(&self, values: &[ColumnValue<'_>], extra: &BTreeMap<String, f64>) -> Option<f64> {
        match self {
            Self::Column(at) => values[*at].number(),
            Self::Extra(name) => extra.get(name).copied(),
        }
    }

    /// Which values are better, greater or less ones, when the name says it.
    pub fn better(&self) -> Option<Ordering> {
        let label = self.label().to_lowercase();
        let mut words = label.split(|of: char| !of.is_alphanumeric());
        words.find_map(|word| {
            let stem = word.trim_end_matches(|of: char| of.is_ascii_digit());
            let is_any = |of: &[&str]| of.iter().any(|end| word.ends_with(end) || stem.ends_with(end));
            match () {
                () if is_any(&MORE_IS_BETTER) => Some(Ordering::Greater),
                () if is_any(&LESS_IS_BETTER) => Some(Ordering::Less),
                () => None,
            }
        })
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
    pub phases: Phases,
}

impl Samples {
    /// Adds a row: its key, its columns, its numbers without a column, and the fields that are asked for.
    pub fn add<T: AsRef<str>>(
        &mut self,
        key: &EventKey,
        columns: &MetricColumns<T>,
        extra: &BTreeMap<String, f64>,
        fields: &[Field],
    ) {
        let phase = columns.phase.as_ref().map(|phase| self.phase(phase.as_ref()));
        self.rows.push(Sample {
            timestamp: key.timestamp,
            event_id: key.event_id,
            epoch: columns.epoch,
            step: columns.step,
            hidden_units: columns.hidden_units,
            seq: columns.seq,
            phase,
        });
        let values = columns.values();
        self.values.extend(fields.iter().map(|field| field.value(&values, extra)));
    }

    /// The place of a phase in the table.
    pub fn phase(&mut self, name: &str) -> u16 {
        self.phases.number(name)
    }

    /// Each row with its numbers; `fields` as many as were asked for. The phases of the rows are numbered as in `phases`.
    fn numbered<'a>(
        &'a self,
        fields: usize,
        phases: &mut Phases,
    ) -> impl Iterator<Item = (Sample, &'a [Option<f64>])> + use<'a> {
        let numbers = phases.of(self);
        self.iter(fields).map(move |(sample, values)| {
            let phase = sample.phase.and_then(|at| numbers.get(usize::from(at)).copied());
            (Sample { phase, ..*sample }, values)
        })
    }

    /// Each row with its numbers; `fields` as many as were asked for.
    pub fn iter(&self, fields: usize) -> impl Iterator<Item = (&Sample, &[Option<f64>])> {
        let mut yielder = YieldEvery::default();
        self.rows.iter().enumerate().map(move |(n, row)| {
            yielder.tick();
            (row, &self.values[n * fields..(n + 1) * fields])
        })
    }
}

/// Takes pages of rows, the newest first.
pub trait SampleSink {
    /// The next page, older than all before.
    fn add(&mut self, page: &Samples);
}

/// Phases that are told apart in one answer; all beyond are one, because a producer may name a new one in each message.
const PHASES_MAX: usize = 1_024;
/// Bytes of a name, at most.
const PHASE_BYTES: usize = 128;

/// Names of phases, by number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Phases {
    names: Vec<String>,
    known: BTreeMap<String, u16>,
}

impl Phases {
    /// The number of a phase; beyond the first thousand, the last.
    fn number(&mut self, name: &str) -> u16 {
        let name = &name[..name.floor_char_boundary(PHASE_BYTES)];
        if let Some(at) = self.known.get(name) {
            return *at;
        }
        let at = self.names.len().min(PHASES_MAX - 1);
        let number = u16::try_from(at).unwrap_or(u16::MAX);
        if self.names.len() < PHASES_MAX {
            self.names.push(name.to_owned());
            self.known.insert(name.to_owned(), number);
        }
        number
    }

    /// The numbers of a page's phases, in the order of its table, which hold from page to page.
    fn of(&mut self, page: &Samples) -> Vec<u16> {
        page.phases.names.iter().map(|name| self.number(name)).collect()
    }

    fn name(&self, phase: Option<u16>) -> Option<&str> {
        self.names.get(usize::from(phase?)).map(String::as_str)
    }
}
