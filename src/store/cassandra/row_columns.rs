//! Decodes rows by column position in their statement; lookup by name takes half as long again.

use std::collections::{BTreeMap, BTreeSet};

use scylla::{
    deserialize::{
        DeserializationError, TypeCheckError,
        row::{ColumnIterator, DeserializeRow},
        value::DeserializeValue,
    },
    frame::response::result::ColumnSpec,
    value::CqlTimestamp,
};
use uuid::Uuid;

use super::time;
use crate::{
    event::{EventKey, MetricColumns, MetricsRow, ReadColumns, ReadStored, SharedText, StoredRow, restore_micros},
    units::Micros,
};

/// A row decoded from the columns of its statement.
pub(super) trait FromColumns<'frame, 'metadata>: Sized {
    /// Decodes all columns in order.
    fn read(columns: &mut Columns<'frame, 'metadata>) -> Result<Self, DeserializationError>;
}

/// Adapter between one of our rows and the driver.
pub(super) struct Read<T>(pub(super) T);

impl<'frame, 'metadata, T: FromColumns<'frame, 'metadata>> DeserializeRow<'frame, 'metadata> for Read<T> {
    /// Types were compared with the server's when the INSERT was prepared.
    fn type_check(_: &[ColumnSpec<'_>]) -> Result<(), TypeCheckError> {
        Ok(())
    }

    fn deserialize(row: ColumnIterator<'frame, 'metadata>) -> Result<Self, DeserializationError> {
        T::read(&mut Columns(row)).map(Self)
    }
}

/// The remaining columns of a row.
pub(super) struct Columns<'frame, 'metadata>(ColumnIterator<'frame, 'metadata>);

impl<'frame, 'metadata> Columns<'frame, 'metadata> {
    fn next<T: DeserializeValue<'frame, 'metadata>>(&mut self) -> Result<T, DeserializationError> {
        let column = self.0.next().ok_or_else(|| DeserializationError::new(MissingColumn))??;
        T::deserialize(column.spec.typ(), column.slice)
    }

    /// A value, or the default of an absent column.
    fn or_default<T>(&mut self) -> Result<T, DeserializationError>
    where
        Option<T>: DeserializeValue<'frame, 'metadata>,
        T: Default,
    {
        Ok(self.next::<Option<T>>()?.unwrap_or_default())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the answer has fewer columns than the statement asks for")]
struct MissingColumn;

impl<'frame, 'metadata, Text> ReadColumns<Text> for Columns<'frame, 'metadata>
where
    Text: DeserializeValue<'frame, 'metadata>,
{
    type Error = DeserializationError;

    fn int(&mut self, _: usize) -> Result<Option<i32>, DeserializationError> {
        self.next()
    }

    fn bigint(&mut self, _: usize) -> Result<Option<i64>, DeserializationError> {
        self.next()
    }

    fn double(&mut self, _: usize) -> Result<Option<f64>, DeserializationError> {
        self.next()
    }

    fn text(&mut self, _: usize) -> Result<Option<Text>, DeserializationError> {
        self.next()
    }
}

impl ReadStored for Columns<'_, '_> {
    fn key(&mut self) -> Result<EventKey, DeserializationError> {
        let (run_id, timestamp, event_id) = (self.next()?, self.next::<CqlTimestamp>()?, self.next()?);
        Ok(EventKey { run_id, timestamp: restore_micros(timestamp.0, event_id), event_id })
    }

    fn id(&mut self, _: usize) -> Result<Option<Uuid>, DeserializationError> {
        self.next()
    }

    fn time(&mut self, _: usize) -> Result<Option<Micros>, DeserializationError> {
        Ok(self.next::<Option<CqlTimestamp>>()?.map(time::micros))
    }

    fn flag(&mut self, _: usize) -> Result<Option<bool>, DeserializationError> {
        self.next()
    }

    fn document(&mut self, _: usize) -> Result<SharedText, DeserializationError> {
        Ok(self.or_default::<String>()?.into())
    }

    fn texts(&mut self, _: usize) -> Result<BTreeSet<String>, DeserializationError> {
        self.or_default()
    }

    fn counts(&mut self, _: usize) -> Result<BTreeMap<String, i32>, DeserializationError> {
        self.or_default()
    }
}

/// The columns and the key of a metrics row. Text borrows from the page.
pub(super) struct Sample<'frame> {
    pub(super) timestamp: CqlTimestamp,
    pub(super) event_id: i64,
    pub(super) columns: MetricColumns<&'frame str>,
}

impl<'frame, 'metadata> FromColumns<'frame, 'metadata> for Sample<'frame> {
    fn read(columns: &mut Columns<'frame, 'metadata>) -> Result<Self, DeserializationError> {
        Ok(Self { timestamp: columns.next()?, event_id: columns.next()?, columns: MetricColumns::read(columns)? })
    }
}

impl<'frame, 'metadata> FromColumns<'frame, 'metadata> for MetricsRow {
    fn read(columns: &mut Columns<'frame, 'metadata>) -> Result<Self, DeserializationError> {
        Ok(Self {
            key: columns.key()?,
            columns: MetricColumns::read(columns)?,
            extra: columns.or_default::<BTreeMap<String, f64>>()?,
            rest_json: columns.next::<Option<String>>()?.map(Into::into),
        })
    }
}

impl<'frame, 'metadata, T: StoredRow> FromColumns<'frame, 'metadata> for T {
    fn read(columns: &mut Columns<'frame, 'metadata>) -> Result<Self, DeserializationError> {
        StoredRow::read(columns)
    }
}
