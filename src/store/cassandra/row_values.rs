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
    value::{CqlTimestamp, MaybeUnset},
};

use super::time;
use crate::{
    event::{ColumnValue, EventKey, Row, RunRow},
    units::Micros,
};

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

fn text(value: &Option<String>) -> Opt<&str> {
    opt(value.as_deref())
}

fn at(value: Option<Micros>) -> Opt<CqlTimestamp> {
    opt(value.map(time::cql))
}

fn map<V>(map: &BTreeMap<String, V>) -> Opt<&BTreeMap<String, V>> {
    if map.is_empty() { MaybeUnset::Unset } else { MaybeUnset::Set(map) }
}

impl Bind for Row {
    fn bind(&self, values: &mut Values<'_, '_, '_>) -> Result<(), SerializationError> {
        match self {
            Self::Metrics(row) => {
                values.key(&row.key)?;
                for value in row.columns.values() {
                    match value {
                        ColumnValue::Int(value) => values.put(&opt(value))?,
                        ColumnValue::BigInt(value) => values.put(&opt(value))?,
                        ColumnValue::Double(value) => values.put(&opt(value))?,
                        ColumnValue::Text(value) => values.put(&opt(value))?,
                    }
                }
                values.all(&[&map(&row.extra), &opt(row.rest_json.as_deref())])
            }
            Self::Topology(row) => {
                values.key(&row.key)?;
                values.all(&[
                    &opt(row.epoch),
                    &opt(row.input_size),
                    &opt(row.output_size),
                    &opt(row.hidden_units),
                    &opt(row.total_parameters),
                    &&*row.topology_json,
                    &text(&row.weights_summary),
                ])
            }
            Self::Event(row) => {
                values.key(&row.key)?;
                values.all(&[&row.r#type, &&*row.payload_json, &opt(row.epoch)])
            }
            Self::Dataset(row) => values.all(&[
                &row.dataset_id,
                &text(&row.name),
                &text(&row.description),
                &opt(row.num_samples),
                &opt(row.num_features),
                &opt(row.num_classes),
                &map(&row.class_distribution),
                &at(row.created_at),
                &text(&row.file_path),
                &text(&row.checksum),
            ]),
            Self::Control(row) => values.all(&[
                &time::day(row.timestamp),
                &time::cql(row.timestamp),
                &row.event_id,
                &row.instance,
                &row.command,
                &text(&row.command_id),
                &text(&row.target),
                &row.source,
                &text(&row.outcome),
                &row.payload_json,
            ]),
            Self::Gap(row) => values.all(&[
                &time::day(row.started_at),
                &time::cql(row.started_at),
                &row.gap_id,
                &time::cql(row.ended_at),
                &row.reason,
                &row.source,
                &text(&row.channel),
                &row.instance,
                &opt(row.run_id),
                &opt(row.lost),
            ]),
        }
    }
}

impl Bind for RunRow {
    fn bind(&self, values: &mut Values<'_, '_, '_>) -> Result<(), SerializationError> {
        // A restart without an end clears the stored end: the only NULL that is ever written.
        fn of_end<T>(value: Option<T>, restarted: bool) -> Opt<Option<T>> {
            if value.is_some() || restarted { MaybeUnset::Set(value) } else { MaybeUnset::Unset }
        }
        let restarted = self.restarted_at.is_some();
        values.all(&[
            &self.run_id,
            &text(&self.run_name),
            &at(self.start_time),
            &of_end(self.end_time.map(time::cql), restarted),
            &of_end(self.duration_seconds, restarted),
            &text(&self.status),
            &text(&self.dataset_name),
            &opt(self.dataset_size),
            &opt(self.config_json.as_deref()),
            &opt(self.final_epoch),
            &opt(self.final_train_loss),
            &opt(self.final_train_accuracy),
            &opt(self.final_val_loss),
            &opt(self.final_val_accuracy),
            &opt(self.best_val_accuracy),
            &opt(self.best_epoch),
            &opt(self.total_hidden_units),
            &opt(self.total_parameters),
            &text(&self.notes),
            &opt(Some(&self.tags).filter(|tags| !tags.is_empty())),
            &text(&self.created_by),
            &at(self.last_event_time),
            &at(self.restarted_at),
        ])
    }
}
