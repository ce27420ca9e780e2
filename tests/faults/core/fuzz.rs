//! Mutated messages and records through the decoders: seeded, so that every failure can be repeated by its number.
//!
//! The inputs begin with `tests/fixtures/messages` and with `tests/faults/corpus`, where inputs of former failures are kept.

use std::time::Duration;

use serde::de::IgnoredAny;
use tokio::time::Instant;

use crate::{
    event::{Resolved, Row},
    frame::RejectedMessage,
    harness::{Budget, Tried, each},
    image,
    mutation::{mutated, seeds},
    random::Random,
    spool::{NewRecord, PAYLOAD_MAX, RecordKind, record},
    tree::Trees,
    units::ByteSize,
    wire::{self, Limits},
};

/// Inputs of one target in the short tier.
const INPUTS: u64 = 100_000;
/// Time limit of an input; the usual time is microseconds.
const SLOW: Duration = Duration::from_secs(2);

fn limits(random: &mut Random) -> Limits {
    match random.below(4) {
        0 => Limits {
            message: ByteSize(700),
            depth: 5,
            fields: 12,
            elements: 60,
            string: ByteSize(24),
            command: ByteSize(400),
            text: ByteSize(900),
        },
        _ => Limits::default(),
    }
}

pub fn json(budget: &Budget) -> Tried {
    messages(budget, &[".json"])
}

pub fn msgpack(budget: &Budget) -> Tried {
    messages(budget, &[".msgpack"])
}

const FOLDERS: &[&str] = &["tests/fixtures/messages", "tests/faults/corpus/messages"];

fn messages(budget: &Budget, ends: &[&str]) -> Tried {
    let (seeds, trees) = (seeds(FOLDERS, ends), Trees::new(&self::seeds(FOLDERS, &[".json", ".msgpack"])));
    let accepted = std::sync::atomic::AtomicU64::new(0);
    let count = each(budget, INPUTS * budget.times, |number| {
        let mut random = Random::new(budget.seed ^ number << 3);
        let bytes = match random.below(3) {
            0 => mutated(&seeds, number, &mut random),
            _ if ends == [".json"] => trees.json(&mut random),
            _ => trees.msgpack(&mut random),
        };
        tell(budget, &bytes);
        let started = Instant::now();
        if message(&bytes, &limits(&mut random)) {
            accepted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        assert!(started.elapsed() < SLOW, "takes {:?}", started.elapsed());
    });
    Tried { count, notes: format!("; accepted {}", accepted.into_inner()) }
}

/// A stack of the usual size, and no limit of the configuration.
pub fn deep(_: &Budget) -> Tried {
    let wide = Limits::NONE;
    let mut count = 0;
    for depth in [100, 1_000, 10_000, 200_000] {
        let json = |open: &str, close: &str| {
            format!("{{\"epoch\":1,\"a\":{}1{}}}", open.repeat(depth), close.repeat(depth)).into_bytes()
        };
        let pack = |open: &[u8]| [b"\x82\xa5epoch\x01\xa1a", open.repeat(depth).as_slice(), b"\x01"].concat();
        for bytes in [json("[", "]"), json("{\"a\":", "}"), pack(b"\x91"), pack(b"\x81\xa1a")] {
            let wide = wide.clone();
            let thread = std::thread::Builder::new().stack_size(2 << 20);
            thread.spawn(move || message(&bytes, &wide)).unwrap().join().unwrap();
            count += 1;
        }
    }
    Tried { count, notes: String::new() }
}

fn tell(budget: &Budget, bytes: &[u8]) {
    if budget.only.is_some() {
        println!("{}", bytes.escape_ascii());
    }
}

/// Whether it was accepted; rows, keys and replay of an accepted message are checked.
fn message(bytes: &[u8], limits: &Limits) -> bool {
    const RECEIVED: i64 = 1_763_633_700_123_456;
    let message = match wire::decode(bytes, limits) {
        Ok(message) => message,
        Err(rejection) => {
            assert!(rejection.detail.len() < 1_000, "{rejection}");
            let (rejected, kept) = RejectedMessage::new(rejection, bytes);
            assert_eq!(RejectedMessage::decode(&[&rejected.encode(), kept].concat()), Some((rejected.clone(), kept)));
            return false;
        }
    };
    let time = message.time(RECEIVED, &jiff::tz::TimeZone::UTC);
    let run_id = message.run_id().unwrap_or_default();
    let decided = Resolved {
        run_id,
        event_time: time.event_time,
        received_at: RECEIVED,
        has_event_time: time.from_message,
        opened_run: false,
    };
    let mut latest = String::new();
    wire::latest_json(&message, &decided, "host", &mut latest);
    object(&latest);
    let mut canonical = String::new();
    wire::latest_json_canonical(&message, &decided, "host", &mut canonical);
    object(&canonical);
    let rows = wire::rows(&message, &decided, "cascor:training", bytes);
    let texts = rows.rows.iter().map(check).sum::<usize>() + latest.len() + canonical.len();
    assert!(texts < 64 * bytes.len() + 8_192, "{texts} bytes of text from {}", bytes.len());
    rows.run_update.values.config_json.iter().for_each(|text| value(text));
    // The writer decodes it again under the widest limits.
    let wide = Limits::NONE;
    let again = wire::decode(bytes, &wide).expect("accepted before");
    let repeated = wire::rows(&again, &decided, "cascor:training", bytes);
    assert_eq!(format!("{rows:?}"), format!("{repeated:?}"), "a replay writes the same");
    true
}

fn object(text: &str) {
    assert!(text.starts_with('{') && text.ends_with('}'), "{text}");
    value(text);
}

fn value(text: &str) {
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        panic!("{error}: {text}");
    }
}

/// Checks the JSON in a row; returns the length of its texts.
fn check(row: &Row) -> usize {
    let json: Vec<&str> = match row {
        Row::Metrics(row) => row.rest_json.iter().map(|text| &**text).collect(),
        Row::Topology(row) => {
            let summary = row.weights_summary.iter().map(String::as_str);
            summary.chain([&*row.topology_json]).collect()
        }
        Row::Event(row) => vec![&row.payload_json],
        Row::Control(row) => vec![&row.payload_json],
        _ => Vec::new(),
    };
    json.iter().for_each(|text| value(text));
    let key = match row {
        Row::Metrics(row) => Some(row.key),
        Row::Topology(row) => Some(row.key),
        Row::Event(row) => Some(row.key),
        _ => None,
    };
    if let Some(key) = key {
        assert!((0..1 << 53).contains(&key.event_id), "{key:?}");
        assert!((0..4_102_444_800_000_000).contains(&key.timestamp), "{key:?}");
    }
    json.iter().map(|text| text.len()).sum()
}

pub fn control(budget: &Budget) -> Tried {
    let seeds = seeds(
        FOLDERS,
        &[
            "control.msgpack",
            "control_bad.txt",
            "control_data.json",
            "control_shape.json",
            "control_top.json",
            "control_word.txt",
            ".control",
        ],
    );
    let count = each(budget, INPUTS * budget.times, |number| {
        let mut random = Random::new(budget.seed ^ number << 3);
        let bytes = mutated(&seeds, number, &mut random);
        tell(budget, &bytes);
        let started = Instant::now();
        if let Ok(command) = wire::decode_control(&bytes, &limits(&mut random)) {
            assert!(!command.command.is_empty());
            value(&command.payload_json);
            command.params_json.iter().for_each(|text| value(text));
        }
        assert!(started.elapsed() < SLOW);
    });
    Tried { count, notes: String::new() }
}

/// Records with changed bytes, half of them with a matching checksum: an accepted record can be read to its end.
pub fn records(budget: &Budget) -> Tried {
    let seed = record::seed(uuid::Uuid::from_u128(7));
    let mut seeds = Vec::new();
    for (uid, channel) in ["", "cascor:training", "lab:\u{e9}:x"].into_iter().enumerate() {
        let payload = image::payload(uid as u64, uid * 40);
        let new = NewRecord {
            kind: RecordKind::Event,
            decided: image::decided(uid as u64),
            strict_json: uid % 2 == 0,
            from_stream: false,
            channel,
            preamble: b"",
            payload: &payload,
        };
        let mut bytes = Vec::new();
        record::encode(&mut bytes, seed, uid as u64, &new);
        seeds.push(bytes);
    }
    assert!(PAYLOAD_MAX.as_usize() < record::MAX);
    let count = each(budget, INPUTS * budget.times, |number| {
        let mut random = Random::new(budget.seed ^ number << 3);
        let mut bytes = mutated(&seeds, number, &mut random);
        tell(budget, &bytes);
        if bytes.len() >= record::PREFIX && random.coin() {
            if random.coin() {
                let length = (bytes.len() - record::PREFIX) as u32;
                bytes[..4].copy_from_slice(&length.to_le_bytes());
            }
            let length = record::length(&bytes).unwrap().min(bytes.len());
            if length >= record::PREFIX {
                let crc =
                    crc32c::crc32c_append(crc32c::crc32c_append(seed, &bytes[..4]), &bytes[record::PREFIX..length]);
                bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            }
        }
        match record::parse(&bytes, bytes.len() as u64, seed) {
            record::Parsed::Record(parsed, length) => {
                assert!(length <= bytes.len());
                assert_eq!(record::decode(&bytes[..length]), Some(parsed));
                let mut again = Vec::new();
                let record::Parsed::Record(parsed, _) = record::parse(&bytes, length as u64, seed) else { panic!() };
                let new = NewRecord {
                    kind: parsed.kind,
                    decided: parsed.decided,
                    strict_json: parsed.strict_json,
                    from_stream: parsed.from_stream,
                    channel: parsed.channel,
                    preamble: b"",
                    payload: parsed.payload,
                };
                record::encode(&mut again, seed, parsed.offset, &new);
                assert_eq!(again.len(), length);
                RejectedMessage::decode(parsed.payload);
            }
            record::Parsed::Short(needed) => assert!(needed <= record::MAX && needed > bytes.len()),
            record::Parsed::Bad => {}
        }
    });
    Tried { count, notes: String::new() }
}
