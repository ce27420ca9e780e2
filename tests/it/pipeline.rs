//! The pipeline from end to end: published on a real Redis, read back from the store with plain SQL.

use std::time::Duration;

use serde_json::json;

use crate::support::{daemon::Daemon, redis::Redis, sqlite, wait_until};

const TRAINING: &str = "cascor:training";
const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const LIMIT: Duration = Duration::from_secs(20);

fn metrics(seq: u64, loss: f64) -> String {
    json!({"type": "metrics", "run_id": RUN, "seq": seq, "timestamp": now() + seq as f64 * 1e-5,
           "data": {"epoch": seq, "train_loss": loss}})
    .to_string()
}

fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn what_is_published_is_a_row_and_a_fresh_key() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    client.publish(
        TRAINING,
        json!({"type": "training_start", "run_id": RUN, "data": {"dataset": {"name": "spiral", "num_samples": 194}}})
            .to_string(),
    );
    client.publish(TRAINING, metrics(1, 0.5));
    let mut latest = None;
    wait_until("the latest key", LIMIT, || {
        latest = client.get_json("cascor:metrics:latest");
        latest.is_some()
    });
    let latest = latest.unwrap();
    assert_eq!((&latest["train_loss"], &latest["_ingest"]["run_id"]), (&json!(0.5), &json!(RUN)), "{latest}");
    // The trainer sends a number; in JSON every time is RFC 3339 in UTC with microseconds.
    let time = latest["timestamp"].as_str().unwrap();
    assert_eq!(
        (time, time.len(), &time[26..]),
        (latest["_ingest"]["published_at"].as_str().unwrap(), 27, "Z"),
        "{latest}"
    );
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
    let run = &sqlite::rows(&daemon.database(), "SELECT * FROM training_runs")[0];
    assert_eq!(
        (&run["status"], &run["dataset_name"], &run["dataset_size"]),
        (&json!("running"), &json!("spiral"), &json!(194))
    );
    // The command line shows the same.
    let runs: serde_json::Value = serde_json::from_str(&daemon.succeed(&["runs", "--json"])).unwrap();
    assert_eq!((&runs["count"], &runs["runs"][0]["run_id"]), (&json!(1), &json!(RUN)), "{runs}");
    assert!(daemon.terminate().success());
}

#[test]
fn two_events_of_a_millisecond_are_two_rows_and_a_repeated_message_is_one() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    let second = now().floor();
    for micros in [0.000_100, 0.000_200] {
        let message = json!({"run_id": RUN, "epoch": 1, "loss": 0.5, "timestamp": second + micros}).to_string();
        client.publish(TRAINING, &message);
        client.publish(TRAINING, &message);
    }
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 2);
    std::thread::sleep(Duration::from_millis(600));
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 2);
}

#[test]
fn a_completed_run_stays_completed_and_its_best_value_survives_a_restart() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    let accuracy = |epoch: u32, value: f64| {
        json!({"run_id": RUN, "epoch": epoch, "val_accuracy": value, "timestamp": now()}).to_string()
    };
    client.publish(TRAINING, json!({"type": "training_start", "run_id": RUN, "timestamp": now()}).to_string());
    client.publish(TRAINING, accuracy(1, 0.9));
    client.publish(TRAINING, accuracy(2, 0.7));
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 2);
    daemon.restart();
    client.publish(TRAINING, accuracy(3, 0.8));
    client.publish(
        TRAINING,
        json!({"type": "training_end", "run_id": RUN, "timestamp": now(), "data": {"status": "converged"}}).to_string(),
    );
    client.publish(TRAINING, accuracy(4, 0.6));
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 4);
    wait_until("the run row", LIMIT, || {
        sqlite::count(&daemon.database(), "SELECT final_epoch FROM training_runs") == 4
    });
    let run = &sqlite::rows(&daemon.database(), "SELECT * FROM training_runs")[0];
    assert_eq!(
        (&run["status"], &run["best_val_accuracy"], &run["best_epoch"], &run["final_val_accuracy"]),
        (&json!("completed"), &json!(0.9), &json!(1), &json!(0.6)),
        "{run:?}"
    );
}

#[test]
fn bad_messages_become_dead_letters_and_their_neighbours_rows() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    let hostile = format!("{}{}", "[".repeat(3 << 20), "]".repeat(3 << 20));
    let wide = format!("{{\"data\":[{}0]}}", "[],".repeat(6 << 20));
    let bad: [(&str, Vec<u8>); 7] = [
        ("malformed_json", b"{\"epoch\": 1,".to_vec()),
        ("not_an_object", b"[1]".to_vec()),
        ("not_an_object", hostile.into_bytes()),
        ("unknown_shape", b"{\"hello\": 1}".to_vec()),
        ("invalid_field", b"{\"epoch\": \"many\", \"loss\": \"low\"}".to_vec()),
        ("too_large", format!("{{\"epoch\":1,\"x\":\"{}\"}}", "x".repeat(20 << 20)).into_bytes()),
        ("too_large", wide.into_bytes()),
    ];
    client.publish(TRAINING, metrics(0, 0.1));
    for (n, (_, message)) in bad.iter().enumerate() {
        client.publish(TRAINING, message);
        client.publish(TRAINING, metrics(n as u64 + 1, 0.1));
        // Together they are more than Redis keeps for a subscriber: on a busy machine it would cut the connection.
        let received = || daemon.get("/api/status").json()["counters"]["received"].as_u64();
        wait_until("the messages sent so far", LIMIT, || {
            assert_eq!(daemon.get("/api/status").json()["gaps"]["cut_by_redis"]["gaps"], 0, "{}", daemon.log());
            received() >= Some(2 * n as u64 + 3)
        });
    }
    daemon.wait_rows("SELECT count(*) FROM training_metrics", bad.len() as i64 + 1);
    wait_until("the dead letters", LIMIT, || {
        let list: serde_json::Value = serde_json::from_str(&daemon.succeed(&["deadletter", "list", "--json"])).unwrap();
        let letters = list["deadletters"].as_array().unwrap();
        let mut found: Vec<_> = letters.iter().map(|letter| letter["reason"].as_str().unwrap().to_owned()).collect();
        found.sort();
        let mut expected: Vec<_> = bad.iter().map(|(reason, _)| (*reason).to_owned()).collect();
        expected.sort();
        found == expected
    });
    let peak = daemon.process().resident_peak_kib() / 1024;
    println!("peak {peak} MiB");
    assert!(peak <= 256, "{peak} MiB resident");
}

#[test]
fn a_message_that_redis_cuts_us_off_for_is_a_gap() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    client.publish(TRAINING, metrics(1, 0.1));
    client.publish(TRAINING, vec![b'x'; 64 << 20]);
    wait_until("a gap row", LIMIT, || sqlite::count(&daemon.database(), "SELECT count(*) FROM ingest_gaps") >= 1);
    let gaps = sqlite::rows(&daemon.database(), "SELECT * FROM ingest_gaps");
    let reason = gaps[0]["reason"].as_str().unwrap();
    assert!(["cut_by_redis", "disconnected"].contains(&reason), "{gaps:?}");
    wait_until("the subscription", LIMIT, || redis.subscribers(TRAINING) == 1);
    client.publish(TRAINING, metrics(2, 0.1));
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 2);
}

#[test]
fn commands_are_obeyed_answered_and_recorded() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    // A typing error must not look like success.
    assert_eq!(daemon.command(&["control", "dance", "--wait"]).status.code(), Some(2));
    let receipt = |daemon: &Daemon, command: &str| -> serde_json::Value {
        let output = daemon.command(&["control", command, "--any", "--wait", "--json"]);
        assert!(output.status.success(), "{command}");
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        value[0].clone()
    };
    assert_eq!(receipt(&daemon, "pause")["outcome"], "done");
    client.publish(TRAINING, metrics(1, 0.1));
    std::thread::sleep(Duration::from_millis(700));
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 0);
    assert!(client.get_json("cascor:history:latest").is_some(), "the latest keys go on");
    assert_eq!(receipt(&daemon, "flush")["outcome"], "done");
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
    client.publish(TRAINING, metrics(2, 0.1));
    // Messages that Redis sent before SIGTERM are still received.
    daemon.restart();
    std::thread::sleep(Duration::from_millis(700));
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
    client.publish("cascor:control", "resume");
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 2);
    assert_eq!(receipt(&daemon, "dance")["outcome"], "ignored");
    wait_until("the control log", LIMIT, || {
        let sql = "SELECT count(*) FROM control_log WHERE outcome IS NOT NULL";
        sqlite::count(&daemon.database(), sql) == 4
    });
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused_and_changes_nothing() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let second = daemon.command(&["run"]);
    assert!(!second.status.success());
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(error.contains("a daemon already runs here; stop it"), "{error}");
    redis.client().publish(TRAINING, metrics(1, 0.1));
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
}
