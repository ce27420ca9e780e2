//! One call to the store, from its beginning to its result. The writer's task drives them all; none shares anything with it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    batch::{PendingBatch, RowOrigin, row_bytes},
    frontier::RecordToken,
    history,
    ports::{DeadLetterEntry, DeadLetterSink},
    run_call::{ExtraChecks, RunCall, RunRead, RunWrite, StoredRun},
    run_columns::{ColumnSet, TAGS, project},
};
use crate::{
    event::{DatasetRow, Partition, Row, RunRow, Table},
    logging::Chain,
    memory::{LARGE_VALUE, MemoryLimit},
    store::{Batch, BoxError, Deletions, Store, StoreError},
    units::Micros,
};

/// What came of a call.
pub enum Completion {
    /// Of a batch.
    Batch(BatchResult),
    /// Of a call about a run.
    Run {
        /// The run.
        run_id: Uuid,
        /// What was read, or which values were refused.
        result: Result<RunReply, StoreError>,
        /// As how many calls it counts.
        calls: usize,
        /// Whether it was a write.
        of_write: bool,
        /// Whether it was a try during an outage.
        is_probe: bool,
    },
    /// Of a read of the deleted runs.
    Deletions(Result<Deletions, StoreError>),
    /// Of dead letters.
    DeadLetters {
        /// What was to be kept.
        entries: Vec<DeadLetterEntry>,
        /// The records that wait for it, one a letter.
        tokens: Vec<RecordToken>,
        /// Whether it is.
        result: Result<(), BoxError>,
    },
}

/// What came of a call about a run.
pub enum RunReply {
    /// What was read.
    Read(RunRead),
    /// What was refused of a write, column by column.
    Written(Vec<RefusedValue>),
}

/// A value of a run that the store refuses.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusedValue {
    /// Which.
    pub part: RefusedPart,
    /// The value as text.
    pub row: String,
    /// What the store said.
    pub error: String,
}

/// The part of a run that a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum RefusedPart {
    /// A column, as its bit.
    Column(ColumnSet),
    /// One of the tags.
    Tag(String),
    /// The name of another number.
    Name(String),
}

/// What came of a batch.
pub struct BatchResult {
    /// The table.
    pub table: Table,
    /// How many rows it had.
    pub rows: usize,
    /// What it took in memory.
    pub bytes: usize,
    /// How much of a full batch it was; see [`PendingBatch::parts`].
    pub parts: usize,
    /// How long the first call took.
    pub latency: Duration,
    /// Rows that are stored.
    pub stored: Vec<RowOrigin>,
    /// Rows that the store refuses, and what it said.
    pub refused: Vec<(RowOrigin, Row, String)>,
    /// What must be written again, and why.
    pub unwritten: Option<(PendingBatch, StoreError)>,
    /// Whether it was a try during an outage.
    pub is_probe: bool,
    /// Whether as many batches as allowed were in flight.
    pub saturated: bool,
}

/// Writes a batch; one that is rejected is halved, down to the row that is to blame.
pub async fn write_batch(
    store: Arc<dyn Store>,
    pending_batch: PendingBatch,
    memory: MemoryLimit,
    is_probe: bool,
    saturated: bool,
) -> Completion {
    // A store has a large row twice more while it is written: as a value, and in its own format.
    let _copies = match pending_batch.bytes {
        bytes if bytes >= LARGE_VALUE => Some(memory.reserve_for_writer(2 * bytes, bytes).await),
        _ => None,
    };
    let began = Instant::now();
    let mut outcome = BatchResult {
        table: pending_batch.batch.table,
        rows: pending_batch.batch.rows.len(),
        bytes: pending_batch.bytes,
        parts: pending_batch.parts,
        latency: Duration::ZERO,
        stored: Vec::new(),
        refused: Vec::new(),
        unwritten: None,
        is_probe,
        saturated,
    };
    let mut rest = vec![pending_batch];
    while let Some(mut part) = rest.pop() {
        let result = store.write(&part.batch).await;
        if outcome.latency.is_zero() {
            outcome.latency = began.elapsed();
        }
        match result {
            Ok(()) if outcome.stored.is_empty() => outcome.stored = part.origins,
            Ok(()) => outcome.stored.append(&mut part.origins),
            Err(StoreError::Rejected(_)) if part.batch.rows.len() > 1 => {
                let back = split_half(&mut part);
                rest.push(back);
                rest.push(part);
            }
            Err(StoreError::Rejected(error)) => {
                let message = Chain(&*error).to_string();
                let rows = Arc::unwrap_or_clone(part.batch.rows).into_iter().zip(part.origins);
                outcome.refused.extend(rows.map(|(row, origin)| (origin, row, message.clone())));
            }
            Err(error) => {
                while let Some(mut next) = rest.pop() {
                    Arc::make_mut(&mut part.batch.rows).extend(Arc::unwrap_or_clone(next.batch.rows));
                    part.origins.append(&mut next.origins);
                    part.bytes += next.bytes;
                }
                outcome.unwritten = Some((part, error));
            }
        }
    }
    Completion::Batch(outcome)
}

/// Reads or writes something of a run.
pub async fn run_call(store: Arc<dyn Store>, call: RunCall, calls: usize, is_probe: bool) -> Completion {
    let (store, of_write) = (&*store, matches!(call, RunCall::Write(_)));
    let (run_id, result) = match call {
        RunCall::Read { run_id, extra } => {
            let row = read_run(store, run_id, extra).await;
            (run_id, row.map(|row| RunReply::Read(RunRead::Row(Box::new(row)))))
        }
        RunCall::History(run_id, request) => {
            let history = history::read(store, run_id, request).await;
            (run_id, history.map(|history| RunReply::Read(RunRead::History(history))))
        }
        RunCall::Names(run_id) => {
            let names = store.metric_names(run_id).await;
            (run_id, names.map(|names| RunReply::Read(RunRead::Names(names))))
        }
        RunCall::Write(write) => (write.change.run_id, write_run_parts(store, *write).await.map(RunReply::Written)),
    };
    Completion::Run { run_id, result, calls, of_write, is_probe }
}

/// Reads the deleted runs.
pub async fn read_deletions(store: Arc<dyn Store>) -> Completion {
    Completion::Deletions(store.deletions().await)
}

/// Keeps dead letters.
pub async fn write_dead_letters<A: DeadLetterSink>(
    sink: Arc<A>,
    entries: Vec<DeadLetterEntry>,
    tokens: Vec<RecordToken>,
) -> Completion {
    let result = sink.put(&entries).await;
    Completion::DeadLetters { entries, tokens, result }
}

async fn read_run(store: &dyn Store, run_id: Uuid, extra: ExtraChecks) -> Result<StoredRun, StoreError> {
    let row = store.read_run(run_id).await?;
    let unlisted = match extra.start {
        Some(start) => !store.is_listed(run_id, start).await?,
        None => false,
    };
    let dataset_missing = match extra.dataset {
        Some(dataset_id) => store.dataset(dataset_id).await?.is_none(),
        None => false,
    };
    Ok(StoredRun { row, missing_in_index: unlisted, dataset_missing })
}

/// Writes the row last: the records that wait for it wait for all.
async fn write_run_parts(store: &dyn Store, write: RunWrite) -> Result<Vec<RefusedValue>, StoreError> {
    let RunWrite { change, columns, stored_start, names, dataset } = write;
    if let Some(dataset) = dataset {
        write_dataset(store, *dataset).await?;
    }
    let mut refused = write_names(store, change.run_id, names).await?;
    refused.append(&mut write_run(store, &change, columns, stored_start).await?);
    Ok(refused)
}

/// Writes the names; when they are rejected, halves of them, down to the name that is to blame.
async fn write_names(store: &dyn Store, run_id: Uuid, names: Vec<String>) -> Result<Vec<RefusedValue>, StoreError> {
    let mut refused = Vec::new();
    let mut rest = if names.is_empty() { Vec::new() } else { vec![names] };
    while let Some(mut part) = rest.pop() {
        match store.write_metric_names(run_id, &part).await {
            Ok(()) => {}
            Err(StoreError::Rejected(_)) if part.len() > 1 => {
                rest.push(part.split_off(part.len() / 2));
                rest.push(part);
            }
            Err(StoreError::Rejected(error)) => {
                let error = Chain(&*error).to_string();
                refused.extend(part.pop().map(|name| {
                    let row = format!("a name of metrics: {name:?}");
                    RefusedValue { part: RefusedPart::Name(name), row, error }
                }));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}

/// Writes the columns; when they are rejected, halves of them, down to the column that is to blame.
async fn write_run(
    store: &dyn Store,
    change: &RunRow,
    columns: ColumnSet,
    stored_start: Option<Micros>,
) -> Result<Vec<RefusedValue>, StoreError> {
    let mut refused = Vec::new();
    let mut rest = if columns == 0 { Vec::new() } else { vec![columns] };
    while let Some(columns) = rest.pop() {
        let part = project(change, columns);
        match store.write_run(&part, stored_start).await {
            Ok(()) => {}
            Err(StoreError::Rejected(_)) if columns.count_ones() > 1 => {
                let low = (0..columns.count_ones() / 2).fold(0, |low, _| low | lowest(columns & !low));
                rest.push(columns & !low);
                rest.push(low);
            }
            Err(StoreError::Rejected(_)) if columns == TAGS => write_tags(store, part, &mut refused).await?,
            Err(StoreError::Rejected(error)) => {
                let (row, error) = (format!("{part:?}"), Chain(&*error).to_string());
                refused.push(RefusedValue { part: RefusedPart::Column(columns), row, error });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}

/// Writes the tags without the largest ones, as many as the store takes: each write replaces the set, so that tags could not be
/// tried one by one without removing the rest for a moment.
async fn write_tags(store: &dyn Store, mut part: RunRow, refused: &mut Vec<RefusedValue>) -> Result<(), StoreError> {
    while let Some(largest) = part.tags.iter().max_by_key(|tag| tag.len()).cloned() {
        match store.write_run(&part, None).await {
            Ok(()) => return Ok(()),
            Err(StoreError::Rejected(error)) => {
                part.tags.remove(&largest);
                let (row, error) = (format!("tag {largest:?}"), Chain(&*error).to_string());
                refused.push(RefusedValue { part: RefusedPart::Tag(largest), row, error });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes a vanished dataset again. A refusal is logged only: the message is confirmed already.
async fn write_dataset(store: &dyn Store, dataset: DatasetRow) -> Result<(), StoreError> {
    let partition = Partition::Id(dataset.dataset_id);
    let batch = Batch { table: Table::Datasets, partition, rows: vec![Row::Dataset(dataset)].into() };
    match store.write(&batch).await {
        Err(StoreError::Rejected(error)) => {
            tracing::error!(error = %Chain(&*error), "the store refuses a restored dataset");
            Ok(())
        }
        result => result,
    }
}

fn lowest(columns: ColumnSet) -> ColumnSet {
    columns & columns.wrapping_neg()
}

/// Leaves the first half and returns the second.
fn split_half(part: &mut PendingBatch) -> PendingBatch {
    let half = part.batch.rows.len() / 2;
    let rows = Arc::make_mut(&mut part.batch.rows).split_off(half);
    let origins = part.origins.split_off(half);
    let bytes = rows.iter().map(row_bytes).sum();
    part.bytes = part.bytes.saturating_sub(bytes);
    let batch = Batch { table: part.batch.table, partition: part.batch.partition, rows: rows.into() };
    PendingBatch { batch, origins, bytes, parts: part.parts }
}
