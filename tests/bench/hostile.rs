//! Received → written while the HTTP side is attacked: 500 slow clients and bodies of a gibibyte, beside 2,000 events a second.
//!
//! Quiet and attacked spans alternate against the same daemon; quote the ratio of pairs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    Error, Options,
    attack::Attack,
    daemon::Daemon,
    histogram, load, median, quantile,
    resp::{Redis, http_get},
};

const RATE: u64 = 2_000;
const SLOW: usize = 500;
const WRITTEN: &str = "cascor_intake_written_seconds";

pub async fn run(options: &Options) -> Result<(), Error> {
    let session = crate::session(&options.cassandra).await?;
    let keyspace = "bench_hostile";
    let redis = Redis::start(16_930)?;
    let daemon = Daemon::start(redis.port, &options.cassandra, keyspace)?;
    let runs: Vec<Uuid> = (0..8).map(|_| Uuid::new_v4()).collect();
    let span = Duration::from_secs(options.seconds);
    let mut sent = load::publish(redis.port, &runs, RATE, Duration::from_secs(5), 0)?; // warm
    let (mut ratios, mut answers) = (Vec::new(), Vec::new());
    for pair in 0..options.repeat {
        let quiet = p99(&daemon, || load::publish(redis.port, &runs, RATE, span, sent).map(|more| sent += more))?;
        let quiet_peak = daemon.peak_mib()?;
        let attack = Attack::start(daemon.http(), SLOW);
        let operator = Operator::start(daemon.http());
        let attacked = p99(&daemon, || load::publish(redis.port, &runs, RATE, span, sent).map(|more| sent += more));
        let (tally, waited) = (attack.end(), operator.end()?);
        let attacked = attacked?;
        ratios.push(attacked / quiet);
        answers.extend(waited);
        println!(
            "pair {pair}: received → written p99 {quiet:.2} ms, attacked {attacked:.2} ms, ratio {:.2}; peak {quiet_peak:.0} MiB, \
             attacked {:.0} MiB",
            attacked / quiet,
            daemon.peak_mib()?
        );
        println!(
            "  slow clients: {} connections, {} closed by the server; {} bodies, at most {:.1} MiB of one taken",
            tally.opened,
            tally.closed,
            tally.bodies,
            tally.longest as f64 / f64::from(1 << 20)
        );
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (lost, twice) = load::judge(&session, keyspace, &runs, sent).await?;
    println!(
        "ratio, median of {}: {:.2}; {sent} events, lost {lost}, twice {twice}; /healthz during the attacks: {} answers, p50 {:.1} ms, \
         p99 {:.1} ms",
        ratios.len(),
        median(&ratios),
        answers.len(),
        quantile(&mut answers, 0.5) * 1e3,
        quantile(&mut answers, 0.99) * 1e3
    );
    session.query_unpaged(format!("DROP KEYSPACE {keyspace}"), ()).await?;
    if lost + twice > 0 {
        return Err("rows are missing or there twice".into());
    }
    Ok(())
}

/// Received → written of the messages of `work`, in milliseconds.
fn p99(daemon: &Daemon, work: impl FnOnce() -> Result<(), Error>) -> Result<f64, Error> {
    let before = daemon.metrics()?;
    work()?;
    Ok(histogram::quantile(&before, &daemon.metrics()?, WRITTEN, 0.99) * 1e3)
}

/// A client that requests `/healthz` ten times a second.
struct Operator {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<Vec<f64>, Error>>,
}

impl Operator {
    fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut seconds = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let began = Instant::now();
                http_get(port, "/healthz")?;
                seconds.push(began.elapsed().as_secs_f64());
                thread::sleep(Duration::from_millis(100));
            }
            Ok(seconds)
        });
        Self { stop, thread }
    }

    /// Seconds until each answer; an error when one is missing.
    fn end(self) -> Result<Vec<f64>, Error> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the operator panicked")?
    }
}
