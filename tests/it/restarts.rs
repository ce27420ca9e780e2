//! Runs that end, restart, and end again, from messages to the row: on both stores, with crashes in between.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{cassandra::Cassandra, daemon::Daemon, redis::Redis, resp::Resp, skip, sqlite, wait_until};

const LIMIT: Duration = Duration::from_secs(30);
const RUN: &str = "3c9a1f0e-5b1d-4c61-9d35-0a2f64c4a3d1";

/// A minute and a half ago, so that none of these runs is stale.
fn begin() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    now as f64 - 90.0
}

fn send(client: &mut Resp, time: f64, kind: &str, data: Value) {
    client
        .publish("cascor:training", json!({"type": kind, "run_id": RUN, "timestamp": time, "data": data}).to_string());
}

fn run(daemon: &Daemon) -> Value {
    daemon.get(&format!("/api/runs/{RUN}")).json()["run"].clone()
}

#[track_caller]
fn becomes(daemon: &Daemon, expected: &Value) {
    let mut last = Value::Null;
    let what = format!("a run with {expected}");
    let is = |row: &Value| expected.as_object().unwrap().iter().all(|(name, value)| row[name] == *value);
    let reached = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until(&what, LIMIT, || {
            last = run(daemon);
            is(&last)
        });
    }));
    assert!(reached.is_ok(), "{what}: {last}");
    // The row stays so.
    std::thread::sleep(Duration::from_millis(1_300));
    let row = run(daemon);
    assert!(is(&row), "{what} stays: {row}");
}

fn moment(time: f64) -> Value {
    json!(cascor_ingest::render::time((time * 1e6) as i64))
}

fn on_every_store(test: fn(&Redis, Daemon, Option<&Cassandra>)) {
    let redis = Redis::start();
    test(&redis, Daemon::on(&redis).start_ready(), None);
    let Some(cassandra) = Cassandra::shared() else { return skip("restarts", "CASCOR_TEST_CASSANDRA is not set") };
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).cassandra(&cassandra).prepare();
    daemon.apply_schema();
    daemon.launch();
    daemon.wait_ready();
    test(&redis, daemon, Some(&cassandra));
}

#[test]
fn a_run_that_starts_again_has_no_end_until_it_ends_again() {
    on_every_store(|redis, mut daemon, _| {
        let (mut client, at) = (redis.client(), begin());
        send(&mut client, at, "training_start", json!({}));
        send(&mut client, at + 10.0, "metrics", json!({"epoch": 9, "train_loss": 0.5}));
        let failed = json!({"status": "failed", "final_metrics": {"train_loss": 0.25}});
        send(&mut client, at + 20.0, "training_end", failed.clone());
        becomes(&daemon, &json!({"status": "failed", "end_time": moment(at + 20.0), "duration_seconds": 20}));
        daemon.kill9();
        daemon.launch();
        daemon.wait_ready();
        send(&mut client, at + 30.0, "training_start", json!({}));
        send(&mut client, at + 40.0, "metrics", json!({"epoch": 1, "train_loss": 0.75}));
        let running = json!({"status": "running", "end_time": null, "duration_seconds": null, "start_time": moment(at),
                             "restarted_at": moment(at + 30.0), "final_train_loss": 0.75, "final_epoch": 1});
        becomes(&daemon, &running);
        // The old end once more, and another one of that time.
        send(&mut client, at + 20.0, "training_end", failed);
        send(&mut client, at + 25.0, "training_end", json!({"status": "stopped"}));
        becomes(&daemon, &running);
        daemon.restart();
        send(&mut client, at + 60.0, "training_end", json!({"status": "completed"}));
        becomes(
            &daemon,
            &json!({"status": "completed", "end_time": moment(at + 60.0), "duration_seconds": 60, "start_time": moment(at),
                    "restarted_at": moment(at + 30.0)}),
        );
        let events = daemon.get(&format!("/api/runs/{RUN}/events")).json();
        let ends = events["events"].as_array().unwrap().iter().filter(|event| event["type"] == "training_end").count();
        assert_eq!(ends, 3, "the earlier ends stay: {events}");
    });
}

#[test]
fn values_of_the_run_end_are_final_and_other_columns_follow_event_time() {
    on_every_store(|redis, mut daemon, _| {
        let (mut client, at) = (redis.client(), begin());
        let metrics = |client: &mut Resp, second: f64, value: f64| {
            let data = json!({"epoch": second as i64, "train_loss": value, "val_loss": value, "val_accuracy": value});
            send(client, at + second, "metrics", data);
        };
        send(&mut client, at, "training_start", json!({}));
        metrics(&mut client, 10.0, 0.5);
        let given = json!({"status": "completed", "final_metrics": {"val_loss": 0.125}});
        send(&mut client, at + 30.0, "training_end", given);
        metrics(&mut client, 20.0, 0.75);
        let mut expected =
            json!({"status": "completed", "final_val_loss": 0.125, "final_train_loss": 0.75, "final_epoch": 20});
        becomes(&daemon, &expected);
        for (second, value) in [(15.0, 0.625), (25.0, 0.875), (40.0, 0.25), (35.0, 0.375)] {
            daemon.kill9();
            daemon.launch();
            daemon.wait_ready();
            metrics(&mut client, second, value);
            if [25.0, 40.0].contains(&second) {
                (expected["final_train_loss"], expected["final_epoch"]) = (json!(value), json!(second as i64));
            }
            becomes(&daemon, &expected);
        }
        // A new start clears it.
        daemon.restart();
        send(&mut client, at + 50.0, "training_start", json!({}));
        metrics(&mut client, 60.0, 0.9375);
        becomes(
            &daemon,
            &json!({"status": "running", "final_val_loss": 0.9375, "final_train_loss": 0.9375, "final_epoch": 60}),
        );
    });
}

#[test]
fn names_of_extra_metrics_are_stored_once() {
    on_every_store(|redis, mut daemon, cassandra| {
        let (mut client, at) = (redis.client(), begin());
        for n in 0..50 {
            send(
                &mut client,
                at + f64::from(n),
                "metrics",
                json!({"epoch": n, "lr-Adam": 0.5, format!("grad_{}", n % 5): 0.5}),
            );
        }
        let names = |daemon: &Daemon| -> Vec<String> {
            let rows = match cassandra {
                Some(cassandra) => cassandra.rows(&format!("SELECT name FROM run_metric_names WHERE run_id = {RUN}")),
                None => sqlite::rows(&daemon.database(), "SELECT name FROM run_metric_names"),
            };
            rows.iter().map(|row| row["name"].as_str().unwrap_or_default().to_owned()).collect()
        };
        let expected = ["grad_0", "grad_1", "grad_2", "grad_3", "grad_4", "lr-Adam"];
        wait_until("its names", LIMIT, || names(&daemon) == expected);
        daemon.kill9();
        daemon.launch();
        daemon.wait_ready();
        send(&mut client, at + 60.0, "metrics", json!({"epoch": 60, "new": 1.5, "grad_0": 0.5}));
        wait_until("the new one", LIMIT, || names(&daemon).last().is_some_and(|name| name == "new"));
        assert_eq!(names(&daemon).len(), 7);
    });
}

#[test]
fn a_run_without_a_start_begins_with_its_earliest_event_whatever_comes_first() {
    on_every_store(|redis, mut daemon, _| {
        let (mut client, at) = (redis.client(), begin());
        let mut metrics = |later: f64, epoch: u32| {
            send(&mut client, at + later, "metrics", json!({"epoch": epoch, "train_loss": 0.5}));
        };
        metrics(20.0, 3);
        becomes(&daemon, &json!({"start_time": moment(at + 20.0), "final_epoch": 3}));
        metrics(10.0, 2);
        becomes(&daemon, &json!({"start_time": moment(at + 10.0), "final_epoch": 3}));
        // Its row does not tell whether the start is that of a start message.
        daemon.restart();
        metrics(0.0, 1);
        becomes(&daemon, &json!({"start_time": moment(at), "final_epoch": 3, "status": "running"}));
        send(&mut client, at + 30.0, "training_end", json!({}));
        becomes(&daemon, &json!({"start_time": moment(at), "duration_seconds": 30}));
        let listed = daemon.get("/api/runs").json();
        assert_eq!((&listed["count"], &listed["runs"][0]["start_time"]), (&json!(1), &moment(at)), "{listed}");
    });
}

#[test]
fn an_event_before_the_start_message_is_the_start_whichever_comes_first() {
    on_every_store(|redis, mut daemon, _| {
        let (mut client, at) = (redis.client(), begin());
        send(&mut client, at, "training_start", json!({}));
        becomes(&daemon, &json!({"start_time": moment(at)}));
        for (earlier, epoch, start) in [(5.0, 1, 5.0), (3.0, 2, 5.0), (8.0, 0, 8.0)] {
            send(&mut client, at - earlier, "metrics", json!({"epoch": epoch, "train_loss": 0.5}));
            let newest = if epoch == 0 { 2 } else { epoch };
            becomes(&daemon, &json!({"start_time": moment(at - start), "final_epoch": newest}));
            daemon.restart();
        }
        send(&mut client, at - 1.0, "training_start", json!({}));
        send(&mut client, at + 2.0, "training_end", json!({}));
        becomes(&daemon, &json!({"start_time": moment(at - 8.0), "duration_seconds": 10}));
    });
}
