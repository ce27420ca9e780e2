//! What is read by HTTP stays within the memory that is promised, however large the rows are.

use std::{thread, time::Duration};

use cascor_ingest::{
    event::{EventKey, MetricsRow, Row, RunRow},
    metrics::Metrics,
    store::{Batch, Retention, Store, sqlite},
};
use uuid::Uuid;

use crate::support::{daemon::Daemon, http, redis::Redis};

const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const ROWS: i64 = 300;
const MOST_KIB: u64 = 200 << 10;

/// A run whose rows are a megabyte each.
#[allow(clippy::unwrap_used, reason = "a call that fails is a test that fails")]
async fn fill(store: &dyn Store) {
    let run_id = Uuid::try_parse(RUN).unwrap();
    let start = (jiff::Timestamp::now().as_second() - 3_600) * 1_000_000;
    store.write_run(&RunRow { run_id, start_time: Some(start), ..RunRow::default() }, None).await.unwrap();
    for n in 0..ROWS {
        let row = MetricsRow {
            key: EventKey { run_id, timestamp: start + n, event_id: n },
            epoch: i32::try_from(n).ok(),
            step: None,
            train_loss: Some(0.5),
            train_accuracy: None,
            val_loss: None,
            val_accuracy: None,
            learning_rate: None,
            hidden_units: None,
            phase: None,
            seq: Some(n),
            extra: [("grad".to_owned(), 0.5)].into(),
            rest_json: Some(format!("{{\"text\":\"{}\"}}", "x".repeat(1 << 20))),
        };
        let (table, partition) = Row::Metrics(row.clone()).destination();
        store.write(&Batch { table, partition, rows: vec![Row::Metrics(row)] }).await.unwrap();
    }
}

#[test]
fn rows_of_a_megabyte_are_read_in_bounded_memory() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).prepare();
    let config = sqlite::Config { path: daemon.database() };
    let store = sqlite::open(&config, &Retention::default(), Metrics::new());
    tokio::runtime::Runtime::new().unwrap().block_on(fill(&store));
    drop(store);
    daemon.launch();
    daemon.wait_ready();
    let one = daemon.get(&format!("/api/runs/{RUN}")).json();
    assert_eq!(one["metric_count"], ROWS);
    assert_eq!(one["metrics"].as_array().map(Vec::len), Some(8), "what a page holds");
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
    // Many at once, two of them exports, every other compressed; every one gets an answer.
    let port = daemon.http_port();
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
    assert!(askers.into_iter().all(|asker| asker.join().unwrap() == 200));
    let peak = daemon.process().resident_peak_kib();
    println!("and eighteen at once: {} MiB at most", peak >> 10);
    assert!(peak < MOST_KIB, "{} MiB", peak >> 10);
}
