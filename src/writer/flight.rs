//! One call to the store, from its beginning to its result; each runs beside the writer's task and shares nothing with it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    batch::{Gathered, Origin, bytes_of},
    columns::{Columns, TAGS, only},
    frontier::Ticket,
    history,
    parts::{Aside, Letter},
    run::{Also, Found, Job, Known, RunWrite},
};
use crate::{
    event::{DatasetRow, Partition, Row, RunRow, Table},
    logging::Chain,
    memory::{LARGE_VALUE, MemoryLimit},
    store::{Batch, BoxError, Store, StoreError},
    units::Micros,
};

/// What came of a call.
pub enum Landed {
    /// Of a batch.
    Rows(RowsLanded),
    /// Of a read of a run.
    Read {
        /// The run.
        run_id: Uuid,
        /// What was read.
        result: Result<Known, StoreError>,
        /// Whether it was a try during an outage.
        trying: bool,
    },
    /// Of a write of a run's row: what was refused, column by column.
    Run {
        /// The run.
        run_id: Uuid,
        /// What was refused.
        result: Result<Vec<Refused>, StoreError>,
        /// Whether it was a try during an outage.
        trying: bool,
    },
    /// Of dead letters.
    Letters {
        /// What was to be kept.
        letters: Vec<Letter>,
        /// The records that wait for it, one a letter.
        tickets: Vec<Ticket>,
        /// Whether it is.
        result: Result<(), BoxError>,
    },
}

/// A value of a run that the store refuses.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// Which.
    pub what: What,
    /// The value, for people.
    pub row: String,
    /// What the store said.
    pub error: String,
}

/// The part of a run that a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A column, as its bit.
    Column(Columns),
    /// One of the tags.
    Tag(String),
    /// The name of another number.
    Name(String),
}

/// What came of a batch.
pub struct RowsLanded {
    /// The table.
    pub table: Table,
    /// How many rows it had.
    pub rows: usize,
    /// What it took in memory.
    pub bytes: usize,
    /// How long the first call took.
    pub took: Duration,
    /// Rows that are stored.
    pub stored: Vec<Origin>,
    /// Rows that the store refuses, and what it said.
    pub refused: Vec<(Origin, Row, String)>,
    /// What must be written again, and why.
    pub left: Option<(Gathered, StoreError)>,
    /// Whether it was a try during an outage.
    pub trying: bool,
    /// Whether as many batches as allowed were in flight.
    pub saturated: bool,
}

/// Writes a batch; one that is rejected is halved, down to the row that is to blame.
pub async fn rows(
    store: Arc<dyn Store>,
    gathered: Gathered,
    memory: MemoryLimit,
    trying: bool,
    saturated: bool,
) -> Landed {
    // A store has a large row twice more while it is written: as a value, and in its own format.
    let _copies = match gathered.bytes {
        bytes if bytes >= LARGE_VALUE => Some(memory.reserve_for_writer(2 * bytes, bytes).await),
        _ => None,
    };
    let began = Instant::now();
    let mut landed = RowsLanded {
        table: gathered.batch.table,
        rows: gathered.batch.rows.len(),
        bytes: gathered.bytes,
        took: Duration::ZERO,
        stored: Vec::new(),
        refused: Vec::new(),
        left: None,
        trying,
        saturated,
    };
    let mut rest = vec![gathered];
    while let Some(mut part) = rest.pop() {
        let result = store.write(&part.batch).await;
        if landed.took.is_zero() {
            landed.took = began.elapsed();
        }
        match result {
            Ok(()) if landed.stored.is_empty() => landed.stored = part.origins,
            Ok(()) => landed.stored.append(&mut part.origins),
            Err(StoreError::Rejected(_)) if part.batch.rows.len() > 1 => {
                let back = split(&mut part);
                rest.push(back);
                rest.push(part);
            }
            Err(StoreError::Rejected(error)) => {
                let said = Chain(&*error).to_string();
                let rows = part.batch.rows.into_iter().zip(part.origins);
                landed.refused.extend(rows.map(|(row, origin)| (origin, row, said.clone())));
            }
            Err(error) => {
                while let Some(mut next) = rest.pop() {
                    part.batch.rows.append(&mut next.batch.rows);
                    part.origins.append(&mut next.origins);
                    part.bytes += next.bytes;
                }
                landed.left = Some((part, error));
            }
        }
    }
    Landed::Rows(landed)
}

/// Reads or writes something of a run.
pub async fn run(store: Arc<dyn Store>, job: Job, trying: bool) -> Landed {
    match job {
        Job::Read { run_id, also } => {
            let result = read_run(&*store, run_id, also).await.map(|found| Known::Row(Box::new(found)));
            Landed::Read { run_id, result, trying }
        }
        Job::History(run_id, wanted) => {
            let result = history::read(&*store, run_id, wanted).await.map(Known::History);
            Landed::Read { run_id, result, trying }
        }
        Job::Names(run_id) => {
            let result = store.metric_names(run_id).await.map(Known::Names);
            Landed::Read { run_id, result, trying }
        }
        Job::Write(write) => {
            let run_id = write.change.run_id;
            Landed::Run { run_id, result: self::write(&*store, *write).await, trying }
        }
    }
}

/// Keeps dead letters.
pub async fn letters<A: Aside>(aside: Arc<A>, letters: Vec<Letter>, tickets: Vec<Ticket>) -> Landed {
    let result = aside.put(&letters).await;
    Landed::Letters { letters, tickets, result }
}

async fn read_run(store: &dyn Store, run_id: Uuid, also: Also) -> Result<Found, StoreError> {
    let row = store.read_run(run_id).await?;
    let unlisted = match also.start {
        Some(start) => !store.is_listed(run_id, start).await?,
        None => false,
    };
    let dataset_missing = match also.dataset {
        Some(dataset_id) => store.dataset(dataset_id).await?.is_none(),
        None => false,
    };
    Ok(Found { row, unlisted, dataset_missing })
}

/// Writes the row last: the records that wait for it wait for all.
async fn write(store: &dyn Store, write: RunWrite) -> Result<Vec<Refused>, StoreError> {
    let RunWrite { change, columns, stored_start, names, dataset } = write;
    if let Some(dataset) = dataset {
        write_dataset(store, *dataset).await?;
    }
    let mut refused = write_names(store, change.run_id, names).await?;
    refused.append(&mut write_run(store, &change, columns, stored_start).await?);
    Ok(refused)
}

/// Writes the names; when they are rejected, halves of them, down to the name that is to blame.
async fn write_names(store: &dyn Store, run_id: Uuid, names: Vec<String>) -> Result<Vec<Refused>, StoreError> {
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
                    Refused { what: What::Name(name), row, error }
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
    columns: Columns,
    stored_start: Option<Micros>,
) -> Result<Vec<Refused>, StoreError> {
    let mut refused = Vec::new();
    let mut rest = if columns == 0 { Vec::new() } else { vec![columns] };
    while let Some(columns) = rest.pop() {
        let part = only(change, columns);
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
                refused.push(Refused { what: What::Column(columns), row, error });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}

/// Writes the tags without the largest ones, as many as the store takes: each write replaces the set, so that tags could not be
/// tried one by one without losing others for a moment.
async fn write_tags(store: &dyn Store, mut part: RunRow, refused: &mut Vec<Refused>) -> Result<(), StoreError> {
    while let Some(largest) = part.tags.iter().max_by_key(|tag| tag.len()).cloned() {
        match store.write_run(&part, None).await {
            Ok(()) => return Ok(()),
            Err(StoreError::Rejected(error)) => {
                part.tags.remove(&largest);
                let (row, error) = (format!("tag {largest:?}"), Chain(&*error).to_string());
                refused.push(Refused { what: What::Tag(largest), row, error });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes a dataset again that was stored before; should it be refused now, the message is long confirmed, and there is no more to
/// be done than to say so.
async fn write_dataset(store: &dyn Store, dataset: DatasetRow) -> Result<(), StoreError> {
    let partition = Partition::Id(dataset.dataset_id);
    let batch = Batch { table: Table::Datasets, partition, rows: vec![Row::Dataset(dataset)] };
    match store.write(&batch).await {
        Err(StoreError::Rejected(error)) => {
            tracing::error!(error = %Chain(&*error), "a dataset that had vanished is refused by the store");
            Ok(())
        }
        result => result,
    }
}

fn lowest(columns: Columns) -> Columns {
    columns & columns.wrapping_neg()
}

/// Leaves the first half and returns the second.
fn split(part: &mut Gathered) -> Gathered {
    let half = part.batch.rows.len() / 2;
    let rows = part.batch.rows.split_off(half);
    let origins = part.origins.split_off(half);
    let bytes = rows.iter().map(bytes_of).sum();
    part.bytes = part.bytes.saturating_sub(bytes);
    let batch = Batch { table: part.batch.table, partition: part.batch.partition, rows };
    Gathered { batch, origins, bytes }
}
