//! Every fixture is published to the real daemon, and other clients read the store.

use std::{fs, time::Duration};

use serde_json::{Map, Value, json};

use crate::support::{
    cassandra::{Cassandra, python},
    daemon::Daemon,
    redis::Redis,
    repository, skip, sqlite, wait_until,
};

const LIMIT: Duration = Duration::from_secs(30);
const TABLES: [&str; 4] = ["training_metrics", "network_topology", "training_events", "dataset_info"];
const RUN: &str = "0c0ffee0-0000-4000-8000-000000000001";

type Row = Map<String, Value>;

fn expected() -> Value {
    serde_json::from_str(&fs::read_to_string(repository("tests/fixtures/expected.json")).unwrap()).unwrap()
}

/// Publishes all of them; each `pause` among the commands is ended by the next command.
fn publish(redis: &Redis, expected: &Value) {
    let mut client = redis.client();
    for message in expected["messages"].as_array().unwrap() {
        let file = message["file"].as_str().unwrap();
        let payload = fs::read(repository("tests/fixtures/messages").join(file)).unwrap();
        let channel = if message.get("control").is_some() { "cascor:control" } else { "cascor:training" };
        assert_eq!(client.publish(channel, payload), 1, "{file}");
    }
}

/// Expected number of rows of a table.
fn count(expected: &Value, table: &str) -> usize {
    let rows = expected["messages"].as_array().unwrap().iter().filter_map(|message| message["rows"].as_array());
    rows.flatten().filter(|row| row["table"] == table).count()
}

/// Compares the store with the expected rows; `unit` is the resolution of its timestamps in µs.
fn compare(expected: &Value, unit: i64, read: impl Fn(&str) -> Vec<Row>) {
    let messages = expected["messages"].as_array().unwrap();
    for table in TABLES {
        let mut found: Vec<_> = read(table).into_iter().map(Some).collect();
        for message in messages {
            for row in message["rows"].as_array().into_iter().flatten().filter(|row| row["table"] == table) {
                let at = found.iter().position(|one| one.as_ref().is_some_and(|one| fits(one, row, message, unit)));
                let Some(at) = at else {
                    panic!("{}: no row of {table} is {}: {found:#?}", message["file"], row["columns"])
                };
                // Two messages may describe one data set.
                if table != "dataset_info" {
                    found[at] = None;
                }
            }
        }
        if table != "dataset_info" {
            assert!(found.iter().all(Option::is_none), "unexpected rows of {table}: {found:#?}");
        }
    }
    commands(messages, &read("control_log"));
}

fn fits(found: &Row, row: &Value, message: &Value, unit: i64) -> bool {
    let columns = plain(found);
    let wanted = row["columns"].as_object().unwrap();
    if row["table"] == "dataset_info" {
        return wanted.iter().all(|(name, value)| columns.get(name) == Some(value));
    }
    let key = |name: &str, wanted: Option<Value>| wanted.is_none_or(|wanted| found[name] == wanted);
    let given = |name: &str| message.get(name).filter(|value| !value.is_null()).cloned();
    let time = given("event_time").map(|time| time.as_i64().unwrap().div_euclid(unit).into());
    &columns == wanted
        && key("timestamp", time)
        && key("run_id", given("run_id"))
        && (given("event_time").is_none() || key("event_id", given("event_id")))
}

fn commands(messages: &[Value], found: &[Row]) {
    let wanted: Vec<_> = messages.iter().filter_map(|message| message["control"]["command"].as_str()).collect();
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    for message in messages.iter().filter(|message| message["control"]["command"].is_string()) {
        let control = &message["control"];
        let row = found.iter().find(|row| row["command"] == control["command"]).expect("the command is recorded");
        assert_eq!((&row["command_id"], &row["target"]), (&control["id"], &control["target"]), "{row:?}");
        assert_eq!(row["outcome"], "done", "{row:?}");
    }
}

/// A row without its key, absent columns and columns of the store itself; JSON parsed, non-finite numbers by name.
pub fn plain(row: &Row) -> Row {
    let non_finite: Row =
        row.get("non_finite").and_then(Value::as_str).map_or_else(Row::new, |text| serde_json::from_str(text).unwrap());
    let mut columns = Row::new();
    for (name, value) in row {
        if ["run_id", "timestamp", "event_id", "non_finite", "expires_at"].contains(&name.as_str()) {
            continue;
        }
        let is_json = name.ends_with("_json")
            || ["weights_summary", "extra", "class_distribution", "tags"].contains(&name.as_str());
        let value = match value {
            Value::String(text) if is_json => serde_json::from_str(text).unwrap(),
            value => named(value.clone()), // inside JSON, "nan" is a producer's own text
        };
        let value = non_finite.get(name).cloned().unwrap_or(value);
        if !value.is_null() && value != json!({}) {
            columns.insert(name.clone(), value);
        }
    }
    columns
}

/// `nan` and `inf` of the clients, as the contract names them.
fn named(value: Value) -> Value {
    match value {
        Value::String(text) => match text.as_str() {
            "nan" => "NaN".into(),
            "inf" => "Infinity".into(),
            "-inf" => "-Infinity".into(),
            _ => text.into(),
        },
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, named(value))).collect::<Row>().into(),
        other => other,
    }
}

fn dead_letters(daemon: &Daemon, expected: &Value) {
    let messages = expected["messages"].as_array().unwrap();
    let reason =
        |message: &Value| message["rejected"].as_str().or(message["control"]["rejected"].as_str()).map(str::to_owned);
    let mut wanted: Vec<_> = messages.iter().filter_map(reason).collect();
    wanted.sort();
    let mut found = Vec::new();
    wait_until("the dead letters", LIMIT, || {
        let list: Value = serde_json::from_str(&daemon.succeed(&["deadletter", "list", "--json"])).unwrap();
        let letters = list["deadletters"].as_array().unwrap();
        found = letters.iter().map(|letter| letter["reason"].as_str().unwrap().to_owned()).collect();
        found.len() >= wanted.len()
    });
    found.sort();
    assert_eq!(found, wanted);
}

#[test]
fn every_fixture_is_read_back_from_sqlite_with_plain_sql() {
    let (redis, expected) = (Redis::start(), expected());
    let daemon = Daemon::on(&redis).start_ready();
    publish(&redis, &expected);
    for table in &TABLES[..3] {
        daemon.wait_rows(&format!("SELECT count(*) FROM {table}"), count(&expected, table) as i64);
    }
    daemon.wait_rows("SELECT count(*) FROM control_log WHERE outcome IS NOT NULL", 4);
    dead_letters(&daemon, &expected);
    compare(&expected, 1, |table| sqlite::rows(&daemon.database(), &format!("SELECT * FROM {table}")));
}

#[test]
fn every_fixture_and_the_queries_of_dashboards_are_read_from_cassandra_by_another_driver() {
    let name = "every_fixture_and_the_queries_of_dashboards_are_read_from_cassandra_by_another_driver";
    let Some(cassandra) = Cassandra::shared() else { return skip(name, "CASCOR_TEST_CASSANDRA is not set") };
    if python().is_none() {
        return skip(name, "CASCOR_TEST_PYTHON is not set");
    }
    let (redis, expected) = (Redis::start(), expected());
    let mut daemon = Daemon::on(&redis).cassandra(&cassandra).prepare();
    daemon.apply_schema();
    daemon.launch();
    daemon.wait_ready();
    publish(&redis, &expected);
    for table in &TABLES[..3] {
        let wanted = count(&expected, table) as i64;
        wait_until(table, LIMIT, || cassandra.count(&format!("SELECT count(*) FROM {table}")) >= wanted);
    }
    wait_until("the outcomes", LIMIT, || {
        cassandra.rows("SELECT * FROM control_log").iter().filter(|row| row["outcome"].is_string()).count() == 4
    });
    dead_letters(&daemon, &expected);
    compare(&expected, 1_000, |table| cassandra.rows(&format!("SELECT * FROM {table}")));
    dashboards(&redis, &cassandra);
}

/// The queries of the contract, prepared as they are written there. Values follow a tab.
fn dashboards(redis: &Redis, cassandra: &Cassandra) {
    let second = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut messages = vec![json!({"type": "training_start", "run_id": RUN, "timestamp": second,
        "data": {"dataset": {"name": "two rings", "num_samples": 10}}})];
    messages.extend((1..=20).map(
        |n| json!({"run_id": RUN, "timestamp": second as f64 + f64::from(n), "epoch": n, "loss": 1.0 / f64::from(n)}),
    ));
    messages.push(json!({"type": "training_end", "run_id": RUN, "timestamp": second + 21, "status": "stopped"}));
    let messages: Vec<_> = messages.iter().map(Value::to_string).collect();
    redis.client().publish_all("cascor:training", &messages).unwrap();
    let ask = |query: &str, values: Value| cassandra.rows(&format!("{query}\t{values}"));
    wait_until("the end of the run", LIMIT, || {
        ask("SELECT * FROM training_runs WHERE run_id = ?", json!([RUN]))
            .first()
            .is_some_and(|run| run["status"] == "stopped" && run["final_epoch"] == 20)
    });
    // The run's row may be written before the batch of its metrics.
    let count = "SELECT epoch FROM training_metrics WHERE run_id = ?";
    wait_until("the metrics of the run", LIMIT, || ask(count, json!([RUN])).len() == 20);
    let epochs = |rows: Vec<Row>| rows.iter().map(|row| row["epoch"].as_i64().unwrap()).collect::<Vec<_>>();
    let newest = "SELECT * FROM training_metrics WHERE run_id = ? ORDER BY timestamp DESC LIMIT ?";
    assert_eq!(epochs(ask(newest, json!([RUN, 3]))), [20, 19, 18]);
    let range = "SELECT * FROM training_metrics WHERE run_id = ? AND timestamp >= ? AND timestamp <= ? \
                 ORDER BY timestamp DESC LIMIT ?";
    let (from, to) = ((second + 5) * 1_000, (second + 8) * 1_000);
    assert_eq!(epochs(ask(range, json!([RUN, from, to, 100]))), [8, 7, 6, 5]);
    let ids = |rows: Vec<Row>| rows.iter().map(|row| row["run_id"].clone()).collect::<Vec<_>>();
    assert!(
        ids(ask("SELECT * FROM training_runs WHERE status = ? LIMIT ?", json!(["stopped", 100]))).contains(&json!(RUN))
    );
    for filtering in ["", " ALLOW FILTERING"] {
        let query = format!("SELECT * FROM training_runs WHERE dataset_name = ?{filtering}");
        assert_eq!(ids(ask(&query, json!(["two rings"]))), [RUN], "{query}");
    }
    assert_eq!(ask("SELECT * FROM training_runs LIMIT ?", json!([2])).len(), 2);
}
