//! A steady load in 8 runs: loss, repetition, CPU, memory and latencies, at 2,000 and at 10,000 events a second.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use futures::TryStreamExt;
use scylla::client::session::Session;
use uuid::Uuid;

use crate::{
    Error, Options, bare,
    daemon::Daemon,
    histogram, median, quantile,
    resp::{Client, Redis},
};

const RUNS: usize = 8;

pub async fn run(options: &Options) -> Result<(), Error> {
    let session = Arc::new(crate::session(&options.cassandra).await?);
    for rate in [2_000, 10_000] {
        let mut cpu = Vec::new();
        for repetition in 0..options.repeat {
            cpu.push(once(options, &session, rate, repetition).await?);
        }
        println!("{rate}/s: CPU per event, median of {}: {:.2} µs", options.repeat, median(&cpu));
    }
    Ok(())
}

async fn once(options: &Options, session: &Arc<Session>, rate: u64, repetition: usize) -> Result<f64, Error> {
    let keyspace = format!("bench_load_{rate}_{repetition}");
    let redis = Redis::start(16_900)?;
    let daemon = Daemon::start(redis.port, &options.cassandra, &keyspace)?;
    let runs: Vec<Uuid> = (0..RUNS).map(|_| Uuid::new_v4()).collect();
    publish(redis.port, &runs, rate, Duration::from_secs(3), 0)?; // warm
    tokio::time::sleep(Duration::from_secs(1)).await;

    let (cpu_before, threads_before) = daemon.cpu()?;
    let before = daemon.metrics()?;
    let seconds = options.seconds;
    let duration = Duration::from_secs(seconds);
    let (port, publisher_runs) = (redis.port, runs.clone());
    let first = rate * 3;
    let publisher = std::thread::spawn(move || publish(port, &publisher_runs, rate, duration, first));
    let mut rows = publish_to_row(redis.port, session, &keyspace, duration - Duration::from_secs(1)).await?;
    let published = publisher.join().map_err(|_| "the publisher panicked")??;
    let (cpu_after, threads_after) = daemon.cpu()?;
    let after = daemon.metrics()?;
    let (before, after) = (&before, &after);
    tokio::time::sleep(Duration::from_secs(2)).await;

    let (lost, twice) = judge(session, &keyspace, &runs, first + published).await?;
    let per_event = (cpu_after - cpu_before) / published as f64;
    let [written, durable] = ["cascor_intake_written_seconds", "cascor_intake_durable_seconds"]
        .map(|name| move |q| histogram::quantile(before, after, name, q) * 1e3);
    println!(
        "{rate}/s × {seconds} s: published {published}, lost {lost}, twice {twice}; CPU {per_event:.2} µs/event; peak {:.0} MiB",
        daemon.peak_mib()?
    );
    let stages: Vec<String> = threads_after
        .iter()
        .map(|(name, cpu)| (name, (cpu - threads_before.get(name).unwrap_or(&0.0)) / published as f64))
        .filter(|(_, cpu)| *cpu >= 0.005)
        .map(|(name, cpu)| format!("{name} {cpu:.2}"))
        .collect();
    println!("  by thread, µs/event: {}", stages.join(", "));
    let syncs = bare::fdatasync(Duration::from_secs(5), (rate as usize * 260) / 200);
    let mut syncs = syncs?;
    println!(
        "  received → written p50 {:.2} ms, p99 {:.2} ms; → durable p50 {:.2} ms, p99 {:.2} ms; bare fdatasync p50 {:.2} ms, p99 {:.2} ms",
        written(0.5),
        written(0.99),
        durable(0.5),
        durable(0.99),
        quantile(&mut syncs, 0.5) * 1e3,
        quantile(&mut syncs, 0.99) * 1e3
    );
    let mut single = bare::insert_select(session, &keyspace, 100).await?;
    println!(
        "  publish → row p50 {:.1} ms, p99 {:.1} ms ({} probes); bare insert and select p50 {:.1} ms, p99 {:.1} ms",
        quantile(&mut rows, 0.5) * 1e3,
        quantile(&mut rows, 0.99) * 1e3,
        rows.len(),
        quantile(&mut single, 0.5) * 1e3,
        quantile(&mut single, 0.99) * 1e3
    );
    session.query_unpaged(format!("DROP KEYSPACE {keyspace}"), ()).await?;
    if lost + twice > 0 {
        return Err("rows are missing or there twice".into());
    }
    Ok(per_event)
}

/// How events are published: so many a second, for so long, a group in each interval.
#[derive(Clone, Copy)]
pub struct Pace {
    pub rate: u64,
    pub duration: Duration,
    pub interval: Duration,
}

/// Publishes the events from `first` on at this pace; returns how many.
pub fn publish_at(pace: Pace, port: u16, first: u64, message: impl Fn(u64) -> String) -> Result<u64, Error> {
    send_at(pace, port, first, |client, n| client.publish("cascor:training", message(n).as_bytes()))
}

/// The same with any command for each event.
pub fn send_at(pace: Pace, port: u16, first: u64, queue: impl Fn(&mut Client, u64)) -> Result<u64, Error> {
    let mut client = Client::connect(port)?;
    let published_by = |seconds: f64| (seconds * pace.rate as f64) as u64;
    let (start, total) = (Instant::now(), published_by(pace.duration.as_secs_f64()));
    let mut sent = 0;
    while sent < total {
        let due = published_by(start.elapsed().as_secs_f64()).min(total);
        while sent < due {
            queue(&mut client, first + sent);
            sent += 1;
        }
        client.flush()?;
        std::thread::sleep(pace.interval);
    }
    Ok(total)
}

/// Publishes at `rate` for `duration`, a group every 5 ms; `seq` counts per run over calls that continue at `first`.
pub fn publish(port: u16, runs: &[Uuid], rate: u64, duration: Duration, first: u64) -> Result<u64, Error> {
    let pace = Pace { rate, duration, interval: Duration::from_millis(5) };
    publish_at(pace, port, first, |n| message(runs, n))
}

/// What a trainer sends for an epoch.
pub fn message(runs: &[Uuid], n: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let (run, seq) = (runs[n as usize % runs.len()], n / runs.len() as u64);
    format!(
        "{{\"type\":\"metrics\",\"run_id\":\"{run}\",\"seq\":{seq},\"timestamp\":{now:.6},\"data\":{{\"epoch\":{seq},\
         \"train_loss\":0.2134,\"train_accuracy\":0.9312,\"val_loss\":0.3021,\"hidden_units\":2,\"phase\":\"output\"}}}}"
    )
}

/// Seconds from publishing a message until its row is selected; a probe every 100 ms beside the load.
async fn publish_to_row(port: u16, session: &Session, keyspace: &str, duration: Duration) -> Result<Vec<f64>, Error> {
    let select =
        session.prepare(format!("SELECT seq FROM {keyspace}.training_metrics WHERE run_id = ? LIMIT 1")).await?;
    let mut client = Client::connect(port)?;
    let (end, mut seconds) = (Instant::now() + duration, Vec::new());
    while Instant::now() < end {
        let run = [Uuid::new_v4()];
        let start = Instant::now();
        client.publish("cascor:training", message(&run, 0).as_bytes());
        client.flush()?;
        while session.execute_unpaged(&select, (run[0],)).await?.into_rows_result()?.rows_num() == 0 {
            if start.elapsed() > Duration::from_secs(10) {
                return Err("a probe did not become a row within 10 s".into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        seconds.push(start.elapsed().as_secs_f64());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(seconds)
}

/// How many of the first `total` messages have no row, and how many have more than one.
pub async fn judge(session: &Session, keyspace: &str, runs: &[Uuid], total: u64) -> Result<(u64, u64), Error> {
    let select = format!("SELECT seq FROM {keyspace}.training_metrics WHERE run_id = ?");
    let (mut lost, mut twice) = (0, 0);
    for (n, run) in runs.iter().enumerate() {
        let expected = total / runs.len() as u64 + u64::from((n as u64) < total % runs.len() as u64);
        let mut rows = session.query_iter(select.as_str(), (run,)).await?.rows_stream::<(i64,)>()?;
        let mut seen = HashSet::new();
        while let Some((seq,)) = rows.try_next().await? {
            twice += u64::from(!seen.insert(seq));
        }
        lost += (0..expected as i64).filter(|seq| !seen.contains(seq)).count() as u64;
    }
    Ok((lost, twice))
}
