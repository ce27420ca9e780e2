//! One call to the store, from its beginning to its result; each runs beside the writer's task and shares nothing with it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    batch::{Gathered, Origin, bytes_of},
    frontier::Ticket,
    history,
    parts::{Aside, Letter},
    runs::Job,
    summary::{Columns, History, only},
};
use crate::{
    event::{Row, RunRow, Table},
    logging::Chain,
    store::{BoxError, Store, StoreError},
    units::Micros,
};

/// What came of a call.
pub enum Landed {
    /// Of a batch.
    Rows(RowsLanded),
    /// Of a read of a run's row.
    Read {
        /// The run.
        run_id: Uuid,
        /// Its row.
        result: Result<Option<RunRow>, StoreError>,
        /// Whether it was a try during an outage.
        trying: bool,
    },
    /// Of a read of a run's history.
    History {
        /// The run.
        run_id: Uuid,
        /// What was read.
        result: Result<History, StoreError>,
        /// Whether it was a try during an outage.
        trying: bool,
    },
    /// Of a read of the stored names of a run's other numbers.
    Names {
        /// The run.
        run_id: Uuid,
        /// What was read.
        result: Result<Vec<String>, StoreError>,
        /// Whether it was a try during an outage.
        trying: bool,
    },
    /// Of a write of a run's row: what was refused, column by column.
    Run {
        /// The run.
        run_id: Uuid,
        /// The refused columns and what the store said.
        result: Result<Vec<(String, String)>, StoreError>,
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
pub async fn rows(store: Arc<dyn Store>, gathered: Gathered, trying: bool, saturated: bool) -> Landed {
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

/// Reads or writes a run's row, or reads its history.
pub async fn run(store: Arc<dyn Store>, job: Job, trying: bool) -> Landed {
    match job {
        Job::Read(run_id) => Landed::Read { run_id, result: store.read_run(run_id).await, trying },
        Job::History(run_id, wanted) => {
            Landed::History { run_id, result: history::read(&*store, run_id, wanted).await, trying }
        }
        Job::Names(run_id) => Landed::Names { run_id, result: store.metric_names(run_id).await, trying },
        Job::Write { change, columns, stored_start, names } => {
            let result = write(&*store, &change, columns, stored_start, names).await;
            Landed::Run { run_id: change.run_id, result, trying }
        }
    }
}

/// Keeps dead letters.
pub async fn letters<A: Aside>(aside: Arc<A>, letters: Vec<Letter>, tickets: Vec<Ticket>) -> Landed {
    let result = aside.put(&letters).await;
    Landed::Letters { letters, tickets, result }
}

/// Writes the names first: the record that brought them waits for both.
async fn write(
    store: &dyn Store,
    change: &RunRow,
    columns: Columns,
    stored_start: Option<Micros>,
    names: Vec<String>,
) -> Result<Vec<(String, String)>, StoreError> {
    let mut refused = write_names(store, change.run_id, names).await?;
    refused.append(&mut write_run(store, change, columns, stored_start).await?);
    Ok(refused)
}

/// Writes the names; when they are rejected, halves of them, down to the name that is to blame.
async fn write_names(store: &dyn Store, run_id: Uuid, names: Vec<String>) -> Result<Vec<(String, String)>, StoreError> {
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
                refused.push((format!("a name of metrics: {:?}", part[0]), Chain(&*error).to_string()));
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
) -> Result<Vec<(String, String)>, StoreError> {
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
            Err(StoreError::Rejected(error)) => refused.push((format!("{part:?}"), Chain(&*error).to_string())),
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
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
    let batch = crate::store::Batch { table: part.batch.table, partition: part.batch.partition, rows };
    Gathered { batch, origins, bytes }
}
