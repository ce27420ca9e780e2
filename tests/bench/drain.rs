//! Draining a backlog: the daemon after a pause, and the bare driver, in turn against the same warm node.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use uuid::Uuid;

use crate::{
    Error, Options, bare,
    daemon::Daemon,
    load, median,
    resp::{Client, Redis},
};

pub async fn run(options: &Options) -> Result<(), Error> {
    let session = Arc::new(crate::session(&options.cassandra).await?);
    let redis = Redis::start(16_910)?;
    let keyspace = "bench_drain";
    let daemon = Daemon::start(redis.port, &options.cassandra, keyspace)?;
    let insert = bare::prepare(&session, keyspace).await?;
    let rows = options.rows.unwrap_or(200_000);
    println!("warming the server");
    for _ in 0..5 {
        bare::batches(session.clone(), insert.clone(), eight(), rows).await?;
        backlog(&daemon, redis.port, rows).await?;
    }
    let mut ratios = Vec::new();
    for pair in 0..options.repeat.max(3) {
        let bare = bare::batches(session.clone(), insert.clone(), eight(), rows).await?;
        let (rate, cpu) = backlog(&daemon, redis.port, rows).await?;
        ratios.push(rate / bare);
        println!(
            "pair {pair}: bare driver {:.1} k rows/s, daemon {:.1} k rows/s, ratio {:.2}; daemon CPU {cpu:.2} µs/row",
            bare / 1e3,
            rate / 1e3,
            rate / bare
        );
    }
    println!("ratio, median of {}: {:.2}; peak memory {:.0} MiB", ratios.len(), median(&ratios), daemon.peak_mib()?);
    Ok(())
}

/// Pauses, publishes a backlog in 8 runs, resumes; rows a second from `resume` until the last is confirmed, and CPU per row.
async fn backlog(daemon: &Daemon, port: u16, rows: u64) -> Result<(f64, f64), Error> {
    let runs = eight();
    let mut client = Client::connect(port)?;
    client.publish("cascor:control", b"pause");
    client.flush()?;
    std::thread::sleep(Duration::from_millis(300));
    let before = stored(daemon)?;
    for first in (0..rows).step_by(500) {
        for n in first..(first + 500).min(rows) {
            client.publish("cascor:training", load::message(&runs, n).as_bytes());
        }
        client.flush()?;
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(500));
    let held = stored(daemon)? - before;
    if held > rows as f64 / 10.0 {
        return Err(format!("{held} rows were written during the pause").into());
    }
    let (cpu, _) = daemon.cpu()?;
    let start = Instant::now();
    client.publish("cascor:control", b"resume");
    client.flush()?;
    while stored(daemon)? - before < rows as f64 {
        if start.elapsed() > Duration::from_secs(300) {
            return Err("the backlog was not drained within 300 s".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok((rows as f64 / seconds, (daemon.cpu()?.0 - cpu) / rows as f64))
}

/// Rows of metrics that it has stored since its start.
pub fn stored(daemon: &Daemon) -> Result<f64, Error> {
    let written = "cascor_writer_rows_total{table=\"training_metrics\"";
    Ok(daemon.metrics()?.iter().find(|(series, _)| series.starts_with(written)).map_or(0.0, |(_, rows)| *rows))
}

fn eight() -> Vec<Uuid> {
    (0..8).map(|_| Uuid::new_v4()).collect()
}
