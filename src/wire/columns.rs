//! The typed columns of a message: which of its values they hold, and which reject it.

use std::borrow::Cow;

use uuid::Uuid;

use super::{
    message::{Held, Message},
    names::Slot,
    value::{Number, Source, Value},
};
use crate::{
    event::{self, Kind},
    frame::{Reason, Rejection},
};

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
    /// It takes it.
    Whole(T),
    /// It takes the whole part of a number with a fraction.
    WholePart(T),
    /// A number too large for the column; kept elsewhere.
    TooLarge,
    /// A list counts, and stays.
    Counted(T),
    /// It takes no such value.
    Invalid,
}

impl<'a> Message<'a> {
    /// Reads the typed columns. A value that its column cannot take is set aside, and the rest of the message becomes the row,
    /// unless nothing of what the row is for is left; a run id that is no text rejects the message.
    pub(super) fn fill(&mut self) -> Result<(), Rejection> {
        self.run = match self.get(Slot::RunId) {
            None => None,
            Some(value) => match value.text() {
                Some(text) => Some(run_of(text)),
                None => return Err(invalid("run_id", value)),
            },
        };
        if self.run.is_some() {
            self.mark(Slot::RunId, Held::Column);
        }
        let metrics = self.kind == Kind::Metrics;
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
                *column = self.column(slot, |value| integer(slot, value));
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
                *column = self.column(slot, |value| value.double().map_or(Reading::Invalid, Reading::Whole));
            }
        }
        columns.phase = self.phase_column();
        self.columns = columns;
        self.require_something_left()
    }

    /// The `seq`. Counted where it is none, whatever the kind of message: gaps are found by it.
    pub(super) fn seq_column(&mut self) -> Option<i64> {
        while let Some(value) = self.get(Slot::Seq) {
            match value.number() {
                Number::Int(seq) if seq >= 0 => {
                    self.mark(Slot::Seq, Held::Column);
                    return Some(seq);
                }
                Number::TooLarge => return None,
                _ => self.reject_field(Slot::Seq, true),
            }
        }
        None
    }

    fn phase_column(&mut self) -> Option<Cow<'a, str>> {
        let counted = self.kind == Kind::Metrics;
        while let Some(value) = self.get(Slot::Phase) {
            match (value.text(), value.is_blank()) {
                (Some(phase), _) => {
                    self.mark(Slot::Phase, Held::Column);
                    return Some(phase);
                }
                (None, true) => return None,
                (None, false) => self.reject_field(Slot::Phase, counted),
            }
        }
        None
    }

    /// Reads a column from the field that means it; where that is of no use, from the next best.
    fn column<T>(&mut self, slot: Slot, read: impl Fn(&Value<'_>) -> Reading<T>) -> Option<T> {
        // An event keeps its whole payload, so there the column just stays empty.
        let counted = matches!(self.kind, Kind::Metrics | Kind::Topology);
        while let Some(value) = self.get(slot) {
            let (held, value) = match read(value) {
                Reading::Whole(value) => (Held::Column, value),
                Reading::WholePart(value) => (Held::WholePart, value),
                Reading::Counted(value) => return Some(value),
                Reading::TooLarge => return None,
                Reading::Invalid => {
                    self.reject_field(slot, counted);
                    continue;
                }
            };
            self.mark(slot, held);
            return Some(value);
        }
        None
    }

    /// A message whose invalid fields leave nothing of what its row is for is rejected, with the first of them.
    fn require_something_left(&self) -> Result<(), Rejection> {
        let Some(first) = self.invalid.1.map(usize::from) else { return Ok(()) };
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
    let fits = |n: i64| i32::try_from(n).map_or(Reading::TooLarge, Reading::Whole);
    match (value, value.number()) {
        // A list says more than its length: it stays with what has no column.
        (Value::List(raw), _) if slot == Slot::HiddenUnits => {
            i32::try_from(raw.len).map_or(Reading::TooLarge, Reading::Counted)
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
