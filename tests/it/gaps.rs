//! The gap ledger: every gap is a row, with its reason, its bounds and, where producers send `seq`, its size.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{daemon::Daemon, redis::Redis, sqlite, wait_until};

const TRAINING: &str = "cascor:training";
const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const LIMIT: Duration = Duration::from_secs(30);

fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

fn metrics(seq: u64, padding: usize) -> String {
    json!({"type": "metrics", "run_id": RUN, "seq": seq, "timestamp": now(),
           "data": {"epoch": seq, "train_loss": 0.5, "note": "x".repeat(padding)}})
    .to_string()
}

fn gaps(daemon: &Daemon, arguments: &[&str]) -> Value {
    let all = [&["gaps", "--json"], arguments].concat();
    serde_json::from_str(&daemon.succeed(&all)).unwrap()
}

#[test]
fn a_stopped_process_is_a_gap_that_says_whether_the_connection_held() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    std::thread::sleep(Duration::from_secs(1));
    daemon.process().signal(Signal::STOP);
    // Redis buffers these; nothing is missed.
    for seq in 0..5 {
        std::thread::sleep(Duration::from_millis(900));
        client.publish(TRAINING, metrics(seq, 0));
    }
    daemon.process().signal(Signal::CONT);
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 5);
    daemon.wait_rows("SELECT count(*) FROM ingest_gaps WHERE reason = 'process_paused'", 1);
    let found = gaps(&daemon, &["--reason", "process_paused"]);
    let row = &found["gaps"][0];
    let span = sqlite::count(&daemon.database(), "SELECT (ended_at - started_at) / 1000000 FROM ingest_gaps");
    assert!((4..20).contains(&span), "{found}");
    assert_eq!((&row["lost"], &row["source"], &row["instance"]), (&json!(0), &json!("process"), &json!("test")));
    assert_eq!(daemon.metric("cascor_source_gaps_total{reason=\"process_paused\"}"), Some(1.0));
    let status = daemon.get("/api/status").json();
    assert_eq!(status["last_gap"]["reason"], "process_paused", "{status}");
    assert_eq!(status["gaps"]["process_paused"]["gaps"], 1, "{status}");
}

/// A first start has no predecessor, yet messages that it missed since its start are a gap.
#[test]
fn a_first_start_that_finds_no_redis_is_a_gap() {
    let mut redis = Redis::start();
    redis.kill();
    let mut daemon = Daemon::on(&redis).start();
    std::thread::sleep(Duration::from_secs(4));
    redis.launch();
    daemon.wait_ready();
    daemon.wait_rows("SELECT count(*) FROM ingest_gaps WHERE reason = 'not_listening'", 1);
    let span = sqlite::count(&daemon.database(), "SELECT (ended_at - started_at) / 1000000 FROM ingest_gaps");
    assert!((3..30).contains(&span), "{span} s");
}

#[test]
fn a_first_start_that_subscribes_at_once_is_no_gap() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    redis.client().publish(TRAINING, metrics(0, 0));
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
    assert_eq!(gaps(&daemon, &[])["count"], 0);
}

/// The smallest messages, as many as sockets hold: nothing is lost between the socket and the queue.
#[test]
fn a_flood_of_tiny_messages_after_a_stop_is_received_whole() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    daemon.process().signal(Signal::STOP);
    let total = 60_000; // fewer than the queue takes
    client.publish_all(TRAINING, &vec!["{\"epoch\":1}"; total]).unwrap();
    daemon.process().signal(Signal::CONT);
    let counted = |name: &str| daemon.metric(name).unwrap() as usize;
    wait_until("all of them", LIMIT, || counted("cascor_source_messages_total") >= total);
    assert_eq!(counted("cascor_source_lost_messages_total{reason=\"queue_full\"}"), 0);
}

#[test]
fn gaps_list_what_the_tables_of_a_run_lack() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    let event = json!({"type": "cascade_add", "run_id": RUN, "seq": 3, "timestamp": now(), "data": {"epoch": 3}});
    let topology = json!({"type": "topology", "run_id": RUN, "seq": 4, "timestamp": now(),
                          "data": {"input_size": 2, "output_size": 1, "nodes": []}});
    for seq in [1, 2] {
        client.publish(TRAINING, metrics(seq, 0));
    }
    client.publish(TRAINING, event.to_string());
    client.publish(TRAINING, topology.to_string());
    for seq in [5, 9, 10, 12] {
        client.publish(TRAINING, metrics(seq, 0));
    }
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 6);
    daemon.wait_rows("SELECT sum(lost) FROM ingest_gaps WHERE reason = 'sequence'", 4);
    let found = gaps(&daemon, &["--run", RUN]);
    let holes: Vec<_> =
        found["missing"]["holes"].as_array().unwrap().iter().map(|h| (&h["first"], &h["last"])).collect();
    assert_eq!(holes, [(&json!(6), &json!(8)), (&json!(11), &json!(11))], "{found}");
    assert_eq!((&found["missing"]["lost"], &found["missing"]["exact"]), (&json!(4), &json!(true)));
    assert_eq!(found["gaps"][0]["run_id"], RUN, "the ledger says the same: {found}");
    let shown = daemon.succeed(&["gaps", "--run", &RUN[..8]]);
    assert!(shown.contains("seq 1 to 12: 8 stored, 4 missing"), "{shown}");
    assert_eq!(gaps(&daemon, &["--reason", "queue_full"])["count"], 0);
    assert_eq!(gaps(&daemon, &["--instance", "another"])["count"], 0);
    assert_eq!(gaps(&daemon, &["--since", "2100-01-01"])["count"], 0);
    // A `not_listening` gap concerns every run that was open.
    daemon.restart();
    client.publish(TRAINING, metrics(13, 0));
    daemon.wait_rows("SELECT count(*) FROM ingest_gaps WHERE reason = 'not_listening'", 1);
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 7);
    wait_until("both in the list", LIMIT, || gaps(&daemon, &["--run", RUN])["count"] == 2);
}

/// A process that continues a run counts `seq` anew from its start message; the daemon ends in between.
#[test]
fn each_start_of_a_run_has_a_seq_of_its_own() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    let start = json!({"type": "training_start", "run_id": RUN, "seq": 0, "timestamp": now()}).to_string();
    client.publish(TRAINING, &start);
    for seq in [1, 2, 3, 6] {
        client.publish(TRAINING, metrics(seq, 0));
    }
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 4);
    daemon.wait_rows("SELECT sum(lost) FROM ingest_gaps WHERE reason = 'sequence'", 2);
    client
        .publish(TRAINING, json!({"type": "training_start", "run_id": RUN, "seq": 0, "timestamp": now()}).to_string());
    client.publish(TRAINING, metrics(1, 0));
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 5);
    // The process continues the count of the start that it recovers, and knows that start when it comes again.
    daemon.kill9();
    daemon.launch();
    daemon.wait_ready();
    client.publish(TRAINING, &start);
    for seq in [3, 4] {
        client.publish(TRAINING, metrics(seq, 0));
    }
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 7);
    daemon.wait_rows("SELECT sum(lost) FROM ingest_gaps WHERE reason = 'sequence'", 3);
    let found = gaps(&daemon, &["--run", RUN]);
    let holes: Vec<_> =
        found["missing"]["holes"].as_array().unwrap().iter().map(|h| (&h["first"], &h["last"])).collect();
    assert_eq!(holes, [(&json!(4), &json!(5)), (&json!(2), &json!(2))], "{found}");
    assert_eq!((&found["missing"]["stored"], &found["missing"]["lost"]), (&json!(9), &json!(3)), "{found}");
}

/// The part of the memory segment reserved for gaps is full, too: their counts are deferred, and stored later.
#[test]
fn a_gap_that_the_full_spool_cannot_take_is_still_counted() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis)
        .set("spool.segment", "\"16KiB\"")
        .set("spool.capacity", "\"32KiB\"")
        .set("spool.memory", "\"300B\"")
        .start_ready();
    let mut client = redis.client();
    client.publish(TRAINING, metrics(0, 0));
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
    let blocker = rusqlite::Connection::open(daemon.database()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let published = 400;
    for seq in 1..=published {
        client.publish(TRAINING, metrics(seq, 400));
        std::thread::sleep(Duration::from_millis(10));
    }
    daemon.wait_log("spool is full");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(daemon.get("/readyz").status, 503);
    blocker.execute_batch("ROLLBACK").unwrap();
    let file = daemon.database();
    wait_until("rows and losses add up", LIMIT, || {
        let rows = sqlite::count(&file, "SELECT count(*) FROM training_metrics");
        let lost = sqlite::count(&file, "SELECT sum(lost) FROM ingest_gaps WHERE reason = 'spool_full'");
        rows > 1 && lost > 100 && rows + lost == published as i64 + 1
    });
    let lost = sqlite::count(&file, "SELECT sum(lost) FROM ingest_gaps WHERE reason = 'spool_full'");
    assert_eq!(daemon.metric("cascor_source_lost_messages_total{reason=\"spool_full\"}"), Some(lost as f64));
    wait_until("the spool takes messages again", LIMIT, || daemon.get("/readyz").status == 200);
    client.publish(TRAINING, metrics(published + 1, 0));
    wait_until("a `sequence` gap as well", LIMIT, || {
        sqlite::count(&file, "SELECT sum(lost) FROM ingest_gaps WHERE reason = 'sequence'") == lost
    });
}
