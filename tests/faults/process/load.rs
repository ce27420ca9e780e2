//! Overload: memory stays bounded, losses are counted, and durable messages are not lost.

use std::{
    thread,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    arena::{Arena, Case, tier},
    judge,
    producer::CHANNEL,
};
use crate::support::{daemon::Daemon, redis::Redis, resp::Resp, sqlite, wait_until};

/// Promised bound of resident memory.
const MEMORY_KIB: u64 = 256 << 10;

fn status(redis: &Redis, id: &str) -> Duration {
    let mut listener = redis.client();
    listener.command(&["SUBSCRIBE", "cascor:control:ack"]);
    let start = Instant::now();
    redis.client().publish("cascor:control", json!({"command": "status", "id": id}).to_string());
    loop {
        let (_, payload) = listener.message().expect("an answer");
        let answer: Value = serde_json::from_slice(&payload).unwrap();
        if answer["id"] == id {
            assert_eq!(answer["outcome"], "done", "{answer}");
            return start.elapsed();
        }
    }
}

#[test]
fn ten_times_the_capacity_is_survived_and_counted() {
    let seconds = tier(10, 60);
    let mut arena =
        Arena::start(Case::new("overload", "as much as Redis carries, for 10 s; long tier: 60 s").load(200, 0));
    let (before, start) = (arena.producer.next(), Instant::now());
    let mut slowest = Duration::ZERO;
    arena.producer.set_rate(5_000_000);
    let flood = Flood::start(arena.redis.port);
    while start.elapsed() < Duration::from_secs(seconds) {
        slowest = slowest.max(status(&arena.redis, &format!("{:?}", start.elapsed())));
        thread::sleep(Duration::from_millis(200));
    }
    arena.producer.set_rate(200);
    let others = flood.finish();
    let published = arena.producer.next() - before;
    // Within 10 s it takes everything again and says what is new. What it had taken before comes first into the table.
    let next = arena.producer.next() + 1;
    let key = format!("cascor:metrics:{}:latest", arena.producer.run);
    let over = Instant::now();
    wait_until("a fresh message in the latest keys", Duration::from_secs(10), || {
        arena.redis.client().get_json(&key).is_some_and(|value| value["seq"].as_i64() >= Some(next))
    });
    let fresh = over.elapsed();
    arena.lively_within(Duration::from_secs(60));
    println!("a fresh message was known after {fresh:?}, and a row after {:?}", over.elapsed());
    // The overload ends when the backlog is received.
    arena.excuse(start, Instant::now());
    println!("{published} and {others} messages in {:?}; slowest control command {slowest:?}", start.elapsed());
    assert!(slowest < Duration::from_secs(2), "a command took {slowest:?}");
    let peak = arena.daemon.process().resident_peak_kib();
    println!("peak memory {} MiB", peak >> 10);
    assert!(peak <= MEMORY_KIB, "{peak} KiB");
    let verdict = arena.judge();
    println!("{} of {} stored, {} told", verdict.found, verdict.published, verdict.told);
}

/// Another producer, without a ledger: the same few bytes repeatedly, as fast as possible.
struct Flood(std::sync::Arc<std::sync::atomic::AtomicBool>, thread::JoinHandle<u64>);

impl Flood {
    fn start(port: u16) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = std::sync::Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut client = Resp::connect(port).unwrap();
            let messages = vec!["{\"type\":\"metrics\",\"run_id\":\"flood\",\"epoch\":1,\"loss\":0.125}"; 256];
            let mut count = 0;
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                client.publish_all(CHANNEL, &messages).unwrap();
                count += 256;
            }
            count
        });
        Self(stop, thread)
    }

    fn finish(self) -> u64 {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        self.1.join().unwrap()
    }
}

fn line(name: &str, injected: &str, published: i64) {
    judge::publish(&format!("| {name} | {injected} | 1 of 1 | {published} | 0 | 0 | 0 |\n"));
}

/// Counted drops of the full queue.
fn lost(daemon: &Daemon) -> i64 {
    daemon.metric("cascor_source_lost_messages_total{reason=\"queue_full\"}").unwrap_or(0.0) as i64
}

/// Publishes as fast as the daemon takes it, so that nothing may be lost.
fn paced(daemon: &Daemon, redis: &Redis, total: i64, message: impl Fn(i64) -> String) {
    let mut client = redis.client();
    let mut sent = 0;
    while sent < total {
        let end = (sent + 2_000).min(total);
        let messages: Vec<_> = (sent..end).map(&message).collect();
        client.publish_all(CHANNEL, &messages).unwrap();
        sent = end;
        wait_until("the daemon to receive", Duration::from_secs(60), || {
            // The depth of the queue is sampled too rarely for this.
            daemon.metric("cascor_intake_events_total").unwrap_or(0.0) as i64 + 8_000 + lost(daemon) >= sent
        });
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as i64
}

fn many(name: &str, run: impl Fn(i64) -> Uuid, runs: i64) {
    let total = tier(30_000, 1_000_000);
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let (start, base) = (Instant::now(), now());
    paced(&daemon, &redis, total, |n| {
        json!({"type": "metrics", "run_id": run(n), "timestamp": base + n, "epoch": n, "loss": 0.5}).to_string()
    });
    let published = start.elapsed();
    let count = |sql: &str| sqlite::count(&daemon.database(), sql);
    wait_until("every row", Duration::from_secs(600), || {
        thread::sleep(Duration::from_millis(500));
        let status = daemon.get("/api/status").json();
        status["counters"]["events"].as_i64() >= Some(total - lost(&daemon)) && status["spool"]["pending_records"] == 0
    });
    assert_eq!(lost(&daemon), 0, "the queue was full");
    let stored = start.elapsed();
    assert_eq!(count("SELECT count(*) FROM training_metrics"), total);
    assert_eq!(count("SELECT count(DISTINCT run_id) FROM training_metrics"), runs.min(total));
    assert_eq!(count("SELECT count(*) FROM training_runs"), runs.min(total));
    assert_eq!(count("SELECT count(*) FROM ingest_gaps"), 0);
    let peak = daemon.process().resident_peak_kib();
    println!("{name}: {total} published in {published:?}, stored after {stored:?}, peak memory {} MiB", peak >> 10);
    assert!(peak <= MEMORY_KIB, "{peak} KiB");
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    line(name, "30,000 messages; long tier: 1,000,000", total);
}

#[test]
fn one_run_with_many_events() {
    let run = Uuid::new_v4();
    many("one run with many events", |_| run, 1);
}

#[test]
fn many_runs_with_one_event_each() {
    many(
        "many runs with one event each",
        |n| Uuid::from_u128(0x6f0c_853b_0000_4000_8000_0000_0000_0000 + n as u128),
        i64::MAX,
    );
}

#[test]
fn large_topologies_in_a_row() {
    let total = tier(8, 200);
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    let (mut connections, mut n) = (String::new(), 0);
    while connections.len() < 8 << 20 {
        connections.push_str(&format!("[{},{}],", n % 9, n % 99_991));
        n += 1;
    }
    connections.pop();
    for n in 0..total {
        let time = now();
        let message = format!(
            "{{\"type\":\"topology\",\"run_id\":\"large\",\"timestamp\":{time},\"data\":{{\"epoch\":{n},\
             \"input_size\":2,\"output_size\":1,\"hidden_units\":3,\"connections\":[{connections}]}}}}"
        );
        client.publish(CHANNEL, message);
        // At most three wait in Redis, which disconnects subscribers with more than 32 MiB.
        wait_until("the daemon to receive", Duration::from_secs(60), || {
            daemon.metric("cascor_source_messages_total").unwrap_or(0.0) as i64 + 3 > n
        });
    }
    // An unoptimised decoder is slower than that: drops of the full queue are counted.
    let file = daemon.database();
    let count = |sql: &str| sqlite::count(&file, sql);
    let rows = "SELECT count(*) FROM network_topology WHERE length(topology_json) > 8000000";
    let lost = "SELECT coalesce(sum(lost), 0) FROM ingest_gaps WHERE reason = 'queue_full'";
    wait_until("a row of each, or a gap", Duration::from_secs(120), || count(rows) + count(lost) >= total);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(count(rows) + count(lost), total, "{} rows, {} lost", count(rows), count(lost));
    let peak = daemon.process().resident_peak_kib();
    println!("{} rows, {} lost, peak memory {} MiB", count(rows), count(lost), peak >> 10);
    assert!(peak <= MEMORY_KIB, "{peak} KiB");
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    line("topologies of 8 MiB", "8 in a row; long tier: 200", total);
}
