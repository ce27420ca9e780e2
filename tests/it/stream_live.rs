//! Live events of streams: each daemon of a group, and `serve`, shows the entries that any of them takes, once.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use cascor_ingest::{
    memory::MemoryLimit,
    redis::Config,
    source::streams::{Tail, Tailed},
};
use serde_json::{Value as Json, json};
use tokio::time::Instant;

use crate::{
    serve::{serve, serve_with},
    streams::{LIMIT, METRICS, RUN, STREAM, add, on, shared, sharing, wait_metrics},
    streams_again::add_to,
    support::{
        daemon::Daemon,
        redis::Redis,
        redis_group::Cluster,
        resp::Resp,
        sqlite,
        stream::{Event, Stream},
        wait_until,
    },
};

/// Follows the live events; what is added from here on is in them. Reading begins with `skipped`, once for each reader.
fn follow(port: u16, readers: u32) -> Stream {
    let mut stream = Stream::open(port, "", "");
    assert_eq!(stream.next("hello").data["live"], true);
    (0..readers).for_each(|_| _ = stream.next("skipped"));
    stream
}

/// The rows of metrics, by run, until there are so many; nothing is skipped.
fn told(stream: &mut Stream, count: usize) -> BTreeMap<String, Vec<Json>> {
    let mut told: BTreeMap<String, Vec<Json>> = BTreeMap::new();
    while told.values().map(Vec::len).sum::<usize>() < count {
        let Event { name, data, .. } = stream.event();
        assert_ne!(name, "skipped", "{data}");
        if name == "metrics" {
            assert_eq!(data["skipped"], 0, "{data}");
            let rows = data["rows"].as_array().unwrap().iter().cloned();
            told.entry(data["run_id"].as_str().unwrap().to_owned()).or_default().extend(rows);
        }
    }
    told
}

fn epochs(rows: &[Json]) -> Vec<i64> {
    rows.iter().map(|row| row["epoch"].as_i64().unwrap()).collect()
}

/// The stored rows of a run, in the order of their times.
fn stored(daemon: &Daemon, run: &str) -> Vec<Json> {
    let range = daemon.get(&format!("/api/metrics/range?run_id={run}&order=asc")).json();
    range["metrics"].as_array().cloned().unwrap_or_default()
}

fn add_metrics(client: &mut Resp, epoch: i64) {
    add(client, &["run_id", RUN, "epoch", &epoch.to_string(), "train_loss", "0.5"]);
}

/// Connections that wait for entries without a group.
fn readers(client: &mut Resp) -> usize {
    let clients = client.command(&["CLIENT", "LIST"]).text().unwrap();
    clients.lines().filter(|line| line.contains("cmd=xread ")).count()
}

#[test]
fn each_daemon_of_a_stream_and_serve_show_the_entries_of_all_once() {
    let redis = Redis::start();
    let mut client = redis.client();
    let (_dir, database) = shared();
    let daemons = ["a", "b"].map(|name| sharing(&redis, name, &database).start_ready());
    let (_served, port) = serve(&daemons[0]);
    add_metrics(&mut client, 0);
    wait_metrics(&database, 1);
    assert_eq!(readers(&mut client), 0, "without a subscriber nothing is read once more");
    let mut streams = [daemons[0].http_port(), daemons[1].http_port(), port].map(|port| follow(port, 1));
    for epoch in 1..=200 {
        add_metrics(&mut client, epoch);
        thread::sleep(Duration::from_millis(5));
    }
    let acknowledged =
        |daemon: &Daemon| daemon.get("/api/status").json()["redis"]["streams"][0]["acknowledged"].clone();
    wait_metrics(&database, 201);
    let shares = daemons.each_ref().map(acknowledged);
    assert!(shares.iter().all(|share| share.as_u64() < Some(201)), "one daemon took them all: {shares:?}");
    let stored = stored(&daemons[0], RUN);
    for stream in &mut streams {
        let told = told(stream, 200);
        assert_eq!(told.keys().collect::<Vec<_>>(), [RUN]);
        assert_eq!(epochs(&told[RUN]), (1..=200).collect::<Vec<_>>(), "each once, in the order of the stream");
        assert_eq!(told[RUN], stored[1..], "as they are stored, with the time of the entry");
    }
    // Nothing of them comes a second time.
    add_metrics(&mut client, 201);
    streams.iter_mut().for_each(|stream| assert_eq!(epochs(&told(stream, 1)[RUN]), [201]));
}

#[test]
fn entries_without_an_id_are_shown_in_the_run_that_the_daemon_has_chosen() {
    let redis = Redis::start();
    let mut client = redis.client();
    // Of several daemons one may take an entry behind a start before another has taken the start.
    let daemon = on(&redis).start_ready();
    let database = daemon.database();
    let (_served, port) = serve(&daemon);
    let mut streams = [daemon.http_port(), port].map(|port| follow(port, 1));
    let epoch = |client: &mut Resp, epoch: i64| add(client, &["epoch", &epoch.to_string(), "train_loss", "0.5"]);
    let mut shown: [BTreeMap<String, Vec<i64>>; 2] = Default::default();
    let mut tell = |count: usize| {
        for (stream, shown) in streams.iter_mut().zip(&mut shown) {
            for (run, rows) in told(stream, count) {
                shown.entry(run).or_default().extend(epochs(&rows));
            }
        }
    };
    // The first opens a run; a start opens another, also for what follows at once, before a daemon has taken it.
    epoch(&mut client, 1);
    tell(1);
    for run in 0..3 {
        add(&mut client, &["type", "training_start", "dataset_name", "spiral"]);
        (0..20).for_each(|n| _ = epoch(&mut client, 100 * run + n));
        add(&mut client, &["type", "training_end", "status", "completed"]);
        tell(20);
    }
    wait_metrics(&database, 61);
    let rows = sqlite::rows(&database, "SELECT run_id, epoch FROM training_metrics ORDER BY timestamp, event_id");
    let mut expected: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for row in rows {
        expected.entry(row["run_id"].as_str().unwrap().to_owned()).or_default().push(row["epoch"].as_i64().unwrap());
    }
    assert_eq!(expected.len(), 4);
    assert_eq!(shown, [expected.clone(), expected]);
}

#[test]
fn a_lost_connection_costs_nothing_and_what_was_trimmed_unread_is_reported() {
    let redis = Redis::start();
    let mut client = redis.client();
    let daemon = on(&redis).start_ready();
    let mut stream = follow(daemon.http_port(), 1);
    for round in 0..3 {
        client.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        (0..10).for_each(|n| add_metrics(&mut client, 10 * round + n));
        assert_eq!(epochs(&told(&mut stream, 10)[RUN]), (10 * round..10 * round + 10).collect::<Vec<_>>());
    }
    // In one step, so that they are gone before they can be read.
    let script = "for epoch = 1, 50 do redis.call('XADD', KEYS[1], '*', 'run_id', 'r', 'epoch', epoch, 'loss', '1') end \
                  return redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)";
    client.command(&["EVAL", script, "1", STREAM]);
    assert!(stream.next("skipped").data["count"].as_u64() >= Some(1));
    client.command(&["DEL", STREAM]);
    assert!(stream.next("skipped").data["count"].as_u64() >= Some(1), "the stream is gone");
    add_metrics(&mut client, 1_000);
    assert_eq!(epochs(&told(&mut stream, 1)[RUN]), [1_000], "a new one is read from its beginning");
}

#[test]
fn without_the_right_to_xread_the_feed_is_not_live_and_ingestion_goes_on() {
    let redis = Redis::start();
    let mut client = redis.client();
    client.command(&["ACL", "SETUSER", "me", "on", ">secret", "~*", "&*", "+@all", "-xread"]);
    let daemon = on(&redis).set("redis.username", "\"me\"").set("redis.password", "\"secret\"").start_ready();
    let mut stream = Stream::open(daemon.http_port(), "", "");
    assert_eq!(stream.next("hello").data["live"], true, "it is not known yet");
    stream.next("skipped");
    let told_of = stream.next("hello");
    assert_eq!((&told_of.data["live"], &told_of.data["resumed"]), (&json!(false), &json!(true)));
    add_metrics(&mut client, 1);
    daemon.wait_rows(METRICS, 1);
    daemon.wait_log("ACL SETUSER me +xread");
    let mut second = Stream::open(daemon.http_port(), "", "");
    assert_eq!(second.next("hello").data["live"], false, "it is known");
    client.command(&["ACL", "SETUSER", "me", "+xread"]);
    for stream in [&mut stream, &mut second] {
        assert_eq!(stream.next("hello").data["live"], true);
    }
    add_metrics(&mut client, 2);
    for stream in [&mut stream, &mut second] {
        assert_eq!(epochs(&told(stream, 2)[RUN]), [1, 2], "it reads from where it was to begin");
    }
}

#[test]
fn what_is_wrong_with_one_stream_does_not_keep_others_from_being_live() {
    let redis = Redis::start();
    let mut client = redis.client();
    client.command(&["SET", "text", "x"]);
    let names = json!(["text", STREAM, "cascor:other"]).to_string();
    let mut daemon = Daemon::on(&redis).set("redis.streams", names).set("redis.training_channels", "[]").start();
    daemon.wait_http("/healthz", 200);
    let mut stream = Stream::open(daemon.http_port(), "", "");
    while stream.next("hello").data["live"] != false {}
    wait_until("the other streams to be read", LIMIT, || readers(&mut client) == 2);
    add_metrics(&mut client, 1);
    client.command(&["XADD", "cascor:other", "*", "run_id", RUN, "epoch", "2", "loss", "0.5"]);
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        seen.extend(epochs(stream.next("metrics").data["rows"].as_array().unwrap()));
    }
    assert_eq!(seen, BTreeSet::from([1, 2]));
    daemon.wait_log("the key `text` is no stream");
}

#[test]
fn streams_on_all_nodes_of_a_cluster_are_live() {
    let cluster = Cluster::start();
    let mut streams: [Option<String>; 3] = Default::default();
    for n in 0.. {
        let name = format!("cascor:live:{n}");
        streams[cluster.owner(&name).1].get_or_insert(name);
        if streams.iter().all(Option::is_some) {
            break;
        }
    }
    let streams = streams.map(Option::unwrap);
    let daemon = Daemon::at(&cluster.url())
        .set("redis.streams", json!(streams).to_string())
        .set("redis.training_channels", "[]")
        .start_ready();
    let mut stream = Stream::open(daemon.http_port(), "", "");
    stream.next("hello");
    // A reader each.
    let mut begun = 0;
    while begun < 3 {
        begun += stream.next("skipped").data["count"].as_u64().unwrap();
    }
    for (name, at) in streams.iter().zip(0..) {
        add_to(&cluster, name, 1_000 * at..1_000 * at + 100);
    }
    let told = told(&mut stream, 300);
    let mut seen: Vec<_> = told.values().flat_map(|rows| epochs(rows)).collect();
    seen.sort_unstable();
    let expected: Vec<_> = (0..3).flat_map(|at| 1_000 * at..1_000 * at + 100).collect();
    assert_eq!(seen, expected);
}

/// Adds metrics in a transaction.
fn add_queued(client: &mut Resp, epoch: i64) {
    client.command(&["XADD", STREAM, "*", "run_id", RUN, "epoch", &epoch.to_string(), "train_loss", "0.5"]);
}

/// A message that is a topology of more than so many bytes.
pub fn topology(bytes: usize) -> String {
    let head = format!(r#"{{"type":"topology","run_id":"{RUN}","data":{{"hidden_units":1,"weights":""#);
    format!("{head}{}\"}}}}", "x".repeat(bytes))
}

#[test]
fn a_stream_whose_run_is_unknown_does_not_delay_the_events_of_another() {
    let redis = Redis::start();
    let mut client = redis.client();
    // No daemon reads the second stream, so the runs of its entries are never decided.
    let daemon = on(&redis).start_ready();
    let (_served, port) = serve_with(&daemon, &[format!("redis.streams={}", json!(["cascor:undecided", STREAM]))]);
    let mut stream = follow(port, 1);
    // Each reader begins when it is connected.
    wait_until("both streams to be read", LIMIT, || readers(&mut client) == 2);
    for epoch in 0..3 {
        client.command(&["MULTI"]);
        client.command(&["XADD", "cascor:undecided", "*", "epoch", "1", "train_loss", "0.5"]);
        add_queued(&mut client, epoch);
        let added = Instant::now();
        client.command(&["EXEC"]);
        let told = stream.next("metrics");
        let took = added.elapsed();
        assert_eq!((&told.data["run_id"], epochs(told.data["rows"].as_array().unwrap())), (&json!(RUN), vec![epoch]));
        // The other stream waits for a second.
        assert!(took < Duration::from_millis(600), "after {took:?}");
        thread::sleep(Duration::from_millis(1_500));
    }
}

/// The next entries, or that some were missed.
async fn read(tail: &mut Tail) -> Tailed {
    loop {
        let tailed = tail.next().await;
        if tailed.missed || !tailed.frames.is_empty() {
            return tailed;
        }
    }
}

#[test]
fn entries_for_which_there_is_no_memory_are_skipped_and_the_next_are_read() {
    const LARGE: usize = 10 << 20;
    let redis = Redis::start();
    let mut client = redis.client();
    let config = Config { url: redis.url(), streams: vec![STREAM.to_owned()], ..Config::default() };
    let memory = MemoryLimit::new(40 << 20);
    let mut tail = Tail::all(&config).pop().unwrap().charging(memory.clone());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let begun = read(&mut tail).await;
        assert!(begun.missed && begun.frames.is_empty());
        (0..100).for_each(|epoch| add_metrics(&mut client, epoch));
        let mut small = 0;
        while small < 100 {
            small += read(&mut tail).await.frames.len();
        }
        let held = memory.charge(30 << 20);
        client.command(&["MULTI"]);
        client.command(&["XADD", STREAM, "*", "data", &topology(LARGE)]);
        add_queued(&mut client, 100);
        client.command(&["EXEC"]);
        let skipped = read(&mut tail).await;
        assert!(skipped.missed && skipped.frames.is_empty(), "there is memory for one half of it");
        let next = read(&mut tail).await;
        assert_eq!((next.missed, next.frames.len()), (false, 1));
        assert!(next.frames[0].payload.len() < 100);
        assert_eq!(memory.used(), 30 << 20);
        drop(held);
        client.command(&["XADD", STREAM, "*", "data", &topology(LARGE)]);
        let large = read(&mut tail).await;
        assert_eq!((large.missed, large.frames.len()), (false, 1));
        assert_eq!(memory.used(), large.frames[0].payload.len(), "it is counted while it is held");
        drop(large);
        assert_eq!(memory.used(), 0);
    });
}
