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
    event::{
        ControlRow, DatasetRow, EventKey, EventRow, GapRow, MetricColumns, MetricsRow, ReadColumns, RunRow,
        TopologyRow, restore_micros,
    },
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

    fn time(&mut self) -> Result<Option<Micros>, DeserializationError> {
        Ok(self.next::<Option<CqlTimestamp>>()?.map(time::micros))
    }

    fn key(&mut self) -> Result<EventKey, DeserializationError> {
        let (run_id, timestamp, event_id) = (self.next()?, self.next::<CqlTimestamp>()?, self.next()?);
        Ok(EventKey { run_id, timestamp: restore_micros(timestamp.0, event_id), event_id })
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

impl<'frame, 'metadata> FromColumns<'frame, 'metadata> for TopologyRow {
    fn read(columns: &mut Columns<'frame, 'metadata>) -> Result<Self, DeserializationError> {
        Ok(Self {
            key: columns.key()?,
            epoch: columns.next()?,
            input_size: columns.next()?,
            output_size: columns.next()?,
            hidden_units: columns.next()?,
            total_parameters: columns.next()?,
            topology_json: columns.or_default::<String>()?.into(),
            weights_summary: columns.next()?,
        })
    }
}

impl<'frame, 'metadata> FromColumns<'frame, 'metadata> for EventRow {
    fn read(columns: &mut Columns<'frame, 'metadata>) -> Result<Self, DeserializationError> {
        Ok(Self {
            key: columns.key()?,
            r#type: columns.or_default()?,
            payload_json: columns.or_default::<String>()?.into(),
            epoch: columns.next()?,
        })
    }
}

impl<'frame, 'metadata> FromColumns<'frame, 'metadata> for DatasetRow {
    fn read(columns: &mut Columns<'frame, 'metadata>) -> Result<Self, DeserializationError> {
        Ok(Self {
            dataset_id: columns.next()?,
            name: columns.next()?,
            description: columns.next()?,
            num_samples: columns.next()?,
            num_features: columns.next()?,
            num_classes: columns.next()?,
            class_distribution: columns.or_default::<BTreeMap<String, i32>>()?,
            created_at: columns.time()?,
            file_path: columns.next()?,
            checksum: columns.next()?,
        })
    }
}

impl<'frame, 'metadata> FromColumns<'frame, 'metadata> for GapRow {
    fn read(columns: &mut Columns<'frame, 'metadata>) -> Result<Self, DeserializationError> {
        columns.next::<&str>()?; // the day, its partition
        let started_at = time::micros(columns.next()?);
        Ok(Self {
            started_at,
            gap_id: columns.next()?,
            ended_at: columns.time()?.unwrap_or(started_at),
            reason: columns.or_default()?,
            source: columns.or_default()?,
            channel: columns.next()?,
            instance: columns.or_default()?,
            run_id: columns.next()?,
            lost: columns.next()?,
        })
    }
}

impl<'frame, 'metadata> FromColumns<'frame, 'metadata> for ControlRow {
    fn read(columns: &mut Columns<'frame, 'metadata>) -> Result<Self, DeserializationError> {
        columns.next::<&str>()?; // the day, its partition
        let (timestamp, event_id) = (columns.next::<CqlTimestamp>()?, columns.next()?);
        Ok(Self {
            timestamp: restore_micros(timestamp.0, event_id),
            event_id,
            instance: columns.next()?,
            command: columns.or_default()?,
            command_id: columns.next()?,
            target: columns.next()?,
            source: columns.or_default()?,
            outcome: columns.next()?,
            payload_json: columns.or_default()?,
        })
    }
}

impl<'frame, 'metadata> FromColumns<'frame, 'metadata> for RunRow {
    fn read(columns: &mut Columns<'frame, 'metadata>) -> Result<Self, DeserializationError> {
        Ok(Self {
            run_id: columns.next::<Uuid>()?,
            run_name: columns.next()?,
            start_time: columns.time()?,
            end_time: columns.time()?,
            duration_seconds: columns.next()?,
            status: columns.next()?,
            dataset_name: columns.next()?,
            dataset_size: columns.next()?,
            config_json: columns.next::<Option<String>>()?.map(Into::into),
            final_epoch: columns.next()?,
            final_train_loss: columns.next()?,
            final_train_accuracy: columns.next()?,
            final_val_loss: columns.next()?,
            final_val_accuracy: columns.next()?,
            best_val_accuracy: columns.next()?,
            best_epoch: columns.next()?,
            total_hidden_units: columns.next()?,
            total_parameters: columns.next()?,
            notes: columns.next()?,
            tags: columns.or_default::<BTreeSet<String>>()?,
            created_by: columns.next()?,
            last_event_time: columns.time()?,
            restarted_at: columns.time()?,
        })
    }
}
