//! Streams of large messages stay within the promised memory, in a daemon and in live events.

use std::time::Duration;

use crate::{
    memory::{PROMISED_KIB, assert_peak},
    serve::serve_with,
    stream_live::topology,
    streams::{RUN, STREAM, on},
    support::{daemon::Daemon, redis::Redis, resp::Resp, sqlite, stream::Stream, wait_until},
};

/// Large entries of a stream that come in one moment, and their size.
const LARGE_ENTRIES: i64 = 14;
const LARGE_ENTRY: usize = 12 << 20;

fn add_small(client: &mut Resp, epochs: std::ops::Range<i64>) {
    for epoch in epochs {
        client.command(&["XADD", STREAM, "*", "run_id", RUN, "epoch", &epoch.to_string(), "loss", "0.5"]);
    }
}

/// Large entries and a small one behind them, in one moment.
fn add_large(client: &mut Resp, epoch: i64) {
    let message = topology(LARGE_ENTRY);
    client.command(&["MULTI"]);
    (0..LARGE_ENTRIES).for_each(|_| _ = client.command(&["XADD", STREAM, "*", "data", &message]));
    add_small(client, epoch..epoch + 1);
    client.command(&["EXEC"]);
}

/// Follows the live events until the metrics of this epoch. Returns the number of topologies, and whether nothing was skipped.
fn follow(stream: &mut Stream, epoch: i64) -> (u32, bool) {
    let (mut topologies, mut is_whole, mut newest) = (0, true, -1);
    while newest < epoch {
        let event = stream.event();
        is_whole &= event.name != "skipped";
        topologies += u32::from(event.name == "topology");
        if event.name == "metrics" {
            newest = event.data["rows"].as_array().unwrap().last().unwrap()["epoch"].as_i64().unwrap();
        }
    }
    (topologies, is_whole)
}

/// Behind small entries, of which many are read together.
#[test]
fn live_events_of_a_stream_of_large_messages_stay_within_the_promise() {
    let redis = Redis::start();
    let mut client = redis.client();
    // The daemon does not read the stream: `serve` does, while a page is open.
    let daemon = Daemon::on(&redis).start_ready();
    let (served, port) = serve_with(&daemon, &[format!("redis.streams=[{STREAM:?}]")]);
    let mut stream = Stream::open(port, "", "");
    stream.next("skipped");
    add_small(&mut client, 0..2_000);
    follow(&mut stream, 1_999);
    let small = served.resident_peak_kib();
    add_large(&mut client, 2_000);
    let (topologies, is_whole) = follow(&mut stream, 2_000);
    let peak = served.resident_peak_kib();
    println!("live events of a stream: {} MiB with small messages, {} MiB at most", small >> 10, peak >> 10);
    assert!(topologies > 0 && is_whole, "{topologies}");
    assert!(peak < PROMISED_KIB, "{} MiB", peak >> 10);
}

/// Waits for the rows of large messages; a debug build beside other tests takes a while.
fn wait_large(daemon: &Daemon, rows: i64) {
    let count = || sqlite::count(&daemon.database(), "SELECT count(*) FROM network_topology");
    wait_until("the rows of large messages", Duration::from_secs(120), || count() == rows);
}

#[test]
fn a_daemon_that_reads_and_shows_a_stream_of_large_messages_stays_within_the_promise() {
    let redis = Redis::start();
    let mut client = redis.client();
    // It finds some of them when it starts.
    add_small(&mut client, 0..2_000);
    add_large(&mut client, 2_000);
    let mut daemon = on(&redis).start_ready();
    wait_large(&daemon, LARGE_ENTRIES);
    assert_peak(&mut daemon, "large messages that wait in a stream", PROMISED_KIB);
    let mut stream = Stream::open(daemon.http_port(), "", "");
    stream.next("skipped");
    add_small(&mut client, 3_000..4_000);
    add_large(&mut client, 4_000);
    follow(&mut stream, 4_000);
    wait_large(&daemon, 2 * LARGE_ENTRIES);
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 3_002);
    assert_peak(&mut daemon, "the same while a page is open", PROMISED_KIB);
}
