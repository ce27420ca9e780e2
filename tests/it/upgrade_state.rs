//! What version 0.1.0 has left on disk, in `tests/fixtures/state`: every later version reads it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::{
    backup::drained,
    store_cassandra::{admin, config, server, tool},
    support::{daemon::Daemon, redis::Redis, repository, sqlite, wait_until},
    tools::{LIMIT, TRAINING, json_of},
    upgrade::apply_statements,
};

const VERSION: &str = "0.1.0";
const STORED: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const METRICS: &str = "SELECT count(*) FROM training_metrics";

fn fixture(name: &str) -> PathBuf {
    repository("tests/fixtures/state").join(VERSION).join(name)
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// A daemon that keeps rows for ever: those of the fixture must not be too old one day.
fn daemon_for_ever(redis: &Redis) -> Daemon {
    let tables = ["metrics", "topology", "events", "control", "gaps"];
    let builder = Daemon::on(redis).set("instance", "\"fixture\"");
    tables.iter().fold(builder, |builder, table| builder.set(&format!("store.retention.{table}"), "\"0s\"")).prepare()
}

/// The state directory of version 0.1.0, and a daemon on it that is not running.
fn old_state(redis: &Redis) -> Daemon {
    let daemon = daemon_for_ever(redis);
    let state = daemon.state_dir();
    for dir in ["spool", "deadletter"] {
        copy_dir(&fixture(dir), &state.join(dir));
    }
    for file in ["runs.json", "session.key"] {
        fs::copy(fixture(file), state.join(file)).unwrap();
    }
    // The pause goes on: in the fixture it has ended long ago.
    let mut pause: Value = serde_json::from_slice(&fs::read(fixture("pause.json")).unwrap()).unwrap();
    pause["until"] = (jiff::Timestamp::now().as_microsecond() + 3_600_000_000).into();
    fs::write(state.join("pause.json"), pause.to_string()).unwrap();
    let sql = fs::read_to_string(fixture("cascor.sql")).unwrap();
    Connection::open(daemon.database()).unwrap().execute_batch(&sql).unwrap();
    daemon
}

/// Rows of each table, as the old version counted them.
#[track_caller]
fn assert_stored(database: &Path) {
    let stored: Value = serde_json::from_slice(&fs::read(fixture("stored.json")).unwrap()).unwrap();
    for (table, count) in stored.as_object().unwrap() {
        // Its rows end after 90 days.
        if table != "run_deletions" {
            let found = sqlite::count(database, &format!("SELECT count(*) FROM {table}"));
            assert!(count.as_i64().unwrap() > 0 && found >= count.as_i64().unwrap(), "{table}: {found} of {count}");
        }
    }
}

/// The kinds of the records, and of these how many are events.
fn kinds(daemon: &Daemon) -> (BTreeSet<String>, usize) {
    let records = daemon.succeed(&["spool", "export", "--pending"]);
    let kinds: Vec<String> = records
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["kind"].as_str().unwrap().to_owned())
        .collect();
    (kinds.iter().cloned().collect(), kinds.iter().filter(|kind| *kind == "event").count())
}

/// What waits in the spool of the fixture is stored under the run that the old version decided; a new message goes on with it.
#[track_caller]
fn assert_goes_on(daemon: &Daemon, redis: &Redis) {
    let before = sqlite::count(&daemon.database(), METRICS);
    let run = daemon.get("/api/runs?limit=1").json()["runs"][0]["run_id"].as_str().unwrap().to_owned();
    redis.client().publish(TRAINING, json!({"epoch": 10, "loss": 0.03125}).to_string());
    daemon.wait_rows(METRICS, before + 1);
    let runs = format!("SELECT count(*) FROM training_metrics WHERE run_id = '{run}'");
    assert_eq!(sqlite::count(&daemon.database(), &runs), 6, "five of the old version, and one");
    assert!(sqlite::count(&daemon.database(), "SELECT count(*) FROM ingest_gaps") > 0);
    let letters = json_of(daemon, &["deadletter", "list", "--json"]);
    let reasons: Vec<_> = letters["deadletters"].as_array().unwrap().iter().map(|letter| &letter["reason"]).collect();
    assert_eq!(reasons, ["malformed_json", "malformed_json"], "one of the old log, one of the old spool");
}

#[test]
fn a_state_directory_of_version_0_1_0_is_taken_over() {
    let redis = Redis::start();
    let mut daemon = old_state(&redis);
    let all = ["control", "event", "gap", "receipt", "rejected"];
    let (kinds, events) = kinds(&daemon);
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), all, "the fixture has every kind of record");
    assert!(events >= 10 && json_of(&daemon, &["spool", "verify", "--json"])["lost"] == 0);
    let key = fs::read(daemon.state_dir().join("session.key")).unwrap();

    daemon.launch();
    daemon.wait_ready();
    let status = daemon.get("/api/status").json();
    assert_eq!(status["paused"], true, "{status}");
    assert_stored(&daemon.database());
    let run = daemon.get("/api/runs/best").json()["run"].clone();
    assert_eq!(
        (&run["run_id"], &run["status"], &run["dataset_name"]),
        (&json!(STORED), &json!("completed"), &json!("spiral"))
    );
    assert_eq!((&run["notes"], &run["final_train_loss"]), (&json!("by people"), &json!(0.125)), "{run}");
    let newest = daemon.get(&format!("/api/metrics/range?run_id={STORED}&limit=1")).json()["metrics"][0].clone();
    assert_eq!(newest["rest_json"].as_str().map(|text| text.contains("xxxxx")), Some(true), "{newest}");

    daemon.succeed(&["control", "resume", "--wait"]);
    wait_until("an empty spool", LIMIT, || daemon.get("/api/status").json()["spool"]["pending_records"] == 0);
    assert_goes_on(&daemon, &redis);
    assert!(fs::read(daemon.state_dir().join("session.key")).unwrap() == key, "sessions go on");
    assert!(!daemon.log().contains("cannot be"), "{}", daemon.log());
}

#[test]
fn a_backup_of_version_0_1_0_is_restored() {
    let redis = Redis::start();
    let daemon = daemon_for_ever(&redis);
    let file = daemon.state_dir().parent().unwrap().join("old.backup");
    let packed = fs::File::open(fixture("cascor.backup.gz")).unwrap();
    std::io::copy(&mut GzDecoder::new(packed), &mut fs::File::create(&file).unwrap()).unwrap();
    daemon.succeed(&["restore", file.to_str().unwrap()]);
    let pause = daemon.state_dir().join("pause.json");
    assert!(pause.exists());
    fs::remove_file(pause).unwrap();
    let daemon = drained(daemon);
    assert_stored(&daemon.database());
    assert_goes_on(&daemon, &redis);
}

#[test]
fn settings_of_version_0_1_0_are_still_understood() {
    let redis = Redis::absent(crate::support::redis::Options::default());
    let daemon = Daemon::on(&redis).prepare();
    let file = fixture("config.toml");
    daemon.succeed(&["check", "--config", file.to_str().unwrap()]);
}

#[tokio::test]
async fn schema_apply_takes_over_a_keyspace_of_version_0_1_0_with_its_rows() {
    let Some(server) = server() else { return };
    let config = config(&server);
    apply_statements(&config, &server, &fixture("cassandra"), 3).await;
    let admin = admin(&server).await;
    let insert = format!(
        "INSERT INTO {}.training_metrics (run_id, timestamp, event_id, epoch) VALUES ({STORED}, 1763633700123, 7, 5)",
        config.keyspace
    );
    admin.query_unpaged(insert, ()).await.unwrap();
    let tool = tool(&config);
    tool.apply(&|_| {}).await.unwrap();
    assert_eq!((tool.verify().await.unwrap(), tool.plan().await.unwrap().steps), (vec![], vec![]));
    let store = crate::store_cassandra::connected(&config).await;
    let query = cascor_ingest::store::RangeQuery::newest(STORED.parse().unwrap(), 10);
    let rows = cascor_ingest::store::Store::metrics(&*store, &query).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.columns.epoch).collect::<Vec<_>>(), [Some(5)]);
    admin.query_unpaged(format!("DROP KEYSPACE {}", config.keyspace), ()).await.unwrap();
}
