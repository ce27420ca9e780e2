//! The typed columns of a message: which of its values they hold, and which reject it.

use std::borrow::Cow;

use uuid::Uuid;

use super::{
    message::{Held, Message, Strictness},
    names::Slot,
    value::{Number, Source, Value},
};
use crate::{
    event::{self, Kind},
    frame::{Reason, Rejection},
};

/// The longest phase that the column of a row holds; `rest_json` keeps a longer one. Every reader of a curve reads this column, and
/// SQLite reads it with each search beside the row.
const PHASE_BYTES_MAX: usize = 1 << 10;

/// The typed columns that a message can fill.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Columns<'a> {
    pub(super) seq: Option<i64>,
    pub(super) epoch: Option<i32>,
    pub(super) step: Option<i32>,
    pub(super) train_loss: Option<f64>,
    pub(super) train_accuracy: Option<f64>,
    pub(super) val_loss: Option<f64>,
    pub(super) val_accuracy: Option<f64>,
    pub(super) learning_rate: Option<f64>,
    pub(super) hidden_units: Option<i32>,
    pub(super) phase: Option<Cow<'a, str>>,
    pub(super) input_size: Option<i32>,
    pub(super) output_size: Option<i32>,
    pub(super) total_parameters: Option<i32>,
}

/// What a column makes of a value.
enum Reading<T> {
    /// The column holds the value.
    Value(T),
    /// The column holds the whole part of a number with a fraction.
    WholePart(T),
    /// The value is too large for the column, and is no error.
    TooLarge,
    /// The column holds the length of a list, which is kept, too.
    Length(T),
    /// The column stays empty, and the value is no error.
    Blank,
    /// The column cannot take the value.
    Invalid,
}

impl<'a> Message<'a> {
    /// Reads the typed columns. A value that its column cannot take goes to `rest_json`, and the rest of the message becomes the
    /// row. A received message is rejected when its run id is no text, or when such values leave no metric (or no part of a network).
    pub(super) fn fill(&mut self, strictness: Strictness) -> Result<(), Rejection> {
        let is_strict = strictness == Strictness::Received;
        self.run = match self.get(Slot::RunId) {
            None => None,
            Some(value) => match value.text() {
                Some(text) => Some(run_of(text)),
                None if is_strict => return Err(invalid("run_id", value)),
                None => None,
            },
        };
        if self.run.is_some() {
            self.mark(Slot::RunId, Held::Column);
        }
        let metrics = self.kind == Kind::Metrics;
        // An event keeps its whole payload, so there the column just stays empty.
        let counted = matches!(self.kind, Kind::Metrics | Kind::Topology);
        let mut columns = Columns { seq: self.seq_column(), ..Columns::default() };
        for (slot, column) in [
            (Slot::Epoch, &mut columns.epoch),
            (Slot::Step, &mut columns.step),
            (Slot::HiddenUnits, &mut columns.hidden_units),
            (Slot::InputSize, &mut columns.input_size),
            (Slot::OutputSize, &mut columns.output_size),
            (Slot::TotalParameters, &mut columns.total_parameters),
        ] {
            let relevant = match slot {
                Slot::Epoch | Slot::HiddenUnits => true,
                Slot::Step => metrics,
                _ => self.kind == Kind::Topology,
            };
            if relevant {
                *column = self.column(slot, counted, |value| integer(slot, value));
            }
        }
        for (slot, column) in [
            (Slot::TrainLoss, &mut columns.train_loss),
            (Slot::TrainAccuracy, &mut columns.train_accuracy),
            (Slot::ValLoss, &mut columns.val_loss),
            (Slot::ValAccuracy, &mut columns.val_accuracy),
            (Slot::LearningRate, &mut columns.learning_rate),
        ] {
            if self.kind != Kind::Topology {
                *column = self.column(slot, counted, |value| value.double().map_or(Reading::Invalid, Reading::Value));
            }
        }
        columns.phase = self.column(Slot::Phase, metrics, |value| match value.text() {
            Some(phase) if phase.len() > PHASE_BYTES_MAX => Reading::TooLarge,
            Some(phase) => Reading::Value(phase),
            None if value.is_blank() => Reading::Blank,
            None => Reading::Invalid,
        });
        self.columns = columns;
        if is_strict { self.require_something_left() } else { Ok(()) }
    }

    /// The `seq`. An invalid one is counted in every kind of message: gaps are found by it.
    pub(super) fn seq_column(&mut self) -> Option<i64> {
        self.column(Slot::Seq, true, |value| match value.number() {
            Number::Int(seq) if seq >= 0 => Reading::Value(seq),
            Number::TooLarge => Reading::TooLarge,
            _ => Reading::Invalid,
        })
    }

    /// Reads a column from the field that means it; where that is invalid, from the next best.
    fn column<T>(&mut self, slot: Slot, counted: bool, read: impl Fn(&Value<'a>) -> Reading<T>) -> Option<T> {
        let best = self.slots[slot as usize]?;
        match read(&self.fields[usize::from(best)].value) {
            Reading::Invalid => {}
            reading => return self.hold(slot, reading),
        }
        for at in self.candidates(slot) {
            match read(&self.fields[usize::from(at)].value) {
                Reading::Invalid => {
                    self.fields[usize::from(at)].held = Held::Invalid;
                    if counted {
                        self.invalid.count += 1;
                        self.invalid.first.get_or_insert(usize::from(at));
                    }
                }
                reading => {
                    self.slots[slot as usize] = Some(at);
                    return self.hold(slot, reading);
                }
            }
        }
        self.slots[slot as usize] = None;
        None
    }

    fn hold<T>(&mut self, slot: Slot, reading: Reading<T>) -> Option<T> {
        let (held, value) = match reading {
            Reading::Value(value) => (Held::Column, value),
            Reading::WholePart(value) => (Held::WholePart, value),
            Reading::Length(value) => return Some(value),
            Reading::TooLarge | Reading::Blank | Reading::Invalid => return None,
        };
        self.mark(slot, held);
        Some(value)
    }

    /// A message whose invalid fields leave nothing of what its row is for is rejected, with the first of them.
    fn require_something_left(&self) -> Result<(), Rejection> {
        let Some(first) = self.invalid.first else { return Ok(()) };
        let is_left = match self.kind {
            Kind::Metrics => self.measures_something(),
            Kind::Topology => {
                let sizes = [self.columns.input_size, self.columns.output_size, self.columns.hidden_units];
                [Slot::Nodes, Slot::Connections].iter().any(|slot| self.get(*slot).is_some())
                    || sizes.iter().any(Option::is_some)
            }
            _ => true,
        };
        if is_left { Ok(()) } else { Err(invalid(&self.fields[first].key, &self.fields[first].value)) }
    }
}

fn integer(slot: Slot, value: &Value<'_>) -> Reading<i32> {
    let fits = |n: i64| i32::try_from(n).map_or(Reading::TooLarge, Reading::Value);
    match (value, value.number()) {
        // A list says more than its length: it stays with what has no column.
        (Value::List(raw), _) if slot == Slot::HiddenUnits => {
            i32::try_from(raw.len).map_or(Reading::TooLarge, Reading::Length)
        }
        (_, Number::Int(n)) => fits(n),
        (_, Number::TooLarge) => Reading::TooLarge,
        // Trainers that log within an epoch say 0.33.
        (_, Number::Float(x)) if x.is_finite() && matches!(slot, Slot::Epoch | Slot::Step) => {
            // The cast saturates; no column takes what is beyond it.
            i32::try_from(x.trunc() as i64).map_or(Reading::TooLarge, Reading::WholePart)
        }
        _ => Reading::Invalid,
    }
}

fn run_of(text: Cow<'_, str>) -> (Uuid, Option<Cow<'_, str>>) {
    match Uuid::try_parse(text.trim()) {
        Ok(id) => (id, None),
        Err(_) => (event::run_id_from_text(&text), Some(text)),
    }
}

/// `invalid_field`, with the field's name and value, cut to 200 bytes.
pub(super) fn invalid(name: &str, value: &Value<'_>) -> Rejection {
    let mut detail = format!("{}: ", super::cut(name, 100));
    match value {
        // A container may be megabytes; its beginning is enough.
        Value::List(raw) | Value::Map(raw) => match raw.source {
            Source::Json(text) => detail.push_str(super::cut(text, 200)),
            Source::Pack(_) => detail.push_str("a list or map"),
        },
        Value::Text(text) => {
            detail.push('"');
            detail.push_str(super::cut(text, 200));
            detail.push('"');
        }
        scalar => scalar.write_json(&mut detail),
    }
    detail.truncate(super::cut(&detail, 200).len());
    Rejection { reason: Reason::InvalidField, detail }
}
