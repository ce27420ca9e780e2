//! Rows as the values of a prepared INSERT. Absent values are left unset: a NULL would be a tombstone.

use std::{collections::BTreeMap, time::Duration};

use scylla::{
    client::session::Session,
    errors::ExecutionError,
    frame::response::result::ColumnSpec,
    serialize::{
        SerializationError,
        row::{RowSerializationContext, SerializeRow},
        value::SerializeValue,
        writers::RowWriter,
    },
    statement::{
        batch::{Batch as Statements, BatchStatement, BatchType},
        prepared::PreparedStatement,
    },
    value::{CqlTimestamp, MaybeUnset},
};
use uuid::Uuid;

use super::{errors, session::LiveSession, time};
use crate::{
    event::{ColumnValue, ControlRow, DatasetRow, EventRow, GapRow, MetricsRow, Row, Table, TopologyRow},
    store::{Batch, Retention, StoreError},
    units::Micros,
};

/// The last second at which a cell may expire, less a minute for clocks that differ: Cassandra refuses 2038-01-19T03:14:07Z.
const LAST_EXPIRY_SECONDS: i64 = 2_147_483_646 - 60;
/// The longest TTL that Cassandra takes: 20 years.
const TTL_MAX_SECONDS: i64 = 630_720_000;

type Opt<T> = MaybeUnset<T>;
type Text<'a> = Opt<&'a str>;

/// The TTL to bind, now. Zero retention means for ever, which is unset: both NULL and 0 would be written as they are.
pub(super) fn ttl(retention: Duration, now: Micros) -> Opt<i32> {
    if retention.is_zero() {
        return MaybeUnset::Unset;
    }
    let wanted = i64::try_from(retention.as_secs()).unwrap_or(TTL_MAX_SECONDS);
    let until_the_end = LAST_EXPIRY_SECONDS - now.div_euclid(1_000_000);
    if until_the_end <= 0 {
        // Our clock has passed the end of Cassandra's time, or is wrong: better for ever than not at all.
        return MaybeUnset::Unset;
    }
    let seconds = wanted.min(TTL_MAX_SECONDS).min(until_the_end);
    MaybeUnset::Set(i32::try_from(seconds).unwrap_or(i32::MAX))
}

/// Writes a batch of one partition; one row as a statement of its own.
pub(super) async fn write(
    live: &LiveSession,
    retention: &Retention,
    batch: &Batch,
    now: Micros,
) -> Result<(), StoreError> {
    let statement = live.statements.insert(batch.table);
    let session = &*live.session;
    let rows = &batch.rows;
    let sent = match batch.table {
        Table::Metrics => {
            let ttl = ttl(retention.metrics, now);
            send(
                session,
                statement,
                values(rows, |row| if let Row::Metrics(row) = row { Some(Metrics { row, ttl }) } else { None })?,
            )
            .await
        }
        Table::Topology => {
            let ttl = ttl(retention.topology, now);
            send(
                session,
                statement,
                values(rows, |row| if let Row::Topology(row) = row { Some(topology(row, ttl)) } else { None })?,
            )
            .await
        }
        Table::Events => {
            let ttl = ttl(retention.events, now);
            send(
                session,
                statement,
                values(rows, |row| if let Row::Event(row) = row { Some(event(row, ttl)) } else { None })?,
            )
            .await
        }
        Table::Datasets => {
            send(
                session,
                statement,
                values(rows, |row| if let Row::Dataset(row) = row { Some(dataset(row)) } else { None })?,
            )
            .await
        }
        Table::Control => {
            let ttl = ttl(retention.control, now);
            send(
                session,
                statement,
                values(rows, |row| if let Row::Control(row) = row { Some(control(row, ttl)) } else { None })?,
            )
            .await
        }
        Table::Gaps => {
            let ttl = ttl(retention.gaps, now);
            send(
                session,
                statement,
                values(rows, |row| if let Row::Gap(row) = row { Some(gap(row, ttl)) } else { None })?,
            )
            .await
        }
    };
    sent.map_err(errors::store_error)
}

fn values<'a, V>(rows: &'a [Row], value: impl Fn(&'a Row) -> Option<V>) -> Result<Vec<V>, StoreError> {
    rows.iter()
        .map(value)
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| StoreError::Rejected("a row of another table is in this batch".into()))
}

/// Sends rows of one partition.
pub(super) async fn send<V: SerializeRow>(
    session: &Session,
    statement: &PreparedStatement,
    values: Vec<V>,
) -> Result<(), ExecutionError> {
    if let [row] = values.as_slice() {
        return session.execute_unpaged(statement, row).await.map(drop);
    }
    // Unlogged: all rows share one partition, so that the batch is one mutation, applied whole.
    let each = vec![BatchStatement::from(statement.clone()); values.len()];
    let mut batch = Statements::new_with_statements(BatchType::Unlogged, each);
    batch.set_is_idempotent(true);
    if let Some(consistency) = statement.get_consistency() {
        batch.set_consistency(consistency);
    }
    session.batch(&batch, values).await.map(drop)
}

fn opt<T>(value: Option<T>) -> Opt<T> {
    MaybeUnset::from_option(value)
}

fn text(value: &Option<String>) -> Text<'_> {
    MaybeUnset::from_option(value.as_deref())
}

fn map<V>(map: &BTreeMap<String, V>) -> Opt<&BTreeMap<String, V>> {
    if map.is_empty() { MaybeUnset::Unset } else { MaybeUnset::Set(map) }
}

/// The values of a metrics row. Written out, because the driver's tuples end at 16 values.
struct Metrics<'a> {
    row: &'a MetricsRow,
    ttl: Opt<i32>,
}

impl SerializeRow for Metrics<'_> {
    fn serialize(
        &self,
        context: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        let row = self.row;
        let mut put = Values { specs: context.columns().iter(), writer };
        put.next(&row.key.run_id)?;
        put.next(&time::cql(row.key.timestamp))?;
        put.next(&row.key.event_id)?;
        for value in row.columns.values() {
            match value {
                ColumnValue::Int(value) => put.next(&opt(value))?,
                ColumnValue::BigInt(value) => put.next(&opt(value))?,
                ColumnValue::Double(value) => put.next(&opt(value))?,
                ColumnValue::Text(value) => put.next(&opt(value))?,
            }
        }
        put.next(&map(&row.extra))?;
        put.next(&opt(row.rest_json.as_deref()))?;
        put.next(&self.ttl)?;
        if put.specs.len() > 0 { Err(SerializationError::new(TooFewValues)) } else { Ok(()) }
    }

    fn is_empty(&self) -> bool {
        false
    }
}

/// The values of a statement in the making.
struct Values<'s, 'w, 'b> {
    specs: std::slice::Iter<'s, ColumnSpec<'s>>,
    writer: &'w mut RowWriter<'b>,
}

impl Values<'_, '_, '_> {
    fn next(&mut self, value: &impl SerializeValue) -> Result<(), SerializationError> {
        let spec = self.specs.next().ok_or_else(|| SerializationError::new(TooManyValues))?;
        value.serialize(spec.typ(), self.writer.make_cell_writer()).map(drop)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the statement has more values than the row")]
struct TooFewValues;

#[derive(Debug, thiserror::Error)]
#[error("the row has more values than the statement")]
struct TooManyValues;

type Topology<'a> =
    (Uuid, CqlTimestamp, i64, Opt<i32>, Opt<i32>, Opt<i32>, Opt<i32>, Opt<i32>, &'a str, Text<'a>, Opt<i32>);

fn topology(row: &TopologyRow, ttl: Opt<i32>) -> Topology<'_> {
    (
        row.key.run_id,
        time::cql(row.key.timestamp),
        row.key.event_id,
        opt(row.epoch),
        opt(row.input_size),
        opt(row.output_size),
        opt(row.hidden_units),
        opt(row.total_parameters),
        &row.topology_json,
        text(&row.weights_summary),
        ttl,
    )
}

type Event<'a> = (Uuid, CqlTimestamp, i64, &'a str, &'a str, Opt<i32>, Opt<i32>);

fn event(row: &EventRow, ttl: Opt<i32>) -> Event<'_> {
    let key = &row.key;
    (key.run_id, time::cql(key.timestamp), key.event_id, &row.r#type, &row.payload_json, opt(row.epoch), ttl)
}

type Dataset<'a> = (
    Uuid,
    Text<'a>,
    Text<'a>,
    Opt<i32>,
    Opt<i32>,
    Opt<i32>,
    Opt<&'a BTreeMap<String, i32>>,
    Opt<CqlTimestamp>,
    Text<'a>,
    Text<'a>,
);

fn dataset(row: &DatasetRow) -> Dataset<'_> {
    (
        row.dataset_id,
        text(&row.name),
        text(&row.description),
        opt(row.num_samples),
        opt(row.num_features),
        opt(row.num_classes),
        map(&row.class_distribution),
        opt(row.created_at.map(time::cql)),
        text(&row.file_path),
        text(&row.checksum),
    )
}

type Control<'a> =
    (String, CqlTimestamp, i64, &'a str, &'a str, Text<'a>, Text<'a>, &'a str, Text<'a>, &'a str, Opt<i32>);

fn control(row: &ControlRow, ttl: Opt<i32>) -> Control<'_> {
    (
        time::day(row.timestamp),
        time::cql(row.timestamp),
        row.event_id,
        &row.instance,
        &row.command,
        text(&row.command_id),
        text(&row.target),
        &row.source,
        text(&row.outcome),
        &row.payload_json,
        ttl,
    )
}

type Gap<'a> =
    (String, CqlTimestamp, Uuid, CqlTimestamp, &'a str, &'a str, Text<'a>, &'a str, Opt<Uuid>, Opt<i64>, Opt<i32>);

fn gap(row: &GapRow, ttl: Opt<i32>) -> Gap<'_> {
    (
        time::day(row.started_at),
        time::cql(row.started_at),
        row.gap_id,
        time::cql(row.ended_at),
        &row.reason,
        &row.source,
        text(&row.channel),
        &row.instance,
        opt(row.run_id),
        opt(row.lost),
        ttl,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(retention_seconds: u64, now_seconds: i64) -> Option<i32> {
        match ttl(Duration::from_secs(retention_seconds), now_seconds * 1_000_000) {
            MaybeUnset::Set(seconds) => Some(seconds),
            MaybeUnset::Unset => None,
        }
    }

    #[test]
    fn no_row_outlives_what_cassandra_can_count() {
        let now = 1_800_000_000;
        assert_eq!(bound(0, now), None, "for ever is unset");
        assert_eq!(bound(2_592_000, now), Some(2_592_000));
        assert_eq!(bound(u64::MAX, now), Some((LAST_EXPIRY_SECONDS - now) as i32));
        assert_eq!(bound(u64::MAX, 1_000), Some(TTL_MAX_SECONDS as i32));
        assert_eq!(bound(60, LAST_EXPIRY_SECONDS + 5), None, "rather than at once");
    }
}
