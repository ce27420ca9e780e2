//! The examples of `schema/README.md` through the decoder, and against the JSON Schema.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use cascor_ingest::{
    event::{Resolved, run_id_from_text},
    frame::Rejection,
    wire::{self, Limits, Message, parse_time},
};
use jiff::tz::TimeZone;
use serde_json::Value;

use super::{
    names::MESSAGES,
    page::{self, Example},
};
use crate::support::{cassandra::python, repository, skip};

const CHANNEL: &str = "cascor:training";
/// A time of receipt for tests without a clock.
pub const RECEIVED_AT: i64 = 1_763_633_760_000_000;

/// What intake decides about a message that is received at [`RECEIVED_AT`], and opens no run.
pub fn resolve(message: &Message<'_>) -> Resolved {
    let time = message.time(RECEIVED_AT, &TimeZone::UTC);
    Resolved {
        run_id: message.run_id().unwrap_or_else(|| run_id_from_text("implicit")),
        event_time: time.event_time,
        received_at: RECEIVED_AT,
        has_event_time: time.from_message,
        opened_run: false,
    }
}

/// The tables of a message's rows, in order.
fn tables(payload: &[u8]) -> Result<Vec<&'static str>, Rejection> {
    let message = wire::decode(payload, &Limits::default())?;
    let resolved = resolve(&message);
    let rows = wire::rows(&message, &resolved, CHANNEL, payload).rows;
    Ok(rows.iter().map(|row| row.destination().0.name()).collect())
}

fn rejected(example: &Example, payload: &[u8]) -> Option<Rejection> {
    let limits = Limits::default();
    if example.has("command") {
        wire::decode_control(payload, &limits).err()
    } else {
        wire::decode(payload, &limits).err()
    }
}

#[test]
fn every_example_of_the_page_of_messages_is_decoded_as_it_says() {
    let mut checked = 0;
    for example in page::examples(MESSAGES) {
        let place = &example.place;
        if example.language == "python" || ["row", "key"].contains(&example.sort()) || example.language == "sql" {
            continue; // needs a daemon
        }
        for payload in example.messages() {
            let shown = String::from_utf8_lossy(&payload).into_owned();
            checked += 1;
            match example.sort() {
                "accepted" => {
                    let expected: Vec<_> = example.words[1].split(',').collect();
                    assert_eq!(tables(&payload).as_deref(), Ok(&expected[..]), "{place}: {shown}");
                }
                "refused" => {
                    let reason = rejected(&example, &payload).map(|rejection| rejection.reason.as_str());
                    assert_eq!(reason, Some(example.words[1].as_str()), "{place}: {shown}");
                }
                "time" => {
                    let message = moment(&shown);
                    let message = wire::decode(message.as_bytes(), &Limits::default()).unwrap();
                    let time = message.time(RECEIVED_AT, &TimeZone::UTC);
                    let expected = parse_time(&example.words[1], &TimeZone::UTC).unwrap();
                    assert!(time.from_message && time.event_time == expected, "{place}: {shown}: {time:?}");
                }
                "outcome" => {
                    let message = wire::decode(&payload, &Limits::default()).unwrap();
                    assert_eq!(message.outcome().status, example.words[1], "{place}: {shown}");
                }
                "command" => {
                    wire::decode_control(&payload, &Limits::default())
                        .unwrap_or_else(|rejection| panic!("{place}: {shown}: {rejection}"));
                }
                other => panic!("{place}: unknown expectation `{other}`"),
            }
        }
    }
    assert!(checked > 60, "only {checked} examples");
}

/// A message with this value as its time.
pub fn moment(value: &str) -> String {
    format!(r#"{{"type": "metrics", "loss": 0.5, "timestamp": {value}}}"#)
}

/// A message as JSON text; `None` when it is neither JSON nor MessagePack that JSON can express.
fn json_text(example: &Example, payload: &[u8]) -> Option<String> {
    match example.language.as_str() {
        "hex" => None,
        "text" => Some(Value::from(std::str::from_utf8(payload).ok()?).to_string()),
        _ if example.sort() == "time" => Some(moment(std::str::from_utf8(payload).ok()?)),
        _ => Some(String::from_utf8(payload.to_vec()).ok()?),
    }
}

/// The fixtures in JSON that become rows, with their files.
fn accepted_fixtures() -> Vec<(String, String)> {
    let read = |path: &str| fs::read_to_string(repository(path)).unwrap();
    let parse = |path: &str| -> Value { serde_json::from_str(&read(path)).unwrap() };
    let expected = parse("tests/fixtures/expected.json");
    let stored = expected["messages"].as_array().unwrap().iter().filter(|message| message["rows"].is_array());
    let files = stored.filter_map(|message| message["file"].as_str().filter(|file| file.ends_with(".json")));
    let mut found: Vec<_> = files
        .map(|file| (file.to_owned(), read(&format!("tests/fixtures/messages/{file}"))))
        .map(|(file, text)| (file, text.trim_start_matches('\u{feff}').to_owned()))
        .collect();
    for entry in fs::read_dir(repository("tests/fixtures/trainers")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            let trainer = parse(&format!("tests/fixtures/trainers/{file}"));
            let messages = trainer["messages"].as_array().unwrap().iter();
            found.extend(messages.map(|message| (file.clone(), message["json"].as_str().unwrap().to_owned())));
        }
    }
    assert!(found.len() > 80, "only {} fixtures", found.len());
    found
}

#[test]
fn the_schema_of_messages_agrees_with_every_example_and_fixture() {
    let name = "the_schema_of_messages_agrees_with_every_example_and_fixture";
    let Some(python) = python() else { return skip(name, "CASCOR_TEST_PYTHON is not set") };
    let has_package = Command::new(&python).args(["-c", "import jsonschema"]).output().unwrap().status.success();
    if !has_package {
        return skip(name, "the Python package jsonschema is not there");
    }
    let (mut lines, mut expected) = (String::new(), Vec::new());
    for example in page::examples(MESSAGES) {
        if !["accepted", "refused", "time", "outcome", "command"].contains(&example.sort())
            || example.language == "python"
        {
            continue;
        }
        let part = if example.sort() == "command" || example.has("command") { "command" } else { "training" };
        for text in example.messages().iter().filter_map(|payload| json_text(&example, payload)) {
            lines.push_str(&format!("{}\n", serde_json::json!([part, text])));
            let fits = example.sort() != "refused" || example.has("schema-passes");
            expected.push((fits, format!("{}: {text}", example.place)));
        }
    }
    // The messages of real trainers fit the schema, too.
    for (file, text) in accepted_fixtures() {
        lines.push_str(&format!("{}\n", serde_json::json!(["training", text])));
        expected.push((true, file));
    }
    let mut child = Command::new(python)
        .args([repository("tests/it/support/schema.py"), repository("schema/messages.schema.json")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let verdicts = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && verdicts.lines().count() == expected.len(), "{verdicts}");
    let wrong: Vec<_> = verdicts
        .lines()
        .zip(&expected)
        .filter(|(verdict, (fits, _))| (*verdict == "ok") != *fits)
        .map(|(verdict, (_, what))| format!("{what}: {verdict}"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
