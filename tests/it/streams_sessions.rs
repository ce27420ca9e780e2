//! Streams: what a session with Redis leaves to the next one, what it remembers of refusals, and how fast it ends.

use std::{thread, time::Duration};

use serde_json::json;
use tokio::time::Instant;

use crate::{
    streams::{GROUP, LIMIT, METRICS, RUN, STREAM, add, on, pending, stream_status},
    support::{
        daemon::Daemon,
        redis::Redis,
        resp::{Resp, Value},
        sqlite, wait_until,
    },
};

/// A round of maintenance, and its report, are over by then.
const MAINTENANCE: Duration = Duration::from_millis(2_500);

fn add_epochs(client: &mut Resp, epochs: std::ops::Range<i64>) {
    for epoch in epochs {
        add(client, &["data", &json!({"type": "metrics", "run_id": RUN, "epoch": epoch, "loss": 0.5}).to_string()]);
    }
}

/// A daemon whose user has all rights but these.
fn without(redis: &Redis, client: &mut Resp, rights: &str) -> Daemon {
    client.command(&["ACL", "SETUSER", "me", "on", ">secret", "~*", "&*", "+@all"]);
    if !rights.is_empty() {
        client.command(&["ACL", "SETUSER", "me", rights]);
    }
    on(redis).set("redis.username", "\"me\"").set("redis.password", "\"secret\"").prepare()
}

fn start(daemon: &mut Daemon) {
    daemon.launch();
    daemon.wait_ready();
}

/// Entries that were counted as trimmed, exactly or as a bound.
fn counted(daemon: &Daemon) -> i64 {
    let sum = "SELECT COALESCE(SUM(lost), 0) FROM ingest_gaps WHERE reason IN ('trimmed', 'trimmed_at_most')";
    sqlite::count(&daemon.database(), sum)
}

#[test]
fn a_daemon_on_an_idle_stream_stops_at_once() {
    let redis = Redis::start();
    let mut client = redis.client();
    let mut daemon = without(&redis, &mut client, "");
    // Anywhere in the second for which a read waits; at last without the right to end it.
    for (millis, rights) in [(300, "+@all"), (650, "+@all"), (1_100, "+@all"), (400, "-client|unblock")] {
        client.command(&["ACL", "SETUSER", "me", rights]);
        start(&mut daemon);
        wait_until("the stream is read", LIMIT, || stream_status(&daemon)["reading"] == true);
        thread::sleep(Duration::from_millis(millis));
        let asked = Instant::now();
        let status = daemon.terminate();
        let took = asked.elapsed();
        assert!(status.success(), "{status}:\n{}", daemon.log());
        assert!(took < Duration::from_millis(500), "{took:?} with {rights}");
    }
}

#[test]
fn what_is_read_while_a_daemon_stops_is_stored_and_acknowledged() {
    let redis = Redis::start();
    let mut client = redis.client();
    let mut daemon = on(&redis).start_ready();
    let port = redis.port;
    let publisher = thread::spawn(move || {
        let mut client = Resp::connect(port).unwrap();
        for epoch in 0..1_500 {
            add_epochs(&mut client, epoch..epoch + 1);
            thread::sleep(Duration::from_millis(2));
        }
    });
    for _ in 0..6 {
        thread::sleep(Duration::from_millis(300));
        daemon.terminate();
        assert_eq!(pending(&mut client), 0, "another daemon would have to claim them");
        start(&mut daemon);
    }
    publisher.join().unwrap();
    wait_until("all are rows", LIMIT, || sqlite::count(&daemon.database(), METRICS) == 1_500);
    wait_until("all are acknowledged", LIMIT, || pending(&mut client) == 0);
}

/// How often Redis has refused EVAL.
fn refusals(client: &mut Resp) -> u64 {
    let stats = client.command(&["INFO", "commandstats"]).text().unwrap();
    let line = stats.lines().find(|line| line.starts_with("cmdstat_eval:")).unwrap_or_default();
    line.split_once("rejected_calls=").map_or(0, |(_, rest)| rest.split([',', '\r']).next().unwrap().parse().unwrap())
}

#[test]
fn a_refused_script_is_not_tried_again_within_a_session() {
    let redis = Redis::start();
    let mut client = redis.client();
    let mut daemon = without(&redis, &mut client, "-eval");
    start(&mut daemon);
    // Each acknowledgement has a script, and so has each second.
    for epoch in 0..40 {
        add_epochs(&mut client, epoch..epoch + 1);
        thread::sleep(Duration::from_millis(100));
    }
    wait_until("all are acknowledged", LIMIT, || pending(&mut client) == 0);
    wait_until("all are rows", LIMIT, || sqlite::count(&daemon.database(), METRICS) == 40);
    let refused = refusals(&mut client);
    assert!((1..=8).contains(&refused), "{refused} times: each script once");
}

#[test]
fn entries_on_disk_that_were_trimmed_before_they_were_acknowledged_are_not_reported() {
    let redis = Redis::start();
    let mut client = redis.client();
    let mut daemon = without(&redis, &mut client, "");
    start(&mut daemon);
    add_epochs(&mut client, 0..5);
    wait_until("all are acknowledged", LIMIT, || pending(&mut client) == 0);
    client.command(&["ACL", "SETUSER", "me", "-xack"]);
    add_epochs(&mut client, 5..10);
    wait_until("all are rows", LIMIT, || sqlite::count(&daemon.database(), METRICS) == 10);
    wait_until("the session has ended", LIMIT, || {
        stream_status(&daemon)["error"].as_str().is_some_and(|error| error.contains("+xack"))
    });
    assert_eq!(pending(&mut client), 5);
    client.command(&["XTRIM", STREAM, "MAXLEN", "0"]);
    client.command(&["ACL", "SETUSER", "me", "+xack"]);
    wait_until("they are acknowledged", LIMIT, || pending(&mut client) == 0);
    thread::sleep(MAINTENANCE);
    assert_eq!(counted(&daemon), 0, "they are rows");
    // What this process has not seen is reported.
    daemon.terminate();
    add_epochs(&mut client, 10..13);
    client.command(&["XREADGROUP", "GROUP", GROUP, "test", "STREAMS", STREAM, ">"]);
    client.command(&["XTRIM", STREAM, "MAXLEN", "0"]);
    start(&mut daemon);
    wait_until("the loss is counted", LIMIT, || counted(&daemon) == 3);
}

#[test]
fn without_scripts_a_loss_that_is_reported_again_is_the_same_row() {
    let redis = Redis::start();
    let mut client = redis.client();
    let mut daemon = without(&redis, &mut client, "-eval");
    start(&mut daemon);
    daemon.terminate();
    add_epochs(&mut client, 0..6);
    client.command(&["XREADGROUP", "GROUP", GROUP, "test", "COUNT", "5", "STREAMS", STREAM, ">"]);
    client.command(&["XTRIM", STREAM, "MAXLEN", "1"]);
    let Value::Bulk(before) = client.command(&["DUMP", STREAM]) else { panic!("no dump") };
    for round in 0..3 {
        start(&mut daemon);
        wait_until("the loss is counted", LIMIT, || counted(&daemon) >= 5);
        wait_until("everything is acknowledged", LIMIT, || pending(&mut client) == 0);
        thread::sleep(MAINTENANCE);
        assert_eq!(counted(&daemon), 5, "round {round}");
        // As after a kill between the row and the acknowledgement.
        daemon.terminate();
        client.command_bytes(&[b"RESTORE", STREAM.as_bytes(), b"0", &before, b"REPLACE"]).unwrap();
        assert_eq!(pending(&mut client), 5);
    }
    assert_eq!(sqlite::count(&daemon.database(), METRICS), 1);
}
