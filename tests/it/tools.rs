//! The commands for dead letters and for a spool that no daemon holds.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{daemon::Daemon, redis::Redis, sqlite, wait_until};

pub(super) const TRAINING: &str = "cascor:training";
pub(super) const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
pub(super) const LIMIT: Duration = Duration::from_secs(30);

fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

pub(super) fn metrics(seq: u64) -> String {
    json!({"type": "metrics", "run_id": RUN, "seq": seq, "timestamp": now(), "data": {"epoch": seq, "train_loss": 0.5}})
        .to_string()
}

pub(super) fn json_of(daemon: &Daemon, arguments: &[&str]) -> Value {
    serde_json::from_str(&daemon.succeed(arguments)).unwrap()
}

pub(super) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every file under a directory, with its bytes.
pub(super) fn image(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.insert(path.display().to_string(), Vec::new());
            files.extend(image(&path));
        } else {
            files.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    files
}

/// A killed daemon with `count` messages in its spool that are not stored.
pub(super) fn killed_with_pending(redis: &Redis, count: u64) -> Daemon {
    let mut daemon = Daemon::on(redis).set("instance", "\"orphan\"").start_ready();
    let mut client = redis.client();
    client.publish(TRAINING, metrics(0));
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
    let blocker = rusqlite::Connection::open(daemon.database()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    for seq in 1..=count {
        client.publish(TRAINING, metrics(seq));
    }
    client.publish(TRAINING, "{broken");
    client.publish("cascor:control", r#"{"command": "stop"}"#);
    wait_until("all of it in the spool", LIMIT, || {
        let status = daemon.get("/api/status").json();
        status["counters"]["events"] == count + 1 && status["counters"]["rejected"] == 1
    });
    std::thread::sleep(Duration::from_millis(300));
    daemon.kill9();
    daemon
}

/// The segments of a spool, the newest last.
pub(super) fn segments(spool: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == "seg")).collect();
    segments.sort();
    segments
}

/// Flips a bit in the middle of the newest segment.
pub(super) fn damage(spool: &Path) {
    let segments = segments(spool);
    let segment = segments.last().unwrap();
    let mut bytes = fs::read(segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(segment, bytes).unwrap();
}

#[test]
fn dead_letters_are_replayed_after_the_cause_is_mended() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).set("limits.depth", "3").start_ready();
    let mut client = redis.client();
    let deep = |epoch: u64| {
        json!({"type": "metrics", "run_id": RUN, "timestamp": now(),
               "data": {"epoch": epoch, "train_loss": 0.5, "note": [[[1]]]}})
        .to_string()
    };
    let first = deep(1);
    for message in [first.as_str(), &deep(2), "{broken", r#"{"type": "metrics", "data": {"epoch": "x"}}"#] {
        client.publish(TRAINING, message);
    }
    // Without a `run_id`: it belongs to the open run of its channel.
    client.publish("cascor:training", json!({"type": "training_start", "run_id": RUN, "timestamp": now()}).to_string());
    client.publish(TRAINING, json!({"type": "metrics", "data": {"epoch": 3, "loss": 0.1, "n": [[[1]]]}}).to_string());
    let kept = |daemon: &Daemon| daemon.get("/api/status").json()["deadletter"]["letters"].as_u64();
    wait_until("the dead letters", LIMIT, || kept(&daemon) == Some(5));
    assert_eq!(json_of(&daemon, &["deadletter", "list", "--json"])["count"], 5);

    // Before the fix they fail again, and stay.
    let output = daemon.command(&["deadletter", "replay"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("5 dead letters failed again"), "{}", stderr(&output));
    assert_eq!(kept(&daemon), Some(5));

    daemon.configure("limits.depth", "64");
    let text = fs::read_to_string(daemon.config_file()).unwrap().replace("limits.depth = 3\n", "");
    fs::write(daemon.config_file(), text).unwrap();
    let replayed = json_of(&daemon, &["deadletter", "replay", "--json", "--reason", "too_deep"]);
    assert_eq!((&replayed["stored"], &replayed["failed"]), (&json!(3), &json!([])), "beside the daemon");
    let query = "SELECT count(*) FROM training_metrics WHERE run_id = '6f0c853b-6794-4685-b2f5-43019da8836b'";
    daemon.wait_rows(query, 3);
    wait_until("the status says so", LIMIT, || kept(&daemon) == Some(2));
    daemon.restart();
    assert_eq!(kept(&daemon), Some(2), "the count on disk survives a restart");
    // The same message again is the same row: the replay gave it the keys of its receipt.
    client.publish(TRAINING, &first);
    client.publish(TRAINING, metrics(9));
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 4);

    let exported = lines(&daemon.succeed(&["deadletter", "export"]));
    assert_eq!(exported.len(), 2);
    assert_eq!((&exported[0]["payload"], &exported[0]["reason"]), (&json!("{broken"), &json!("malformed_json")));
    assert_eq!(daemon.command(&["deadletter", "drop"]).status.code(), Some(2), "it must be said which");
    assert_eq!(daemon.command(&["deadletter", "drop", "--all", "--channel", "x"]).status.code(), Some(2));
    let none = json_of(&daemon, &["deadletter", "drop", "--until", "2020-01-01", "--json"]);
    assert_eq!(none["dropped"], 0);
    let id = exported[0]["id"].to_string();
    assert_eq!(json_of(&daemon, &["deadletter", "drop", &id, "--json"])["dropped"], 1);
    assert_eq!(daemon.command(&["deadletter", "show", &id]).status.code(), Some(1));
    assert_eq!(json_of(&daemon, &["deadletter", "drop", "--all", "--json"])["dropped"], 1);
    wait_until("none", LIMIT, || kept(&daemon) == Some(0));
    assert_eq!(daemon.metric("cascor_deadletter_stored"), Some(0.0));
}

#[test]
fn a_refused_row_is_replayed_with_the_run_and_the_keys_that_were_decided() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    client.publish(TRAINING, json!({"type": "metrics", "data": {"epoch": 1, "loss": 0.5}}).to_string());
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
    let database = rusqlite::Connection::open(daemon.database()).unwrap();
    database
        .execute_batch("CREATE TRIGGER no BEFORE INSERT ON training_metrics_rows WHEN new.epoch = 2 BEGIN SELECT RAISE(ABORT, 'no'); END")
        .unwrap();
    client.publish(TRAINING, json!({"type": "metrics", "data": {"epoch": 2, "loss": 0.4}}).to_string());
    wait_until("the dead letter", LIMIT, || daemon.get("/api/status").json()["deadletter"]["letters"] == 1);
    assert_eq!(daemon.command(&["deadletter", "replay"]).status.code(), Some(1), "refused again");
    let away = daemon.command(&["deadletter", "replay", "--store", "cassandra", "--set", "store.cassandra.port=17149"]);
    assert!(away.status.code() == Some(1) && stderr(&away).contains("the store is away"), "{}", stderr(&away));
    assert_eq!(json_of(&daemon, &["deadletter", "list", "--json"])["count"], 1, "nothing is dropped unconfirmed");
    database.execute_batch("DROP TRIGGER no").unwrap();
    daemon.terminate();
    assert_eq!(json_of(&daemon, &["deadletter", "replay", "--json"])["stored"], 1, "without the daemon");
    let rows =
        sqlite::rows(&daemon.database(), "SELECT count(*) AS n, count(DISTINCT run_id) AS runs FROM training_metrics");
    assert_eq!((&rows[0]["n"], &rows[0]["runs"]), (&json!(2), &json!(1)), "in the run that was open");
    assert_eq!(json_of(&daemon, &["deadletter", "list", "--json"])["count"], 0);
}

#[test]
fn the_spool_is_inspected_without_changing_a_byte() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).prepare();
    let absent = daemon.command(&["spool", "status"]);
    assert_eq!(absent.status.code(), Some(1));
    assert!(stderr(&absent).contains("the daemon makes it when it is first started"), "{}", stderr(&absent));
    daemon.launch();
    daemon.wait_ready();
    for command in ["verify", "export"] {
        let held = daemon.command(&["spool", command]);
        assert_eq!(held.status.code(), Some(1), "{command}");
        assert!(stderr(&held).contains("is in use by process"), "{}", stderr(&held));
    }
    let live = json_of(&daemon, &["spool", "status", "--json"]);
    assert_eq!((&live["holder"].is_null(), &live["owner"]), (&false, &json!("test")));
    daemon.terminate();
    drop(daemon);

    let daemon = killed_with_pending(&redis, 40);
    let spool = daemon.state_dir().join("spool");
    let before = image(&spool);
    let status = json_of(&daemon, &["spool", "status", "--json"]);
    let verified = json_of(&daemon, &["spool", "verify", "--json"]);
    assert_eq!(status["pending"], verified["pending"]);
    let all = lines(&daemon.succeed(&["spool", "export"]));
    // Commands overtake messages in the log.
    let latest = all.iter().filter_map(|record| record["received_at"].as_str()).max();
    assert_eq!(verified["received"], json!([all[0]["received_at"], latest]), "the first and the latest time");
    assert!(status["pending"].as_u64().unwrap() >= 42, "{status}");
    let exported = lines(&daemon.succeed(&["spool", "export", "--pending"]));
    assert_eq!(exported.len() as u64, status["pending"].as_u64().unwrap());
    let events: Vec<_> = exported.iter().filter(|record| record["kind"] == "event").collect();
    let first: Value = serde_json::from_str(events[0]["payload"].as_str().unwrap()).unwrap();
    assert_eq!((events.len(), &first["seq"], &events[0]["run_id"]), (40, &json!(1), &json!(RUN)));
    let rejected = exported.iter().find(|record| record["kind"] == "rejected").unwrap();
    assert_eq!((&rejected["payload"], &rejected["reason"]), (&json!("{broken"), &json!("malformed_json")));
    assert_eq!(image(&spool), before, "not a byte");

    assert_eq!(daemon.command(&["spool", "verify", "--nonsense"]).status.code(), Some(2));
    damage(&spool);
    let damaged = image(&spool);
    for command in ["verify", "export"] {
        let output = daemon.command(&["spool", command]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(stderr(&output).contains("1 record lost"), "{}", stderr(&output));
    }
    assert_eq!(image(&spool), damaged, "not a byte of a damaged one either");
}

#[test]
fn a_stopped_daemon_is_not_reported_as_running_and_an_absent_redis_is_named() {
    let mut redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    wait_until("its status", LIMIT, || client.get_json("cascor:ingest:test").is_some());
    let unknown = daemon.command(&["control", "puase", "--wait"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("`puase`: did you mean `pause`?"), "{}", stderr(&unknown));
    daemon.terminate();
    assert_eq!(client.get_json("cascor:ingest:test"), None, "gone with the daemon");
    redis.kill();
    let expected = format!("nothing listens at `127.0.0.1:{}` (connection refused); start Redis there", redis.port);
    for command in [&["status"][..], &["demo", "--for", "1s"], &["control", "pause"]] {
        let output = daemon.command(command);
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        assert!(stderr(&output).contains(&expected) && stderr(&output).lines().count() == 1, "{}", stderr(&output));
    }
}

#[test]
fn an_unreadable_file_of_a_secret_stops_only_the_commands_that_log_in_with_it() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    daemon.terminate();
    for (key, value) in [
        ("redis.password_file", "\"/nowhere/redis\""),
        ("store.cassandra.username", "\"u\""),
        ("store.cassandra.password_file", "\"/nowhere/cassandra\""),
        ("http.tokens_file", "\"/nowhere/tokens\""),
    ] {
        daemon.configure(key, value);
    }
    let on_cassandra = ["--store", "cassandra"];
    for command in [
        &["schema", "print"][..],
        &["schema", "apply"],
        &["deadletter", "list"],
        &["runs"],
        &["gaps"],
        &["token", "new", "n", "read"],
        &["schema", "print", "--help"],
        &[&on_cassandra[..], &["schema", "print"]].concat(),
        &[&on_cassandra[..], &["deadletter", "list"]].concat(),
    ] {
        daemon.succeed(command);
    }
    let (of_redis, of_cassandra) = ("redis.password_file`: `/nowhere/redis`", "password_file`: `/nowhere/cassandra`");
    for (command, code, named) in [
        (&["cache", "get", "metrics:latest"][..], 1, of_redis),
        (&["status"], 1, of_redis),
        (&["control", "pause"], 1, of_redis),
        (&["demo", "--for", "1s"], 1, of_redis),
        (&[&on_cassandra[..], &["runs"]].concat(), 1, of_cassandra),
        (&[&on_cassandra[..], &["schema", "verify"]].concat(), 1, of_cassandra),
        (&[&on_cassandra[..], &["schema", "apply", "--wait", "60s"]].concat(), 1, of_cassandra),
        (&["check"], 78, of_redis),
        (&["run"], 78, of_redis),
        (&["serve"], 78, of_redis),
        (&[&on_cassandra[..], &["run"]].concat(), 78, of_cassandra),
    ] {
        let started = Instant::now();
        let output = daemon.command(command);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
        assert!(said.contains(named) && said.contains("cannot be read"), "{command:?}: {said}");
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{command:?}: an error that retries cannot fix is not retried"
        );
    }
    let check = daemon.command(&["check"]);
    assert!(!stderr(&check).contains("cassandra"), "that store is not used: {}", stderr(&check));
}
