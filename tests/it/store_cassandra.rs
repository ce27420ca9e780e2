//! The Cassandra store against a real server: the shared node, and nodes of its own for login, TLS and faults.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cascor_ingest::{
    event::{
        ControlRow, DAY, DatasetRow, EventKey, EventRow, GapRow, MetricColumns, MetricsRow, Row, RunRow, TopologyRow,
        event_id,
    },
    metrics::Metrics,
    schema::{CassandraSchema, Options, Replication},
    store::{
        Batch, DaysQuery, Prefetch, RangeQuery, Retention, RunsQuery, Store,
        cassandra::{CassandraStore, Config},
    },
};
use scylla::client::{session::Session, session_builder::SessionBuilder};
use uuid::Uuid;

use crate::support::skip;

pub const NOW: i64 = 1_795_228_200_123_456;

pub fn server() -> Option<String> {
    let server = std::env::var("CASCOR_TEST_CASSANDRA").ok();
    if server.is_none() {
        skip("store_cassandra", "CASCOR_TEST_CASSANDRA is not set");
    }
    server
}

pub fn config(server: &str) -> Config {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    Config {
        contact_points: vec![server.to_owned()],
        keyspace: format!("t{}_{n}", std::process::id()),
        ..Config::default()
    }
}

pub fn tool(config: &Config) -> CassandraSchema {
    let replication = Some(Replication::Simple(1));
    CassandraSchema::new(config, Options { replication, wait: Duration::from_secs(30), dir: None })
}

pub async fn admin(server: &str) -> Session {
    SessionBuilder::new().known_node(server).build().await.unwrap()
}

pub async fn connected(config: &Config) -> Arc<CassandraStore> {
    let store = CassandraStore::new(config, &Retention::default(), Metrics::new());
    store.connect().await.unwrap();
    store
}

/// A test with a keyspace of its own, dropped at the end.
async fn with_schema<F: Future<Output = ()>>(test: impl FnOnce(String, Config) -> F) {
    let Some(server) = server() else { return };
    let config = config(&server);
    tool(&config).apply(&|_| {}).await.unwrap();
    test(server.clone(), config.clone()).await;
    let drop = format!("DROP KEYSPACE IF EXISTS {}", config.keyspace);
    admin(&server).await.query_unpaged(drop, ()).await.unwrap();
}

pub fn metrics_row(run_id: Uuid, at: i64, n: i32) -> MetricsRow {
    MetricsRow {
        key: EventKey { run_id, timestamp: at, event_id: event_id(at, "c", &n.to_le_bytes()) },
        columns: MetricColumns { epoch: Some(n), train_loss: Some(0.5), ..MetricColumns::default() },
        extra: Default::default(),
        rest_json: None,
    }
}

pub fn batch(rows: Vec<Row>) -> Batch {
    let (table, partition) = rows[0].destination();
    Batch { table, partition, rows: rows.into() }
}

#[tokio::test]
async fn cassandra_keeps_the_contract_of_every_store() {
    with_schema(async |_, config| crate::store_contract::contract(connected(&config).await).await).await;
}

#[tokio::test]
async fn every_column_is_read_back() {
    with_schema(|server, config| async move {
        let store = connected(&config).await;
        let run_id = Uuid::new_v4();
        let mut full = metrics_row(run_id, NOW, 1);
        full.columns.step = Some(-3);
        full.columns.train_loss = Some(f64::NAN);
        full.columns.train_accuracy = Some(f64::INFINITY);
        full.columns.val_loss = Some(f64::NEG_INFINITY);
        full.columns.val_accuracy = Some(0.25);
        full.columns.learning_rate = Some(1e-300);
        full.columns.hidden_units = Some(i32::MAX);
        full.columns.phase = Some("output — ü".into());
        full.columns.seq = Some(i64::MAX);
        full.extra = [("a".to_owned(), 1.5), ("nan".to_owned(), f64::NAN)].into();
        full.rest_json = Some("{}".into());
        let bare = MetricsRow { columns: MetricColumns::default(), ..metrics_row(run_id, NOW + 1, 2) };
        let rows = batch(vec![Row::Metrics(full.clone()), Row::Metrics(bare.clone())]);
        for _ in 0..2 {
            store.write(&rows).await.unwrap();
        }
        let found = store.metrics(&RangeQuery::newest(run_id, 10)).await.unwrap();
        assert_eq!(format!("{found:?}"), format!("{:?}", [bare, full]), "NaN is not equal to itself, its text is");
        assert_eq!(store.count_metrics(run_id).await.unwrap(), 2, "a replay adds nothing");

        let key = EventKey { run_id, timestamp: NOW, event_id: event_id(NOW, "c", b"x") };
        let topology = TopologyRow {
            key,
            epoch: Some(1),
            input_size: Some(2),
            output_size: Some(1),
            hidden_units: Some(3),
            total_parameters: Some(20),
            topology_json: "[1]".into(),
            weights_summary: Some("{}".into()),
        };
        store.write(&batch(vec![Row::Topology(topology.clone())])).await.unwrap();
        assert_eq!(store.topology(&RangeQuery::newest(run_id, 10)).await.unwrap(), [topology]);

        let event = EventRow { key, r#type: "cascade_add".into(), payload_json: "{}".into(), epoch: Some(4) };
        store.write(&batch(vec![Row::Event(event.clone())])).await.unwrap();
        assert_eq!(store.events(&RangeQuery::newest(run_id, 10)).await.unwrap(), [event]);

        let dataset = DatasetRow {
            dataset_id: run_id,
            name: Some("spiral".into()),
            description: Some("two".into()),
            num_samples: Some(194),
            num_features: Some(2),
            num_classes: Some(2),
            class_distribution: [("a".to_owned(), 97), ("b".to_owned(), 97)].into(),
            created_at: Some(NOW / 1_000 * 1_000),
            file_path: Some("/x".into()),
            checksum: Some("c".into()),
        };
        store.write(&batch(vec![Row::Dataset(dataset.clone())])).await.unwrap();
        assert_eq!(store.dataset(run_id).await.unwrap(), Some(dataset));
        assert_eq!(store.dataset(Uuid::nil()).await.unwrap(), None);
        days_are_read_back(&store).await;
        expiry_is_bound(&server, &config, run_id).await;
    })
    .await;
}

async fn days_are_read_back(store: &CassandraStore) {
    let control = |at: i64, outcome: Option<&str>| ControlRow {
        timestamp: at,
        event_id: event_id(at, "cascor:control", b"pause"),
        instance: "i".into(),
        command: "pause".into(),
        command_id: Some("7".into()),
        target: None,
        source: "redis".into(),
        outcome: outcome.map(Into::into),
        payload_json: "pause".into(),
    };
    store.write(&batch(vec![Row::Control(control(NOW, None))])).await.unwrap();
    store.write(&batch(vec![Row::Control(control(NOW, Some("done")))])).await.unwrap();
    store.write(&batch(vec![Row::Control(control(NOW - DAY, None))])).await.unwrap();
    let days = |start, end, limit| DaysQuery { start, end, limit };
    let both = [control(NOW, Some("done")), control(NOW - DAY, None)];
    assert_eq!(store.control_log(&days(0, NOW, 10)).await.unwrap(), both, "the outcome is added to the row");
    assert_eq!(store.control_log(&days(0, NOW - 1, 10)).await.unwrap(), both[1..], "exact to the microsecond");
    assert_eq!(store.control_log(&days(0, NOW, 1)).await.unwrap(), both[..1]);

    let started_at = NOW / 1_000 * 1_000;
    let gap = GapRow {
        started_at,
        gap_id: Uuid::new_v4(),
        ended_at: started_at + 5_000,
        reason: "disconnected".into(),
        source: "redis".into(),
        channel: Some("cascor:training".into()),
        instance: "i".into(),
        run_id: Some(Uuid::new_v4()),
        lost: Some(3),
    };
    let unknown = GapRow {
        gap_id: Uuid::new_v4(),
        started_at: started_at - DAY,
        run_id: None,
        lost: None,
        channel: None,
        ..gap.clone()
    };
    store.write(&batch(vec![Row::Gap(gap.clone())])).await.unwrap();
    store.write(&batch(vec![Row::Gap(unknown.clone())])).await.unwrap();
    assert_eq!(store.gaps(&days(0, NOW, 10)).await.unwrap(), [gap, unknown]);
}

async fn expiry_is_bound(server: &str, config: &Config, run_id: Uuid) {
    let admin = admin(server).await;
    for (table, column, days) in
        [("training_metrics", "epoch", 30), ("network_topology", "epoch", 90), ("training_events", "epoch", 30)]
    {
        let query = format!("SELECT TTL({column}) FROM {}.{table} WHERE run_id = {run_id}", config.keyspace);
        let result = admin.query_unpaged(query, ()).await.unwrap().into_rows_result().unwrap();
        let ttls: Vec<i32> = result.rows::<(Option<i32>,)>().unwrap().filter_map(|row| row.unwrap().0).collect();
        assert!(!ttls.is_empty(), "{table}");
        for ttl in ttls {
            assert!((days * 86_400 - 60..=days * 86_400).contains(&ttl), "{table}: {ttl}");
        }
    }
}

#[tokio::test]
async fn ranges_and_cursors_are_exact() {
    with_schema(|_, config| async move {
        let store = connected(&config).await;
        let run_id = Uuid::new_v4();
        // Many rows in few milliseconds, so that bounds fall between rows of the same millisecond.
        let mut rows: Vec<MetricsRow> = (0..300).map(|n| metrics_row(run_id, NOW + i64::from(n / 3) * 40, n)).collect();
        for rows in rows.chunks(100) {
            store.write(&batch(rows.iter().cloned().map(Row::Metrics).collect())).await.unwrap();
        }
        rows.sort_by_key(|row| row.key);
        let (start, end) = (NOW + 77, NOW + 3_120);
        let inside: Vec<_> =
            rows.iter().filter(|r| r.key.timestamp >= start && r.key.timestamp <= end).cloned().collect();
        for ascending in [true, false] {
            let mut query =
                RangeQuery { start: Some(start), end: Some(end), limit: 7, ascending, ..RangeQuery::newest(run_id, 0) };
            query.limit = 7;
            let mut all = Vec::new();
            loop {
                let page = store.metrics(&query).await.unwrap();
                let Some(last) = page.last() else { break };
                query.after = Some((last.key.timestamp, last.key.event_id));
                all.extend(page);
            }
            if !ascending {
                all.reverse();
            }
            assert_eq!(all, inside, "ascending: {ascending}");
        }
        assert_eq!(store.metrics(&RangeQuery::newest(run_id, 0)).await.unwrap(), []);
        assert_eq!(store.metrics(&RangeQuery::newest(run_id, 1_000)).await.unwrap().len(), 300);
    })
    .await;
}

#[tokio::test]
async fn the_next_page_of_a_range_is_prefetched() {
    with_schema(|server, config| async move {
        let store = connected(&config).await;
        let run_id = Uuid::new_v4();
        let mut rows: Vec<MetricsRow> = (0..40).map(|n| metrics_row(run_id, NOW + i64::from(n) * 40, n)).collect();
        store.write(&batch(rows.iter().cloned().map(Row::Metrics).collect())).await.unwrap();
        rows.sort_by_key(|row| row.key);
        let prefetch = Some(Prefetch::default());
        let mut query = RangeQuery { ascending: true, prefetch, ..RangeQuery::newest(run_id, 10) };
        let pages = async |query: &mut RangeQuery, n: usize| {
            assert_eq!(store.metrics(query).await.unwrap(), rows[n * 10..][..10], "page {n}");
            query.after = Some((rows[n * 10 + 9].key.timestamp, rows[n * 10 + 9].key.event_id));
            // The next one arrives.
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        pages(&mut query, 0).await;
        pages(&mut query, 1).await;
        let delete = format!("DELETE FROM {}.training_metrics WHERE run_id = ?", config.keyspace);
        admin(&server).await.query_unpaged(delete, (run_id,)).await.unwrap();
        let other = RangeQuery { prefetch: None, ..query.clone() };
        assert_eq!(store.metrics(&other).await.unwrap(), []);
        pages(&mut query, 2).await;
        // A prefetched page serves only the range and cursor that it was requested for.
        query.after = Some((NOW, 0));
        assert_eq!(store.metrics(&query).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn run_rows_are_merged_and_found_newest_first() {
    with_schema(|server, config| async move {
        let store = connected(&config).await;
        let month = 31 * DAY;
        let start = |n: i64| (NOW - n * month / 3) / 1_000 * 1_000;
        let ids: Vec<Uuid> = (0..12).map(|_| Uuid::new_v4()).collect();
        for (n, id) in ids.iter().enumerate() {
            let row = RunRow {
                run_id: *id,
                start_time: Some(start(n as i64)),
                status: Some(if n % 2 == 0 { "running" } else { "completed" }.into()),
                dataset_name: Some(format!("d{}", n % 3)),
                tags: ["a".to_owned(), "b".to_owned()].into(),
                final_val_loss: Some(f64::NAN),
                last_event_time: Some(start(n as i64)),
                ..RunRow::default()
            };
            store.write_run(&row, None).await.unwrap();
        }
        let change = RunRow { run_id: ids[0], final_epoch: Some(9), ..RunRow::default() };
        store.write_run(&change, Some(start(0))).await.unwrap();
        let first = store.read_run(ids[0]).await.unwrap().unwrap();
        assert_eq!((first.final_epoch, first.status.as_deref(), first.tags.len()), (Some(9), Some("running"), 2));
        assert!(first.final_val_loss.is_some_and(f64::is_nan));

        let found = async |query: &RunsQuery| -> Vec<Uuid> {
            store.runs(query).await.unwrap().rows().iter().map(|row| row.run_id).collect()
        };
        let all = RunsQuery { limit: 100, ..RunsQuery::default() };
        assert_eq!(found(&all).await, ids);
        let mut page = RunsQuery { limit: 5, ..RunsQuery::default() };
        let mut paged = Vec::new();
        loop {
            let runs = store.runs(&page).await.unwrap();
            paged.extend(runs.runs.iter().map(|run| run.row.run_id));
            let Some(next) = runs.next else { break };
            page.from = next;
        }
        assert_eq!(paged, ids);
        let filtered = RunsQuery { status: Some("completed".into()), dataset: Some("d1".into()), ..all.clone() };
        assert_eq!(found(&filtered).await, [ids[1], ids[7]]);

        // An earlier start moves the run, across months; the old entry is gone.
        let moved = RunRow { run_id: ids[0], start_time: Some(start(5) + 1_000), ..RunRow::default() };
        store.write_run(&moved, Some(start(0))).await.unwrap();
        let expected = [&ids[1..5], &ids[..1], &ids[5..]].concat();
        assert_eq!(found(&all).await, expected);
        let count = format!("SELECT count(*) FROM {}.runs_by_month", config.keyspace);
        let result = admin(&server).await.query_unpaged(count, ()).await.unwrap().into_rows_result().unwrap();
        assert_eq!(result.single_row::<(i64,)>().unwrap().0, 12);
        contract_queries_work(&server, &config).await;
    })
    .await;
}

async fn contract_queries_work(server: &str, config: &Config) {
    let admin = admin(server).await;
    let rows = async |query: &str| {
        let query = query.replace("training_", &format!("{}.training_", config.keyspace));
        admin.query_unpaged(query, ()).await.unwrap().into_rows_result().unwrap().rows_num()
    };
    // The index may need a moment to be built.
    assert_eq!(rows("SELECT * FROM training_runs WHERE status = 'completed' LIMIT 100").await, 6);
    assert_eq!(rows("SELECT * FROM training_runs WHERE dataset_name = 'd0'").await, 4);
    assert_eq!(rows("SELECT * FROM training_runs WHERE dataset_name = 'd0' ALLOW FILTERING").await, 4);
    assert_eq!(rows("SELECT * FROM training_runs LIMIT 5").await, 5);
}
