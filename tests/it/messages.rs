//! Late metrics, times in the wrong zone, and commands in quotes.

use std::{
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::support::{daemon::Daemon, redis::Redis, wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(30);
const TRAINING: &str = "cascor:training";
const GRACE: Duration = Duration::from_millis(700);

fn publish(redis: &Redis, message: &Value) {
    assert_eq!(redis.client().publish(TRAINING, message.to_string()), 1);
}

#[test]
fn metrics_long_after_the_end_of_a_run_are_a_new_run() {
    let redis = Redis::start();
    let mut daemon =
        Daemon::on(&redis).set("intake.run_end_grace", format!("\"{}ms\"", GRACE.as_millis())).start_ready();
    publish(&redis, &json!({"type": "training_start", "run_id": "first", "data": {"dataset": "xor"}}));
    publish(&redis, &json!({"type": "metrics", "data": {"epoch": 6, "loss": 0.5}}));
    publish(&redis, &json!({"type": "event", "data": {"event": "training_complete"}}));
    publish(&redis, &json!({"type": "metrics", "data": {"epoch": 6, "accuracy": 0.9}}));
    thread::sleep(2 * GRACE);
    publish(&redis, &json!({"type": "state", "data": {"status": "Idle"}}));
    publish(&redis, &json!({"type": "metrics", "data": {"epoch": 7, "loss": 0.77}}));
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 3);
    let runs = wait_for("both runs", LIMIT, || {
        let runs = daemon.get("/api/runs").json()["runs"].as_array().unwrap().clone();
        (runs.len() == 2 && runs.iter().any(|run| run["status"] == "completed")).then_some(runs)
    });
    let (ended, new): (Vec<_>, Vec<_>) = runs.iter().partition(|run| run["run_name"] == "first");
    assert_eq!((ended.len(), new.len()), (1, 1), "{runs:?}");
    assert_eq!((&ended[0]["status"], &ended[0]["final_train_loss"]), (&json!("completed"), &json!(0.5)));
    assert_eq!(ended[0]["final_train_accuracy"], 0.9, "within the grace");
    assert_eq!((&new[0]["status"], &new[0]["final_train_loss"]), (&json!("running"), &json!(0.77)));
    let events = format!("/api/runs/{}/events", ended[0]["run_id"].as_str().unwrap());
    assert_eq!(daemon.get(&events).json()["count"], 3, "the state that came late is about the ended run");
    // The end of the run is remembered over a restart: the new run continues.
    daemon.restart();
    publish(&redis, &json!({"type": "metrics", "data": {"epoch": 8, "loss": 0.7}}));
    let id = new[0]["run_id"].as_str().unwrap().to_owned();
    wait_until("the next epoch of the new run", LIMIT, || {
        daemon.get(&format!("/api/runs/{id}")).json()["run"]["final_epoch"] == 8
    });
}

#[test]
fn times_that_are_steadily_off_by_a_zone_are_warned_of_once() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let local = |zone: i64| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
        let mut text = String::new();
        cascor_ingest::wire::write_time(&mut text, now + zone * 3_600_000_000);
        text.trim_end_matches('Z').to_owned()
    };
    for epoch in 0..30 {
        publish(
            &redis,
            &json!({"type": "metrics", "run_id": "west", "epoch": epoch, "loss": 0.5, "timestamp": local(-6)}),
        );
    }
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 30);
    let log = daemon.log();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("steadily off")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("-06:00") && warnings[0].contains("intake.time_zone"), "{}", warnings[0]);
    // A naive time beside an absolute one is ignored.
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    publish(
        &redis,
        &json!({"type": "metrics", "run_id": "both", "timestamp": seconds,
        "data": {"epoch": 1, "loss": 0.5, "timestamp": local(-6)}}),
    );
    let sql = format!("SELECT count(*) FROM training_metrics WHERE timestamp = {seconds} * 1000000");
    daemon.wait_rows(&sql, 1);
}

#[test]
fn a_command_in_quotes_is_obeyed() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    redis.client().publish("cascor:control", "\"pause\"");
    wait_until("the pause", LIMIT, || daemon.get("/api/status").json()["paused"] == true);
    redis.client().publish("cascor:control", " \"resume\"\n");
    wait_until("its end", LIMIT, || daemon.get("/api/status").json()["paused"] == false);
    redis.client().publish("cascor:control", "\"two words\"");
    wait_until("the dead letter", LIMIT, || {
        daemon.succeed(&["deadletter", "list", "--json"]).contains("not_an_object")
    });
}
