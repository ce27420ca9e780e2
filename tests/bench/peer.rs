//! CPU per event beside Bento (the MIT fork of Benthos) with a tuned configuration, in one run: each consumer in turn on one Redis and
//! one Cassandra node, with everything on. Only ratios of one run carry over.
//!
//! `CASCOR_BENCH_PEER` is its program, built by `tests/bench/run` from `tests/bench/peer`; `CASCOR_BENCH_BINARY` the daemon's, built as it is
//! for an installation; `CASCOR_BENCH_FORMER` that of another release, to be measured, too.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use scylla::client::session::Session;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    Error, Options,
    daemon::{self, Store, directory, environment, peak_mib},
    load::{Pace, publish_at},
    median,
    resp::{Redis, http_get},
};

const RUNS: usize = 8;
/// Every so many events the network is published.
const TOPOLOGY_EVERY: u64 = 200;
const WARM: Duration = Duration::from_secs(3);

/// What consumes the events.
#[derive(Clone)]
enum Consumer {
    /// A program of this project, and a name for it.
    Own(PathBuf, &'static str),
    /// Bento, with settings of its runtime.
    Peer(PathBuf, Option<&'static str>),
}

impl fmt::Display for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(_, name) => f.write_str(name),
            Self::Peer(_, None) => f.write_str("Bento, tuned"),
            Self::Peer(_, Some(percent)) => write!(f, "Bento, tuned, GOGC={percent}"),
        }
    }
}

/// A running consumer; killed when dropped.
struct Running {
    child: Child,
    _state: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Ends it in order, so that what it holds is written.
    async fn stop(mut self) -> Result<(), Error> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err("it did not end within 60 s of SIGTERM".into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

pub async fn run(options: &Options) -> Result<(), Error> {
    let peer =
        PathBuf::from(env::var("CASCOR_BENCH_PEER").map_err(|_| "CASCOR_BENCH_PEER is not set; call tests/bench/run")?);
    let own = env::var_os("CASCOR_BENCH_BINARY").map_or_else(|| daemon::BINARY.into(), PathBuf::from);
    let mut consumers = vec![Consumer::Own(own, "cascor-ingest")];
    if let Ok(former) = env::var("CASCOR_BENCH_FORMER") {
        consumers.push(Consumer::Own(former.into(), "cascor-ingest, other release"));
    }
    consumers.extend([Consumer::Peer(peer.clone(), None), Consumer::Peer(peer, Some("400"))]);
    let session = crate::session(&options.cassandra).await?;
    let schema = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/peer/schema.cql"))?;
    for statement in schema.split(';').filter(|statement| !statement.trim().is_empty()) {
        session.query_unpaged(statement, ()).await?;
    }
    let redis = Redis::start(16_940)?;
    for rate in [2_000, 10_000] {
        let mut figures: Vec<Vec<f64>> = vec![Vec::new(); consumers.len()];
        for _ in 0..options.repeat {
            for (consumer, figures) in consumers.iter().zip(&mut figures) {
                figures.push(once(options, &session, &redis, consumer, rate).await?);
            }
        }
        let medians: Vec<f64> = figures.iter().map(|figures| median(figures)).collect();
        let best = consumers.iter().zip(&medians).filter(|(consumer, _)| matches!(consumer, Consumer::Peer(..)));
        let best = best.map(|(_, us)| *us).fold(f64::INFINITY, f64::min);
        for (consumer, us) in consumers.iter().zip(&medians) {
            println!("{rate}/s: {consumer}: {us:.1} µs of CPU an event, median of {}", options.repeat);
        }
        println!("{rate}/s: the best of the peer costs {:.1} times as much", best / medians[0]);
    }
    Ok(())
}

/// Microseconds of CPU an event; every event must be a row.
async fn once(
    options: &Options,
    session: &Session,
    redis: &Redis,
    consumer: &Consumer,
    rate: u64,
) -> Result<f64, Error> {
    let runs: Vec<Uuid> = (0..RUNS).map(|_| Uuid::new_v4()).collect();
    let running = start(consumer, redis, &options.cassandra).await?;
    let pid = running.child.id();
    let warm = publish(redis.port, &runs, rate, WARM, 0)?;
    sleep(Duration::from_secs(1)).await;
    let before = daemon::process_cpu(pid)?;
    let count = publish(redis.port, &runs, rate, Duration::from_secs(options.seconds), warm)?;
    // What is still in its buffers is part of the cost.
    sleep(Duration::from_millis(1_500)).await;
    let us = (daemon::process_cpu(pid)? - before) / count as f64;
    let peak = peak_mib(pid)?;
    running.stop().await?;
    let keyspace = if matches!(consumer, Consumer::Own(..)) { OWN_KEYSPACE } else { "cascor" };
    let mut rows = 0;
    for run in &runs {
        let query = format!("SELECT count(*) FROM {keyspace}.training_metrics WHERE run_id = ?");
        let (found,) = session.query_unpaged(query, (run,)).await?.into_rows_result()?.first_row::<(i64,)>()?;
        rows += found as u64;
    }
    let total = warm + count;
    println!(
        "{rate}/s: {consumer}: {us:.1} µs/event, peak {peak:.0} MiB, {rows} rows of {}",
        total - total / TOPOLOGY_EVERY
    );
    Ok(us)
}

const OWN_KEYSPACE: &str = "bench_peer";

async fn start(consumer: &Consumer, redis: &Redis, cassandra: &str) -> Result<Running, Error> {
    let state = directory()?;
    let log = fs::File::create(state.path().join("log"))?;
    let mut command = match consumer {
        Consumer::Own(program, _) => {
            let store = Store::Cassandra { address: cassandra, keyspace: OWN_KEYSPACE };
            let environment = environment(state.path(), redis.port, store);
            let apply = ["schema", "apply", "--wait", "60s"];
            if !Command::new(program).args(apply).envs(environment.clone()).output()?.status.success() {
                return Err("schema apply failed".into());
            }
            let mut command = Command::new(program);
            command.arg("run").envs(environment);
            command
        }
        Consumer::Peer(program, percent) => {
            let mut command = Command::new(program);
            let tuned = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/peer/tuned.yaml");
            command.arg("-c").arg(tuned).env("REDIS_ADDR", format!("127.0.0.1:{}", redis.port));
            command.env("CASS_ADDR", cassandra).env("HTTP_PORT", (redis.port + 1).to_string());
            command.envs(percent.map(|percent| ("GOGC", percent)));
            command
        }
    };
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
    let running = Running { child, _state: state };
    let path = if matches!(consumer, Consumer::Own(..)) { "/readyz" } else { "/ready" };
    let deadline = Instant::now() + Duration::from_secs(20);
    while http_get(redis.port + 1, path).is_err() {
        if Instant::now() > deadline {
            return Err(format!("{consumer} is not ready").into());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(running)
}

/// Publishes at `rate` for `duration`, a group every 10 ms, from the event `first` on; returns how many.
fn publish(port: u16, runs: &[Uuid], rate: u64, duration: Duration, first: u64) -> Result<u64, Error> {
    let pace = Pace { rate, duration, interval: Duration::from_millis(10) };
    publish_at(pace, port, first, |n| message(runs, n))
}

/// The events of a training: the metrics of an epoch, and now and then the network.
fn message(runs: &[Uuid], n: u64) -> String {
    // Shifted, so that each run has networks.
    let run = runs[(n + n / TOPOLOGY_EVERY) as usize % runs.len()];
    let (epoch, now) = (n / runs.len() as u64, jiff::Timestamp::now());
    let (kind, data) = if n % TOPOLOGY_EVERY == TOPOLOGY_EVERY - 1 {
        let connections: Vec<String> = (0..24)
            .map(|from| {
                format!("{{\"from\":{from},\"to\":{},\"weight\":{:.6}}}", from + 1, f64::from(from) / 24.0 - 0.5)
            })
            .collect();
        let connections = connections.join(",");
        let data = format!(
            "\"epoch\":{epoch},\"input_size\":2,\"output_size\":1,\"hidden_units\":2,\"connections\":[{connections}]"
        );
        ("topology_update", data)
    } else {
        let base = 1.0 / (1.0 + epoch as f64 * 0.001);
        let data = format!(
            "\"epoch\":{epoch},\"train_loss\":{base:.8},\"train_accuracy\":{:.8},\"val_loss\":{:.8},\"val_accuracy\":{:.8},\
             \"learning_rate\":0.01,\"hidden_units\":2,\"phase\":\"output\"",
            1.0 - base * 0.5,
            base * 1.1,
            1.0 - base * 0.55
        );
        ("metrics_update", data)
    };
    format!("{{\"type\":\"{kind}\",\"run_id\":\"{run}\",\"timestamp\":\"{now:.6}\",\"seq\":{n},\"data\":{{{data}}}}}")
}
