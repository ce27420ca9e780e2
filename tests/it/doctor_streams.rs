//! `doctor` on streams: what keeps them from being read, claimed or counted is named, and nothing is changed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    doctor::{Expected, QUICK, advice, fault},
    support::{
        daemon::{Builder, Daemon},
        redis::Redis,
        resp, wait_until,
    },
};

const STREAM: &str = "cascor:training:stream";
const LIMIT: Duration = Duration::from_secs(30);
/// The rights of a daemon on streams, as `deploy/streams.md` lists them.
const RIGHTS: &str = "+xreadgroup +xread +xack +xautoclaim +xrange +xgroup +xinfo +hget +hset +hdel +hincrby +eval +client|info +client|unblock";

fn command(redis: &Redis, words: &[&str]) {
    let answer = redis.client().command(words);
    assert!(!matches!(answer, resp::Value::Error(_)), "{words:?}: {answer:?}");
}

fn reading(redis: &Redis, stream: &str) -> Builder {
    Daemon::on(redis).set("redis.streams", format!("[{stream:?}]"))
}

#[test]
fn each_missing_right_to_streams_is_named_with_the_rule_that_grants_it() {
    assert!(include_str!("../../deploy/streams.md").contains(RIGHTS));
    let redis = Redis::start();
    let file = include_str!("../../deploy/redis/ingest.acl");
    let rules = file.trim_end().strip_prefix("user ingest on #PASSWORD ").unwrap().split(' ');
    let rules: Vec<_> = rules.chain(RIGHTS.split(' ')).collect();
    let login = |name: &str, without: &[&str], stream: &str| {
        command(&redis, &[&["ACL", "SETUSER", name, "on", ">pw"], &rules[..], without].concat());
        reading(&redis, stream).set("redis.username", format!("{name:?}")).env("REDIS_PASSWORD", "pw").prepare()
    };
    let shown = |daemon: &Daemon| String::from_utf8(daemon.command(&QUICK).stdout).unwrap();
    let all = shown(&login("all", &[], STREAM));
    assert!(!all.contains("FAULT") && all.contains("nothing was appended yet"), "{all}");
    for (n, command_name) in
        ["xreadgroup", "xgroup", "xack", "xautoclaim", "xinfo", "xrange", "hget", "hdel", "hincrby", "eval"]
            .into_iter()
            .enumerate()
    {
        let (missing, upper) = (format!("-{command_name}"), command_name.to_ascii_uppercase());
        let found = shown(&login(&format!("lacks{n}"), &[&missing], STREAM));
        let named =
            found.lines().any(|line| line.starts_with("FAULT") && line.contains(&format!("may not use {upper}")));
        assert!(named && found.contains(&format!("+{command_name}")), "{missing}: {found}");
    }
    let found = shown(&login("lacks-live", &["-xread"], STREAM));
    assert!(found.contains("may not use XREAD: dashboards have no live events"), "{found}");
    assert!(!found.contains("FAULT") && found.contains("ACL SETUSER lacks-live +xread"), "{found}");
    let elsewhere = login("elsewhere", &[], "lab:stream");
    fault("may not use the stream `lab:stream`", "~lab:stream").check("another key", &elsewhere.command(&QUICK));
    assert_eq!(redis.client().command(&["DBSIZE"]).integer(), Some(0), "nothing was written");
}

#[test]
fn what_is_wrong_with_a_stream_is_named_first_and_its_group_is_shown() {
    let redis = Redis::start();
    command(&redis, &["CONFIG", "SET", "client-output-buffer-limit", "pubsub 256mb 64mb 60"]);
    command(&redis, &["SET", STREAM, "text"]);
    let daemon = reading(&redis, STREAM).prepare();
    fault("is no stream", "delete or rename that key").check("a text", &daemon.command(&QUICK));
    command(&redis, &["DEL", STREAM]);
    for loss in ["1", "2", "3"] {
        command(&redis, &["XADD", STREAM, "*", "run_id", "r", "epoch", loss, "loss", "0.5"]);
    }
    command(&redis, &["XGROUP", "CREATE", STREAM, "cascor-ingest", "0"]);
    command(&redis, &["XREADGROUP", "GROUP", "cascor-ingest", "gone", "COUNT", "1", "STREAMS", STREAM, ">"]);
    let in_memory: Expected = advice("keeps the streams in memory", "CONFIG SET appendonly yes");
    let output = daemon.command(&QUICK);
    in_memory.check("no append-only file", &output);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("1 consumer, 1 entry read and not acknowledged, 2 entries not read yet"), "{shown}");
}

#[test]
fn what_is_appended_to_streams_is_listened_to_like_what_is_published() {
    let redis = Redis::start();
    let daemon = reading(&redis, STREAM).set("redis.training_channels", "[]").prepare();
    let doctor = ["doctor", "--listen", "2s"];
    let listen = || String::from_utf8(daemon.command(&doctor).stdout).unwrap();
    let silent = listen();
    assert!(silent.contains("no training message was published within 2s"), "{silent}");
    let stop = Arc::new(AtomicBool::new(false));
    let trainer = {
        let (stop, mut client) = (Arc::clone(&stop), redis.client());
        thread::spawn(move || {
            for epoch in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                client.command(&["XADD", STREAM, "*", "epoch", &epoch.to_string(), "loss", "0.5"]);
                thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let shown = listen();
    stop.store(true, Ordering::Relaxed);
    trainer.join().unwrap();
    assert!(shown.contains("messages on `cascor:training:stream` have no `run_id`"), "{shown}");
    assert!(shown.contains("or give each a stream of its own"), "{shown}");
    assert!(shown.contains("stream `cascor:training:stream`: ") && shown.contains(" messages in 2s"), "{shown}");
    assert!(!shown.contains("no training message") && !shown.contains("no `timestamp`"), "{shown}");
    let groups = redis.client().command(&["XINFO", "GROUPS", STREAM]);
    assert_eq!(groups, resp::Value::Array(Vec::new()), "no group was made");
}

#[test]
fn a_stream_that_no_daemon_reads_is_named_until_the_running_daemon_reads_it() {
    let redis = Redis::start();
    let without_streams = Daemon::on(&redis).prepare();
    let shown = || String::from_utf8(without_streams.command(&QUICK).stdout).unwrap();
    assert!(!shown().contains(STREAM), "{}", shown());
    command(&redis, &["XADD", STREAM, "*", "data", "{\"run_id\": \"a\", \"epoch\": 1}"]);
    let unread = shown();
    let fix = format!("cascor-ingest run --set 'redis.streams=[\"{STREAM}\"]'");
    assert!(unread.contains("and no daemon reads it") && unread.contains(&fix), "{unread}");
    // The settings of `doctor` name no stream; those of the daemon of this name do.
    let _daemon = reading(&redis, STREAM).start_ready();
    wait_until("the streams of the daemon", LIMIT, || shown().contains(&format!("stream `{STREAM}`, group `")));
    assert!(!shown().contains("no daemon reads it"), "{}", shown());
}
