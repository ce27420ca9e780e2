//! What is measured before it is built, and what a row holds of something long.

use super::*;

/// The rows of a message, and what it says of its run.
fn rows_of(payload: &[u8]) -> Rows {
    let message = decode(payload, &Limits::default()).unwrap();
    rows(&message, &resolved(&message, RECEIVED), "cascor:training", payload)
}

fn metrics_of(payload: &[u8]) -> event::MetricsRow {
    match rows_of(payload).rows.remove(0) {
        Row::Metrics(row) => row,
        other => panic!("{other:?}"),
    }
}

fn event_of(rows: &Rows) -> &event::EventRow {
    rows.rows.iter().find_map(|row| if let Row::Event(row) = row { Some(row) } else { None }).unwrap()
}

#[test]
fn values_are_counted_in_both_encodings() {
    let limits = Limits { elements: 6, ..Limits::default() };
    let refused = |payload: &[u8]| decode(payload, &limits).err().map(|rejection| (rejection.reason, rejection.detail));
    let too_many = Some((Reason::TooLarge, "more than 6 values; see `limits.elements`".to_owned()));
    // The message itself, the epoch, the list and its items; keys do not count.
    assert_eq!(refused(br#"{"epoch":1,"x":[1,{},null]}"#), None);
    assert_eq!(refused(br#"{"epoch":1,"x":[1,{},null,[]]}"#), too_many);
    assert_eq!(refused(b"\x82\xa5epoch\x01\xa1x\x93\x01\x80\xc0"), None);
    assert_eq!(refused(b"\x82\xa5epoch\x01\xa1x\x94\x01\x80\xc0\x90"), too_many);
    // Nothing is asked again of what was accepted once.
    assert!(decode_accepted(br#"{"epoch":1,"x":[1,{},null,[]]}"#).is_ok());
}

#[test]
fn the_text_that_messagepack_becomes_is_counted_and_not_made() {
    let limits = Limits { text: ByteSize(1_000), ..Limits::default() };
    let packed = |n: usize| {
        let head = b"\x82\xa5epoch\x01\xa1x\xc5".to_vec();
        [head, u16::try_from(n).unwrap().to_be_bytes().to_vec(), vec![1; n]].concat()
    };
    // {"epoch":1,"x":"..."} with six characters for each byte.
    let text = |n: usize| 18 + 6 * n;
    for n in [0, 1, 100, 163] {
        assert_eq!(text_bytes(&packed(n)), text(n), "{n}");
        assert!(decode(&packed(n), &limits).is_ok(), "{n}");
    }
    let rejection = decode(&packed(164), &limits).unwrap_err();
    assert_eq!(rejection.reason, Reason::TooLarge);
    assert!(rejection.detail.contains("1002 bytes") && rejection.detail.contains("limits.text"), "{rejection:?}");
    assert!(decode(&vec![b' '; 2_000], &limits).is_err_and(|rejection| rejection.reason == Reason::NotAnObject));
}

#[test]
fn a_command_is_small() {
    let command = |n: usize| format!("{{\"command\":\"pause\",\"params\":[{}1]}}", "1,".repeat(n)).into_bytes();
    let limits = Limits::default();
    assert_eq!(decode_control(&command(32_000), &limits).unwrap().command, "pause");
    let rejection = decode_control(&command(33_000), &limits).unwrap_err();
    assert_eq!(rejection.reason, Reason::TooLarge);
    assert!(rejection.detail.contains("limits.command"), "{rejection:?}");
    assert!(decode_control(&command(33_000), &Limits::NONE).is_ok(), "what was accepted once is read");
}

#[test]
fn a_long_configuration_is_in_the_event_alone() {
    let start = |n: usize| {
        format!("{{\"type\":\"training_start\",\"config\":[{}]}}", vec!["1234567"; n].join(",")).into_bytes()
    };
    let longest = (1 << 20) / 8;
    let rows = rows_of(&start(longest - 1));
    assert_eq!(rows.run_update.values.config_json.map(|config| config.len()), Some(8 * (longest - 1) + 1));
    let rows = rows_of(&start(longest));
    assert_eq!(rows.run_update.values.config_json, None);
    assert_eq!(event_of(&rows).payload_json.as_bytes(), start(longest), "whole");
}

#[test]
fn only_what_a_topology_says_of_its_network_may_be_long() {
    let long = "x".repeat(65 << 10);
    assert_eq!(rejection(format!("{{\"nodes\":[],\"text\":\"{long}\"}}").as_bytes()), None);
    assert_eq!(rejection(format!("{{\"nodes\":[],\"run_id\":\"{long}\"}}").as_bytes()), Some(Reason::TooLarge));
}

#[test]
fn text_that_is_written_again_is_no_longer_than_it_was() {
    let payload = br#"{"epoch":1,"loss":0.5,"x":"\b\f\n\r\t\"\\\/\u0041\u0001"}"#;
    let rest = metrics_of(payload).rest_json.unwrap();
    assert_eq!(&*rest, r#"{"x":"\b\f\n\r\t\"\\/A\u0001"}"#);
    assert!(text_bytes(payload) <= payload.len());
}

#[test]
fn many_tags_are_in_the_event_and_some_of_them_in_the_run() {
    let tags = |n: usize, length: usize| {
        let tags: Vec<_> = (0..n).map(|n| format!("\"{n:0length$}\"")).collect();
        format!("{{\"type\":\"training_start\",\"tags\":[{}]}}", tags.join(",")).into_bytes()
    };
    for (n, length, kept) in [(3, 4, 3), (2_000, 4, 1_024), (100, 1_000, 65)] {
        let rows = rows_of(&tags(n, length));
        assert_eq!(rows.run_update.values.tags.len(), kept, "{n} of {length}");
        assert_eq!(event_of(&rows).payload_json.as_bytes(), tags(n, length), "whole");
    }
}

#[test]
fn long_names_of_numbers_are_in_rest_json() {
    let (fits, long) = ("x".repeat(1_024), "y".repeat(1_025));
    let row = metrics_of(format!("{{\"epoch\":1,\"loss\":0.5,\"{fits}\":1.5,\"{long}\":2.5}}").as_bytes());
    assert_eq!(row.extra.keys().collect::<Vec<_>>(), [&fits]);
    assert_eq!(parsed(row.rest_json.as_deref()), json!({ long: 2.5 }));
    // And those beyond a MiB of names.
    let names: Vec<_> = (0..1_100).map(|n| format!("\"{n:01024}\":{n}.5")).collect();
    let row = metrics_of(format!("{{\"epoch\":1,\"loss\":0.5,{}}}", names.join(",")).as_bytes());
    assert_eq!(row.extra.len(), 1_024);
    assert_eq!(parsed(row.rest_json.as_deref()).as_object().unwrap().len(), 1_100 - 1_024);
}

#[test]
fn a_long_summary_of_weights_is_in_the_topology_alone() {
    let message = |summary: &str| format!("{{\"connections\":[0.5],\"weights_summary\":\"{summary}\"}}").into_bytes();
    let summary = |payload: &[u8]| match rows_of(payload).rows.remove(0) {
        Row::Topology(row) => (row.weights_summary.unwrap(), row.topology_json.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!(summary(&message("ours")).0, "ours");
    let long = message(&"x".repeat(65 << 10));
    let (computed, whole) = summary(&long);
    assert!(computed.starts_with("{\"count\":1,"), "{computed}");
    assert_eq!(whole, long.len());
}

#[test]
fn a_long_phase_is_in_rest_json_and_a_long_name_of_a_dataset_in_the_event_alone() {
    for (bytes, fits) in [(1_024, true), (1_025, false)] {
        let long = "x".repeat(bytes);
        let row = metrics_of(format!("{{\"epoch\":1,\"loss\":0.5,\"cascade_phase\":\"{long}\"}}").as_bytes());
        assert_eq!((row.columns.phase.is_some(), row.columns.train_loss), (fits, Some(0.5)), "{bytes}");
        let rest = row.rest_json.as_deref().map(|text| parsed(Some(text)));
        assert_eq!(rest, (!fits).then(|| json!({"cascade_phase": long})), "{bytes}");
        for dataset in [format!("\"{long}\""), format!("{{\"name\":\"{long}\"}}")] {
            let payload = format!("{{\"type\":\"training_start\",\"dataset\":{dataset}}}");
            let rows = rows_of(payload.as_bytes());
            assert_eq!(rows.run_update.values.dataset_name, fits.then(|| long.clone()), "{bytes}");
            assert_eq!(&*event_of(&rows).payload_json, payload, "whole");
        }
    }
}

proptest! {
    #[test]
    fn counted_text_is_as_long_as_made_text(values in prop::collection::vec((any::<f64>(), any::<i64>(), ".{0,20}"), 0..20)) {
        let mut packed = vec![0xdc];
        packed.extend(u16::try_from(3 * values.len()).unwrap().to_be_bytes());
        for (x, n, text) in &values {
            packed.push(0xcb);
            packed.extend(x.to_be_bytes());
            packed.push(0xd3);
            packed.extend(n.to_be_bytes());
            packed.push(0xd9);
            packed.push(u8::try_from(text.len()).unwrap());
            packed.extend(text.bytes());
        }
        let payload = [b"\x81\xa1x".to_vec(), packed].concat();
        let value = Value::Map(Raw { encoded: Encoded::Pack(&payload), len: 1 });
        prop_assert_eq!(text_bytes(&payload), value.to_json().len());
        prop_assert!(serde_json::from_str::<Json>(&value.to_json()).is_ok());
    }
}
