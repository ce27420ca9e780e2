//! The objects of the latest-state keys.

use super::*;

#[test]
fn latest_values_carry_the_names_of_the_row() {
    let payload = br#"{"epoch":0.33,"step":12.5,"loss":[0.5],"train":{"f1":0.8},"host":"a"}"#;
    let message = decode(payload, &Limits::default()).unwrap();
    let mut text = String::new();
    latest_json(&message, &resolved(&message, RECEIVED), "i", &mut text);
    let object: Json = serde_json::from_str(&text).unwrap();
    for (name, value) in [
        ("epoch", json!(0)),
        ("extra.epoch", json!(0.33)),
        ("step", json!(12)),
        ("extra.step", json!(12.5)),
        ("train_loss", json!(0.5)),
        ("train.f1", json!(0.8)),
        ("train", json!({"f1": 0.8})),
        ("host", json!("a")),
    ] {
        assert_eq!(object[name], value, "{name} in {text}");
    }
}

#[test]
fn the_time_of_a_latest_value_is_rfc_3339_however_it_was_sent() {
    let at = "2025-11-20T10:15:00.500000Z";
    for (time, shown) in [
        ("\"timestamp\":1763633700.5", json!({"timestamp": at})),
        ("\"timestamp\":\"2025-11-20T11:15:00.5+01:00\"", json!({"timestamp": at})),
        ("\"data\":{\"timestamp\":\"2025-11-20 10:15:00.5\"}", json!({"timestamp": at})),
        // A field of another name is the message's own.
        ("\"ts\":1763633700500", json!({"timestamp": at, "ts": 1_763_633_700_500_u64})),
        // A time that is not used: that of receipt.
        ("\"timestamp\":\"1999-01-01T00:00:00Z\"", json!({"timestamp": "2025-11-20T10:15:10.000007Z"})),
    ] {
        let payload = format!("{{\"epoch\":1,{time}}}");
        let message = decode(payload.as_bytes(), &Limits::default()).unwrap();
        for write in [latest_json, latest_json_canonical] {
            let mut text = String::new();
            write(&message, &resolved(&message, RECEIVED), "i", &mut text);
            let object: Json = serde_json::from_str(&text).unwrap();
            assert_eq!(object["timestamp"], shown["timestamp"], "{payload}: {text}");
            assert!(object["ts"].is_null() || object["ts"] == shown["ts"], "{payload}: {text}");
        }
    }
}

#[test]
fn a_latest_topology_has_the_computed_columns_of_its_row() {
    let listed = r#""connections":[{"weight":0.5},{"weight":-0.5}]"#;
    let summary = r#"{"count":2,"min":-0.5,"max":0.5,"mean":0.0,"std":0.5}"#;
    for (data, parameters, weights) in [
        (r#""input_units":2,"output_units":1,"hidden_units":[7,8]"#.to_owned(), json!(12), Json::Null),
        (listed.to_owned(), json!(2), json!(summary)),
        (format!(r#"{listed},"total_parameters":5,"weights_summary":{{"count":1}}"#), json!(5), json!("{\"count\":1}")),
    ] {
        let payload = format!("{{\"type\":\"topology\",\"data\":{{{data}}}}}");
        let message = decode(payload.as_bytes(), &Limits::default()).unwrap();
        let resolved = resolved(&message, RECEIVED);
        for write in [latest_json, latest_json_canonical] {
            let mut text = String::new();
            write(&message, &resolved, "i", &mut text);
            let object: Json = serde_json::from_str(&text).unwrap();
            assert_eq!((&object["total_parameters"], &object["weights_summary"]), (&parameters, &weights), "{text}");
        }
        let made = rows(&message, &resolved, "c", payload.as_bytes());
        let Some(Row::Topology(row)) = made.rows.first() else { panic!("no topology: {made:?}") };
        assert_eq!((json!(row.total_parameters), json!(row.weights_summary)), (parameters, weights), "{payload}");
    }
}
