//! Messages on Redis Streams: rows once, whichever daemon reads them, however often a daemon is killed; what was trimmed is counted.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use cascor_ingest::event::{EntryId, entry_source, event_id};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::support::{
    daemon::{Builder, Daemon},
    redis::Redis,
    resp::{Resp, Value},
    sqlite, wait_for, wait_until,
};

pub(crate) const STREAM: &str = "cascor:training:stream";
pub(crate) const GROUP: &str = "cascor-ingest";
pub(crate) const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const METRICS: &str = "SELECT COUNT(*) FROM training_metrics";

pub(crate) fn on(redis: &Redis) -> Builder {
    Daemon::on(redis).set("redis.streams", format!("[{STREAM:?}]")).set("redis.training_channels", "[]")
}

/// A daemon that shares the database with others.
pub(crate) fn sharing(redis: &Redis, name: &str, database: &Path) -> Builder {
    on(redis).set("instance", format!("{name:?}")).set("store.sqlite.path", format!("{database:?}"))
}

pub(crate) fn shared() -> (TempDir, PathBuf) {
    let dir = TempDir::with_prefix("cascor-streams").unwrap();
    let database = dir.path().join("cascor.db");
    (dir, database)
}

pub(crate) fn add(client: &mut Resp, fields: &[&str]) -> EntryId {
    let answer = client.command(&[&["XADD", STREAM, "*"], fields].concat());
    answer.text().unwrap_or_else(|| panic!("XADD was answered {answer:?}")).parse().unwrap()
}

/// Adds metrics of these epochs.
fn add_epochs(client: &mut Resp, epochs: std::ops::Range<i64>) {
    for epoch in epochs {
        let message = json!({"type": "metrics", "run_id": RUN, "epoch": epoch, "train_loss": 0.5}).to_string();
        add(client, &["data", &message]);
    }
}

fn integer(client: &mut Resp, words: &[&str]) -> i64 {
    let answer = client.command(words);
    answer.integer().unwrap_or_else(|| panic!("{words:?} was answered {answer:?}"))
}

/// Entries that were delivered and are not acknowledged.
pub(crate) fn pending(client: &mut Resp) -> i64 {
    match client.command(&["XPENDING", STREAM, GROUP]) {
        Value::Array(parts) => parts[0].integer().unwrap(),
        other => panic!("XPENDING was answered {other:?}"),
    }
}

pub(crate) fn stream_status(daemon: &Daemon) -> Json {
    daemon.get("/api/status").json()["redis"]["streams"][0].clone()
}

pub(crate) fn wait_metrics(database: &Path, expected: i64) {
    wait_for(&format!("{expected} rows"), LIMIT, || (sqlite::count(database, METRICS) >= expected).then_some(()));
    assert_eq!(sqlite::count(database, METRICS), expected);
}

fn lost(database: &Path, reason: &str) -> i64 {
    sqlite::count(database, &format!("SELECT COALESCE(SUM(lost), 0) FROM ingest_gaps WHERE reason = '{reason}'"))
}

#[test]
fn an_entry_in_each_form_is_a_row_and_is_acknowledged() {
    let redis = Redis::start();
    let mut client = redis.client();
    let daemon = on(&redis).start_ready();
    let message = json!({"type": "metrics", "run_id": RUN, "data": {"epoch": 1, "train_loss": 0.25}}).to_string();
    let one = add(&mut client, &["data", &message]);
    let two = add(&mut client, &["payload", &message]);
    let three = add(&mut client, &["run_id", RUN, "epoch", "7", "loss", "0.2", "f1", "0.5", "note", "a b"]);
    daemon.wait_rows(METRICS, 3);
    let rows = sqlite::rows(
        &daemon.database(),
        "SELECT timestamp, event_id, epoch, train_loss, extra, rest_json FROM training_metrics ORDER BY timestamp, event_id",
    );
    let by_epoch = |epoch: i64| rows.iter().filter(move |row| row["epoch"] == epoch).collect::<Vec<_>>();
    // Equal entries are two rows, each under the time of its id.
    let found: BTreeSet<_> = by_epoch(1).iter().map(|row| row["event_id"].as_i64().unwrap()).collect();
    let id_of = |id: EntryId, bytes: &str| event_id(id.micros(), &entry_source(STREAM, id), bytes.as_bytes());
    assert_eq!(found, BTreeSet::from([id_of(one, &message), id_of(two, &message)]));
    let fields = by_epoch(7)[0];
    assert_eq!(fields["timestamp"].as_i64(), Some(three.micros()));
    assert_eq!((fields["train_loss"].as_f64(), fields["extra"].as_str()), (Some(0.2), Some(r#"{"f1":0.5}"#)));
    assert_eq!(fields["rest_json"].as_str(), Some(r#"{"note":"a b"}"#));
    wait_until("everything is acknowledged", LIMIT, || pending(&mut client) == 0);
    wait_until("the status says so", LIMIT, || stream_status(&daemon)["acknowledged"] == 3);
    let status = stream_status(&daemon);
    assert_eq!(
        (&status["name"], &status["group"], &status["consumer"]),
        (&json!(STREAM), &json!(GROUP), &json!("test"))
    );
    assert_eq!((&status["reading"], &status["error"]), (&json!(true), &Json::Null));
    wait_until("the lag is known", LIMIT, || stream_status(&daemon)["lag"] == 0);
    assert_eq!(daemon.metric(&format!("cascor_stream_acknowledged_entries_total{{stream=\"{STREAM}\"}}")), Some(3.0));
    assert_eq!(daemon.metric(&format!("cascor_stream_lag_entries{{stream=\"{STREAM}\"}}")), Some(0.0));
}

#[test]
fn a_message_with_a_time_of_its_own_is_one_row_however_often_it_is_added() {
    let redis = Redis::start();
    let mut client = redis.client();
    let daemon = on(&redis).start_ready();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
    let message = json!({"run_id": RUN, "epoch": 1, "loss": 0.5, "timestamp": now}).to_string();
    add(&mut client, &["data", &message]);
    add(&mut client, &["data", &message]);
    add(&mut client, &["data", "{\"run_id\":\"x\",\"epoch\":2,\"loss\":1}"]);
    daemon.wait_rows(METRICS, 2);
    let rows = sqlite::rows(&daemon.database(), "SELECT event_id FROM training_metrics WHERE epoch = 1");
    assert_eq!(rows[0]["event_id"].as_i64(), Some(event_id(now, STREAM, message.as_bytes())));
}

#[test]
fn what_was_added_while_no_daemon_ran_is_stored_and_a_rejected_entry_is_a_dead_letter() {
    let redis = Redis::start();
    let mut client = redis.client();
    add_epochs(&mut client, 0..300);
    let broken = add(&mut client, &["data", "{broken"]);
    let mut daemon = on(&redis).start_ready();
    wait_metrics(&daemon.database(), 300);
    daemon.terminate();
    add_epochs(&mut client, 300..500);
    daemon.launch();
    daemon.wait_ready();
    wait_metrics(&daemon.database(), 500);
    wait_until("everything is acknowledged", LIMIT, || pending(&mut client) == 0);
    let letters: Json = serde_json::from_str(&daemon.succeed(&["deadletter", "list", "--json"])).unwrap();
    let letter = &letters["deadletters"][0];
    assert_eq!((&letter["channel"], &letter["entry"]), (&json!(STREAM), &json!(broken.to_string())), "{letters}");
    assert_eq!(sqlite::count(&daemon.database(), "SELECT COUNT(*) FROM ingest_gaps"), 0, "nothing is missed");
}

#[test]
fn a_daemon_that_is_killed_loses_nothing_and_stores_nothing_twice() {
    let redis = Redis::start();
    let mut daemon = on(&redis).start_ready();
    let port = redis.port;
    let producer = thread::spawn(move || {
        let mut client = Resp::connect(port).unwrap();
        for at in 0..600 {
            add_epochs(&mut client, 10 * at..10 * at + 10);
            thread::sleep(Duration::from_millis(5));
        }
    });
    for kill in 0..5_u64 {
        thread::sleep(Duration::from_millis(300 + 97 * kill));
        daemon.kill9();
        daemon.launch();
    }
    producer.join().unwrap();
    daemon.wait_ready();
    wait_metrics(&daemon.database(), 6_000);
    let epochs = sqlite::count(&daemon.database(), "SELECT COUNT(DISTINCT epoch) FROM training_metrics");
    assert_eq!(epochs, 6_000);
    let mut client = redis.client();
    wait_until("everything is acknowledged", LIMIT, || pending(&mut client) == 0);
}

#[test]
fn entries_that_a_dead_consumer_has_left_are_claimed_and_it_is_removed() {
    let redis = Redis::start();
    let mut client = redis.client();
    client.command(&["XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM"]);
    add_epochs(&mut client, 0..20);
    let words = ["XREADGROUP", "GROUP", GROUP, "dead", "COUNT", "20", "STREAMS", STREAM, ">"];
    assert!(matches!(client.command(&words), Value::Array(_)));
    client.command(&["XGROUP", "CREATECONSUMER", STREAM, GROUP, "idle"]);
    let daemon = on(&redis).set("redis.claim_after", "\"5s\"").start_ready();
    add_epochs(&mut client, 20..25);
    wait_metrics(&daemon.database(), 25);
    wait_until("everything is acknowledged", LIMIT, || pending(&mut client) == 0);
    wait_until("the status says so", LIMIT, || stream_status(&daemon)["claimed"] == 20);
    let names = |client: &mut Resp| -> Vec<String> {
        let Value::Array(consumers) = client.command(&["XINFO", "CONSUMERS", STREAM, GROUP]) else { panic!("no list") };
        let name = |of: &Value| if let Value::Array(parts) = of { parts[1].text().unwrap() } else { panic!("{of:?}") };
        consumers.iter().map(name).collect()
    };
    assert!(names(&mut client).contains(&"dead".to_owned()));
    wait_until("both are removed", 2 * LIMIT, || names(&mut client) == ["test"]);
}

#[test]
fn entries_that_were_trimmed_before_they_were_read_are_counted_exactly() {
    let redis = Redis::start();
    let mut client = redis.client();
    let mut daemon = on(&redis).start_ready();
    add_epochs(&mut client, 0..50);
    wait_metrics(&daemon.database(), 50);
    wait_until("everything is acknowledged", LIMIT, || pending(&mut client) == 0);
    // Trimmed after they were read: nothing is missed.
    assert_eq!(integer(&mut client, &["XTRIM", STREAM, "MAXLEN", "10"]), 40);
    thread::sleep(Duration::from_millis(2_500));
    assert_eq!(lost(&daemon.database(), "trimmed"), 0);
    daemon.terminate();
    add_epochs(&mut client, 50..150);
    assert_eq!(integer(&mut client, &["XTRIM", STREAM, "MAXLEN", "30"]), 80);
    daemon.launch();
    daemon.wait_ready();
    wait_metrics(&daemon.database(), 80);
    wait_until("the gap is stored", LIMIT, || lost(&daemon.database(), "trimmed") == 70);
    let verdict = |daemon: &Daemon| String::from_utf8(daemon.command(&["status"]).stdout).unwrap();
    wait_until("the verdict names it", LIMIT, || verdict(&daemon).contains("70 messages lost (trimmed)"));
    // Not again after a restart, and what is trimmed then is added.
    daemon.terminate();
    add_epochs(&mut client, 150..160);
    assert_eq!(integer(&mut client, &["XTRIM", STREAM, "MAXLEN", "0"]), 40);
    daemon.launch();
    daemon.wait_ready();
    wait_until("the second gap is stored", LIMIT, || lost(&daemon.database(), "trimmed") == 80);
    thread::sleep(Duration::from_millis(2_500));
    assert_eq!(lost(&daemon.database(), "trimmed"), 80);
    assert_eq!(lost(&daemon.database(), "trimmed_at_most"), 0);
}

#[test]
fn a_destroyed_group_and_a_deleted_stream_are_named_and_made_again() {
    let redis = Redis::start();
    let mut client = redis.client();
    let daemon = on(&redis).start_ready();
    add_epochs(&mut client, 0..10);
    wait_metrics(&daemon.database(), 10);
    assert_eq!(integer(&mut client, &["XGROUP", "DESTROY", STREAM, GROUP]), 1);
    wait_until("the group is there again", LIMIT, || stream_status(&daemon)["recoveries"] == 1);
    assert_eq!(stream_status(&daemon)["last_recovery"], "the consumer group was destroyed");
    add_epochs(&mut client, 10..20);
    wait_metrics(&daemon.database(), 20);
    assert_eq!(integer(&mut client, &["DEL", STREAM]), 1);
    wait_until("the stream is there again", LIMIT, || stream_status(&daemon)["recoveries"] == 2);
    assert_eq!(stream_status(&daemon)["last_recovery"], "the stream was deleted or replaced");
    add_epochs(&mut client, 20..30);
    wait_metrics(&daemon.database(), 30);
    let gaps = "SELECT COUNT(*) FROM ingest_gaps WHERE reason = 'stream_reset' AND lost IS NULL AND source = 'stream'";
    daemon.wait_rows(gaps, 1);
    assert_eq!(daemon.metric(&format!("cascor_stream_recoveries_total{{stream=\"{STREAM}\"}}")), Some(2.0));
}

#[test]
fn a_key_of_another_type_is_named_and_read_once_it_is_a_stream() {
    let redis = Redis::start();
    let mut client = redis.client();
    client.command(&["SET", STREAM, "text"]);
    let mut daemon = on(&redis).start();
    daemon.wait_http("/healthz", 200);
    wait_until("it is named", LIMIT, || {
        stream_status(&daemon)["error"].as_str().is_some_and(|error| error.contains("is no stream"))
    });
    assert_eq!(daemon.get("/readyz").status, 503);
    client.command(&["DEL", STREAM]);
    add_epochs(&mut client, 0..5);
    daemon.wait_ready();
    wait_metrics(&daemon.database(), 5);
    assert_eq!(stream_status(&daemon)["error"], Json::Null);
}

#[test]
fn a_user_who_may_not_acknowledge_is_named_and_reads_nothing_until_it_may() {
    let redis = Redis::start();
    let mut client = redis.client();
    client.command(&["ACL", "SETUSER", "me", "on", ">secret", "~*", "&*", "+@all", "-xack"]);
    add_epochs(&mut client, 0..5);
    let mut daemon = on(&redis).set("redis.username", "\"me\"").set("redis.password", "\"secret\"").start();
    daemon.wait_http("/healthz", 200);
    wait_until("it is named", LIMIT, || {
        let error = stream_status(&daemon)["error"].as_str().unwrap_or_default().to_owned();
        error.contains("XACK") && error.contains("ACL SETUSER me +xack")
    });
    assert_eq!(sqlite::count(&daemon.database(), METRICS), 0);
    client.command(&["ACL", "SETUSER", "me", "+xack"]);
    daemon.wait_ready();
    wait_metrics(&daemon.database(), 5);
    client.command(&["ACL", "SETUSER", "me", "-xack"]);
    add_epochs(&mut client, 5..10);
    wait_until("it is named again", LIMIT, || {
        stream_status(&daemon)["error"].as_str().is_some_and(|error| error.contains("+xack"))
    });
    client.command(&["ACL", "SETUSER", "me", "+xack"]);
    wait_metrics(&daemon.database(), 10);
    wait_until("everything is acknowledged", LIMIT, || pending(&mut client) == 0);
}

#[test]
fn two_daemons_share_a_stream_and_the_run_is_whole() {
    let redis = Redis::start();
    let (_dir, database) = shared();
    let pair = [sharing(&redis, "a", &database).start_ready(), sharing(&redis, "b", &database).start_ready()];
    let mut client = redis.client();
    add(&mut client, &["data", &json!({"type": "training_start", "run_id": RUN}).to_string()]);
    for epoch in 0..2_000 {
        let accuracy = 0.5 + f64::from((epoch * 7) % 1_000) / 4_000.0;
        let message =
            json!({"run_id": RUN, "epoch": epoch, "loss": 1.0 / f64::from(epoch + 1), "val_accuracy": accuracy});
        add(&mut client, &["data", &message.to_string()]);
        if epoch % 20 == 0 {
            thread::sleep(Duration::from_millis(10));
        }
    }
    let end =
        add(&mut client, &["data", &json!({"type": "training_end", "run_id": RUN, "status": "completed"}).to_string()]);
    wait_metrics(&database, 2_000);
    let taken: Vec<_> = pair.iter().map(|daemon| stream_status(daemon)["acknowledged"].as_i64().unwrap_or(0)).collect();
    assert!(taken.iter().all(|taken| *taken > 0), "both take part: {taken:?}");
    let run = format!(
        "SELECT status, end_time, final_epoch, final_train_loss, best_val_accuracy, last_event_time FROM training_runs WHERE run_id = '{RUN}'"
    );
    let whole = || {
        let rows = sqlite::rows(&database, &run);
        let row = rows.first()?;
        let is_whole = row["status"] == "completed"
            && row["final_epoch"] == 1_999
            && row["final_train_loss"].as_f64() == Some(1.0 / 2_000.0)
            && row["best_val_accuracy"].as_f64() == Some(0.5 + 999.0 / 4_000.0)
            && row["last_event_time"].as_i64() == Some(end.micros());
        is_whole.then_some(())
    };
    wait_for("the run's row is whole", Duration::from_secs(20), whole);
    thread::sleep(Duration::from_secs(6));
    assert_eq!(whole(), Some(()), "and stays so: {:?}", sqlite::rows(&database, &run));
}

#[test]
fn messages_without_a_run_id_are_of_one_run_whichever_daemon_takes_them() {
    let redis = Redis::start();
    let (_dir, database) = shared();
    let _pair = [sharing(&redis, "a", &database).start_ready(), sharing(&redis, "b", &database).start_ready()];
    let mut client = redis.client();
    let mut expected = Vec::new();
    for run in 0..3 {
        let start = json!({"type": "training_start", "data": {"notes": format!("run {run}")}}).to_string();
        let id = add(&mut client, &["data", &start]);
        expected.push(cascor_ingest::event::implicit_run_id(STREAM, id.micros(), start.as_bytes()).to_string());
        // What the other daemon takes before this one has shared the start is of the run before: trainers should give ids.
        thread::sleep(Duration::from_millis(500));
        for epoch in 0..200 {
            add(&mut client, &["epoch", &epoch.to_string(), "loss", "0.5"]);
        }
        thread::sleep(Duration::from_millis(500));
        add(&mut client, &["type", "training_end", "status", "completed"]);
    }
    wait_metrics(&database, 600);
    let rows = sqlite::rows(&database, "SELECT run_id, COUNT(*) AS n FROM training_metrics GROUP BY run_id");
    let found: BTreeSet<_> =
        rows.iter().map(|row| (row["run_id"].as_str().unwrap().to_owned(), row["n"].as_i64())).collect();
    assert_eq!(found, expected.iter().map(|run| (run.clone(), Some(200))).collect());
    let complete = "SELECT COUNT(*) FROM training_runs WHERE status = 'completed' AND final_epoch = 199";
    wait_for("each run is complete", LIMIT, || (sqlite::count(&database, complete) == 3).then_some(()));
    assert_eq!(sqlite::count(&database, "SELECT COUNT(*) FROM training_runs"), 3);
}

#[test]
fn the_latest_keys_are_those_of_all_daemons() {
    let redis = Redis::start();
    let (_dir, database) = shared();
    let pair = [sharing(&redis, "a", &database).start_ready(), sharing(&redis, "b", &database).start_ready()];
    let mut client = redis.client();
    for epoch in 0..400 {
        add_epochs(&mut client, epoch..epoch + 1);
        if epoch % 10 == 0 {
            thread::sleep(Duration::from_millis(10));
        }
    }
    let newest = |client: &mut Resp| client.get_json("cascor:metrics:latest").map(|value| value["epoch"].clone());
    wait_until("the newest value is there", LIMIT, || newest(&mut client) == Some(json!(399)));
    thread::sleep(Duration::from_millis(400));
    assert!(newest(&mut client).is_none_or(|epoch| epoch == 399), "and stays");
    let epochs = |client: &mut Resp| -> Vec<i64> {
        let history = client.get_json("cascor:history:latest").unwrap_or_default();
        history.as_array().into_iter().flatten().filter_map(|object| object["epoch"].as_i64()).collect()
    };
    wait_until("the history has all", LIMIT, || epochs(&mut client) == (0..400).collect::<Vec<_>>());
    let taken: Vec<_> = pair.iter().map(|daemon| stream_status(daemon)["acknowledged"].as_i64().unwrap_or(0)).collect();
    assert!(taken.iter().all(|taken| *taken > 0), "both take part: {taken:?}");
}
