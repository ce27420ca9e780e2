//! What grows with what, one axis at a time: events a second, runs at once, metrics a message, rows and runs that are there already.
//! On SQLite. The exponent of an axis is the slope of CPU per event between its ends, both on logarithmic scales: 0 does not grow,
//! 1 grows in proportion.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    Error, Options,
    daemon::{BINARY, Daemon, Store, directory, environment},
    histogram,
    load::{Pace, publish_at},
    quantile,
    resp::{Client, Redis},
};

/// One point of an axis.
#[derive(Clone, Copy)]
struct Load {
    rate: u64,
    runs: usize,
    /// Metrics of a message.
    metrics: usize,
    /// Rows that the first run has before.
    rows: u64,
    /// Runs that the database has before.
    former_runs: u64,
}

const BASE: Load = Load { rate: 2_000, runs: 8, metrics: 6, rows: 0, former_runs: 0 };

/// Where messages of 600 metrics are no flood.
const METRICS_RATE: u64 = 200;

/// How often a probe is published beside the load.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

pub async fn run(options: &Options) -> Result<(), Error> {
    let axes: [(&str, Vec<(u64, Load)>); 5] = [
        ("events a second", [20, 500, 2_000, 10_000, 40_000].map(|rate| (rate, Load { rate, ..BASE })).to_vec()),
        ("runs at once", [1, 8, 1_000, 100_000].map(|runs| (runs, Load { runs: runs as usize, ..BASE })).to_vec()),
        (
            "metrics a message, at 200 a second",
            [6, 60, 600]
                .map(|metrics| (metrics, Load { metrics: metrics as usize, rate: METRICS_RATE, ..BASE }))
                .to_vec(),
        ),
        ("rows of the run", [0, 1_000_000, 10_000_000].map(|rows| (rows, Load { rows, ..BASE })).to_vec()),
        (
            "runs in the database",
            [0, 100_000, 1_000_000].map(|former_runs| (former_runs, Load { former_runs, ..BASE })).to_vec(),
        ),
    ];
    for (name, points) in axes {
        println!(
            "{name:>36} {:>9} {:>9} {:>14} {:>22}",
            "µs/event", "peak MiB", "written p99", "publish → row p50/p99"
        );
        let mut measured = Vec::new();
        for (value, load) in points {
            let us = once(options, load, value).await?;
            measured.push((value, us));
        }
        if let [(first, before), .., (last, after)] = measured[..] {
            let first = first.max(1) as f64;
            println!("{name}: exponent {:.2}", (after / before).ln() / (last as f64 / first).ln());
        }
    }
    Ok(())
}

/// Microseconds of CPU an event.
async fn once(options: &Options, load: Load, value: u64) -> Result<f64, Error> {
    let redis = Redis::start(16_960)?;
    let state = directory()?;
    let environment = environment(state.path(), redis.port, Store::Sqlite);
    let runs: Vec<Uuid> = (0..load.runs).map(|_| Uuid::new_v4()).collect();
    let database = state.path().join("cascor.db");
    if load.rows + load.former_runs > 0 {
        let applied =
            Command::new(BINARY).args(["schema", "apply"]).envs(environment.clone()).stdout(Stdio::null()).status()?;
        if !applied.success() {
            return Err("the tables were not made".into());
        }
        fill(&database, runs[0], load)?;
    }
    let daemon = Daemon::launch(state.path(), &environment)?;
    daemon.wait_ready(Duration::from_secs(60))?;
    publish(redis.port, &runs, load, Duration::from_secs(3), 0)?; // warm
    sleep(Duration::from_secs(1)).await;

    let (cpu, before) = (daemon.cpu()?.0, daemon.metrics()?);
    let (port, duration, publisher_runs) = (redis.port, Duration::from_secs(options.seconds), runs.clone());
    let first = load.rate * 3;
    let publisher = std::thread::spawn(move || publish(port, &publisher_runs, load, duration, first));
    let mut delays = probes(redis.port, &database, duration - Duration::from_secs(1)).await?;
    let published = publisher.join().map_err(|_| "the publisher panicked")??;
    sleep(Duration::from_millis(1_500)).await;
    let us = (daemon.cpu()?.0 - cpu) / published as f64;
    let after = daemon.metrics()?;
    let written = histogram::quantile(&before, &after, "cascor_intake_written_seconds", 0.99) * 1e3;
    println!(
        "{value:>36} {us:>9.1} {:>9.0} {written:>11.1} ms {:>11.0} / {:>5.0} ms",
        daemon.peak_mib()?,
        quantile(&mut delays, 0.5) * 1e3,
        quantile(&mut delays, 0.99) * 1e3,
    );
    Ok(us)
}

/// Writes rows and runs of the past straight into the tables.
fn fill(database: &Path, run: Uuid, load: Load) -> Result<(), Error> {
    let mut connection = Connection::open(database)?;
    connection.execute_batch("PRAGMA synchronous = OFF")?;
    let transaction = connection.transaction()?;
    {
        let mut row = transaction.prepare(
            "INSERT INTO training_metrics_rows (run_id, timestamp, event_id, epoch, train_loss, val_loss, seq)
            VALUES (?1, ?2, ?3, ?3, 0.25, 0.5, ?3)",
        )?;
        for n in 0..load.rows {
            row.execute((run.to_string(), 1_600_000_000_000_000 + n as i64 * 1_000, n as i64))?;
        }
        let mut former = transaction.prepare(
            "INSERT INTO training_runs (run_id, run_name, start_time, end_time, status, config_json)
            VALUES (?1, ?2, ?3, ?3, 'completed', '{\"lr\":0.01}')",
        )?;
        let mut month = transaction.prepare("INSERT INTO runs_by_month VALUES (?1, ?2, ?3)")?;
        for n in 0..load.former_runs {
            // A run every 20 s.
            let start = 1_600_000_000 + n as i64 * 20;
            let id = Uuid::new_v4().to_string();
            former.execute((&id, format!("former-{n}"), start * 1_000_000))?;
            let name = jiff::Timestamp::from_second(start)?.strftime("%Y-%m").to_string();
            month.execute((name, start * 1_000_000, &id))?;
        }
    }
    transaction.commit()?;
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    // Or its pages are written while the daemon is measured.
    rustix::fs::sync();
    Ok(())
}

/// Seconds from publishing a message of a run of its own until its row can be selected.
async fn probes(port: u16, database: &Path, duration: Duration) -> Result<Vec<f64>, Error> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut select = connection.prepare("SELECT 1 FROM training_metrics_rows WHERE run_id = ?1")?;
    let mut client = Client::connect(port)?;
    let (end, mut seconds) = (Instant::now() + duration, Vec::new());
    while Instant::now() < end {
        let run = Uuid::new_v4();
        let start = Instant::now();
        client.publish("cascor:training", message(&[run], BASE.metrics, 0).as_bytes());
        client.flush()?;
        while !select.exists([run.to_string()])? {
            if start.elapsed() > Duration::from_secs(20) {
                return Err("a probe did not become a row within 20 s".into());
            }
            sleep(Duration::from_millis(2)).await;
        }
        seconds.push(start.elapsed().as_secs_f64());
        sleep(PROBE_INTERVAL).await;
    }
    Ok(seconds)
}

/// Publishes for `duration`, a group every 10 ms, from the event `first` on; returns how many.
fn publish(port: u16, runs: &[Uuid], load: Load, duration: Duration, first: u64) -> Result<u64, Error> {
    let pace = Pace { rate: load.rate, duration, interval: Duration::from_millis(10) };
    publish_at(pace, port, first, |n| message(runs, load.metrics, n))
}

/// Metrics of an epoch: six that have columns, then others.
fn message(runs: &[Uuid], metrics: usize, n: u64) -> String {
    let (run, epoch, now) = (runs[n as usize % runs.len()], n / runs.len() as u64, jiff::Timestamp::now());
    let mut text = format!(
        "{{\"type\":\"metrics\",\"run_id\":\"{run}\",\"seq\":{epoch},\"timestamp\":\"{now:.6}\",\"data\":{{\"epoch\":{epoch},\
         \"train_loss\":0.2134,\"train_accuracy\":0.9312,\"val_loss\":0.3021,\"val_accuracy\":0.91,\"learning_rate\":0.01"
    );
    for index in BASE.metrics..metrics {
        text.push_str(&format!(",\"layer{}/norm\":{:.5}", index, 1.0 / (index + 1) as f64));
    }
    text.push_str("}}");
    text
}
