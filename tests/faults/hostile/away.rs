//! Large messages for an absent store delay nothing else that takes memory: answers, latest
//! values and new messages.

use std::{thread, time::Duration};

use serde_json::json;
use tokio::time::Instant;

use crate::{
    messages,
    support::{
        daemon::{Builder, Daemon},
        http,
        redis::{Options, Redis},
        resp::Resp,
        sqlite, wait_until,
    },
};

const TRAINING: &str = "cascor:training";
const LIMIT: Duration = Duration::from_secs(60);
/// How long an answer and a latest value may take. A try of the writer holds the memory of its copies for the 5 s that SQLite waits
/// for a lock.
const SERVED: Duration = Duration::from_secs(20);
/// A size within `limits.message`.
const SIZE: usize = 19 << 20;
/// Large enough to be counted.
const VALUE: usize = 3 << 19;

fn server() -> Redis {
    Redis::with(Options { more: vec!["--client-output-buffer-limit", "pubsub 0 0 0"], ..Options::default() })
}

/// A snapshot of a network, which becomes a large latest value.
fn network(epoch: i32) -> String {
    let links = vec![json!({"from": 1, "to": 2, "weight": -0.123_456_789}); VALUE / 40];
    json!({"type": "topology", "run_id": "held", "data": {"epoch": epoch, "input_size": 2, "connections": links}})
        .to_string()
}

/// A daemon whose latest values last longer than the waiting here.
fn lasting(redis: &Redis) -> Builder {
    Daemon::on(redis).set("latest.topology_ttl", "\"10m\"").set("latest.metrics_ttl", "\"10m\"")
}

fn metric(daemon: &Daemon, name: &str) -> i64 {
    daemon.metric(name).unwrap_or(0.0) as i64
}

/// Publishes two long messages. The writer has the first, and cannot store it; the second waits for the first to be gone.
fn hold(daemon: &Daemon, client: &mut Resp) {
    let pending = metric(daemon, "cascor_spool_pending_records");
    for _ in 0..2 {
        assert_eq!(client.publish(TRAINING, messages::long_event(SIZE).payload), 1, "the daemon listens");
    }
    wait_until("the messages in the log", LIMIT, || metric(daemon, "cascor_spool_pending_records") == pending + 2);
    // Time for the writer to read both.
    thread::sleep(Duration::from_secs(2));
}

/// Checks repeatedly that new messages are received, and that latest values and answers from Redis go on.
fn goes_on(daemon: &Daemon, client: &mut Resp) {
    for epoch in 1..=4 {
        let (before, began) = (metric(daemon, "cascor_intake_durable_seconds_count"), Instant::now());
        client.publish(TRAINING, network(epoch));
        client.publish(TRAINING, json!({"run_id": "held", "epoch": epoch, "loss": 0.5}).to_string());
        wait_until("new messages in the log", SERVED, || {
            metric(daemon, "cascor_intake_durable_seconds_count") >= before + 2
        });
        wait_until("the large latest value, as an answer", SERVED, || {
            let answer = daemon.get("/api/topology");
            let newest = answer.status == 200 && answer.json()["epoch"] == epoch;
            newest && answer.header("x-cache-status") == Some("HIT")
        });
        wait_until("the small latest value", SERVED, || {
            client.get_json("cascor:metrics:latest").is_some_and(|value| value["epoch"] == epoch)
        });
        println!("epoch {epoch}: {:?}", began.elapsed());
    }
}

#[test]
fn large_messages_for_an_absent_cassandra_delay_nothing_else() {
    let redis = server();
    let nowhere = format!("[\"127.0.0.1:{}\"]", crate::support::ports::free_port());
    let daemon =
        lasting(&redis).set("store.kind", "\"cassandra\"").set("store.cassandra.contact_points", nowhere).start();
    daemon.wait_log("HTTP is listening");
    let mut client = redis.client();
    wait_until("the daemon to listen", LIMIT, || client.publish(TRAINING, r#"{"epoch":1,"loss":0.5}"#) == 1);
    hold(&daemon, &mut client);
    goes_on(&daemon, &mut client);
}

#[test]
fn large_messages_for_a_locked_sqlite_delay_nothing_else_and_are_stored_later() {
    let redis = server();
    let daemon = lasting(&redis).start_ready();
    let mut client = redis.client();
    client.publish(TRAINING, network(0));
    daemon.wait_rows("SELECT count(*) FROM network_topology", 1);
    // The run has a batch of its own.
    daemon.wait_rows("SELECT count(*) FROM runs_by_month", 1);
    let run = daemon.get("/api/runs?limit=1").json()["runs"][0]["run_id"].as_str().unwrap().to_owned();
    let other = rusqlite::Connection::open(daemon.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    hold(&daemon, &mut client);
    goes_on(&daemon, &mut client);
    // Stored rows can be read meanwhile, however large.
    for _ in 0..4 {
        let (path, began) = (format!("/api/runs/{run}/topology"), Instant::now());
        let answer = http::get(daemon.http_port(), &path).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(
            answer.body.len() > VALUE / 2 && began.elapsed() < SERVED,
            "{} in {:?}",
            answer.body.len(),
            began.elapsed()
        );
    }
    assert_eq!(sqlite::count(&daemon.database(), "SELECT count(*) FROM network_topology"), 1, "the store was locked");
    other.execute_batch("ROLLBACK").unwrap();
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 4);
    daemon.wait_rows("SELECT count(*) FROM network_topology", 5);
    let longest = "SELECT max(octet_length(payload_json)) FROM training_events";
    daemon.wait_rows("SELECT count(*) FROM training_events", 2);
    assert!(sqlite::count(&daemon.database(), longest) as usize + 256 > SIZE, "whole");
}
