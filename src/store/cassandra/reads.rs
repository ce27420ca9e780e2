//! The reads of the contract: what is asked for, and how a stored row becomes one of ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use scylla::{
    DeserializeRow,
    deserialize::{
        DeserializationError, TypeCheckError,
        row::{ColumnIterator, DeserializeRow},
        value::DeserializeValue,
    },
    frame::response::result::{ColumnSpec, ColumnType},
    statement::prepared::PreparedStatement,
    value::CqlTimestamp,
};
use uuid::Uuid;

use super::{
    errors,
    pages::{bounds, collect, cql_limit, each, pages, range, unreadable},
    session::LiveSession,
    time,
};
use crate::{
    cooperative::YieldEvery,
    curve::{Field, Samples},
    event::{
        self, DatasetRow, EventKey, EventRow, METRIC_COLUMNS, MemSize, MetricColumns, MetricsRow, ReadColumns, RunRow,
        TopologyRow, restore_micros,
    },
    store::{METRIC_NAMES_MAX, RangeQuery, SamplesQuery, Seqs, StoreError, samples::add_row},
};

fn key(run_id: Uuid, timestamp: CqlTimestamp, event_id: i64) -> EventKey {
    EventKey { run_id, timestamp: restore_micros(timestamp.0, event_id), event_id }
}

/// Columns of a row in the order in which they are asked for: found by their names, they would take half as long again.
struct Columns<'i, 'frame, 'metadata>(&'i mut ColumnIterator<'frame, 'metadata>);

impl<'frame, 'metadata> Columns<'_, 'frame, 'metadata> {
    fn next<T: DeserializeValue<'frame, 'metadata>>(&mut self) -> Result<T, DeserializationError> {
        let column = self.0.next().ok_or_else(|| DeserializationError::new(MissingColumn))??;
        T::deserialize(column.spec.typ(), column.slice)
    }
}

impl<'frame, 'metadata, Text> ReadColumns<Text> for Columns<'_, 'frame, 'metadata>
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

#[derive(Debug, thiserror::Error)]
#[error("the answer has fewer columns than the statement asks for")]
struct MissingColumn;

/// The columns of a metrics row, and where in its run it is.
struct Sample<Text> {
    timestamp: CqlTimestamp,
    event_id: i64,
    columns: MetricColumns<Text>,
}

impl<'frame, 'metadata, Text: DeserializeValue<'frame, 'metadata>> Sample<Text> {
    fn read(columns: &mut Columns<'_, 'frame, 'metadata>) -> Result<Self, DeserializationError> {
        Ok(Self { timestamp: columns.next()?, event_id: columns.next()?, columns: MetricColumns::read(columns)? })
    }
}

impl<'frame, 'metadata> DeserializeRow<'frame, 'metadata> for Sample<&'frame str> {
    fn type_check(specs: &[ColumnSpec<'_>]) -> Result<(), TypeCheckError> {
        check_types(&sample_types(), specs)
    }

    fn deserialize(mut row: ColumnIterator<'frame, 'metadata>) -> Result<Self, DeserializationError> {
        Self::read(&mut Columns(&mut row))
    }
}

impl<'frame, 'metadata> DeserializeRow<'frame, 'metadata> for MetricsRow {
    fn type_check(specs: &[ColumnSpec<'_>]) -> Result<(), TypeCheckError> {
        let mut checks: Vec<TypeCheck> = vec![<Uuid>::type_check];
        checks.extend(sample_types());
        checks.extend([<Option<BTreeMap<String, f64>>>::type_check as TypeCheck, <Option<String>>::type_check]);
        check_types(&checks, specs)
    }

    fn deserialize(mut row: ColumnIterator<'frame, 'metadata>) -> Result<Self, DeserializationError> {
        let mut columns = Columns(&mut row);
        let run_id = columns.next()?;
        let sample = Sample::read(&mut columns)?;
        let extra: Option<BTreeMap<String, f64>> = columns.next()?;
        let rest_json: Option<String> = columns.next()?;
        Ok(Self {
            key: key(run_id, sample.timestamp, sample.event_id),
            columns: sample.columns,
            extra: extra.unwrap_or_default(),
            rest_json: rest_json.map(Into::into),
        })
    }
}

type TypeCheck = fn(&ColumnType<'_>) -> Result<(), TypeCheckError>;

/// What checks the types of the columns of a [`Sample`].
fn sample_types() -> Vec<TypeCheck> {
    let columns = METRIC_COLUMNS.iter().map(|column| -> TypeCheck {
        match column.column_type {
            event::ColumnType::Int => <Option<i32>>::type_check,
            event::ColumnType::BigInt => <Option<i64>>::type_check,
            event::ColumnType::Double => <Option<f64>>::type_check,
            event::ColumnType::Text => <Option<String>>::type_check,
        }
    });
    [<CqlTimestamp>::type_check as TypeCheck, <i64>::type_check].into_iter().chain(columns).collect()
}

fn check_types(checks: &[TypeCheck], specs: &[ColumnSpec<'_>]) -> Result<(), TypeCheckError> {
    checks.iter().zip(specs).try_for_each(|(check, spec)| check(spec.typ()))
}

pub(super) async fn metrics(live: &LiveSession, query: &RangeQuery) -> Result<Vec<MetricsRow>, StoreError> {
    range(live, &live.statements.metrics, query, |row: MetricsRow| row).await
}

pub(super) async fn seqs(live: &LiveSession, query: &RangeQuery) -> Result<Seqs, StoreError> {
    type Stored = (Uuid, CqlTimestamp, i64, Option<i64>);
    let Some((first, last)) = bounds(query) else { return Ok(Vec::new()) };
    let statements = &live.statements.seqs;
    let statement = if query.ascending { &statements.oldest_first } else { &statements.newest_first };
    let values = (query.run_id, CqlTimestamp(first.0), first.1, CqlTimestamp(last.0), last.1, cql_limit(query.limit));
    collect(live, statement, values, query.limit, |(run_id, at, event_id, seq): Stored| {
        (key(run_id, at, event_id), seq)
    })
    .await
}

/// The page is read where it lies; only its numbers are copied.
pub(super) async fn samples(live: &LiveSession, query: &SamplesQuery) -> Result<Samples, StoreError> {
    let mut samples = Samples::default();
    if query.fields.iter().any(|field| matches!(field, Field::Extra(_))) {
        each(live, &live.statements.metrics, &query.range, |row: MetricsRow| {
            add_row(&mut samples, &row, &query.fields);
            (row.bytes(), ControlFlow::Continue(()))
        })
        .await?;
        return Ok(samples);
    }
    let Some((first, last)) = bounds(&query.range) else { return Ok(samples) };
    let (statements, limit) = (&live.statements.samples, query.range.limit);
    let statement = if query.range.ascending { &statements.oldest_first } else { &statements.newest_first };
    let ends = (CqlTimestamp(first.0), first.1, CqlTimestamp(last.0), last.1);
    let values = (query.range.run_id, ends.0, ends.1, ends.2, ends.3, cql_limit(limit));
    let mut yielder = YieldEvery::default();
    pages(live, statement, values, |page| {
        for row in page.rows::<Sample<&str>>().map_err(unreadable)? {
            if samples.rows.len() == limit {
                return Ok(ControlFlow::Break(()));
            }
            let row = row.map_err(unreadable)?;
            let key = key(query.range.run_id, row.timestamp, row.event_id);
            samples.add(&key, &row.columns, &BTreeMap::new(), &query.fields);
            yielder.tick();
        }
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    Ok(samples)
}

pub(super) async fn count_metrics(live: &LiveSession, run_id: Uuid) -> Result<u64, StoreError> {
    let counts = collect(live, &live.statements.count_metrics, (run_id,), 1, |(n,): (i64,)| n).await?;
    Ok(counts.first().map_or(0, |n| u64::try_from(*n).unwrap_or(0)))
}

#[derive(DeserializeRow)]
struct Topology {
    run_id: Uuid,
    timestamp: CqlTimestamp,
    event_id: i64,
    epoch: Option<i32>,
    input_size: Option<i32>,
    output_size: Option<i32>,
    hidden_units: Option<i32>,
    total_parameters: Option<i32>,
    topology_json: Option<String>,
    weights_summary: Option<String>,
}

pub(super) async fn topology(live: &LiveSession, query: &RangeQuery) -> Result<Vec<TopologyRow>, StoreError> {
    range(live, &live.statements.topology, query, |row: Topology| TopologyRow {
        key: key(row.run_id, row.timestamp, row.event_id),
        epoch: row.epoch,
        input_size: row.input_size,
        output_size: row.output_size,
        hidden_units: row.hidden_units,
        total_parameters: row.total_parameters,
        topology_json: row.topology_json.unwrap_or_default().into(),
        weights_summary: row.weights_summary,
    })
    .await
}

#[derive(DeserializeRow)]
struct Event {
    run_id: Uuid,
    timestamp: CqlTimestamp,
    event_id: i64,
    #[scylla(rename = "type")]
    kind: Option<String>,
    payload_json: Option<String>,
    epoch: Option<i32>,
}

pub(super) async fn events(live: &LiveSession, query: &RangeQuery) -> Result<Vec<EventRow>, StoreError> {
    range(live, &live.statements.events, query, |row: Event| EventRow {
        key: key(row.run_id, row.timestamp, row.event_id),
        r#type: row.kind.unwrap_or_default(),
        payload_json: row.payload_json.unwrap_or_default().into(),
        epoch: row.epoch,
    })
    .await
}

#[derive(DeserializeRow)]
struct Dataset {
    dataset_id: Uuid,
    name: Option<String>,
    description: Option<String>,
    num_samples: Option<i32>,
    num_features: Option<i32>,
    num_classes: Option<i32>,
    class_distribution: Option<BTreeMap<String, i32>>,
    created_at: Option<CqlTimestamp>,
    file_path: Option<String>,
    checksum: Option<String>,
}

pub(super) async fn dataset(live: &LiveSession, dataset_id: Uuid) -> Result<Option<DatasetRow>, StoreError> {
    let mut rows = collect(live, &live.statements.dataset, (dataset_id,), 1, |row: Dataset| DatasetRow {
        dataset_id: row.dataset_id,
        name: row.name,
        description: row.description,
        num_samples: row.num_samples,
        num_features: row.num_features,
        num_classes: row.num_classes,
        class_distribution: row.class_distribution.unwrap_or_default(),
        created_at: row.created_at.map(time::micros),
        file_path: row.file_path,
        checksum: row.checksum,
    })
    .await?;
    Ok(rows.pop())
}

#[derive(DeserializeRow)]
struct Run {
    run_id: Uuid,
    run_name: Option<String>,
    start_time: Option<CqlTimestamp>,
    end_time: Option<CqlTimestamp>,
    duration_seconds: Option<i32>,
    status: Option<String>,
    dataset_name: Option<String>,
    dataset_size: Option<i32>,
    config_json: Option<String>,
    final_epoch: Option<i32>,
    final_train_loss: Option<f64>,
    final_train_accuracy: Option<f64>,
    final_val_loss: Option<f64>,
    final_val_accuracy: Option<f64>,
    best_val_accuracy: Option<f64>,
    best_epoch: Option<i32>,
    total_hidden_units: Option<i32>,
    total_parameters: Option<i32>,
    notes: Option<String>,
    tags: Option<BTreeSet<String>>,
    created_by: Option<String>,
    last_event_time: Option<CqlTimestamp>,
    restarted_at: Option<CqlTimestamp>,
}

impl From<Run> for RunRow {
    fn from(row: Run) -> Self {
        Self {
            run_id: row.run_id,
            run_name: row.run_name,
            start_time: row.start_time.map(time::micros),
            end_time: row.end_time.map(time::micros),
            duration_seconds: row.duration_seconds,
            status: row.status,
            dataset_name: row.dataset_name,
            dataset_size: row.dataset_size,
            config_json: row.config_json.map(Into::into),
            final_epoch: row.final_epoch,
            final_train_loss: row.final_train_loss,
            final_train_accuracy: row.final_train_accuracy,
            final_val_loss: row.final_val_loss,
            final_val_accuracy: row.final_val_accuracy,
            best_val_accuracy: row.best_val_accuracy,
            best_epoch: row.best_epoch,
            total_hidden_units: row.total_hidden_units,
            total_parameters: row.total_parameters,
            notes: row.notes,
            tags: row.tags.unwrap_or_default(),
            created_by: row.created_by,
            last_event_time: row.last_event_time.map(time::micros),
            restarted_at: row.restarted_at.map(time::micros),
        }
    }
}

pub(super) async fn run(live: &LiveSession, run_id: Uuid) -> Result<Option<RunRow>, StoreError> {
    Ok(collect(live, &live.statements.run, (run_id,), 1, |row: Run| RunRow::from(row)).await?.pop())
}

/// The rows of these runs, in no order.
pub(super) async fn runs_by_id(live: &LiveSession, ids: &[Uuid]) -> Result<Vec<RunRow>, StoreError> {
    collect(live, &live.statements.runs, (ids,), usize::MAX, |row: Run| RunRow::from(row)).await
}

pub(super) async fn metric_names(live: &LiveSession, run_id: Uuid) -> Result<Vec<String>, StoreError> {
    let values = (run_id, METRIC_NAMES_MAX as i32);
    collect(live, &live.statements.names, values, METRIC_NAMES_MAX, |(_, name): (Uuid, String)| name).await
}

/// The partitions of a table, newest first; there are as many as days kept, or months of use.
pub(super) async fn partitions(live: &LiveSession, statement: &PreparedStatement) -> Result<Vec<String>, StoreError> {
    let mut all = collect(live, statement, (), usize::MAX, |(name,): (String,)| name).await?;
    all.sort_unstable_by(|a, b| b.cmp(a));
    Ok(all)
}

pub(super) async fn ping(live: &LiveSession) -> Result<(), StoreError> {
    live.session.execute_unpaged(&live.statements.ping, ()).await.map(drop).map_err(errors::store_error)
}
