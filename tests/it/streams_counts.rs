//! Streams: what was trimmed is counted, whatever other programs have done to the group.

use std::{thread, time::Duration};

use cascor_ingest::event::EntryId;
use serde_json::json;

use crate::{
    streams::{GROUP, LIMIT, RUN, STREAM, add, on, pending},
    streams_again::COUNTERS_KEY,
    support::{daemon::Daemon, redis::Redis, resp::Resp, sqlite, wait_until},
};

/// A round of maintenance, and its report, are over by then.
const MAINTENANCE: Duration = Duration::from_millis(2_500);

fn add_some(client: &mut Resp, epochs: std::ops::Range<i64>) {
    epochs.for_each(|epoch| _ = add_one(client, epoch));
}

fn add_one(client: &mut Resp, epoch: i64) -> EntryId {
    add(client, &["data", &json!({"type": "metrics", "run_id": RUN, "epoch": epoch, "loss": 0.5}).to_string()])
}

/// A counter that the daemons share.
fn counter(client: &mut Resp, what: &str) -> Option<String> {
    client.command(&["HGET", COUNTERS_KEY, &format!("{what}:{GROUP}")]).text()
}

/// Entries that were counted as trimmed: exactly, and as a bound.
fn counted(daemon: &Daemon) -> (i64, i64) {
    let lost = |reason: &str| {
        let sum = format!("SELECT COALESCE(SUM(lost), 0) FROM ingest_gaps WHERE reason = '{reason}'");
        sqlite::count(&daemon.database(), &sum)
    };
    (lost("trimmed"), lost("trimmed_at_most"))
}

fn start(daemon: &mut Daemon) {
    daemon.launch();
    daemon.wait_ready();
}

/// All entries are read and acknowledged, and both counts show it.
fn wait_read(client: &mut Resp, acknowledged: &str) {
    wait_until("what is acknowledged to be counted", LIMIT, || {
        pending(client) == 0 && counter(client, "acknowledged").as_deref() == Some(acknowledged)
    });
}

/// While no daemon runs ten entries are added, and six of them are trimmed.
fn lose_six(daemon: &mut Daemon, client: &mut Resp) {
    daemon.terminate();
    add_some(client, 1_000..1_010);
    client.command(&["XTRIM", STREAM, "MAXLEN", "4"]);
    start(daemon);
}

#[test]
fn a_loss_after_entries_were_read_twice_is_counted_exactly() {
    let redis = Redis::start();
    let mut client = redis.client();
    let mut daemon = on(&redis).start_ready();
    add_some(&mut client, 0..20);
    wait_read(&mut client, "20");
    // While the daemon runs, and while it does not.
    client.command(&["XGROUP", "SETID", STREAM, GROUP, "0"]);
    wait_until("they are acknowledged twice", LIMIT, || acknowledged(&daemon) == Some(40.0));
    wait_read(&mut client, "20");
    daemon.terminate();
    client.command(&["XGROUP", "DESTROY", STREAM, GROUP]);
    client.command(&["XGROUP", "CREATE", STREAM, GROUP, "0"]);
    start(&mut daemon);
    wait_until("they are acknowledged a third time", LIMIT, || acknowledged(&daemon) == Some(20.0));
    wait_read(&mut client, "20");
    assert_eq!(counted(&daemon), (0, 0));
    lose_six(&mut daemon, &mut client);
    wait_until("the loss is counted", LIMIT, || counted(&daemon).0 >= 6);
    thread::sleep(MAINTENANCE);
    assert_eq!(counted(&daemon), (6, 0));
}

fn acknowledged(daemon: &Daemon) -> Option<f64> {
    daemon.metric(&format!("cascor_stream_acknowledged_entries_total{{stream=\"{STREAM}\"}}"))
}

#[test]
fn entries_that_another_program_has_acknowledged_are_no_loss_while_nothing_was_removed() {
    let redis = Redis::start();
    let mut client = redis.client();
    let mut daemon = on(&redis).start_ready();
    wait_read(&mut client, "0");
    daemon.terminate();
    let ids: Vec<_> = (0..5).map(|epoch| add_one(&mut client, epoch).to_string()).collect();
    client.command(&["XREADGROUP", "GROUP", GROUP, "hand", "STREAMS", STREAM, ">"]);
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    assert_eq!(client.command(&[&["XACK", STREAM, GROUP], &ids[..]].concat()).integer(), Some(5));
    start(&mut daemon);
    wait_read(&mut client, "5");
    thread::sleep(MAINTENANCE);
    assert_eq!(counted(&daemon), (0, 0), "all of them are still there");
    lose_six(&mut daemon, &mut client);
    wait_until("the loss is counted", LIMIT, || counted(&daemon).0 + counted(&daemon).1 >= 6);
    thread::sleep(MAINTENANCE);
    assert_eq!(counted(&daemon).0 + counted(&daemon).1, 6);
}

#[test]
fn what_a_former_version_has_reported_is_not_reported_again() {
    let redis = Redis::start();
    let mut client = redis.client();
    let mut daemon = on(&redis).start_ready();
    lose_six(&mut daemon, &mut client);
    wait_until("the loss is counted", LIMIT, || counted(&daemon) == (6, 0));
    wait_read(&mut client, "4");
    daemon.terminate();
    client.command(&["DEL", COUNTERS_KEY]);
    client.command(&["HSET", "cascor:ingest:stream:cascor:training:stream", &format!("trimmed:{GROUP}"), "6"]);
    start(&mut daemon);
    wait_read(&mut client, "4");
    assert_eq!(counter(&mut client, "trimmed").as_deref(), Some("6"));
    thread::sleep(MAINTENANCE);
    assert_eq!(counted(&daemon), (6, 0));
    lose_six(&mut daemon, &mut client);
    wait_until("the second loss is counted", LIMIT, || counted(&daemon).0 >= 12);
    thread::sleep(MAINTENANCE);
    assert_eq!(counted(&daemon), (12, 0));
}

#[test]
fn a_daemon_that_may_not_run_scripts_leaves_no_count_that_is_too_low() {
    let redis = Redis::start();
    let mut client = redis.client();
    client.command(&["ACL", "SETUSER", "me", "on", ">secret", "~*", "&*", "+@all", "-eval"]);
    let mut daemon = on(&redis).set("redis.username", "\"me\"").set("redis.password", "\"secret\"").start_ready();
    add_some(&mut client, 0..20);
    wait_until("all are rows", LIMIT, || sqlite::count(&daemon.database(), crate::streams::METRICS) == 20);
    wait_until("all are acknowledged", LIMIT, || pending(&mut client) == 0);
    assert_eq!(counter(&mut client, "acknowledged"), None);
    client.command(&["XTRIM", STREAM, "MAXLEN", "0"]);
    thread::sleep(MAINTENANCE);
    daemon.terminate();
    client.command(&["ACL", "SETUSER", "me", "+eval"]);
    start(&mut daemon);
    wait_read(&mut client, "20");
    thread::sleep(MAINTENANCE);
    assert_eq!(counted(&daemon), (0, 0));
    lose_six(&mut daemon, &mut client);
    wait_until("the loss is counted", LIMIT, || counted(&daemon).0 >= 6);
    thread::sleep(MAINTENANCE);
    assert_eq!(counted(&daemon), (6, 0));
}
