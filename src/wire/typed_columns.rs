//! The typed columns of a message: which of its values they hold, and which reject it.

use std::{borrow::Cow, convert::Infallible};

use uuid::Uuid;

use super::{
    field::Destination,
    message::{Message, Strictness, TypedColumns},
    names::FieldId,
    rejection::invalid,
    value::{Number, Value},
};
use crate::{
    event::{self, Kind, MetricColumns, ReadColumns},
    frame::Rejection,
};

/// The longest text, such as a phase, that a column of metrics holds; `rest_json` keeps a longer one. Every reader of a curve reads
/// the phase, and SQLite reads it with each search beside the row.
const TEXT_BYTES_MAX: usize = 1 << 10;

/// What a column makes of a value.
enum Conversion<T> {
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
    pub(super) fn read_columns(&mut self, strictness: Strictness) -> Result<(), Rejection> {
        let is_strict = strictness == Strictness::Received;
        self.run = match self.get(FieldId::RunId) {
            None => None,
            Some(value) => match value.text() {
                Some(text) => Some(run_of(text)),
                None if is_strict => return Err(invalid("run_id", value)),
                None => None,
            },
        };
        if self.run.is_some() {
            self.consume(FieldId::RunId, Destination::Column);
        }
        let Ok(metric) = MetricColumns::read(&mut MessageColumns(self));
        self.columns = TypedColumns { metric, ..TypedColumns::default() };
        if self.kind == Kind::Topology {
            self.columns.input_size = self.integer_column(FieldId::InputSize);
            self.columns.output_size = self.integer_column(FieldId::OutputSize);
            self.columns.total_parameters = self.integer_column(FieldId::TotalParameters);
        }
        if is_strict { self.require_something_left() } else { Ok(()) }
    }

    /// A number that is never negative. An invalid one is counted in every kind of message: gaps are found by the `seq`.
    pub(super) fn counter_column(&mut self, field_id: FieldId) -> Option<i64> {
        self.column(field_id, true, |value| match value.number() {
            Number::Int(seq) if seq >= 0 => Conversion::Value(seq),
            Number::TooLarge => Conversion::TooLarge,
            _ => Conversion::Invalid,
        })
    }

    fn integer_column(&mut self, field_id: FieldId) -> Option<i32> {
        self.column(field_id, self.counts_invalid(), |value| integer(field_id, value))
    }

    /// Whether invalid fields are counted: an event keeps its whole payload, so there the column just stays empty.
    fn counts_invalid(&self) -> bool {
        matches!(self.kind, Kind::Metrics | Kind::Topology)
    }

    /// Reads a column from the field that means it; where that is invalid, from the next best.
    fn column<T>(&mut self, field_id: FieldId, counted: bool, read: impl Fn(&Value<'a>) -> Conversion<T>) -> Option<T> {
        let best = self.assigned[field_id as usize]?;
        match read(&self.fields[usize::from(best)].value) {
            Conversion::Invalid => {}
            reading => return self.accept(field_id, reading),
        }
        for at in self.candidates(field_id) {
            match read(&self.fields[usize::from(at)].value) {
                Conversion::Invalid => {
                    self.fields[usize::from(at)].destination = Destination::Invalid;
                    if counted {
                        self.invalid.count += 1;
                        self.invalid.first.get_or_insert(usize::from(at));
                    }
                }
                reading => {
                    self.assigned[field_id as usize] = Some(at);
                    return self.accept(field_id, reading);
                }
            }
        }
        self.assigned[field_id as usize] = None;
        None
    }

    fn accept<T>(&mut self, field_id: FieldId, reading: Conversion<T>) -> Option<T> {
        let (destination, value) = match reading {
            Conversion::Value(value) => (Destination::Column, value),
            Conversion::WholePart(value) => (Destination::WholePart, value),
            Conversion::Length(value) => return Some(value),
            Conversion::TooLarge | Conversion::Blank | Conversion::Invalid => return None,
        };
        self.consume(field_id, destination);
        Some(value)
    }

    /// A message whose invalid fields leave nothing of what its row is for is rejected, with the first of them.
    fn require_something_left(&self) -> Result<(), Rejection> {
        let Some(first) = self.invalid.first else { return Ok(()) };
        let is_left = match self.kind {
            Kind::Metrics => self.measures_something(),
            Kind::Topology => {
                let sizes = [self.columns.input_size, self.columns.output_size, self.columns.metric.hidden_units];
                [FieldId::Nodes, FieldId::Connections].iter().any(|field_id| self.get(*field_id).is_some())
                    || sizes.iter().any(Option::is_some)
            }
            _ => true,
        };
        if is_left { Ok(()) } else { Err(invalid(&self.fields[first].key, &self.fields[first].value)) }
    }
}

/// The columns of metrics, read from the fields of a message.
struct MessageColumns<'m, 'a>(&'m mut Message<'a>);

impl<'a> ReadColumns<Cow<'a, str>> for MessageColumns<'_, 'a> {
    type Error = Infallible;

    fn int(&mut self, at: usize) -> Result<Option<i32>, Infallible> {
        let field_id = FieldId::of_column(at);
        let has_column = match field_id {
            FieldId::Epoch | FieldId::HiddenUnits => true,
            FieldId::Step => self.0.kind == Kind::Metrics,
            _ => self.0.kind != Kind::Topology,
        };
        Ok(if has_column { self.0.integer_column(field_id) } else { None })
    }

    fn bigint(&mut self, at: usize) -> Result<Option<i64>, Infallible> {
        Ok(self.0.counter_column(FieldId::of_column(at)))
    }

    fn double(&mut self, at: usize) -> Result<Option<f64>, Infallible> {
        if self.0.kind == Kind::Topology {
            return Ok(None);
        }
        let read = |value: &Value<'a>| value.double().map_or(Conversion::Invalid, Conversion::Value);
        Ok(self.0.column(FieldId::of_column(at), self.0.counts_invalid(), read))
    }

    fn text(&mut self, at: usize) -> Result<Option<Cow<'a, str>>, Infallible> {
        let read = |value: &Value<'a>| match value.text() {
            Some(text) if text.len() > TEXT_BYTES_MAX => Conversion::TooLarge,
            Some(text) => Conversion::Value(text),
            None if value.is_blank() => Conversion::Blank,
            None => Conversion::Invalid,
        };
        Ok(self.0.column(FieldId::of_column(at), self.0.kind == Kind::Metrics, read))
    }
}

fn integer(field_id: FieldId, value: &Value<'_>) -> Conversion<i32> {
    let fits = |n: i64| i32::try_from(n).map_or(Conversion::TooLarge, Conversion::Value);
    match (value, value.number()) {
        // A list says more than its length: it stays with what has no column.
        (Value::List(raw), _) if field_id == FieldId::HiddenUnits => {
            i32::try_from(raw.len).map_or(Conversion::TooLarge, Conversion::Length)
        }
        (_, Number::Int(n)) => fits(n),
        (_, Number::TooLarge) => Conversion::TooLarge,
        // Trainers that log within an epoch say 0.33.
        (_, Number::Float(x)) if x.is_finite() && matches!(field_id, FieldId::Epoch | FieldId::Step) => {
            // The cast saturates; no column takes what is beyond it.
            i32::try_from(x.trunc() as i64).map_or(Conversion::TooLarge, Conversion::WholePart)
        }
        _ => Conversion::Invalid,
    }
}

fn run_of(text: Cow<'_, str>) -> (Uuid, Option<Cow<'_, str>>) {
    match Uuid::try_parse(text.trim()) {
        Ok(id) => (id, None),
        Err(_) => (event::run_id_from_text(&text), Some(text)),
    }
}
