//! An absent store: every message published meanwhile is stored once. Other faults are in `tests/faults/process`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    cassandra::{Cassandra, Cluster},
    daemon::Daemon,
    redis::Redis,
    resp::Resp,
    skip,
};

const TRAINING: &str = "cascor:training";
pub(super) const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const LIMIT: Duration = Duration::from_secs(60);

/// Publishes at a steady rate and records the time of each message.
pub(super) struct Producer {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<BTreeMap<i64, Instant>>,
}

impl Producer {
    pub(super) fn start(port: u16, rate: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut client = Resp::connect(port).unwrap();
            let (start, mut ledger, mut seq) = (Instant::now(), BTreeMap::new(), 0);
            while !stopped.load(Ordering::Relaxed) {
                let due = (start.elapsed().as_secs_f64() * rate as f64) as i64;
                let messages: Vec<_> = (seq..due).map(message).collect();
                client.publish_all(TRAINING, &messages).unwrap();
                let now = Instant::now();
                ledger.extend((seq..due).map(|seq| (seq, now)));
                seq = due.max(seq);
                thread::sleep(Duration::from_millis(2));
            }
            ledger
        });
        Self { stop, thread }
    }

    pub(super) fn finish(self) -> BTreeMap<i64, Instant> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn message(seq: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    json!({"type": "metrics", "run_id": RUN, "seq": seq, "timestamp": now as u64,
           "data": {"epoch": seq, "train_loss": 0.25, "phase": "output"}})
    .to_string()
}

#[test]
fn cassandra_absent_at_start_and_in_the_middle_loses_nothing_and_keeps_the_keys_fresh() {
    let name = "cassandra_absent_at_start_and_in_the_middle_loses_nothing_and_keeps_the_keys_fresh";
    let Some(cluster) = Cluster::start(1, "127.0.92", 19_442, &[]) else { return skip(name, "no Cassandra jars") };
    let redis = Redis::start();
    let cassandra = cluster.keyspace();
    let mut daemon = Daemon::on(&redis).cassandra(&cassandra).prepare();
    daemon.apply_schema();
    cluster.kill(1);
    daemon.launch();
    daemon.wait_ready();
    let producer = Producer::start(redis.port, 500);
    fresh_keys(&redis, Duration::from_secs(4));
    cluster.up(1);
    wait_rows(&daemon, &cassandra, 1_500);
    cluster.kill(1);
    fresh_keys(&redis, Duration::from_secs(8));
    cluster.up(1);
    thread::sleep(Duration::from_secs(2));
    let ledger = producer.finish();
    wait_rows(&daemon, &cassandra, ledger.len() as i64);
    assert_eq!(
        cassandra.count("SELECT count(*) FROM training_metrics"),
        ledger.len() as i64,
        "nothing missing, nothing twice"
    );
}

/// The latest metrics are never older than a second.
fn fresh_keys(redis: &Redis, during: Duration) {
    let mut client = redis.client();
    thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    while start.elapsed() < during {
        let latest = client.get_json("cascor:metrics:latest").expect("the key is there");
        let lag = latest["_ingest"]["lag_ms"].as_f64().unwrap();
        assert!(lag < 1_000.0, "{latest}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn wait_rows(daemon: &Daemon, cassandra: &Cassandra, expected: i64) {
    let mut rows = Ok(Vec::new());
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        rows = cassandra.try_rows(&cassandra.keyspace, "SELECT count(*) FROM training_metrics");
        let count = rows.as_ref().ok().and_then(|rows| rows.first()?.values().next()?.as_i64());
        if count.unwrap_or(0) >= expected {
            return;
        }
        thread::sleep(Duration::from_millis(500));
    }
    panic!("{rows:?} instead of {expected}\n{}\n{}", daemon.get("/api/status").body, daemon.log());
}
