//! `demo --stream`: the demo's trainers append to a stream.

use std::str::from_utf8;

use serde_json::{Value, json};

use crate::support::{
    daemon::Daemon,
    redis::{Options, Redis},
    resp,
};

const STREAM: &str = "cascor:training:stream";

/// The messages of a stream; each entry has the field `data` alone.
fn messages(redis: &Redis, stream: &str) -> Vec<Value> {
    let resp::Value::Array(entries) = redis.client().command(&["XRANGE", stream, "-", "+"]) else {
        panic!("no entries")
    };
    let message = |entry| match entry {
        resp::Value::Array(parts) => match &parts[1] {
            resp::Value::Array(fields) => {
                assert_eq!((fields.len(), fields[0].text().as_deref()), (2, Some("data")));
                fields[1].json()
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    entries.into_iter().map(message).collect()
}

#[test]
fn the_demo_appends_to_a_stream_when_it_is_told_so() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).prepare();
    let mut channel = redis.client();
    channel.command(&["SUBSCRIBE", "cascor:training"]);
    let arguments = ["demo", "--rate", "2000", "--epochs", "20", "--seed", "1", "--json"];
    let streams = "redis.streams=[\"cascor:training:stream\", \"another\"]";
    for (more, stream) in [(&["--stream", "a"][..], "a"), (&["--set", streams, "--stream"], STREAM)] {
        let told: Value = serde_json::from_str(&daemon.succeed(&[&arguments[..], more].concat())).unwrap();
        let found = messages(&redis, stream);
        assert_eq!((&told["stream"], &told["published"]), (&json!(stream), &json!(found.len())), "{told}");
        assert!(found.iter().enumerate().all(|(seq, message)| message["seq"] == seq), "in order");
        let of = |kind: &str| found.iter().filter(|message| message["type"] == kind).count();
        assert_eq!((of("training_start"), of("training_end")), (1, 1));
    }
    let told: Value = serde_json::from_str(&daemon.succeed(&arguments)).unwrap();
    let (name, first) = channel.message().unwrap();
    assert_eq!((name.as_str(), &told["channel"]), ("cascor:training", &json!("cascor:training")));
    let first: Value = serde_json::from_str(from_utf8(&first).unwrap()).unwrap();
    assert_eq!(
        (&first["type"], &first["seq"]),
        (&json!("training_start"), &json!(0)),
        "nothing of the streams was published"
    );
}

#[test]
fn a_stream_that_no_daemon_reads_is_told_until_one_does() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).set("redis.streams", format!("[{STREAM:?}]")).prepare();
    let said = |more: &[&str]| {
        let output = daemon.command(&[&["demo", "--stream", "--epochs", "3", "--rate", "2000"], more].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let first = said(&[]);
    assert!(first.contains("no daemon reads the stream `cascor:training:stream`: it has no consumer group"), "{first}");
    assert!(first.contains("cascor-ingest run --set 'redis.streams=[\"cascor:training:stream\"]'"), "{first}");
    redis.client().command(&["XGROUP", "CREATE", STREAM, "other", "0"]);
    let of_another = said(&["--json"]);
    assert!(of_another.contains("it has no group `cascor-ingest` (`redis.group`), only `other`"), "{of_another}");
    redis.client().command(&["XGROUP", "CREATE", STREAM, "cascor-ingest", "0"]);
    assert!(!said(&[]).contains("no daemon"));
}

#[test]
fn what_is_wrong_with_a_stream_is_said_at_once() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).prepare();
    redis.client().command(&["SET", STREAM, "text"]);
    for (arguments, code, words) in [
        (&["demo", "--stream"][..], 2, &["`redis.streams` names no stream", "--stream NAME"][..]),
        (&["demo", "--stream", "a", "--channel", "b"], 2, &["cannot be used with"]),
        (&["demo", "--stream", STREAM], 1, &["failed to publish on `cascor:training:stream`", "WRONGTYPE"]),
    ] {
        let output = daemon.command(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
    }
    let absent = Daemon::on(&Redis::absent(Options::default())).prepare();
    assert_eq!(absent.command(&["demo", "--stream", "a"]).status.code(), Some(1));
}
