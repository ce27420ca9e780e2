//! Every name that the decoder maps is on `schema/README.md` and in the JSON Schema, and no other. The decoder
//! itself says which they are: each word in its source is tried as a field, as a type and as an outcome.

use std::{collections::BTreeSet, fs, path::PathBuf};

use cascor_ingest::{
    event::{Kind, MetricColumns, Row},
    frame::{Outcome, Reason},
    gaps::GapReason,
    wire::{self, Limits, Message},
};
use jiff::tz::TimeZone;
use serde_json::Value;

use super::{
    decoded::{RECEIVED_AT, resolve},
    page::{names, quoted, read, section, table_rows},
};
use crate::support::repository;

/// The page with the names.
pub const MESSAGES: &str = "schema/README.md";
const SCHEMA: &str = "schema/messages.schema.json";
/// A name that maps to nothing.
const UNKNOWN: &str = "zz_unknown";

/// Messages with a field whose name is tried in place of `NAME`.
const PROBES: [&str; 24] = [
    r#"{"type": "metrics", "other": 1, "NAME": 7}"#,
    r#"{"type": "metrics", "other": 1, "NAME": "word"}"#,
    r#"{"type": "metrics", "other": 1, "NAME": 1763633700}"#,
    r#"{"type": "metrics", "other": 1, "NAME": {"epoch": 3}}"#,
    r#"{"type": "topology", "nodes": [], "NAME": 7}"#,
    r#"{"type": "topology", "nodes": [], "NAME": "word"}"#,
    r#"{"type": "topology", "nodes": [], "NAME": {"input_size": 3}}"#,
    r#"{"type": "topology", "nodes": [], "connections": [{"NAME": 0.5}]}"#,
    r#"{"NAME": []}"#,
    r#"{"type": "training_start", "NAME": "word"}"#,
    r#"{"type": "training_start", "NAME": 7}"#,
    r#"{"type": "training_start", "dataset_name": "d", "NAME": {"name": "word"}}"#,
    r#"{"type": "training_end", "NAME": "failed"}"#,
    r#"{"type": "training_end", "NAME": false}"#,
    r#"{"type": "training_end", "NAME": 1}"#,
    r#"{"type": "run_update", "NAME": "word"}"#,
    r#"{"type": "event", "NAME": "word"}"#,
    r#"{"type": "dataset", "NAME": "word"}"#,
    r#"{"type": "dataset", "name": "d", "NAME": "word"}"#,
    r#"{"type": "dataset", "name": "d", "NAME": 7}"#,
    r#"{"type": "dataset", "name": "d", "NAME": {"a": 1}}"#,
    r#"{"type": "dataset", "name": "d", "timestamp": 1763633700, "NAME": 1763633700}"#,
    r#"{"command": "flush", "NAME": "5s"}"#,
    r#"{"command": "flush", "NAME": {"timeout": 5}}"#,
];

/// The decoded message, without its unmapped fields.
fn effect(probe: &str, name: &str) -> String {
    let payload = probe.replace("NAME", name);
    if probe.contains("command") {
        return match wire::decode_control(payload.as_bytes(), &Limits::default()) {
            Ok(command) => format!("{:?}", (command.id, command.target, command.timeout, command.params_json)),
            Err(rejection) => rejection.reason.as_str().into(),
        };
    }
    let limits = Limits::default();
    let message = match wire::decode(payload.as_bytes(), &limits) {
        Ok(message) => message,
        Err(rejection) => return rejection.reason.as_str().into(),
    };
    let time = message.time(RECEIVED_AT, &TimeZone::UTC);
    let decided = resolve(&message);
    let rows = wire::rows(&message, &decided, "c", payload.as_bytes());
    let shown: Vec<_> = rows.rows.iter().map(|row| columns(row, name)).collect();
    format!("{:?}", (head(&message), time, shown, rows.run_update))
}

fn head(message: &Message<'_>) -> String {
    format!("{:?}", (message.kind(), message.type_name(), message.run_id(), message.seq(), message.outcome().status))
}

fn columns(row: &Row, name: &str) -> String {
    match row {
        Row::Metrics(row) => {
            let rest = row.rest_json.as_ref().map(|rest| rest.contains(&format!("\"{name}\"")));
            let rest = (row.extra.contains_key(name), row.extra.contains_key(&format!("{name}.epoch")), rest);
            let columns = MetricColumns { seq: None, ..row.columns.clone() };
            format!("{:?}", (columns, rest))
        }
        Row::Topology(row) => {
            let sizes = (row.epoch, row.input_size, row.output_size, row.hidden_units, row.total_parameters);
            format!("{:?}", (sizes, &row.weights_summary))
        }
        Row::Event(row) => format!("{:?}", (&row.r#type, row.epoch)),
        Row::Dataset(row) => format!("{row:?}"),
        other => format!("{other:?}"),
    }
}

fn effects(name: &str) -> Vec<String> {
    PROBES.iter().map(|probe| effect(probe, name)).collect()
}

/// Every word in quotes in the sources of the decoder, and every name in its lists of fields.
fn words() -> BTreeSet<String> {
    let mut folders: Vec<PathBuf> = ["src/wire", "src/event"].map(repository).into();
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let is_word = |word: &&str| {
                    (1..=40).contains(&word.len())
                        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_/.-".contains(&byte))
                };
                found.extend(text.split('"').filter(is_word).map(str::to_owned));
                if path.ends_with("event/metrics_columns.rs") || path.ends_with("wire/names.rs") {
                    found.extend(
                        text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(is_word).map(str::to_owned),
                    );
                }
            }
        }
    }
    found
}

/// Names of fields that the decoder maps.
fn fields() -> BTreeSet<String> {
    let unknown = effects(UNKNOWN);
    words().into_iter().filter(|word| effects(word) != unknown).collect()
}

/// The properties that a schema names, anywhere.
fn properties(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Object(properties)) = object.get("properties") {
                found.extend(properties.keys().cloned());
            }
            object.values().for_each(|inner| properties(inner, found));
        }
        Value::Array(array) => array.iter().for_each(|inner| properties(inner, found)),
        _ => {}
    }
}

#[test]
fn every_field_of_the_decoder_is_on_the_page_and_in_the_schema_and_no_other() {
    let (known, told) = (fields(), names(MESSAGES));
    assert!(known.len() > 110 && known.contains("train/acc") && known.contains("num_samples"), "{known:?}");
    let missing: Vec<_> = known.iter().filter(|name| !told.contains(*name)).collect();
    assert!(missing.is_empty(), "{MESSAGES} does not name {missing:?}");
    let schema: Value = serde_json::from_str(&read(SCHEMA)).unwrap();
    let mut in_schema = BTreeSet::new();
    properties(&schema, &mut in_schema);
    // A field inside a connection, which the schema leaves out.
    let expected: BTreeSet<_> = known.into_iter().filter(|name| !["weight", "w"].contains(&name.as_str())).collect();
    let differ: Vec<_> = expected.symmetric_difference(&in_schema).collect();
    assert!(differ.is_empty(), "{SCHEMA} and the decoder disagree about {differ:?}");
}

#[test]
fn every_alias_on_the_page_means_its_field() {
    let unknown = effects(UNKNOWN);
    let mut checked = 0;
    for cells in table_rows(&section(MESSAGES, "## Fields")) {
        let canonical = quoted(&cells[0])[0];
        let meant = effects(canonical);
        assert_ne!(meant, unknown, "`{canonical}`");
        for alias in quoted(&cells[1]) {
            let same = effects(alias).into_iter().zip(&meant).zip(&unknown);
            let same = same.filter(|((own, meant), unknown)| own == *meant && own != *unknown).count();
            assert!(same > 0, "`{alias}` is not `{canonical}`");
            checked += 1;
        }
    }
    assert!(checked > 60, "only {checked} aliases");
    let schema: Value = serde_json::from_str(&read(SCHEMA)).unwrap();
    let properties = schema["$defs"]["fields"]["properties"].as_object().unwrap();
    for cells in table_rows(&section(MESSAGES, "## Fields")) {
        for alias in quoted(&cells[1]) {
            assert_eq!(properties[alias]["x-alias-of"], quoted(&cells[0])[0], "`{alias}` in {SCHEMA}");
        }
    }
}

fn kind_of(name: &str) -> Kind {
    let message = format!(r#"{{"type": "{name}", "name": "d", "loss": 1, "nodes": []}}"#);
    wire::decode(message.as_bytes(), &Limits::default()).map_or(Kind::Other, |message| message.kind())
}

#[test]
fn every_type_is_on_the_page_beside_its_kind_and_in_the_schema() {
    let section = section(MESSAGES, "## Message types");
    let schema: Value = serde_json::from_str(&read(SCHEMA)).unwrap();
    let mut told = BTreeSet::new();
    for cells in table_rows(&section) {
        let (kind, part) = match cells[0].as_str() {
            "metrics" => (Kind::Metrics, "metrics"),
            "topology" => (Kind::Topology, "topology"),
            "run start" => (Kind::RunStart, "run_start"),
            "run end" => (Kind::RunEnd, "run_end"),
            "dataset" => (Kind::Dataset, "dataset"),
            "state" => (Kind::State, "state"),
            _ => continue,
        };
        let in_schema = schema["$defs"][part].to_string();
        // After these words the cell names other types.
        let types = cells[1].split(", and").next().unwrap();
        for name in quoted(types) {
            assert_eq!(kind_of(name), kind, "`{name}`");
            assert!(in_schema.contains(&format!("\"{name}\"")), "`{name}` in {SCHEMA}");
            told.insert(name.to_owned());
        }
    }
    let known: BTreeSet<_> = words().into_iter().filter(|word| kind_of(word) != Kind::Other).collect();
    // `training_` or `run_` before a word of the table of outcomes.
    let known: BTreeSet<_> = known
        .into_iter()
        .filter(|word| kind_of(word) != Kind::RunEnd || ["training_end", "run_end"].contains(&word.as_str()))
        .collect();
    assert_eq!(told, known);
}

#[test]
fn every_word_for_an_outcome_is_on_the_page_beside_its_status() {
    let outcome = |word: &str| {
        let message = format!(r#"{{"type": "training_end", "status": "{word}"}}"#);
        let message = wire::decode(message.as_bytes(), &Limits::default()).ok()?.outcome();
        message.known.then_some(message.status)
    };
    let mut told = BTreeSet::new();
    for cells in table_rows(&section(MESSAGES, "## How a run ended")) {
        if ["`completed`", "`failed`", "`stopped`"].contains(&cells[0].as_str()) && cells.len() == 2 {
            for word in quoted(&cells[1]) {
                assert_eq!(outcome(word), Some(cells[0].trim_matches('`')), "`{word}`");
                told.insert(word.to_owned());
            }
        }
    }
    // Whatever the spelling of its source: `early_stopping` is the same word.
    let plain = |word: &String| word.bytes().all(|byte| byte.is_ascii_lowercase());
    let known: BTreeSet<_> = words().into_iter().filter(|word| plain(word) && outcome(word).is_some()).collect();
    assert_eq!(told, known);
}

#[test]
fn every_reason_and_every_outcome_of_a_command_is_on_the_page() {
    let first = |heading: &str| -> BTreeSet<String> {
        table_rows(&section(MESSAGES, heading)).iter().map(|cells| cells[0].trim_matches('`').to_owned()).collect()
    };
    let reasons: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    assert_eq!(first("## What becomes of a message"), reasons);
    let gaps: BTreeSet<_> = GapReason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    assert_eq!(first("## Gaps"), gaps);
    let commands = section(MESSAGES, "## Commands");
    for outcome in [Outcome::Done, Outcome::Ignored, Outcome::Refused, Outcome::Failed] {
        assert!(quoted(&commands).contains(&outcome.as_str()), "{outcome:?}");
    }
}
