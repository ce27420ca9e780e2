//! The worst messages within the limits: each encoding, each field that is kept as JSON, each kind of value, nested or not.

use std::iter;

/// Expected result of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Becomes {
    /// A row of this table, whole.
    Row(&'static str),
    /// A dead letter: it is beyond `limits.elements`, `limits.text` or `limits.command`, or no message at all.
    DeadLetter,
}

/// A message and its description.
#[derive(Debug)]
pub struct Worst {
    pub name: &'static str,
    pub becomes: Becomes,
    pub payload: Vec<u8>,
}

const METRICS: Becomes = Becomes::Row("training_metrics");
const TOPOLOGY: Becomes = Becomes::Row("network_topology");
const EVENTS: Becomes = Becomes::Row("training_events");

/// JSON: `head`, then the item as often as it fits, then `tail`.
fn json(name: &'static str, becomes: Becomes, size: usize, [head, item, tail]: [&str; 3]) -> Worst {
    let times = (size - head.len() - tail.len()) / (item.len() + 1);
    let mut payload = Vec::with_capacity(size);
    payload.extend_from_slice(head.as_bytes());
    for n in 0..times {
        payload.extend_from_slice(if n > 0 { b"," } else { b"" });
        payload.extend_from_slice(item.as_bytes());
    }
    payload.extend_from_slice(tail.as_bytes());
    Worst { name, becomes, payload }
}

/// A MessagePack text of fewer than 32 bytes.
fn text(text: &str) -> Vec<u8> {
    iter::once(0xa0 | text.len() as u8).chain(text.bytes()).collect()
}

/// MessagePack: a map of `fields` and a last one, a list of the item as often as it fits.
fn pack(name: &'static str, becomes: Becomes, size: usize, fields: &[(&str, Vec<u8>)], list: (&str, &[u8])) -> Worst {
    let mut payload = vec![0x80 | (fields.len() + 1) as u8];
    for (key, value) in fields {
        payload.extend(text(key));
        payload.extend(value);
    }
    payload.extend(text(list.0));
    let times = (size - payload.len() - 5) / list.1.len();
    payload.push(0xdd);
    payload.extend(u32::try_from(times).unwrap().to_be_bytes());
    payload.extend(list.1.repeat(times));
    Worst { name, becomes, payload }
}

fn of_f32(x: f32) -> Vec<u8> {
    iter::once(0xca).chain(x.to_be_bytes()).collect()
}

fn of_f64(x: f64) -> Vec<u8> {
    iter::once(0xcb).chain(x.to_be_bytes()).collect()
}

/// A network as trainers send it: connections with weights.
pub fn connections(size: usize) -> Worst {
    let head = r#"{"type":"topology","data":{"input_size":2,"output_size":1,"connections":["#;
    let item = r#"{"from":117,"to":31,"weight":-0.12345678901234567}"#;
    json("JSON, connections of a network", TOPOLOGY, size, [head, item, "]}}"])
}

/// The same as MessagePack.
pub fn packed_connections(size: usize) -> Worst {
    let mut item = vec![0x83];
    for (key, value) in [("from", vec![117]), ("to", vec![31]), ("weight", of_f64(-0.123_456_789_012_345_67))] {
        item.extend(text(key));
        item.extend(value);
    }
    let fields = [("type", text("topology")), ("input_size", vec![2])];
    pack("MessagePack, connections of a network", TOPOLOGY, size, &fields, ("connections", &item))
}

/// Weights without anything around them: text almost as long as `limits.text`.
pub fn packed_weights(size: usize) -> Worst {
    let size = size / 100 * 60;
    let fields = [("type", text("topology")), ("input_size", vec![2])];
    let item = of_f64(-0.123_456_789_012_345_67);
    pack("MessagePack, a list of doubles", TOPOLOGY, size, &fields, ("weights", &item))
}

/// A million empty values: more than a message may have.
pub fn packed_nothing(size: usize) -> Worst {
    pack("MessagePack, nil", Becomes::DeadLetter, size, &metrics(), ("x", &[0xc0]))
}

fn metrics() -> [(&'static str, Vec<u8>); 2] {
    [("epoch", vec![1]), ("loss", of_f64(0.5))]
}

/// Distinct tags.
fn tags(size: usize) -> Worst {
    let tags: Vec<_> = (0..size / 9).map(|n| format!("\"{n:06x}\"")).collect();
    let payload = format!("{{\"type\":\"training_start\",\"tags\":[{}]}}", tags.join(",")).into_bytes();
    Worst { name: "JSON, tags", becomes: EVENTS, payload }
}

/// An event without a latest key.
pub fn long_event(size: usize) -> Worst {
    json("JSON, an event", EVENTS, size, [r#"{"type":"note","x":["#, "12345", "]}"])
}

/// Every kind.
pub fn all(size: usize) -> Vec<Worst> {
    let long = vec!["\\b"; 30_000].concat();
    let deep = format!("{}1{}", "[".repeat(50), "]".repeat(50));
    let names: Vec<_> = (0..4_000).map(|n| format!("\"{}{n}\":{n}.5", "k".repeat(size / 4_000 - 16))).collect();
    let control = iter::once(0xda).chain(60_000_u16.to_be_bytes()).chain([1; 60_000]).collect::<Vec<_>>();
    let bytes = iter::once(0xc5).chain(60_000_u16.to_be_bytes()).chain([0xff; 60_000]).collect::<Vec<_>>();
    let start = [("type", text("training_start"))];
    let event = [("type", text("note"))];
    let topology = [("type", text("topology")), ("input_size", vec![2])];
    let of = |item: &'static str| [r#"{"epoch":1,"loss":0.5,"x":["#, item, "]}"];
    vec![
        connections(size),
        json("JSON, integers", METRICS, size, of("12345")),
        json("JSON, short integers", Becomes::DeadLetter, size, of("0")),
        json("JSON, NaN", METRICS, size * 3 / 4, of("NaN")),
        json("JSON, empty maps", Becomes::DeadLetter, size, of("{}")),
        json("JSON, escapes", METRICS, size, [r#"{"epoch":1,"loss":0.5,"x":["#, &format!("\"{long}\""), "]}"]),
        json("JSON, 50 levels", Becomes::DeadLetter, size, [r#"{"epoch":1,"loss":0.5,"x":["#, &deep, "]}"]),
        json("JSON, configuration", EVENTS, size, [r#"{"type":"training_start","config":["#, "12345", "]}"]),
        tags(size),
        long_event(size),
        json("JSON, hidden units", METRICS, size, [r#"{"epoch":1,"loss":0.5,"hidden_units":["#, r#"{"id":11}"#, "]}"]),
        json("JSON, no shape", Becomes::DeadLetter, size, [r#"{"x":["#, "12345", "]}"]),
        json("JSON, cut", Becomes::DeadLetter, size, [r#"{"x":["#, "12345", ""]),
        Worst {
            name: "JSON, long names of numbers",
            becomes: METRICS,
            payload: format!("{{\"epoch\":1,\"loss\":0.5,{}}}", names.join(",")).into_bytes(),
        },
        packed_connections(size),
        packed_weights(size),
        packed_nothing(size),
        pack(
            "MessagePack, single precision",
            Becomes::DeadLetter,
            size,
            &topology,
            ("weights", &of_f32(-1.175_494_4e-38)),
        ),
        pack("MessagePack, control characters", Becomes::DeadLetter, size, &metrics(), ("x", &control)),
        pack("MessagePack, bytes", EVENTS, size / 100 * 70, &event, ("x", &bytes)),
        pack(
            "MessagePack, configuration",
            EVENTS,
            size / 100 * 60,
            &start,
            ("config", &of_f64(-0.123_456_789_012_345_67)),
        ),
        pack(
            "MessagePack, large integers",
            METRICS,
            size / 100 * 60,
            &metrics(),
            ("x", &[0xcf, 255, 255, 255, 255, 255, 255, 255, 255]),
        ),
    ]
}
