mod latest;
mod limits;
mod properties;
mod rules;

use std::{fs, path::PathBuf};

use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::{Value as Json, json, value::RawValue};
use uuid::Uuid;

use super::{
    command::decode_control,
    json,
    message::Message,
    time, topology,
    value::{Encoded, Raw, Value},
    *,
};
use crate::{
    event::{self, ColumnValue, Lifecycle, METRIC_COLUMNS, Resolved, Row, RunRow},
    frame::Reason,
};

const RECEIVED: i64 = 1_763_633_710_000_007;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn read_json(name: &str) -> Json {
    serde_json::from_slice(&fs::read(fixtures().join(name)).unwrap()).unwrap()
}

fn resolved(message: &Message<'_>, received_at: i64) -> Resolved {
    let time = message.time(received_at, &TimeZone::UTC);
    let run_id = message.run_id().unwrap_or(Uuid::nil());
    Resolved { run_id, event_time: time.event_time, received_at, has_event_time: time.from_message, opened_run: false }
}

fn rejection(payload: &[u8]) -> Option<Reason> {
    decode(payload, &Limits::default()).err().map(|rejection| rejection.reason)
}

fn number(x: Option<f64>) -> Json {
    match x {
        None => Json::Null,
        Some(x) if x.is_nan() => "NaN".into(),
        Some(x) if x.is_infinite() => if x > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Some(x) => x.into(),
    }
}

fn parsed(text: Option<&str>) -> Json {
    text.map_or(Json::Null, |text| serde_json::from_str(text).unwrap())
}

/// The columns of a row by name, as `expected.json` writes them.
fn columns(row: &Row) -> (&'static str, Json) {
    let (table, mut columns) = match row {
        Row::Metrics(row) => {
            let extra: serde_json::Map<_, _> =
                row.extra.iter().map(|(key, x)| (key.clone(), number(Some(*x)))).collect();
            let values = METRIC_COLUMNS.iter().zip(row.columns.values()).map(|(column, value)| {
                let json = match value {
                    ColumnValue::Double(x) => number(x),
                    other => json!(other),
                };
                (column.name.to_owned(), json)
            });
            let mut columns: serde_json::Map<_, _> = values.collect();
            columns.insert("extra".into(), extra.into());
            columns.insert("rest_json".into(), parsed(row.rest_json.as_deref()));
            let columns = Json::Object(columns);
            ("training_metrics", columns)
        }
        Row::Topology(row) => {
            let columns = json!({
                "epoch": row.epoch, "input_size": row.input_size, "output_size": row.output_size,
                "hidden_units": row.hidden_units, "total_parameters": row.total_parameters,
                "topology_json": parsed(Some(&row.topology_json)),
                "weights_summary": parsed(row.weights_summary.as_deref()),
            });
            ("network_topology", columns)
        }
        Row::Event(row) => {
            let payload = parsed(Some(&row.payload_json));
            ("training_events", json!({ "type": row.r#type, "epoch": row.epoch, "payload_json": payload }))
        }
        Row::Dataset(row) => {
            let columns = json!({
                "dataset_id": row.dataset_id, "name": row.name, "description": row.description,
                "num_samples": row.num_samples, "num_features": row.num_features, "num_classes": row.num_classes,
                "class_distribution": row.class_distribution, "created_at": row.created_at,
                "file_path": row.file_path, "checksum": row.checksum,
            });
            ("dataset_info", columns)
        }
        other => panic!("no row of a message: {other:?}"),
    };
    columns.as_object_mut().unwrap().retain(|_, value| !value.is_null() && *value != json!({}));
    (table, columns)
}

fn run_columns(run: &RunRow) -> Json {
    json!({
        "run_name": run.run_name, "dataset_name": run.dataset_name, "dataset_size": run.dataset_size,
        "config_json": parsed(run.config_json.as_deref()), "final_epoch": run.final_epoch,
        "final_train_loss": number(run.final_train_loss), "final_train_accuracy": number(run.final_train_accuracy),
        "final_val_loss": number(run.final_val_loss), "final_val_accuracy": number(run.final_val_accuracy),
        "total_hidden_units": run.total_hidden_units, "total_parameters": run.total_parameters, "notes": run.notes,
        "tags": run.tags, "created_by": run.created_by,
    })
}

#[test]
fn every_fixture_becomes_what_is_expected() {
    let expected = read_json("expected.json");
    let channel = expected["channel"].as_str().unwrap();
    let received_at = expected["received_at"].as_i64().unwrap();
    let mut files: Vec<_> =
        fs::read_dir(fixtures().join("messages")).unwrap().map(|file| file.unwrap().file_name()).collect();
    for entry in expected["messages"].as_array().unwrap() {
        let file = entry["file"].as_str().unwrap();
        files.retain(|name| name.to_str() != Some(file));
        let payload = fs::read(fixtures().join("messages").join(file)).unwrap();
        if entry["control"].is_object() {
            check_control(file, &payload, &entry["control"]);
            continue;
        }
        let message = match (decode(&payload, &Limits::default()), entry["rejected"].as_str()) {
            (Ok(message), None) => message,
            (Err(rejection), Some(reason)) => {
                assert_eq!(rejection.reason.as_str(), reason, "{file}");
                assert!(rejection.detail.starts_with(entry["detail"].as_str().unwrap()), "{file}: {rejection}");
                continue;
            }
            (other, _) => panic!("{file}: {other:?}"),
        };
        check_stored(entry, &message, &payload, channel, received_at);
    }
    assert_eq!(files, Vec::<std::ffi::OsString>::new(), "files that nothing is expected of");
}

fn check_stored(entry: &Json, message: &Message<'_>, payload: &[u8], channel: &str, received_at: i64) {
    let file = entry["file"].as_str().unwrap();
    let kind = match message.kind() {
        Kind::Metrics => "metrics",
        Kind::Topology => "topology",
        Kind::RunStart => "run_start",
        Kind::RunEnd => "run_end",
        Kind::Dataset => "dataset",
        Kind::State => "state",
        Kind::Other => "other",
    };
    assert_eq!(kind, entry["kind"].as_str().unwrap(), "{file}");
    assert_eq!(json!(message.run_id()), entry["run_id"], "{file}");
    let resolved = resolved(message, received_at);
    let own = resolved.has_event_time.then_some(resolved.event_time);
    assert_eq!(json!(own), entry["event_time"], "{file}");
    if own.is_some() {
        assert_eq!(
            event::event_id(resolved.event_time, channel, payload),
            entry["event_id"].as_i64().unwrap(),
            "{file}"
        );
    }
    let made = rows(message, &resolved, channel, payload);
    let got: Vec<Json> =
        made.rows.iter().map(columns).map(|(table, columns)| json!({"table": table, "columns": columns})).collect();
    assert_eq!(Json::from(got), entry["rows"], "{file}");
    let status = made.run_update.lifecycle.map(|lifecycle| match lifecycle {
        Lifecycle::Start => "running",
        Lifecycle::End(status) => status,
    });
    assert_eq!(json!(status), entry["status"], "{file}");
    let run = run_columns(&made.run_update.values);
    for (column, value) in entry["run"].as_object().into_iter().flatten() {
        assert_eq!(&run[column], value, "{file}: {column}");
    }
    for write in [latest_json, latest_json_canonical] {
        let mut text = String::new();
        write(message, &resolved, "host \"1\"", &mut text);
        let object: Json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}: {text}"));
        assert_eq!(object["_ingest"]["instance"], "host \"1\"", "{file}");
        assert_eq!(object["_ingest"]["published_at"].is_null(), own.is_none(), "{file}");
    }
}

fn check_control(file: &str, payload: &[u8], expected: &Json) {
    match decode_control(payload, &Limits::default()) {
        Ok(command) => {
            assert_eq!(json!(command.command), expected["command"], "{file}");
            assert_eq!(json!(command.id), expected["id"], "{file}");
            assert_eq!(json!(command.target), expected["target"], "{file}");
            assert_eq!(json!(command.timeout.map(|t| t.as_millis() as u64)), expected["timeout_ms"], "{file}");
            parsed(Some(&command.payload_json));
        }
        Err(rejection) => assert_eq!(json!(rejection.reason.as_str()), expected["rejected"], "{file}"),
    }
}

#[test]
fn ids_are_those_of_an_independent_program() {
    let ids = read_json("ids.json");
    let list = |name: &str| ids[name].as_array().unwrap().clone();
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    assert_eq!(text(&ids["namespace"]), event::NAMESPACE.to_string());
    for id in list("event_id") {
        let (channel, payload) = (text(&id["channel"]), text(&id["payload"]));
        let time = id["event_time"].as_i64().unwrap();
        assert_eq!(event::event_id(time, &channel, payload.as_bytes()), id["id"].as_i64().unwrap(), "{id}");
    }
    for id in list("implicit_run_id") {
        let (channel, payload) = (text(&id["channel"]), text(&id["payload"]));
        let time = id["event_time"].as_i64().unwrap();
        assert_eq!(event::implicit_run_id(&channel, time, payload.as_bytes()).to_string(), text(&id["id"]), "{id}");
    }
    for id in list("run_id") {
        assert_eq!(event::run_id_from_text(&text(&id["text"])).to_string(), text(&id["id"]), "{id}");
    }
    for id in list("dataset_id") {
        assert_eq!(event::dataset_id(&text(&id["name"])).to_string(), text(&id["id"]), "{id}");
    }
    for id in list("gap_id") {
        let [instance, source, reason] = ["instance", "source", "reason"].map(|name| text(&id[name]));
        let started_at = id["started_at"].as_i64().unwrap();
        let made = event::gap_id(&instance, &source, id["channel"].as_str(), &reason, started_at);
        assert_eq!(made.to_string(), text(&id["id"]), "{id}");
    }
}

#[test]
fn times_are_read_in_every_form() {
    let new_york = TimeZone::get("America/New_York").unwrap();
    let base = 1_763_633_700_000_000;
    for (text, micros) in [
        ("2025-11-20T10:15:00Z", Some(base)),
        ("2025-11-20t10:15:00.1z", Some(base + 100_000)),
        ("2025-11-20 10:15:00.1234567+00:00", Some(base + 123_457)),
        ("2025-11-20T10:15:00.999999999Z", Some(base + 1_000_000)),
        ("2025-11-20T11:45:00+0130", Some(base)),
        ("2025-11-20T05:15:00-05", Some(base)),
        ("2025-11-20T05:15:00", Some(base)),
        ("2025-11-20T05:15:00.25", Some(base + 250_000)),
        ("2025-11-20T05:15", Some(base)),
        ("2025-11-20", Some(base - (10 * 60 + 15 - 5 * 60) * 60_000_000)),
        ("1763633700.5", Some(base + 500_000)),
        ("2025-02-29T00:00:00Z", None),
        ("2025-11-20T24:15:00Z", None),
        ("yesterday", None),
        ("", None),
    ] {
        assert_eq!(time::read(&Value::Text(text.into()), &new_york), micros, "{text}");
    }
    for (n, micros) in
        [(1_763_633_700, base), (1_763_633_700_000, base), (base, base), (base * 1_000 + 500, base + 1), (0, 0)]
    {
        assert_eq!(time::read(&Value::Int(n), &new_york), Some(micros), "{n}");
    }
    assert_eq!(time::read(&Value::Float(f64::NAN), &new_york), None);
}

proptest! {
    #[test]
    fn times_are_written_as_they_are_read(micros in -60_000_000_000_000_000_i64..250_000_000_000_000_000) {
        let mut text = String::new();
        super::write::write_time(&mut text, micros);
        let expected = jiff::Timestamp::from_microsecond(micros).unwrap();
        prop_assert_eq!(&text, &format!("{expected:.6}"));
        prop_assert_eq!(time::read(&Value::Text(text.into()), &TimeZone::UTC), Some(micros));
    }

    #[test]
    fn json_is_accepted_where_serde_accepts_it(text in r#"[\[\]{}:,"\\ \n0-9eE.+\-truefalsn\u{1}é]{0,24}"#) {
        let limits = Limits::default();
        let ours = json::check(&text, &limits).is_ok();
        prop_assert_eq!(ours, serde_json::from_str::<&RawValue>(&text).is_ok(), "{}", text);
    }

    #[test]
    fn json_that_was_cut_or_changed_is_judged_like_serde(
        json in r#"\{("[a-c\\\\u0é]{0,3}":(1|-0\.5e3|"x"|null|\[\]|\{"y":\[1,2\]\}),?){0,4}\}"#,
    ) {
        let ours = json::check(&json, &Limits::default()).is_ok();
        prop_assert_eq!(ours, serde_json::from_str::<&RawValue>(&json).is_ok(), "{}", json);
    }

    #[test]
    fn bytes_of_any_kind_never_panic(first in prop::sample::select(vec![b'{', 0x81, 0x83, 0x8f, 0xde, 0xdf]), rest: Vec<u8>) {
        let mut payload = vec![first];
        payload.extend(rest);
        let _ = decode_control(&payload, &Limits::default());
        if let Ok(message) = decode(&payload, &Limits::default()) {
            let resolved = resolved(&message, RECEIVED);
            rows(&message, &resolved, "c", &payload);
            let mut text = String::new();
            latest_json(&message, &resolved, "i", &mut text);
            prop_assert!(serde_json::from_str::<Json>(&text).is_ok(), "{}", text);
        }
    }

    #[test]
    fn both_encodings_say_the_same(object in values(4)) {
        let mut object = json!({ "type": "other", "data": object });
        object["epoch"] = json!(1);
        let text = serde_json::to_vec(&object).unwrap();
        let pack = rmp_serde::to_vec_named(&object).unwrap();
        for payload in [&text, &pack] {
            let message = decode(payload, &Limits::default()).unwrap();
            let made = rows(&message, &resolved(&message, RECEIVED), "c", payload);
            let Row::Event(row) = &made.rows[0] else { panic!("{made:?}") };
            prop_assert_eq!(parsed(Some(&row.payload_json)), object.clone());
        }
    }
}

fn values(depth: u32) -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<i32>().prop_map(|n| Json::from(f64::from(n) / 8.0)),
        ".{0,6}".prop_map(Json::from),
    ];
    leaf.prop_recursive(depth, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
            prop::collection::btree_map("[a-z]{1,4}", inner, 0..5).prop_map(|map| json!(map)),
        ]
    })
}

#[test]
fn limits_are_held_in_both_encodings() {
    let deep = |depth: usize| format!("{{\"epoch\":1,\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(rejection(deep(63).as_bytes()), None);
    assert_eq!(rejection(deep(64).as_bytes()), Some(Reason::TooDeep));
    let packed = |depth: usize| [b"\x82\xa5epoch\x01\xa1x".to_vec(), vec![0x91; depth - 1], vec![0x90]].concat();
    assert_eq!(rejection(&packed(63)), None);
    assert_eq!(rejection(&packed(64)), Some(Reason::TooDeep));
    let long = "x".repeat(65 << 10);
    assert_eq!(rejection(format!("{{\"epoch\":1,\"x\":\"{long}\"}}").as_bytes()), Some(Reason::TooLarge));
    assert_eq!(rejection(format!("{{\"nodes\":[],\"x\":\"{long}\"}}").as_bytes()), None, "a topology may");
    assert_eq!(rejection(&vec![b'{'; (20 << 20) + 1]), Some(Reason::TooLarge));
    let hostile = format!("{{\"epoch\":1,\"x\":[{}[]]}}", "[],".repeat(1 << 20));
    assert_eq!(rejection(hostile.as_bytes()), None);
}

#[test]
fn a_rejected_field_is_named_with_its_value_cut() {
    let payload = format!("{{\"epoch\":\"{}\"}}", "é".repeat(500));
    let rejection = decode(payload.as_bytes(), &Limits::default()).unwrap_err();
    assert_eq!(rejection.reason, Reason::InvalidField);
    assert!(rejection.detail.starts_with("epoch: \"éé") && rejection.detail.len() <= 200, "{rejection}");
}

#[test]
fn a_cascade_network_has_that_many_parameters() {
    for (input, hidden, output, parameters) in
        [(2, 0, 1, Some(3)), (2, 2, 1, Some(12)), (2, 3, 2, Some(24)), (-1, 0, 1, None), (i32::MAX, 9, 9, None)]
    {
        assert_eq!(topology::cascade_parameters(input, hidden, output), parameters, "{input} {hidden} {output}");
    }
}

#[test]
fn lists_are_counted_without_being_read() {
    for (text, len) in [("[]", 0), ("[ ]", 0), ("[1]", 1), ("[[1,2],{\"a\":[3,4]},\"5,6\\\",7\"]", 3)] {
        let Some((Value::List(Raw { encoded: Encoded::Json(span), len: counted }), _)) = json::read(text, 0) else {
            panic!()
        };
        assert_eq!((span, counted), (text, len));
    }
}
