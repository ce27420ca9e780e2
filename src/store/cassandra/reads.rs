//! The bounded reads. Every answer is fetched page by page and ends at its limit.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use scylla::{
    DeserializeRow,
    deserialize::row::DeserializeRow as Row,
    response::{PagingState, query_result::QueryRowsResult},
    serialize::row::SerializeRow,
    statement::prepared::PreparedStatement,
    value::CqlTimestamp,
};
use uuid::Uuid;

use super::{errors, session::Link, statements::Range, time};
use crate::{
    curve::{Field, Sample, Samples},
    event::{DatasetRow, EventKey, EventRow, MetricsRow, RunRow, TopologyRow, Weigh, restore_micros},
    store::{RangeQuery, SamplesQuery, Seqs, StoreError, samples::add_row},
};

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Misconfigured(Box::new(error))
}

/// Sends `statement` and hands every page to `page` until it breaks or there are no more.
pub(super) async fn pages(
    link: &Link,
    statement: &PreparedStatement,
    values: impl SerializeRow,
    mut page: impl FnMut(QueryRowsResult) -> Result<ControlFlow<()>, StoreError>,
) -> Result<(), StoreError> {
    let mut from = PagingState::start();
    loop {
        let (result, next) =
            link.session.execute_single_page(statement, &values, from).await.map_err(errors::store_error)?;
        if page(result.into_rows_result().map_err(unreadable)?)?.is_break() {
            return Ok(());
        }
        match next.into_paging_control_flow() {
            ControlFlow::Break(()) => return Ok(()),
            ControlFlow::Continue(state) => from = state,
        }
    }
}

/// At most `limit` rows, each read as `R` and made into `T`.
pub(super) async fn collect<R, T>(
    link: &Link,
    statement: &PreparedStatement,
    values: impl SerializeRow,
    limit: usize,
    make: impl Fn(R) -> T,
) -> Result<Vec<T>, StoreError>
where
    R: for<'f, 'm> Row<'f, 'm>,
{
    let mut all = Vec::new();
    pages(link, statement, values, |page| {
        for row in page.rows::<R>().map_err(unreadable)? {
            if all.len() == limit {
                return Ok(ControlFlow::Break(()));
            }
            all.push(make(row.map_err(unreadable)?));
        }
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    Ok(all)
}

pub(super) fn cql_limit(limit: usize) -> i32 {
    i32::try_from(limit).unwrap_or(i32::MAX)
}

type Bounds = ((i64, i64), (i64, i64));

/// The first and the last `(millisecond, event_id)` of a range, inclusive; `None` when nothing can be between.
fn bounds(query: &RangeQuery) -> Option<Bounds> {
    let low = |at| (time::millis(at), time::event_ids(at).0);
    let high = |at| (time::millis(at), time::event_ids(at).1);
    let mut first = query.start.map_or((i64::MIN, i64::MIN), low);
    let mut last = query.end.map_or((i64::MAX, i64::MAX), high);
    if let Some((at, event_id)) = query.after {
        if query.ascending {
            first = first.max((time::millis(at), event_id.saturating_add(1)));
        } else {
            last = last.min((time::millis(at), event_id.saturating_sub(1)));
        }
    }
    (first <= last && query.limit > 0).then_some((first, last))
}

/// The bytes of a page that is asked for, and the rows of the first and of any: the server counts rows only, so their number
/// follows the largest that was met, and is never so high that rows which have just become large do harm.
const PAGE_BYTES: usize = 1 << 20;
const PAGE_FIRST: usize = 16;
const PAGE_MOST: usize = 64;

/// How many rows the next page may have.
fn next_page(rows: usize, largest: usize) -> usize {
    (PAGE_BYTES / largest.max(1)).clamp(1, (rows * 2).min(PAGE_MOST))
}

/// Hands over whole rows one by one until it breaks.
async fn each<R>(
    link: &Link,
    statements: &Range,
    query: &RangeQuery,
    mut take: impl FnMut(R) -> (usize, ControlFlow<()>),
) -> Result<(), StoreError>
where
    R: for<'f, 'm> Row<'f, 'm>,
{
    let Some((first, last)) = bounds(query) else { return Ok(()) };
    let mut statement = if query.ascending { &statements.oldest_first } else { &statements.newest_first }.clone();
    let values = (query.run_id, CqlTimestamp(first.0), first.1, CqlTimestamp(last.0), last.1, cql_limit(query.limit));
    let (mut from, mut read, mut largest) = (PagingState::start(), 0, 0);
    let mut rows = PAGE_FIRST;
    loop {
        statement.set_page_size(i32::try_from(rows).unwrap_or(1));
        let answer = link.session.execute_single_page(&statement, &values, from).await;
        let (result, next) = answer.map_err(errors::store_error)?;
        for row in result.into_rows_result().map_err(unreadable)?.rows::<R>().map_err(unreadable)? {
            let (bytes, flow) = take(row.map_err(unreadable)?);
            largest = largest.max(bytes);
            read += 1;
            if flow.is_break() || read == query.limit {
                return Ok(());
            }
        }
        match next.into_paging_control_flow() {
            ControlFlow::Break(()) => return Ok(()),
            ControlFlow::Continue(state) => from = state,
        }
        rows = next_page(rows, largest);
    }
}

/// Whole rows: as many as fit the limits of the query.
async fn range<R, T: Weigh>(
    link: &Link,
    statements: &Range,
    query: &RangeQuery,
    make: impl Fn(R) -> T,
) -> Result<Vec<T>, StoreError>
where
    R: for<'f, 'm> Row<'f, 'm>,
{
    let (mut all, mut total) = (Vec::new(), 0);
    each(link, statements, query, |row| {
        let row = make(row);
        let bytes = row.bytes();
        total += bytes;
        all.push(row);
        (bytes, if total >= query.bytes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
    .await?;
    Ok(all)
}

fn key(run_id: Uuid, timestamp: CqlTimestamp, event_id: i64) -> EventKey {
    EventKey { run_id, timestamp: restore_micros(timestamp.0, event_id), event_id }
}

#[derive(DeserializeRow)]
struct Metrics {
    run_id: Uuid,
    timestamp: CqlTimestamp,
    event_id: i64,
    epoch: Option<i32>,
    step: Option<i32>,
    train_loss: Option<f64>,
    train_accuracy: Option<f64>,
    val_loss: Option<f64>,
    val_accuracy: Option<f64>,
    learning_rate: Option<f64>,
    hidden_units: Option<i32>,
    phase: Option<String>,
    seq: Option<i64>,
    extra: Option<BTreeMap<String, f64>>,
    rest_json: Option<String>,
}

impl From<Metrics> for MetricsRow {
    fn from(row: Metrics) -> Self {
        Self {
            key: key(row.run_id, row.timestamp, row.event_id),
            epoch: row.epoch,
            step: row.step,
            train_loss: row.train_loss,
            train_accuracy: row.train_accuracy,
            val_loss: row.val_loss,
            val_accuracy: row.val_accuracy,
            learning_rate: row.learning_rate,
            hidden_units: row.hidden_units,
            phase: row.phase,
            seq: row.seq,
            extra: row.extra.unwrap_or_default(),
            rest_json: row.rest_json,
        }
    }
}

pub(super) async fn metrics(link: &Link, query: &RangeQuery) -> Result<Vec<MetricsRow>, StoreError> {
    range(link, &link.statements.metrics, query, |row: Metrics| MetricsRow::from(row)).await
}

pub(super) async fn seqs(link: &Link, query: &RangeQuery) -> Result<Seqs, StoreError> {
    type Stored = (Uuid, CqlTimestamp, i64, Option<i64>);
    let Some((first, last)) = bounds(query) else { return Ok(Vec::new()) };
    let statements = &link.statements.seqs;
    let statement = if query.ascending { &statements.oldest_first } else { &statements.newest_first };
    let values = (query.run_id, CqlTimestamp(first.0), first.1, CqlTimestamp(last.0), last.1, cql_limit(query.limit));
    collect(link, statement, values, query.limit, |(run_id, at, event_id, seq): Stored| {
        (key(run_id, at, event_id), seq)
    })
    .await
}

#[derive(DeserializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
struct Numbered<'r> {
    timestamp: CqlTimestamp,
    event_id: i64,
    epoch: Option<i32>,
    step: Option<i32>,
    hidden_units: Option<i32>,
    seq: Option<i64>,
    phase: Option<&'r str>,
    train_loss: Option<f64>,
    train_accuracy: Option<f64>,
    val_loss: Option<f64>,
    val_accuracy: Option<f64>,
    learning_rate: Option<f64>,
}

/// The page is read where it lies; only its numbers are copied.
pub(super) async fn samples(link: &Link, query: &SamplesQuery) -> Result<Samples, StoreError> {
    let mut samples = Samples::default();
    if query.fields.iter().any(|field| matches!(field, Field::Extra(_))) {
        each(link, &link.statements.metrics, &query.range, |row: Metrics| {
            let row = MetricsRow::from(row);
            add_row(&mut samples, &row, &query.fields);
            (row.bytes(), ControlFlow::Continue(()))
        })
        .await?;
        return Ok(samples);
    }
    let Some((first, last)) = bounds(&query.range) else { return Ok(samples) };
    let (statements, limit) = (&link.statements.samples, query.range.limit);
    let statement = if query.range.ascending { &statements.oldest_first } else { &statements.newest_first };
    let ends = (CqlTimestamp(first.0), first.1, CqlTimestamp(last.0), last.1);
    let values = (query.range.run_id, ends.0, ends.1, ends.2, ends.3, cql_limit(limit));
    pages(link, statement, values, |page| {
        for row in page.rows::<Numbered<'_>>().map_err(unreadable)? {
            if samples.rows.len() == limit {
                return Ok(ControlFlow::Break(()));
            }
            add_sample(&mut samples, &row.map_err(unreadable)?, &query.fields);
        }
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    Ok(samples)
}

fn add_sample(samples: &mut Samples, row: &Numbered<'_>, fields: &[Field]) {
    let phase = row.phase.map(|phase| samples.phase(phase));
    samples.rows.push(Sample {
        timestamp: restore_micros(row.timestamp.0, row.event_id),
        event_id: row.event_id,
        epoch: row.epoch,
        step: row.step,
        hidden_units: row.hidden_units,
        seq: row.seq,
        phase,
    });
    // In the order of `curve::COLUMNS`.
    let numbers = [
        row.train_loss,
        row.train_accuracy,
        row.val_loss,
        row.val_accuracy,
        row.learning_rate,
        row.hidden_units.map(f64::from),
    ];
    let number = |field: &Field| match field {
        Field::Column(at) => numbers.get(*at).copied().flatten(),
        Field::Extra(_) => None,
    };
    samples.values.extend(fields.iter().map(number));
}

pub(super) async fn count_metrics(link: &Link, run_id: Uuid) -> Result<u64, StoreError> {
    let counts = collect(link, &link.statements.count_metrics, (run_id,), 1, |(n,): (i64,)| n).await?;
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

pub(super) async fn topology(link: &Link, query: &RangeQuery) -> Result<Vec<TopologyRow>, StoreError> {
    range(link, &link.statements.topology, query, |row: Topology| TopologyRow {
        key: key(row.run_id, row.timestamp, row.event_id),
        epoch: row.epoch,
        input_size: row.input_size,
        output_size: row.output_size,
        hidden_units: row.hidden_units,
        total_parameters: row.total_parameters,
        topology_json: row.topology_json.unwrap_or_default(),
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

pub(super) async fn events(link: &Link, query: &RangeQuery) -> Result<Vec<EventRow>, StoreError> {
    range(link, &link.statements.events, query, |row: Event| EventRow {
        key: key(row.run_id, row.timestamp, row.event_id),
        r#type: row.kind.unwrap_or_default(),
        payload_json: row.payload_json.unwrap_or_default(),
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

pub(super) async fn dataset(link: &Link, dataset_id: Uuid) -> Result<Option<DatasetRow>, StoreError> {
    let mut rows = collect(link, &link.statements.dataset, (dataset_id,), 1, |row: Dataset| DatasetRow {
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
            config_json: row.config_json,
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
        }
    }
}

pub(super) async fn run(link: &Link, run_id: Uuid) -> Result<Option<RunRow>, StoreError> {
    Ok(collect(link, &link.statements.run, (run_id,), 1, |row: Run| RunRow::from(row)).await?.pop())
}

/// The rows of these runs, in no order.
pub(super) async fn some_runs(link: &Link, ids: &[Uuid]) -> Result<Vec<RunRow>, StoreError> {
    collect(link, &link.statements.runs, (ids,), usize::MAX, |row: Run| RunRow::from(row)).await
}

/// The partitions of a table, newest first; there are as many as days kept, or months of use.
pub(super) async fn partitions(link: &Link, statement: &PreparedStatement) -> Result<Vec<String>, StoreError> {
    let mut all = collect(link, statement, (), usize::MAX, |(name,): (String,)| name).await?;
    all.sort_unstable_by(|a, b| b.cmp(a));
    Ok(all)
}

pub(super) async fn ping(link: &Link) -> Result<(), StoreError> {
    link.session.execute_unpaged(&link.statements.ping, ()).await.map(drop).map_err(errors::store_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_exact_to_the_row() {
        let at = 1_763_683_199_123_456;
        let id = (456 << 43) | 77;
        let query = |ascending, after| RangeQuery {
            start: Some(at - 5),
            end: Some(at + 5),
            ascending,
            after,
            ..RangeQuery::newest(Uuid::nil(), 10)
        };
        let ms = at / 1_000;
        let whole = ((ms, 451 << 43), (ms, (461 << 43) | ((1 << 43) - 1)));
        assert_eq!(bounds(&query(false, None)), Some(whole));
        assert_eq!(bounds(&query(false, Some((at, id)))), Some((whole.0, (ms, id - 1))));
        assert_eq!(bounds(&query(true, Some((at, id)))), Some(((ms, id + 1), whole.1)));
        assert_eq!(bounds(&query(false, Some((at - 1_000, id)))), None, "nothing is left before the start");
        assert_eq!(bounds(&RangeQuery::newest(Uuid::nil(), 0)), None);
    }
}
