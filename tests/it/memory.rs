//! Reads over HTTP stay within the promised memory, however large the rows are.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use cascor_ingest::{
    event::{EventKey, MetricColumns, MetricsRow, Row, RunRow, TopologyRow},
    metrics::Metrics,
    store::{
        Batch, Retention, Store,
        cassandra::{self, CassandraStore},
        sqlite,
    },
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::{cassandra::Cassandra, daemon::Daemon, http, redis::Redis, skip, wait_until};

const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const LIMIT: Duration = Duration::from_secs(30);
const ROWS: i64 = 300;
const MOST_KIB: u64 = 200 << 10;
/// The promised bound of resident memory.
pub(crate) const PROMISED_KIB: u64 = 256 << 10;

/// A run of so many rows, each with these numbers and this text.
#[allow(clippy::unwrap_used, reason = "a call that fails is a test that fails")]
async fn fill(store: &dyn Store, rows: i64, extra: BTreeMap<String, f64>, rest: Option<String>) {
    let run_id = Uuid::try_parse(RUN).unwrap();
    let start = (jiff::Timestamp::now().as_second() - 3_600) * 1_000_000;
    store.write_run(&RunRow { run_id, start_time: Some(start), ..RunRow::default() }, None).await.unwrap();
    for n in 0..rows {
        let row = MetricsRow {
            key: EventKey { run_id, timestamp: start + n, event_id: n },
            columns: MetricColumns {
                epoch: i32::try_from(n).ok(),
                train_loss: Some(0.5),
                seq: Some(n),
                ..MetricColumns::default()
            },
            extra: extra.clone(),
            rest_json: rest.clone().map(Into::into),
        };
        let (table, partition) = Row::Metrics(row.clone()).destination();
        store.write(&Batch { table, partition, rows: vec![Row::Metrics(row)].into() }).await.unwrap();
    }
}

/// A snapshot of a network of that run.
fn snapshot(n: i64, topology_json: String) -> Batch {
    let run_id = Uuid::try_parse(RUN).unwrap();
    let timestamp = (jiff::Timestamp::now().as_second() - 3_600) * 1_000_000 + n;
    let row = Row::Topology(TopologyRow {
        key: EventKey { run_id, timestamp, event_id: n },
        epoch: None,
        input_size: None,
        output_size: None,
        hidden_units: None,
        total_parameters: None,
        topology_json: topology_json.into(),
        weights_summary: None,
    });
    let (table, partition) = row.destination();
    Batch { table, partition, rows: vec![row].into() }
}

/// A daemon on a store with such a run.
fn filled(
    mut daemon: Daemon,
    cassandra: Option<&Cassandra>,
    rows: i64,
    extra: BTreeMap<String, f64>,
    rest: Option<String>,
) -> Daemon {
    let (retention, metrics) = (Retention::default(), Metrics::new());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let Some(cassandra) = cassandra else {
            let config = sqlite::Config { path: daemon.database() };
            return fill(&sqlite::open(&config, &retention, metrics), rows, extra, rest).await;
        };
        daemon.apply_schema();
        let config = cassandra::Config {
            contact_points: vec![format!("{}:{}", cassandra.host, cassandra.port)],
            keyspace: cassandra.keyspace.clone(),
            ..cassandra::Config::default()
        };
        let store = CassandraStore::new(&config, &retention, metrics);
        store.connect().await.unwrap();
        fill(&*store, rows, extra, rest).await;
    });
    daemon.launch();
    daemon.wait_ready();
    wait_until("the store", Duration::from_secs(60), || daemon.get(&format!("/api/runs/{RUN}?limit=0")).status == 200);
    daemon
}

/// Status of an answer, and its length with framing; the bytes are discarded.
fn drain(port: u16, path: &str) -> (String, usize) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let (mut piece, mut total, mut status) = (vec![0; 64 << 10], 0, String::new());
    loop {
        let read = stream.read(&mut piece).unwrap();
        if total == 0 {
            status = String::from_utf8_lossy(&piece[..read.min(12)]).into_owned();
        }
        total += read;
        if read == 0 {
            return (status, total);
        }
    }
}

/// Answers to many concurrent requests.
fn drain_all(port: u16, paths: impl IntoIterator<Item = String>) -> Vec<(String, String, usize)> {
    let askers: Vec<_> = paths
        .into_iter()
        .map(|path| {
            thread::spawn(move || {
                let (status, bytes) = drain(port, &path);
                (path, status, bytes)
            })
        })
        .collect();
    askers.into_iter().map(|asker| asker.join().unwrap()).collect()
}

/// Prints the peak resident memory, and asserts that it is below `most`.
pub(crate) fn assert_peak(daemon: &mut Daemon, what: &str, most_kib: u64) {
    let process = daemon.process();
    let (peak, now) = (process.resident_peak_kib(), process.resident_kib());
    println!("{what}: {} MiB at most, {} now", peak >> 10, now >> 10);
    assert!(peak < most_kib, "{what}: {} MiB", peak >> 10);
}

#[test]
fn four_exports_at_once_of_rows_of_twenty_mebibytes_stay_within_the_promise() {
    large_rows(None, 5, 20);
}

#[test]
fn four_exports_at_once_of_the_largest_rows_of_cassandra_stay_within_the_promise() {
    match Cassandra::shared() {
        Some(cassandra) => large_rows(Some(&cassandra), 8, 12),
        None => skip("four_exports_at_once_of_the_largest_rows_of_cassandra_stay_within_the_promise", "no Cassandra"),
    }
}

/// Exports and concurrent reads of a run of so many rows with so many mebibytes of `extra` each.
fn large_rows(cassandra: Option<&Cassandra>, rows: usize, mebibytes: usize) {
    const NUMBERS: usize = 4_096;
    let name = "x".repeat((mebibytes << 20) / NUMBERS);
    let extra: BTreeMap<String, f64> = (0..NUMBERS).map(|n| (format!("{n:06}{name}"), 0.5)).collect();
    let row: usize = extra.keys().map(String::len).sum();
    assert!(row >= mebibytes << 20);
    let redis = Redis::start();
    // Debug builds are slow.
    let builder = Daemon::on(&redis).set("http.request_timeout", "\"120s\"");
    let builder = match cassandra {
        Some(cassandra) => builder.cassandra(cassandra),
        None => builder,
    };
    let mut daemon = filled(builder.prepare(), cassandra, rows as i64, extra, None);
    let port = daemon.http_port();
    let exports = ["csv", "ndjson", "json", "csv"].map(|format| format!("/api/export?run_id={RUN}&format={format}"));
    for (path, status, bytes) in drain_all(port, exports) {
        assert!(status.starts_with("HTTP/1.1 200") && bytes > rows * row, "{path}: {status}, {bytes} bytes");
    }
    assert_peak(&mut daemon, "four exports", PROMISED_KIB);
    // With concurrent reads of pages and of whole-run statistics.
    let paths = (0..12).map(|n| match n % 6 {
        0 | 1 => format!("/api/export?run_id={RUN}&format=ndjson"),
        2 => format!("/api/metrics/range?run_id={RUN}&limit=100"),
        3 => format!("/api/metrics?run_id={RUN}"),
        4 => format!("/api/runs/{RUN}/gaps"),
        _ => format!("/api/runs/{RUN}"),
    });
    for (path, status, _) in drain_all(port, paths) {
        assert!(status.starts_with("HTTP/1.1 200"), "{path}: {status}");
    }
    assert_peak(&mut daemon, "and eight readers beside four", PROMISED_KIB);
}

/// Requests for large rows wait for one shared memory budget: pages, single rows, whole-run statistics and exports.
#[test]
fn all_answers_with_large_rows_share_one_memory_budget() {
    const ROWS: usize = 5;
    let redis = Redis::start();
    // Debug builds are slow.
    let daemon = Daemon::on(&redis).set("http.request_timeout", "\"200s\"").prepare();
    // As many quotes as a network has: escaped they take two bytes, so that the answer is larger than the row.
    let text = format!("{{\"connections\":[{}0]}}", "{\"w\":0.12345},".repeat((20 << 20) / 14));
    let config = sqlite::Config { path: daemon.database() };
    let mut daemon = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = sqlite::open(&config, &Retention::default(), Metrics::new());
        fill(&store, 3, BTreeMap::new(), Some(text.clone())).await;
        for n in 0..ROWS {
            store.write(&snapshot(n as i64, text.clone())).await.unwrap();
        }
        daemon
    });
    daemon.launch();
    daemon.wait_ready();
    let port = daemon.http_port();
    // The second request gets the memory that the first released.
    for round in 1..=2 {
        let paths = (0..24).map(|n| match n % 8 {
            0 => format!("/api/export?run_id={RUN}&table=network_topology&format=csv"),
            1 => format!("/api/export?run_id={RUN}&format=ndjson"),
            2 | 3 => format!("/api/runs/{RUN}/topology"),
            4 => format!("/api/metrics/range?run_id={RUN}&limit=100"),
            5 => format!("/api/topology?run_id={RUN}"),
            6 => format!("/api/metrics?run_id={RUN}"),
            _ => format!("/api/runs/{RUN}/growth"),
        });
        for (path, status, bytes) in drain_all(port, paths) {
            let refused = path.starts_with("/api/export") && status == "HTTP/1.1 429";
            let whole = status == "HTTP/1.1 200" && (bytes > 20 << 20 || path.ends_with("/growth"));
            assert!(whole || refused, "{path}: {status}, {bytes} bytes");
        }
        assert_peak(&mut daemon, &format!("round {round}"), PROMISED_KIB);
    }
}

/// The configuration of a run may be as large as a message.
#[test]
fn runs_with_large_configurations_are_listed_and_read_in_bounded_memory() {
    const RUNS: i64 = 8;
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).set("http.request_timeout", "\"200s\"").prepare();
    let config = sqlite::Config { path: daemon.database() };
    let text = format!("{{\"text\":\"{}\"}}", "x".repeat(20 << 20));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = sqlite::open(&config, &Retention::default(), Metrics::new());
        fill(&store, 3, BTreeMap::new(), None).await;
        let start = jiff::Timestamp::now().as_second() * 1_000_000 - RUNS;
        for n in 0..RUNS {
            let run = RunRow { run_id: Uuid::from_u128(n as u128), start_time: Some(start + n), ..RunRow::default() };
            store.write_run(&RunRow { config_json: Some(text.as_str().into()), ..run }, None).await.unwrap();
        }
    });
    daemon.launch();
    daemon.wait_ready();
    let port = daemon.http_port();
    let paths = (0..40).map(|n| match n % 5 {
        0 => "/api/runs".to_owned(),
        1 => format!("/api/runs/{}", Uuid::nil()),
        2 => format!("/api/runs/{}/topology", Uuid::from_u128(1)),
        3 => "/api/metrics".to_owned(),
        _ => format!("/api/compare?run_id={}&run_id={RUN}", Uuid::from_u128(2)),
    });
    for (path, status, bytes) in drain_all(port, paths) {
        let large = path == "/api/runs" || path.ends_with(&Uuid::nil().to_string());
        // The most recent run has no metrics.
        let wanted = if path == "/api/metrics" { "HTTP/1.1 404" } else { "HTTP/1.1 200" };
        assert!(status == wanted && (bytes > 20 << 20) == large, "{path}: {status}, {bytes} bytes");
    }
    assert_peak(&mut daemon, "runs with large configurations", PROMISED_KIB);
    // Few runs fit one answer; the cursor leads to the rest.
    let (mut seen, mut path) = (0, "/api/runs?limit=5".to_owned());
    loop {
        let page = daemon.get(&path).json();
        seen += page["count"].as_i64().unwrap();
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/runs?limit=5&before={next}");
    }
    assert_eq!(seen, RUNS + 1);
}

#[test]
fn rows_of_a_megabyte_are_read_in_bounded_memory() {
    let redis = Redis::start();
    let text = format!("{{\"text\":\"{}\"}}", "x".repeat(1 << 20));
    let mut daemon = filled(Daemon::on(&redis).prepare(), None, ROWS, [("grad".to_owned(), 0.5)].into(), Some(text));
    let one = daemon.get(&format!("/api/runs/{RUN}")).json();
    assert_eq!(one["metric_count"], ROWS);
    assert_eq!(one["metrics"].as_array().map(Vec::len), Some(7), "what a page holds");
    let rest = daemon.get(&format!("/api/metrics/range?run_id={RUN}&cursor={}", one["next"].as_str().unwrap())).json();
    assert_eq!(rest["metrics"][0]["epoch"], ROWS - 8, "the cursor goes on behind it");
    println!("one page: {} MiB at most", daemon.process().resident_peak_kib() >> 10);
    let export = daemon.get(&format!("/api/export?run_id={RUN}&format=ndjson"));
    assert_eq!(export.body.lines().count(), ROWS as usize);
    drop(export);
    println!("and an export: {} MiB at most", daemon.process().resident_peak_kib() >> 10);
    for path in [
        format!("/api/metrics/range?run_id={RUN}&max_points=100&fields=grad"),
        format!("/api/runs/{RUN}/gaps"),
        format!("/api/metrics/range?run_id={RUN}&limit=1000"),
    ] {
        assert_eq!(daemon.get(&path).status, 200, "{path}");
    }
    // Stalled exports hold no read permit.
    let port = daemon.http_port();
    let slow: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            write!(stream, "GET /api/export?run_id={RUN} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream
        })
        .collect();
    thread::sleep(Duration::from_secs(2));
    let asked = Instant::now();
    assert_eq!(daemon.get(&format!("/api/runs/{RUN}?limit=1")).status, 200);
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    drop(slow);
    wait_until("room for exports", LIMIT, || {
        let path = format!("/api/export?run_id={RUN}&end_time=2000-01-01");
        http::get(port, &path).unwrap().status == 200
    });
    // Many concurrent requests, two of them exports, every other one compressed; each is answered.
    let askers: Vec<_> = (0..18)
        .map(|n| {
            let path = match n % 9 {
                0 => format!("/api/export?run_id={RUN}&format=csv"),
                _ => format!("/api/runs/{RUN}"),
            };
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(n));
                let coding = if n % 2 == 0 { "gzip" } else { "identity" };
                http::send(port, "GET", &path, &[("Accept-Encoding", coding)], "").unwrap().status
            })
        })
        .collect();
    assert!(askers.into_iter().all(|asker| asker.join().is_ok_and(|status| status == 200)), "{}", daemon.log());
    assert_peak(&mut daemon, "and eighteen at once", MOST_KIB);
}

#[test]
fn latest_values_are_answered_while_the_memory_for_rows_is_taken() {
    let redis = Redis::start();
    let builder = Daemon::on(&redis).set("http.memory", "\"16MiB\"").set("http.request_timeout", "\"3s\"");
    let text = format!("{{\"text\":\"{}\"}}", "x".repeat(1 << 20));
    let mut daemon = filled(builder.prepare(), None, 10, BTreeMap::new(), Some(text));
    let mut client = redis.client();
    let port = daemon.http_port();
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        stream
    };
    // Its answer has the maximum size of a page, and is not read.
    let range = format!("/api/metrics/range?run_id={RUN}");
    let slow = ask(&range);
    wait_until("no room for a page", LIMIT, || http::get(port, &range).unwrap().status == 503);
    for (subject, bytes) in [("metrics", 1_000), ("history", 900_000), ("topology", 60_000), ("history", 60_000)] {
        client.command(&["SET", &format!("cascor:{subject}:latest"), &format!("\"{}\"", "x".repeat(bytes))]);
        let asked = Instant::now();
        let answer = daemon.get(&format!("/api/{subject}"));
        assert_eq!((answer.header("x-cache-status"), answer.body.len()), (Some("HIT"), bytes + 2), "{subject}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    }
    drop(slow);
    // Large values are fetched one at a time; a waiting request still gets the value.
    let large = format!("\"{}\"", "x".repeat(20 << 20));
    let large_kib = (large.len() >> 10) as u64;
    client.command(&["SET", "cascor:topology:latest", &large]);
    let before = daemon.process().resident_peak_kib();
    let greedy: Vec<_> = (0..32).map(|_| ask("/api/topology")).collect();
    thread::sleep(Duration::from_secs(2));
    let peak = daemon.process().resident_peak_kib();
    println!("{} MiB before, {} MiB with 32 large values asked for", before >> 10, peak >> 10);
    assert!(peak < before + 5 * large_kib, "{} MiB", peak >> 10);
    drop(greedy);
    let together: Vec<_> = (0..3).map(|_| thread::spawn(move || http::get(port, "/api/topology").unwrap())).collect();
    for answer in together {
        let answer = answer.join().unwrap();
        assert_eq!((answer.header("x-cache-status"), answer.body.len()), (Some("HIT"), large.len()));
    }
}
