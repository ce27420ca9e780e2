//! Every example of the page of messages, published to a real daemon in the order of the page: the rows, the keys and the dead
//! letters are those that the page shows.

use std::{collections::BTreeMap, path::PathBuf, process::Command, time::Duration};

use cascor_ingest::wire::parse_time;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    names::MESSAGES,
    page::{self, Example},
};
use crate::{
    fixtures::plain,
    support::{
        cassandra::python, daemon::Daemon, redis::Redis, repository, resp::Resp, skip, sqlite, wait_for, wait_until,
    },
};

const LIMIT: Duration = Duration::from_secs(30);
const TRAINING: &str = "cascor:training";
const CONTROL: &str = "cascor:control";
/// Tables with one row for each message; in the others several messages make one row.
const COUNTED: [&str; 3] = ["training_metrics", "network_topology", "training_events"];
/// Placeholder on the page for a value that differs each time.
const ANY: &str = "…";

/// Runs the examples of the page against a daemon.
struct Walk {
    redis: Redis,
    client: Resp,
    daemon: Daemon,
    python: PathBuf,
    counts: BTreeMap<String, i64>,
    refused: Vec<String>,
    commands: Vec<(String, String)>,
}

#[test]
fn every_example_of_the_page_of_messages_becomes_what_it_says() {
    let name = "every_example_of_the_page_of_messages_becomes_what_it_says";
    let Some(python) = python() else { return skip(name, "CASCOR_TEST_PYTHON is not set") };
    let redis = Redis::start();
    let daemon = Daemon::on(&redis)
        .set("instance", "\"gpu-1\"")
        .set("writer.flush_interval", "\"20ms\"")
        .set("latest.metrics_ttl", "\"1m\"")
        .set("latest.topology_ttl", "\"1m\"")
        .set("latest.control_ttl", "\"1m\"")
        .start_ready();
    let client = redis.client();
    let (counts, refused, commands) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut walk = Walk { redis, client, daemon, python, counts, refused, commands };
    for example in page::examples(MESSAGES) {
        match example.sort() {
            "published" => walk.run_python(&example),
            "accepted" => walk.accepted(&example),
            "refused" => walk.refuse(&example),
            "row" => walk.row(&example),
            "key" => walk.key(&example),
            "time" => walk.moments(&example),
            "outcome" => walk.outcomes(&example),
            "command" => walk.command(&example),
            _ => assert_eq!(example.language, "sql", "{}", example.place),
        }
    }
    walk.check_commands();
    walk.check_dead_letters();
    walk.check_columns();
    walk.trainer_of_the_first_page();
}

impl Walk {
    fn publish(&mut self, channel: &str, payload: &[u8]) {
        assert_eq!(self.client.publish(channel, payload), 1, "the daemon listens");
    }

    fn rows(&self, table: &str) -> Vec<Map<String, Value>> {
        sqlite::rows(&self.daemon.database(), &format!("SELECT * FROM {table}"))
    }

    fn expect(&mut self, example: &Example, tables: &str) {
        for table in tables.split(',').filter(|table| COUNTED.contains(table)) {
            *self.counts.entry(table.to_owned()).or_default() += 1;
        }
        for (table, count) in &self.counts {
            wait_until(&format!("{}: rows of {table}", example.place), LIMIT, || {
                sqlite::count(&self.daemon.database(), &format!("SELECT count(*) FROM {table}")) >= *count
            });
        }
    }

    fn accepted(&mut self, example: &Example) {
        for payload in example.messages() {
            self.publish(TRAINING, &payload);
            self.expect(example, &example.words[1]);
        }
    }

    fn refuse(&mut self, example: &Example) {
        if example.language == "python" {
            self.run_python(example);
            return self.refused.push(example.words[1].clone());
        }
        let channel = if example.has("command") { CONTROL } else { TRAINING };
        for payload in example.messages() {
            self.publish(channel, &payload);
            self.refused.push(example.words[1].clone());
        }
    }

    /// Runs the code of the page unchanged, but for the port of Redis.
    fn run_python(&mut self, example: &Example) {
        let head =
            if example.text.starts_with("import") { "" } else { "import json, redis\ntrainer = redis.Redis()\n" };
        self.run_python_code(example, &format!("{head}{}", example.text));
        if example.sort() == "published" {
            self.expect(example, &example.words[1]);
        }
    }

    fn run_python_code(&self, example: &Example, code: &str) {
        let code = code.replace("redis.Redis()", &format!("redis.Redis(port={})", self.redis.port));
        let mut command = Command::new(&self.python);
        command.env("PYTHONPATH", repository("deploy/python")).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("CASCOR_REDIS_URL", format!("redis://127.0.0.1:{}", self.redis.port));
        let output = command.args(["-c", &code]).output().unwrap();
        assert!(output.status.success(), "{}: {}", example.place, String::from_utf8_lossy(&output.stderr));
    }

    fn row(&self, example: &Example) {
        let (table, wanted) = (&example.words[1], example.json());
        let mut found = Vec::new();
        let fits = |found: &Map<String, Value>| {
            // The page shows some columns of rows that change, and all but the key of other rows.
            if COUNTED.contains(&table.as_str()) { json!(found) == wanted } else { shows(&wanted, &json!(found)) }
        };
        let started = Instant::now();
        while started.elapsed() < LIMIT {
            found = self.rows(table).iter().map(plain).collect();
            if found.iter().any(fits) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{}: no row of {table} is {wanted}: {found:#?}", example.place);
    }

    fn key(&mut self, example: &Example) {
        let (key, wanted) = (&example.words[1], example.json());
        let mut last = None;
        let started = Instant::now();
        while started.elapsed() < LIMIT {
            last = self.client.get_json(key);
            if last.as_ref().is_some_and(|value| shows(&wanted, value)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{}: `{key}` is {last:?}", example.place);
    }

    fn moments(&mut self, example: &Example) {
        let expected = parse_time(&example.words[1], &TimeZone::UTC).unwrap();
        let before = self.rows("training_metrics").iter().filter(|row| row["timestamp"] == expected).count();
        let messages = example.messages();
        for payload in &messages {
            let message = super::decoded::moment(std::str::from_utf8(payload).unwrap());
            self.publish(TRAINING, message.as_bytes());
            self.expect(example, "training_metrics");
        }
        let after = self.rows("training_metrics").iter().filter(|row| row["timestamp"] == expected).count();
        assert_eq!(after - before, messages.len(), "{}", example.place);
    }

    fn outcomes(&mut self, example: &Example) {
        for payload in example.messages() {
            self.publish(TRAINING, &payload);
            self.expect(example, "training_events");
            let message: Value = serde_json::from_slice(&payload).unwrap();
            let run = json!({"run_name": message["run_id"], "status": example.words[1]});
            wait_until(&format!("{}: {run}", example.place), LIMIT, || {
                self.rows("training_runs").iter().any(|row| shows(&run, &json!(row)))
            });
        }
    }

    fn command(&mut self, example: &Example) {
        for payload in example.messages() {
            self.publish(CONTROL, &payload);
            let decoded = cascor_ingest::wire::decode_control(&payload, &Default::default()).unwrap();
            self.commands.push((decoded.command.clone(), example.words[1].clone()));
            if decoded.target.as_deref().is_none_or(|target| target == "ingest") {
                wait_for(&format!("{}: the answer", example.place), LIMIT, || {
                    let answer = self.client.get_json("cascor:control:latest")?;
                    (answer["command"] == decoded.command.as_str() && answer["outcome"] == example.words[1].as_str())
                        .then_some(())
                });
            }
        }
    }

    /// Nothing is stored while paused; `control_log` is checked at the end.
    fn check_commands(&self) {
        let mut wanted = self.commands.clone();
        wanted.sort();
        let mut found = Vec::new();
        wait_until("the outcomes of all commands", LIMIT, || {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            found = self
                .rows("control_log")
                .iter()
                .filter_map(|row| Some((text(&row["command"])?, text(&row["outcome"])?)))
                .collect();
            found.len() >= wanted.len()
        });
        found.sort();
        assert_eq!(found, wanted);
    }

    fn check_dead_letters(&self) {
        let mut wanted = self.refused.clone();
        wanted.sort();
        let mut found = Vec::new();
        wait_until("the dead letters", LIMIT, || {
            let list: Value = serde_json::from_str(&self.daemon.succeed(&["deadletter", "list", "--json"])).unwrap();
            let letters = list["deadletters"].as_array().unwrap();
            found = letters.iter().map(|letter| letter["reason"].as_str().unwrap().to_owned()).collect();
            found.len() >= wanted.len()
        });
        found.sort();
        assert_eq!(found, wanted);
    }

    /// The trainer of `README.md` makes a whole run.
    fn trainer_of_the_first_page(&self) {
        let trainer = page::examples("README.md").into_iter().find(|example| example.language == "python").unwrap();
        self.run_python_code(&trainer, &trainer.text);
        let run =
            json!({"run_name": "spiral-7", "status": "completed", "dataset_name": "two_spirals", "final_epoch": 5});
        wait_until("the run of README.md", LIMIT, || {
            self.rows("training_runs").iter().any(|row| shows(&run, &json!(row)))
        });
    }

    /// The page lists every column, and no other.
    fn check_columns(&self) {
        let tables = page::section(MESSAGES, "## Tables");
        let headings = tables.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'));
        let mut checked = 0;
        for table in headings {
            let section = page::section(MESSAGES, &format!("### `{table}`"));
            let mut told: Vec<_> = page::table_rows(&section)
                .iter()
                .flat_map(|cells| page::quoted(&cells[0]).into_iter().map(str::to_owned).collect::<Vec<_>>())
                .collect();
            let info = sqlite::rows(&self.daemon.database(), &format!("PRAGMA table_info({table})"));
            let mut columns: Vec<_> = info.iter().map(|column| column["name"].as_str().unwrap().to_owned()).collect();
            columns.retain(|column| !["non_finite", "expires_at"].contains(&column.as_str()));
            told.sort();
            columns.sort();
            assert_eq!(told, columns, "{table}");
            checked += 1;
        }
        let all = "SELECT count(*) FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' \
                   AND name NOT IN ('training_metrics_rows', 'training_metrics_long')";
        assert_eq!(sqlite::count(&self.daemon.database(), all), checked, "tables");
    }
}

/// Whether `value` contains what the page shows.
fn shows(wanted: &Value, value: &Value) -> bool {
    match (wanted, value) {
        (Value::String(any), value) if any == ANY => !value.is_null(),
        (Value::Object(wanted), Value::Object(value)) => {
            wanted.iter().all(|(name, wanted)| shows(wanted, value.get(name).unwrap_or(&Value::Null)))
        }
        (Value::Array(wanted), Value::Array(value)) => {
            wanted.len() == value.len() && wanted.iter().zip(value).all(|(wanted, value)| shows(wanted, value))
        }
        (wanted, value) => wanted == value,
    }
}
