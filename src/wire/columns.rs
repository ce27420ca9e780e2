//! The typed columns of a message: which of its values they hold, and which reject it.

use std::borrow::Cow;

use uuid::Uuid;

use super::{
    message::Message,
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

impl Message<'_> {
    /// Reads the typed columns. What holds no value of its type rejects the message where it is a row of columns; an event keeps
    /// its whole payload, so there the column just stays empty.
    pub(super) fn fill(&mut self) -> Result<(), Rejection> {
        self.run = match self.get(Slot::RunId) {
            None => None,
            Some(value) => match (value.text(), value) {
                (Some(text), _) => Some(run_of(text)),
                (None, Value::Text(_)) => None,
                (None, value) => return Err(invalid("run_id", value)),
            },
        };
        if self.run.is_some() {
            self.mark(Slot::RunId);
        }
        let strict = matches!(self.kind, Kind::Metrics | Kind::Topology);
        let metrics = self.kind == Kind::Metrics;
        let mut columns = Columns { seq: self.seq_column()?, ..Columns::default() };
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
                *column = self.integer(slot, strict)?;
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
                *column = self.double(slot, metrics)?;
            }
        }
        if let Some(value) = self.get(Slot::Phase) {
            columns.phase = value.text();
            if columns.phase.is_some() {
                self.mark(Slot::Phase);
            } else if metrics && !matches!(value, Value::Text(_)) {
                return Err(self.invalid_slot(Slot::Phase));
            }
        }
        self.columns = columns;
        Ok(())
    }

    pub(super) fn seq_column(&mut self) -> Result<Option<i64>, Rejection> {
        let Some(value) = self.get(Slot::Seq) else { return Ok(None) };
        match value.number() {
            Number::Int(seq) if seq >= 0 => {
                self.mark(Slot::Seq);
                Ok(Some(seq))
            }
            Number::TooLarge => Ok(None),
            _ => Err(self.invalid_slot(Slot::Seq)),
        }
    }

    fn integer(&mut self, slot: Slot, strict: bool) -> Result<Option<i32>, Rejection> {
        let Some(value) = self.get(slot) else { return Ok(None) };
        let number = match value {
            Value::List(raw) if slot == Slot::HiddenUnits => Number::Int(i64::try_from(raw.len).unwrap_or(i64::MAX)),
            value => value.number(),
        };
        match number {
            Number::Int(n) => {
                let column = i32::try_from(n).ok();
                // A list says more than its length: it stays with what has no column.
                if column.is_some() && !self.get(slot).is_some_and(Value::is_container) {
                    self.mark(slot);
                }
                Ok(column)
            }
            Number::TooLarge => Ok(None),
            _ if strict => Err(self.invalid_slot(slot)),
            _ => Ok(None),
        }
    }

    fn double(&mut self, slot: Slot, strict: bool) -> Result<Option<f64>, Rejection> {
        let Some(value) = self.get(slot) else { return Ok(None) };
        match value.double() {
            Some(x) => {
                self.mark(slot);
                Ok(Some(x))
            }
            None if strict => Err(self.invalid_slot(slot)),
            None => Ok(None),
        }
    }

    fn invalid_slot(&self, slot: Slot) -> Rejection {
        match self.field(slot) {
            Some(field) => invalid(&field.key, &field.value),
            None => invalid(slot.name(), &Value::Null),
        }
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
