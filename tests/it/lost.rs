//! Rows of an open run that are deleted from the store by another client are restored with the run's next message.

use std::{fs, time::Duration};

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::support::{cassandra::Cassandra, daemon::Daemon, redis::Redis, resp::Resp, skip, sqlite, wait_until};

const TRAINING: &str = "cascor:training";
const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const LIMIT: Duration = Duration::from_secs(20);
/// The promised time, plus slack for a busy machine.
const WHOLE: Duration = Duration::from_secs(7);

fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// A run with every column of a start, a best value and a metric without a column.
fn begin(client: &mut Resp, run: &str, name: &str) {
    let start = json!({"type": "training_start", "run_id": run, "timestamp": now(), "data": {
        "dataset": {"name": "spiral", "num_samples": 194, "num_classes": 2},
        "config": {"learning_rate": 0.01}, "notes": name, "tags": ["a", "b"], "created_by": "me"}});
    client.publish(TRAINING, start.to_string());
    let other = json!({"type": "metrics", "run_id": run, "timestamp": now(), "data": {"epoch": 0, "f1": 0.5}});
    client.publish(TRAINING, other.to_string());
    epoch(client, run, 1);
}

fn epoch(client: &mut Resp, run: &str, epoch: u32) {
    let message = json!({"type": "metrics", "run_id": run, "timestamp": now(),
        "data": {"epoch": epoch, "train_loss": 0.5, "val_accuracy": 0.9}});
    client.publish(TRAINING, message.to_string());
}

/// The run as the API shows it, without the fields that its newest message changes.
fn shown(daemon: &Daemon, run: &str) -> Option<Map<String, Value>> {
    let answer = daemon.get(&format!("/api/runs/{run}"));
    let mut row = (answer.status == 200).then(|| answer.json()["run"].as_object().cloned()).flatten()?;
    for newest in ["final_epoch", "last_event_time"] {
        row.remove(newest);
    }
    Some(row)
}

fn lists(daemon: &Daemon, run: &str) -> [bool; 3] {
    ["/api/runs", "/api/runs?status=running", "/api/runs?dataset=spiral"].map(|path| {
        let answer = daemon.get(path).json();
        answer["runs"].as_array().is_some_and(|runs| runs.iter().any(|row| row["run_id"] == run))
    })
}

/// Deletes, publishes one message, and waits until the run is restored and listed.
fn comes_back(daemon: &Daemon, client: &mut Resp, what: &str, remove: impl FnOnce()) {
    let before = shown(daemon, RUN).expect("the run is stored");
    assert_eq!((&before["dataset_name"], &before["best_epoch"]), (&json!("spiral"), &json!(1)), "{before:?}");
    remove();
    epoch(client, RUN, 2);
    let began = Instant::now();
    let mut last = None;
    while last.as_ref() != Some(&before) || lists(daemon, RUN) != [true; 3] {
        assert!(began.elapsed() < WHOLE, "{what}: {last:?} is not {before:?}, lists {:?}", lists(daemon, RUN));
        std::thread::sleep(Duration::from_millis(20));
        last = shown(daemon, RUN);
    }
}

#[test]
fn a_run_is_whole_again_after_its_sqlite_rows_or_file_are_removed() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    let file = daemon.database();
    begin(&mut client, RUN, "lead");
    wait_until("the run", LIMIT, || sqlite::count(&file, "SELECT best_epoch FROM training_runs") == 1);
    let names = || sqlite::count(&file, "SELECT count(*) FROM run_metric_names WHERE name = 'f1'");
    wait_until("the name", LIMIT, || names() == 1);
    let datasets = || sqlite::count(&file, "SELECT count(*) FROM dataset_info WHERE num_samples = 194");
    let execute = |sql: &str| {
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        connection.execute_batch(sql).unwrap();
    };
    comes_back(&daemon, &mut client, "DELETE", || execute("DELETE FROM training_runs"));
    comes_back(&daemon, &mut client, "the index", || execute("DELETE FROM runs_by_month"));
    comes_back(&daemon, &mut client, "all", || {
        execute("BEGIN; DELETE FROM training_runs; DELETE FROM runs_by_month; DELETE FROM run_metric_names; COMMIT");
    });
    wait_until("the name again", WHOLE, || names() == 1);
    comes_back(&daemon, &mut client, "the file", || {
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{end}", file.display()));
        }
    });
    wait_until("the dataset", WHOLE, || datasets() == 1);
    wait_until("the name in the new file", WHOLE, || names() == 1);
    execute("DELETE FROM dataset_info");
    epoch(&mut client, RUN, 3);
    wait_until("the dataset alone", WHOLE, || datasets() == 1);
    // The file is renamed, as by an operator who wants a new one.
    comes_back(&daemon, &mut client, "moved", || {
        for end in ["", "-wal", "-shm"] {
            let _ = fs::rename(format!("{}{end}", file.display()), format!("{}.old{end}", file.display()));
        }
    });
}

#[test]
fn a_finished_run_that_was_deleted_stays_deleted_while_another_goes_on() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    let (file, other) = (daemon.database(), "7f0c853b-6794-4685-b2f5-43019da8836b");
    begin(&mut client, RUN, "finished");
    client.publish(TRAINING, json!({"type": "training_end", "run_id": RUN, "timestamp": now()}).to_string());
    begin(&mut client, other, "busy");
    let sql = "SELECT count(*) FROM training_runs WHERE best_epoch = 1";
    wait_until("both runs", LIMIT, || sqlite::count(&file, sql) == 2);
    // Longer than a message takes to be stored.
    std::thread::sleep(Duration::from_secs(6));
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    connection.execute_batch("DELETE FROM training_runs").unwrap();
    for n in 2..10 {
        epoch(&mut client, other, n);
        std::thread::sleep(Duration::from_millis(500));
    }
    let left = sqlite::rows(&file, "SELECT run_id, notes FROM training_runs");
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["notes"], "busy");
}

#[test]
fn a_run_is_whole_again_after_its_cassandra_rows_are_removed() {
    let Some(cassandra) = Cassandra::shared() else {
        return skip("a_run_is_whole_again_after_its_cassandra_rows_are_removed", "no Cassandra");
    };
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).cassandra(&cassandra).prepare();
    daemon.apply_schema();
    daemon.launch();
    daemon.wait_ready();
    let mut client = redis.client();
    begin(&mut client, RUN, "lead");
    wait_until("the run", LIMIT, || shown(&daemon, RUN).is_some_and(|row| row["best_epoch"] == 1));
    let execute = |cql: &str| {
        cassandra.rows(cql);
    };
    let delete = format!("DELETE FROM training_runs WHERE run_id = {RUN}");
    comes_back(&daemon, &mut client, "DELETE", || execute(&delete));
    comes_back(&daemon, &mut client, "TRUNCATE", || execute("TRUNCATE training_runs"));
    comes_back(&daemon, &mut client, "the index", || execute("TRUNCATE runs_by_month"));
    comes_back(&daemon, &mut client, "all", || {
        execute("TRUNCATE run_metric_names\nTRUNCATE training_runs\nTRUNCATE runs_by_month\nTRUNCATE dataset_info");
    });
    wait_until("the name", WHOLE, || cassandra.count("SELECT count(*) FROM run_metric_names") == 1);
    wait_until("the dataset", WHOLE, || {
        cassandra.count("SELECT count(*) FROM dataset_info WHERE num_samples = 194 ALLOW FILTERING") == 1
    });
    // The row is deleted during a steady stream of messages.
    execute(&delete);
    let began = Instant::now();
    while began.elapsed() < WHOLE {
        epoch(&mut client, RUN, 5);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(lists(&daemon, RUN), [true; 3]);
    let row = &cassandra.rows(&format!("SELECT * FROM training_runs WHERE run_id = {RUN}"))[0];
    assert_eq!((&row["notes"], &row["status"], &row["created_by"]), (&json!("lead"), &json!("running"), &json!("me")));
}
