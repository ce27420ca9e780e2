//! The bare loops: fdatasync alone, insert and select alone, batches alone.

use std::{
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use scylla::{
    client::session::Session,
    statement::{
        batch::{Batch, BatchType},
        prepared::PreparedStatement,
    },
};
use uuid::Uuid;

use crate::Error;

const INSERT: &str = "INSERT INTO training_metrics (run_id, timestamp, event_id, epoch, train_loss, train_accuracy, \
     val_loss, hidden_units, phase, seq) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TTL 2592000";

/// The statement the bare loops use, of the same table and columns as the daemon's.
pub async fn prepare(session: &Session, keyspace: &str) -> Result<PreparedStatement, Error> {
    let mut statement =
        session.prepare(INSERT.replace("training_metrics", &format!("{keyspace}.training_metrics"))).await?;
    statement.set_is_idempotent(true);
    Ok(statement)
}

/// Rows a second with batches of 50 rows of one partition, 4 in flight, over these runs.
pub async fn batches(
    session: Arc<Session>,
    insert: PreparedStatement,
    runs: Vec<Uuid>,
    rows: u64,
) -> Result<f64, Error> {
    const BATCH: u64 = 50;
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (session, insert, next, runs) = (session.clone(), insert.clone(), next.clone(), runs.clone());
        workers.spawn(async move {
            let mut batch = Batch::new(BatchType::Unlogged);
            for _ in 0..BATCH {
                batch.append_statement(insert.clone());
            }
            loop {
                let first = next.fetch_add(BATCH, Ordering::Relaxed);
                if first >= rows {
                    return Ok::<(), Error>(());
                }
                let run = runs[(first / BATCH) as usize % runs.len()];
                let values: Vec<_> = (first..first + BATCH).map(|n| row(run, n)).collect();
                session.batch(&batch, values).await?;
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    Ok(rows as f64 / start.elapsed().as_secs_f64())
}

type Values = (Uuid, scylla::value::CqlTimestamp, i64, i32, f64, f64, f64, i32, &'static str, i64);

fn row(run: Uuid, n: u64) -> Values {
    let n = n as i64;
    let time = scylla::value::CqlTimestamp(1_763_633_700_000 + n);
    (run, time, n, n as i32, 0.21, 0.93, 0.3, 2, "output", n)
}

/// Seconds until a single inserted row is selected, `count` times.
pub async fn insert_select(session: &Session, keyspace: &str, count: u64) -> Result<Vec<f64>, Error> {
    let insert = prepare(session, keyspace).await?;
    let select =
        session.prepare(format!("SELECT seq FROM {keyspace}.training_metrics WHERE run_id = ? LIMIT 1")).await?;
    let mut seconds = Vec::new();
    for n in 0..count {
        let run = Uuid::new_v4();
        let start = Instant::now();
        session.execute_unpaged(&insert, row(run, n)).await?;
        while session.execute_unpaged(&select, (run,)).await?.into_rows_result()?.rows_num() == 0 {}
        seconds.push(start.elapsed().as_secs_f64());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(seconds)
}

/// Seconds of each append and fdatasync of `bytes` every 5 ms for `duration`.
pub fn fdatasync(duration: Duration, bytes: usize) -> Result<Vec<f64>, Error> {
    let mut file = tempfile::NamedTempFile::new_in(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    let block = vec![7u8; bytes];
    let (end, mut seconds) = (Instant::now() + duration, Vec::new());
    while Instant::now() < end {
        let start = Instant::now();
        file.write_all(&block)?;
        file.as_file().sync_data()?;
        seconds.push(start.elapsed().as_secs_f64());
        std::thread::sleep(Duration::from_millis(5).saturating_sub(start.elapsed()));
    }
    Ok(seconds)
}
