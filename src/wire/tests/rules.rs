//! The rules of the contract about what a message means, by example.

use super::*;
use crate::{event::MetricsRow, wire::Outcome};

pub(super) fn metrics_of(payload: &[u8]) -> MetricsRow {
    let message = decode(payload, &Limits::default()).unwrap_or_else(|error| panic!("{error}: {payload:?}"));
    let made = rows(&message, &resolved(&message, RECEIVED), "c", payload);
    match made.rows.into_iter().next() {
        Some(Row::Metrics(row)) => row,
        other => panic!("no metrics: {other:?}"),
    }
}

#[test]
fn when_a_dataset_was_made_is_not_when_its_message_was_sent() {
    let time = |payload: &str| {
        let limits = Limits::default();
        let message = decode(payload.as_bytes(), &limits).unwrap();
        let time = message.time(RECEIVED, &TimeZone::UTC);
        assert_eq!(message.has_time_field(), time.from_message, "{payload}");
        let rows = rows(&message, &resolved(&message, RECEIVED), "cascor:training", payload.as_bytes()).rows;
        let made = rows.iter().find_map(|row| if let Row::Dataset(row) = row { Some(row.created_at) } else { None });
        (time.event_time, time.from_message, rows.len(), made.flatten())
    };
    let made = 1_763_546_400_000_000; // 2025-11-19T10:00:00Z
    assert_eq!(
        time(r#"{"type": "dataset_info", "name": "moons", "created_at": "2025-11-19T10:00:00Z"}"#),
        (RECEIVED, false, 1, Some(made))
    );
    assert_eq!(
        time(
            r#"{"type": "dataset", "name": "moons", "created_at": "2025-11-19T10:00:00Z", "timestamp": "2025-11-20T10:15:00Z"}"#
        ),
        (1_763_633_700_000_000, true, 1, Some(made))
    );
    assert_eq!(time(r#"{"epoch": 1, "loss": 1, "created_at": "2025-11-19T10:00:00Z"}"#), (made, true, 1, None));
}

#[test]
fn the_outcome_of_a_run_is_that_of_the_first_field_that_is_given() {
    let known = |status| Outcome { status, known: true };
    let unknown = Outcome { status: "stopped", known: false };
    for (json, expected) in [
        (json!({"type": "training_end"}), known("completed")),
        (json!({"type": "event", "data": {"event": "training_complete"}}), known("completed")),
        (json!({"type": "event", "data": {"event": "run_crashed"}}), known("failed")),
        (json!({"type": "event", "event_type": "training_preempted", "event": "training_failed"}), known("stopped")),
        (json!({"type": "training_out_of_memory"}), known("failed")),
        (json!({"type": "training_end", "status": "crashed"}), known("failed")),
        (json!({"type": "training_end", "status": "KILLED"}), known("stopped")),
        (json!({"type": "training_end", "status": "timed out"}), known("stopped")),
        (json!({"type": "training_end", "status": "canceled"}), known("stopped")),
        (json!({"type": "training_end", "status": "OUT_OF_MEMORY"}), known("failed")),
        (json!({"type": "training_end", "status": "NODE_FAIL"}), known("failed")),
        (json!({"type": "training_end", "status": "false"}), known("failed")),
        (json!({"type": "training_end", "status": true}), known("completed")),
        (json!({"type": "training_end", "status": "running"}), unknown),
        (json!({"type": "training_end", "status": 0}), unknown),
        (json!({"type": "training_failed", "status": ["completed"]}), unknown),
        (json!({"type": "training_failed", "status": "  "}), known("failed")),
        (json!({"type": "training_end", "status": "", "outcome": "done"}), known("completed")),
        (json!({"type": "training_end", "status": null, "success": false}), known("failed")),
        (json!({"type": "training_failed", "final_status": "succeeded"}), known("completed")),
        (json!({"type": "training_failed", "success": true}), known("completed")),
        (json!({"type": "training_end", "success": "maybe"}), unknown),
        (json!({"type": "training_end", "final_metrics": {"success": 0.9}}), known("completed")),
        (json!({"type": "training_end", "error": "CUDA out of memory"}), known("failed")),
        (json!({"type": "training_end", "error": "", "exception": {"type": "KeyError"}}), known("failed")),
        (json!({"type": "training_end", "error": [], "exception": false}), known("completed")),
        (json!({"type": "training_end", "final_metrics": {"error": 0.04}}), known("completed")),
        (json!({"type": "training_end", "exit_code": 0, "reason": "error"}), known("completed")),
        (json!({"type": "training_end", "exit_code": "137"}), known("failed")),
        (json!({"type": "training_end", "exit_code": "0:0"}), known("completed")),
        (json!({"type": "training_end", "exit_code": "0:9"}), known("failed")),
        (json!({"type": "training_end", "exit_code": "none"}), known("failed")),
        (json!({"type": "training_end", "reason": "error"}), known("failed")),
        (json!({"type": "training_end", "reason": "early stopping"}), known("completed")),
        (json!({"type": "training_end", "reason": "Preempted"}), known("stopped")),
        (json!({"type": "training_end", "reason": "the kernel's out-of-memory killer"}), known("failed")),
        (json!({"type": "training_end", "reason": "finished without error"}), known("completed")),
        (json!({"type": "training_end", "reason": "0 errors, no crash"}), known("completed")),
        (json!({"type": "training_end", "reason": "loss is nan"}), known("completed")),
        (json!({"type": "training_end", "reason": "stopped by the user"}), known("completed")),
        (json!({"type": "training_end", "reason": "val loss reached 100.0, diverged"}), known("failed")),
        (json!({"type": "training_end", "reason": "finished without node failure"}), known("completed")),
        (json!({"type": "training_end", "reason": "worker.failed."}), known("failed")),
        (json!({"type": "training_end", "success": 0.0}), known("failed")),
        (json!({"type": "training_end", "success": {"a": 1}}), unknown),
        (json!({"type": "training_stopped", "reason": "patience"}), known("stopped")),
    ] {
        let payload = json.to_string();
        let message = decode(payload.as_bytes(), &Limits::default()).unwrap();
        assert_eq!((message.kind(), message.outcome()), (Kind::RunEnd, expected), "{payload}");
    }
}

#[test]
fn types_name_ends_and_starts_by_the_words_of_the_table() {
    for (name, kind) in [
        ("training_begin", Kind::RunStart),
        ("run_started", Kind::RunStart),
        ("run_finished", Kind::RunEnd),
        ("training_early_stopped", Kind::RunEnd),
        ("run_OOM", Kind::RunEnd),
        ("training_ok", Kind::Other),
        ("run_nan", Kind::Other),
        ("run_update", Kind::Other),
        ("training", Kind::Other),
        ("failed", Kind::Other),
    ] {
        let payload = json!({ "type": name }).to_string();
        assert_eq!(decode(payload.as_bytes(), &Limits::default()).unwrap().kind(), kind, "{name}");
    }
}

#[test]
fn a_bad_value_costs_its_field_and_the_last_metric_the_message() {
    for (json, counted, columns) in [
        (json!({"epoch": "soon", "loss": 0.1}), 1, Some(json!({"train_loss": 0.1, "rest_json": {"epoch": "soon"}}))),
        (
            json!({"train_loss": "n/a", "loss": 0.2}),
            1,
            Some(json!({"train_loss": 0.2, "rest_json": {"train_loss": "n/a"}})),
        ),
        (json!({"loss": "n/a", "f1": 0.3}), 1, Some(json!({"extra": {"f1": 0.3}, "rest_json": {"loss": "n/a"}}))),
        (json!({"seq": -1, "loss": 0.4}), 1, Some(json!({"train_loss": 0.4, "rest_json": {"seq": -1}}))),
        (json!({"phase": ["a"], "loss": 0.4}), 1, Some(json!({"train_loss": 0.4, "rest_json": {"phase": ["a"]}}))),
        (
            json!({"loss": "low", "train": {"f1": 1}}),
            1,
            Some(json!({"extra": {"train.f1": 1.0}, "rest_json": {"loss": "low"}})),
        ),
        (
            json!({"hidden_units": 2.5, "loss": 1}),
            1,
            Some(json!({"train_loss": 1.0, "rest_json": {"hidden_units": 2.5}})),
        ),
        (json!({"type": "metrics", "epoch": "soon", "step": 3, "seq": 4}), 1, None),
        (json!({"epoch": 5, "loss": "low", "lr": true}), 2, None),
    ] {
        let payload = json.to_string();
        let decoded = decode(payload.as_bytes(), &Limits::default());
        match columns {
            None => assert_eq!(decoded.unwrap_err().reason, Reason::InvalidField, "{payload}"),
            Some(expected) => {
                assert_eq!(decoded.unwrap().invalid_fields(), counted, "{payload}");
                let (_, found) = super::columns(&Row::Metrics(metrics_of(payload.as_bytes())));
                assert_eq!(found, expected, "{payload}");
            }
        }
    }
    for (json, left) in [
        (json!({"type": "topology", "nodes": [], "input_size": "two"}), true),
        (json!({"type": "topology", "hidden_units": 3, "epoch": "x"}), true),
        (json!({"type": "topology", "input_size": "two"}), false),
        (json!({"type": "state", "epoch": "x", "seq": -3}), true),
    ] {
        assert_eq!(rejection(json.to_string().as_bytes()).is_none(), left, "{json}");
    }
    for json in [json!({"run_id": ["a"], "loss": 1}), json!({"type": 5, "loss": 1})] {
        assert_eq!(rejection(json.to_string().as_bytes()), Some(Reason::InvalidField), "{json}");
    }
}

#[test]
fn a_message_without_a_type_is_metrics_where_it_measures_something_of_a_run() {
    for (json, kind) in [
        (json!({"run_id": "a", "f1": 0.5}), Some(Kind::Metrics)),
        (json!({"step": 3, "reward": 1}), Some(Kind::Metrics)),
        (json!({"run_id": "a", "val": {"top5": 0.5}}), Some(Kind::Metrics)),
        (json!({"val": {"loss": 0.5}}), Some(Kind::Metrics)),
        (json!({"run_id": "a", "input_size": 2}), Some(Kind::Topology)),
        (json!({"run_id": "a", "step": 3, "seq": 4, "timestamp": 1_763_633_700}), None),
        (json!({"run_id": "a", "note": "5"}), None),
        (json!({"run_id": "a", "config": {"lr": 0.1}}), None),
        (json!({"f1": 0.5}), None),
    ] {
        let found = decode(json.to_string().as_bytes(), &Limits::default()).map(|message| message.kind());
        assert_eq!(found.clone().ok(), kind, "{json}");
        assert!(
            found.is_ok_and(|_| true) || rejection(json.to_string().as_bytes()) == Some(Reason::UnknownShape),
            "{json}"
        );
    }
}

#[test]
fn nested_numbers_are_bounded_and_nothing_is_lost_beyond_the_bounds() {
    let row = |json: &Json| super::columns(&Row::Metrics(metrics_of(json.to_string().as_bytes()))).1;
    let long = "x".repeat(250);
    for (json, expected) in [
        (
            json!({"loss": 1, "a": {"b": {"c": {"d": 1, "e": {"f": 2}}}}}),
            json!({"train_loss": 1.0, "extra": {"a.b.c.d": 1.0}, "rest_json": {"a": {"b": {"c": {"e": {"f": 2}}}}}}),
        ),
        (
            json!({"loss": 1, "a": {long.clone(): 1, (long.clone() + "yyyy"): 1, (long.clone() + "yyyyy"): 2}}),
            json!({"train_loss": 1.0, "extra": {format!("a.{long}"): 1.0, format!("a.{long}yyyy"): 1.0}, "rest_json": {"a": {(long.clone() + "yyyyy"): 2}}}),
        ),
        (
            json!({"loss": 1, "config": {"lr": 1}, "a": {"params": {"x": 1}, "l": [1, 2], "t": "x", "n": null}}),
            json!({"train_loss": 1.0, "rest_json": {"config": {"lr": 1}, "a": {"params": {"x": 1}, "l": [1, 2], "t": "x", "n": null}}}),
        ),
        (
            json!({"loss": 1, "a.b": 1, "a": {"b": 2, "c": 3}}),
            json!({"train_loss": 1.0, "extra": {"a.b": 1.0, "a.c": 3.0}, "rest_json": {"a": {"b": 2}}}),
        ),
        (
            json!({"loss": 1, "data": {"metrics": {"x": {"y": 1}}, "network_topology": {"z": {"w": 2}}}}),
            json!({"train_loss": 1.0, "extra": {"x.y": 1.0, "network_topology.z.w": 2.0}}),
        ),
        (
            json!({"train": {"loss": "0.5", "acc": "high", "n": 9_007_199_254_740_993_i64}}),
            json!({"train_loss": 0.5, "extra": {"train.n": 9_007_199_254_740_992.0}, "rest_json": {"train": {"acc": "high", "n": 9_007_199_254_740_993_i64}}}),
        ),
        (
            json!({"loss": 1, "a": {}, "b": {"c": {}, "d": 1}}),
            json!({"train_loss": 1.0, "extra": {"b.d": 1.0}, "rest_json": {"a": {}, "b": {"c": {}}}}),
        ),
    ] {
        assert_eq!(row(&json), expected, "{json}");
    }
    for (text, expected) in [
        // Equal paths of different places.
        (
            r#"{"loss":1,"train":{"a":{"b":11},"a.b":22}}"#,
            r#"{"extra":{"message.train.a.b":22.0,"train.a.b":11.0},"train_loss":1.0}"#,
        ),
        (
            r#"{"loss":1,"train":{"config.x":5,"config":{"x":66}}}"#,
            r#"{"extra":{"train.config.x":5.0},"rest_json":{"train":{"config":{"x":66}}},"train_loss":1.0}"#,
        ),
        (
            r#"{"loss":1,"train":{"n":1},"data":{"train":{"n":99999999999999999999}}}"#,
            r#"{"extra":{"data.train.n":1e20,"train.n":1.0},"rest_json":{"train":{"n":1e20}},"train_loss":1.0}"#,
        ),
        (r#"{"loss":1,"train":{"f1":1,"f1":2,"n":null}}"#, r#"{"extra":{"train.f1":2.0},"train_loss":1.0}"#),
        (
            r#"{"loss":1,"step":"9007199254740993"}"#,
            r#"{"extra":{"step":9007199254740992.0},"rest_json":{"step":"9007199254740993"},"train_loss":1.0}"#,
        ),
        (
            r#"{"epoch":7,"data":{"epoch":0.5,"loss":1}}"#,
            r#"{"epoch":0,"extra":{"epoch":0.5,"message.epoch":7.0},"train_loss":1.0}"#,
        ),
    ] {
        let (_, found) = super::columns(&Row::Metrics(metrics_of(text.as_bytes())));
        assert_eq!(found, serde_json::from_str::<Json>(expected).unwrap(), "{text}");
    }
    let numbers = |n: usize| (0..n).map(|n| format!("\"k{n:03}\":{n}")).collect::<Vec<_>>().join(",");
    let text =
        format!("{{\"loss\":1,\"data\":{{\"train\":{{{}}}}},\"train\":{{\"k000\":777,\"f\":\"x\"}}}}", numbers(512));
    let (_, found) = super::columns(&Row::Metrics(metrics_of(text.as_bytes())));
    assert_eq!(found["rest_json"], json!({"train": {"k000": 777, "f": "x"}}), "beyond the bound");
    let many: serde_json::Map<_, _> = (0..600).map(|n| (format!("k{n:03}"), json!(n))).collect();
    let found = row(&json!({"loss": 1, "a": many}));
    assert_eq!(found["extra"].as_object().unwrap().len(), 512);
    assert_eq!(found["rest_json"]["a"].as_object().unwrap().len(), 88, "the others");
}

#[test]
fn text_that_is_not_utf8_is_kept_and_costs_nothing_else() {
    // {"epoch": 5, "note": <a5 ff 61 62 63 64>, <a2 ff fe>: 1}
    let payload = b"\x83\xa5epoch\x05\xa4note\xa5\xffabcd\xa2\xff\xfe\x01";
    let row = metrics_of(payload);
    assert_eq!((row.columns.epoch, row.rest_json.as_deref()), (Some(5), Some(r#"{"note":"hex:ff61626364"}"#)));
    assert_eq!(row.extra.get("hex:fffe"), Some(&1.0));
    assert_eq!(rejection(b"\x82\xa5epoch\x05\xa6run_id\xa1\xff"), Some(Reason::InvalidField), "an id stays strict");
}

#[test]
fn times_of_logs_and_http_are_read() {
    let zone = TimeZone::get("Etc/GMT+6").unwrap();
    let base = 1_795_855_167_000_000; // 2026-11-28T08:39:27Z
    for (text, micros, absolute) in [
        ("2026-11-28 08:39:27 UTC", base, true),
        ("2026-11-28 08:39:27.5 GMT", base + 500_000, true),
        ("2026-11-28 08:39:27 +0130", base - 5_400_000_000, true),
        ("2026/11/28 08:39:27", base + 6 * 3_600_000_000, false),
        ("2026/11/28 08:39:27.250", base + 6 * 3_600_000_000 + 250_000, false),
        ("Sat, 28 Nov 2026 08:39:27 GMT", base, true),
        ("28 Nov 2026 08:39:27 -0600", base + 6 * 3_600_000_000, true),
        ("2026-11-28T08:39:27", base + 6 * 3_600_000_000, false),
        ("1795855167.25", base + 250_000, true),
    ] {
        let found = time::read_moment(&Value::Text(text.into()), &zone);
        assert_eq!(found.map(|moment| (moment.micros, moment.absolute)), Some((micros, absolute)), "{text}");
    }
    for text in ["2026/11-28 08:39:27", "2026-11-28 08:39:27 CET", "Foo, 41 Nov 2026 08:39:27 GMT", "28 Nov 2026"] {
        assert_eq!(time::read_moment(&Value::Text(text.into()), &zone), None, "{text}");
    }
}

#[test]
fn what_was_decided_by_older_rules_stays_and_loses_nothing() {
    // An older version took the time without a zone that stands nearer.
    let payload = br#"{"timestamp":1763633700,"data":{"loss":0.5,"timestamp":"2025-11-20T04:15:00"}}"#;
    let message = decode_accepted(payload).unwrap();
    let naive = 1_763_633_700_000_000 - 6 * 3_600_000_000;
    for (event_time, rest) in [
        (naive, r#"{"timestamp":1763633700,"data.timestamp":"2025-11-20T04:15:00"}"#),
        (1_763_633_700_000_000, r#"{"timestamp":"2025-11-20T04:15:00"}"#),
    ] {
        let resolved = Resolved { event_time, ..resolved(&message, RECEIVED) };
        let Row::Metrics(row) = rows(&message, &resolved, "c", payload).rows.remove(0) else { panic!("no metrics") };
        assert_eq!(row.key.timestamp, event_time);
        assert_eq!(parsed(row.rest_json.as_deref()), parsed(Some(rest)));
    }
}

#[test]
fn what_an_older_version_accepted_is_never_rejected_at_replay() {
    for text in [
        r#"{"type":"metrics","epoch":5,"val_acc":"n/a"}"#,
        r#"{"epoch":5,"eval_loss":""}"#,
        r#"{"type":"event","event":"epoch_end","data":{"text":"done"},"loss":"low"}"#,
        r#"{"type":"event","event":"topology","hidden_units":"x"}"#,
        r#"{"type":"event","event":"dataset","num_samples":5}"#,
        r#"{"data":{"run_id":""},"run_id":true,"loss":1}"#,
        r#"{"epoch":5,"cascade_phase":[1]}"#,
    ] {
        let message = decode_accepted(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
        let made = rows(&message, &resolved(&message, RECEIVED), "c", text.as_bytes());
        assert!(!made.rows.is_empty(), "{text}");
    }
    // An alias that holds no number decides nothing about a network.
    for text in
        [r#"{"nodes":[1,2],"connections":[],"train_acc":"n/a"}"#, r#"{"nodes":[1,2],"eval_loss":"pending","epoch":4}"#]
    {
        assert_eq!(decode(text.as_bytes(), &Limits::default()).unwrap().kind(), Kind::Topology, "{text}");
    }
    let second_time = br#"{"type":"metrics","data":{"timestamp":1763633700},"timestamp":1763633700,"loss":"x"}"#;
    assert_eq!(rejection(second_time), Some(Reason::InvalidField), "a time is no metric");
}

#[test]
fn a_numpy_scalar_is_a_number_wherever_it_stands() {
    let scalar = b"\x83\xa2nd\xc2\xa4type\xa3<f4\xa4data\xc4\x04\x00\x00\x80\x3e";
    let with = |head: &[u8]| [head, scalar].concat();
    let row = metrics_of(&with(b"\x82\xa4loss\x01\xa7metrics"));
    assert_eq!((row.columns.train_loss, row.extra.get("metrics")), (Some(1.0), Some(&0.25)));
    let row = metrics_of(&with(b"\x82\xa4loss\x01\xa5train\x81\xa2f1"));
    assert_eq!(row.extra.get("train.f1"), Some(&0.25));
    let payload = with(b"\x83\xa4type\xa8topology\xa5nodes\x91\x01\xa7details");
    let message = decode(&payload, &Limits::default()).unwrap();
    let Row::Topology(row) = rows(&message, &resolved(&message, RECEIVED), "c", &payload).rows.remove(0) else {
        panic!("no topology")
    };
    assert_eq!(row.topology_json, r#"{"nodes":[1],"details":0.25}"#);
}

#[test]
fn of_two_values_of_a_dataset_none_is_lost() {
    let payload = br#"{"type":"dataset","name":"a","num_samples":3,"data":{"num_samples":4}}"#;
    let message = decode(payload, &Limits::default()).unwrap();
    let made = rows(&message, &resolved(&message, RECEIVED), "c", payload).rows;
    assert!(matches!(&made[..], [Row::Dataset(_), Row::Event(_)]), "{made:?}");
}
