//! Messages of real training programs, in both encodings, read back from both stores with another client.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use serde_json::{Map, Value, json};

use crate::{
    fixtures::plain,
    support::{
        cassandra::{Cassandra, python},
        daemon::Daemon,
        redis::Redis,
        repository, skip, sqlite, wait_until,
    },
};

const LIMIT: Duration = Duration::from_secs(30);
const TABLES: [&str; 4] = ["training_metrics", "network_topology", "training_events", "dataset_info"];
const ENCODINGS: [&str; 2] = ["json", "msgpack"];

type Row = Map<String, Value>;

/// A file of the corpus.
struct Trainer {
    name: String,
    messages: Vec<Value>,
    runs: Row,
}

fn corpus() -> Vec<Trainer> {
    let mut files: Vec<PathBuf> = fs::read_dir(repository("tests/fixtures/trainers"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let read = |path: PathBuf| {
        let document: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        Trainer {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            messages: document["messages"].as_array().unwrap().clone(),
            runs: document["runs"].as_object().unwrap().clone(),
        }
    };
    files.into_iter().map(read).collect()
}

fn payload(message: &Value, encoding: &str) -> Vec<u8> {
    let text = message[encoding].as_str().unwrap();
    if encoding == "json" {
        return text.as_bytes().to_vec();
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn publish(redis: &Redis, corpus: &[Trainer], encoding: &str) {
    let mut client = redis.client();
    for trainer in corpus {
        for message in &trainer.messages {
            let channel = format!("lab:{}", trainer.name);
            assert_eq!(client.publish(&channel, payload(message, encoding)), 1, "{channel}");
        }
    }
}

fn rows_of<'c>(corpus: &'c [Trainer], table: &str) -> Vec<(&'c Trainer, &'c Value, &'c Value)> {
    let mut rows = Vec::new();
    for trainer in corpus {
        for message in &trainer.messages {
            let of_table = message["rows"].as_array().unwrap().iter().filter(|row| row["table"] == table);
            rows.extend(of_table.map(|row| (trainer, message, &row["columns"])));
        }
    }
    rows
}

/// Compares what the store holds with the corpus, row by row, then run by run.
fn compare(corpus: &[Trainer], encoding: &str, read: impl Fn(&str) -> Vec<Row>) {
    let mut runs: BTreeMap<(String, String), Value> = BTreeMap::new();
    for table in TABLES {
        let mut found = read(table);
        for (trainer, message, columns) in rows_of(corpus, table) {
            let (label, wanted) = (message["run"].as_str().unwrap().to_owned(), columns.as_object().unwrap());
            let key = (trainer.name.clone(), label);
            let matches = |row: &Row| match table {
                "dataset_info" => wanted.iter().all(|(name, value)| row.get(name) == Some(value)),
                _ => &plain(row) == wanted && runs.get(&key).is_none_or(|run| row["run_id"] == *run),
            };
            let Some(at) = found.iter().position(matches) else {
                let seen: Vec<_> = found.iter().map(|row| json!(plain(row)).to_string()).collect();
                panic!(
                    "{encoding}, {key:?}: {} became no row of {table} with {columns}; found:\n{}",
                    message["json"],
                    seen.join("\n")
                );
            };
            let row = found.remove(at);
            if table != "dataset_info" {
                runs.insert(key, row["run_id"].clone());
            }
        }
        let strangers: Vec<_> = found.iter().filter(|_| table != "dataset_info").collect();
        assert!(strangers.is_empty(), "{encoding}: rows of {table} that no message explains: {strangers:#?}");
    }
    let stored = read("training_runs");
    assert_eq!(stored.len(), runs.len(), "{encoding}: one row for each run");
    for trainer in corpus {
        for (label, wanted) in &trainer.runs {
            let id = &runs[&(trainer.name.clone(), label.clone())];
            let row = stored.iter().find(|row| row["run_id"] == *id).expect("the run has a row");
            let columns = plain(row);
            for (column, value) in wanted.as_object().unwrap() {
                assert_eq!(
                    columns.get(column),
                    Some(value),
                    "{encoding}, {} {label}: {column} of {row:?}",
                    trainer.name
                );
            }
        }
    }
}

/// The counters of values that were stored otherwise than sent.
fn check_counters(daemon: &Daemon, corpus: &[Trainer], encoding: &str) {
    let all = || corpus.iter().flat_map(|trainer| &trainer.messages);
    // A rejected message is counted as such.
    let invalid: u64 = all()
        .filter(|message| message["rejected"].is_null())
        .filter_map(|message| message["invalid_fields"].as_u64())
        .sum();
    let unknown = all().filter(|message| message["unknown_outcome"] == true).count();
    let rejected = all().filter(|message| message["rejected"] == "invalid_field").count();
    for (metric, expected) in [
        ("cascor_intake_invalid_fields_total", invalid as f64),
        ("cascor_intake_unknown_outcomes_total", unknown as f64),
        ("cascor_intake_rejected_total{reason=\"invalid_field\"}", rejected as f64),
    ] {
        assert_eq!(daemon.metric(metric), Some(expected), "{encoding}: {metric}");
    }
}

/// The last status is written up to a second after the rows.
fn runs_have_ended(corpus: &[Trainer], stored: &[Row]) -> bool {
    let ended = |status: &Value| *status != "running";
    let wanted = corpus.iter().flat_map(|trainer| trainer.runs.values()).filter(|run| ended(&run["status"])).count();
    stored.iter().filter(|run| ended(&run["status"])).count() >= wanted
}

#[test]
fn messages_of_real_trainers_are_read_back_from_sqlite() {
    let corpus = corpus();
    for encoding in ENCODINGS {
        let redis = Redis::start();
        let daemon = Daemon::on(&redis).set("redis.training_channels", "[\"lab:*\"]").start_ready();
        publish(&redis, &corpus, encoding);
        let read = |table: &str| sqlite::rows(&daemon.database(), &format!("SELECT * FROM {table}"));
        for table in &TABLES[..3] {
            daemon.wait_rows(&format!("SELECT count(*) FROM {table}"), rows_of(&corpus, table).len() as i64);
        }
        wait_until("the ends of the runs", LIMIT, || runs_have_ended(&corpus, &read("training_runs")));
        compare(&corpus, encoding, read);
        check_counters(&daemon, &corpus, encoding);
    }
}

#[test]
fn messages_of_real_trainers_are_read_back_from_cassandra() {
    let name = "messages_of_real_trainers_are_read_back_from_cassandra";
    if python().is_none() {
        return skip(name, "CASCOR_TEST_PYTHON is not set");
    }
    let corpus = corpus();
    for encoding in ENCODINGS {
        let Some(cassandra) = Cassandra::shared() else { return skip(name, "CASCOR_TEST_CASSANDRA is not set") };
        let redis = Redis::start();
        let mut daemon =
            Daemon::on(&redis).cassandra(&cassandra).set("redis.training_channels", "[\"lab:*\"]").prepare();
        daemon.apply_schema();
        daemon.launch();
        daemon.wait_ready();
        publish(&redis, &corpus, encoding);
        for table in &TABLES[..3] {
            let wanted = rows_of(&corpus, table).len() as i64;
            wait_until(table, LIMIT, || cassandra.count(&format!("SELECT count(*) FROM {table}")) >= wanted);
        }
        let read = |table: &str| cassandra.rows(&format!("SELECT * FROM {table}"));
        wait_until("the ends of the runs", LIMIT, || runs_have_ended(&corpus, &read("training_runs")));
        compare(&corpus, encoding, read);
        check_counters(&daemon, &corpus, encoding);
    }
}
