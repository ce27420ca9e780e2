//! Binds rows to their prepared INSERT, in column order. Absent values are left unset: a NULL would write a tombstone.

use std::collections::BTreeMap;

use scylla::{
    frame::response::result::ColumnSpec,
    serialize::{
        SerializationError,
        row::{RowSerializationContext, SerializeRow},
        value::SerializeValue,
        writers::RowWriter,
    },
    value::{MaybeUnset, Unset},
};

use super::time;
use crate::event::{ColumnValue, EventKey, Row, RunRow, StoredRow, StoredValue};

type Opt<T> = MaybeUnset<T>;

/// A row that can be bound to its INSERT.
pub(super) trait Bind {
    /// Binds the values of all columns.
    fn bind(&self, values: &mut Values<'_, '_, '_>) -> Result<(), SerializationError>;
}

/// A row and, where its table has one, its TTL.
pub(super) struct Bound<'a, R> {
    pub(super) row: &'a R,
    pub(super) ttl: Option<Opt<i32>>,
}

impl<R: Bind> SerializeRow for Bound<'_, R> {
    fn serialize(
        &self,
        context: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        let mut values = Values { specs: context.columns().iter(), writer };
        self.row.bind(&mut values)?;
        if let Some(ttl) = &self.ttl {
            values.put(ttl)?;
        }
        if values.specs.len() > 0 { Err(SerializationError::new(WrongCount)) } else { Ok(()) }
    }

    fn is_empty(&self) -> bool {
        false
    }
}

/// Values of a statement under construction.
pub(super) struct Values<'s, 'w, 'b> {
    specs: std::slice::Iter<'s, ColumnSpec<'s>>,
    writer: &'w mut RowWriter<'b>,
}

impl Values<'_, '_, '_> {
    fn put(&mut self, value: &dyn SerializeValue) -> Result<(), SerializationError> {
        let spec = self.specs.next().ok_or_else(|| SerializationError::new(WrongCount))?;
        value.serialize(spec.typ(), self.writer.make_cell_writer()).map(drop)
    }

    fn all(&mut self, values: &[&dyn SerializeValue]) -> Result<(), SerializationError> {
        values.iter().try_for_each(|value| self.put(*value))
    }

    fn column(&mut self, value: ColumnValue<'_>) -> Result<(), SerializationError> {
        match value {
            ColumnValue::Int(value) => self.put(&opt(value)),
            ColumnValue::BigInt(value) => self.put(&opt(value)),
            ColumnValue::Double(value) => self.put(&opt(value)),
            ColumnValue::Text(value) => self.put(&opt(value)),
        }
    }

    fn stored(&mut self, value: StoredValue<'_>) -> Result<(), SerializationError> {
        match value {
            value if value.is_absent() => self.put(&Unset),
            StoredValue::Column(value) => self.column(value),
            StoredValue::Id(id) => self.put(&id),
            StoredValue::Time(at) => self.put(&at.map(time::cql)),
            StoredValue::Flag(flag) => self.put(&flag),
            StoredValue::Texts(texts) => self.put(texts),
            StoredValue::Counts(counts) => self.put(counts),
        }
    }

    fn row(&mut self, row: &impl StoredRow) -> Result<(), SerializationError> {
        row.values().try_for_each(|value| self.stored(value))
    }

    fn key(&mut self, key: &EventKey) -> Result<(), SerializationError> {
        self.all(&[&key.run_id, &time::cql(key.timestamp), &key.event_id])
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the row has more or fewer values than the statement")]
struct WrongCount;

fn opt<T>(value: Option<T>) -> Opt<T> {
    MaybeUnset::from_option(value)
}

fn map<V>(map: &BTreeMap<String, V>) -> Opt<&BTreeMap<String, V>> {
    if map.is_empty() { MaybeUnset::Unset } else { MaybeUnset::Set(map) }
}

impl Bind for Row {
    fn bind(&self, values: &mut Values<'_, '_, '_>) -> Result<(), SerializationError> {
        match self {
            Self::Metrics(row) => {
                values.key(&row.key)?;
                row.columns.values().into_iter().try_for_each(|value| values.column(value))?;
                values.all(&[&map(&row.extra), &opt(row.rest_json.as_deref())])
            }
            Self::Topology(row) => {
                values.key(&row.key)?;
                values.row(row)
            }
            Self::Event(row) => {
                values.key(&row.key)?;
                values.row(row)
            }
            Self::Dataset(row) => values.row(row),
            Self::Control(row) => {
                values.put(&time::day(row.timestamp))?;
                values.row(row)
            }
            Self::Gap(row) => {
                values.put(&time::day(row.started_at))?;
                values.row(row)
            }
        }
    }
}

impl Bind for RunRow {
    fn bind(&self, values: &mut Values<'_, '_, '_>) -> Result<(), SerializationError> {
        for (column, value) in Self::COLUMNS.iter().zip(self.values()) {
            // A restart without an end clears the stored end: the only NULL that is ever written.
            let of_end = matches!(column.name, "end_time" | "duration_seconds");
            if of_end && self.restarted_at.is_some() && value.is_absent() {
                values.put(&None::<i32>)?;
            } else {
                values.stored(value)?;
            }
        }
        Ok(())
    }
}
