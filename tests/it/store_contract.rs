//! The promises of every store, tested on each of them with the same code.
//!
//! Cassandra keeps milliseconds: events have their microseconds in `event_id`, other times here are whole milliseconds.

#![allow(clippy::unwrap_used, reason = "a call that fails is a test that fails")]

use std::{path::Path, sync::Arc};

use cascor_ingest::{
    curve::{Field, Samples},
    event::{EventKey, EventRow, MetricColumns, MetricsRow, Row, TopologyRow, event_id},
    metrics::Metrics,
    store::{Batch, RangeQuery, Retention, SamplesQuery, Store, StoreError, sqlite},
    units::Micros,
};
use tokio::task::JoinSet;
use uuid::Uuid;

#[path = "store_contract_deletion.rs"]
mod deletion;
#[path = "store_contract_edits.rs"]
mod edits;
#[path = "store_contract_pages.rs"]
mod pages;
#[path = "store_contract_runs.rs"]
mod runs;
#[path = "store_contract_search.rs"]
mod search;

type Shared = Arc<dyn Store>;

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    contract(Arc::new(sqlite_at(&folder.path().join("state/cascor.db")))).await;
}

fn sqlite_at(path: &Path) -> sqlite::SqliteStore {
    sqlite::open(&sqlite::Config { path: path.to_owned() }, &Retention::default(), Metrics::new())
}

/// Every promise of the trait. The store may hold other rows: each part works on runs of its own.
pub async fn contract(store: Shared) {
    store.ping().await.unwrap();
    repeating_a_batch_changes_nothing(&store).await;
    one_millisecond_holds_many_rows(&store).await;
    pages::ranges_are_inclusive_to_the_microsecond(&store).await;
    pages::a_page_ends_with_the_row_that_passes_its_bytes(&store).await;
    pages::pages_join_without_gap_or_overlap(&store).await;
    pages::any_limit_is_exact(&store).await;
    every_number_comes_back_as_it_was(&store).await;
    absent_values_stay_absent(&store).await;
    samples_are_the_numbers_of_the_rows(&store).await;
    a_big_topology_and_events_come_back(&store).await;
    runs::runs_take_the_columns_that_are_present(&store).await;
    runs::a_restart_takes_away_the_end(&store).await;
    runs::metric_names_are_stored_once(&store).await;
    runs::a_run_takes_and_loses_a_nan(&store).await;
    runs::a_moved_start_leaves_one_entry(&store).await;
    runs::runs_are_listed_by_start_status_and_dataset(&store).await;
    runs::a_list_of_large_runs_ends_where_it_has_bytes_enough(&store).await;
    runs::a_dataset_keeps_what_a_later_description_leaves_out(&store).await;
    runs::gaps_are_found_by_day(&store).await;
    runs::an_outcome_is_added_to_a_command_and_stays(&store).await;
    edits::an_edit_is_laid_over_the_row_and_neither_changes_the_other(&store).await;
    edits::a_tag_is_there_or_not_as_the_last_change_says(&store).await;
    edits::two_edits_at_once_are_both_kept(&store).await;
    edits::runs_are_found_by_the_name_that_people_gave_them(&store).await;
    search::words_are_found_in_every_text_of_a_run(&store).await;
    search::pages_are_whole_while_runs_are_added(&store).await;
    search::runs_are_sorted_by_any_column(&store).await;
    search::sorted_pages_follow_edits_and_deletions(&store).await;
    writers_at_once_lose_nothing(&store).await;
    deletion::a_deleted_run_goes_whole_and_alone(&store).await;
}

/// A recent moment, so that no row is past its lifetime and no time-to-live passes 2038.
fn now() -> Micros {
    jiff::Timestamp::now().as_microsecond() / 1_000_000 * 1_000_000
}

fn key(run_id: Uuid, timestamp: Micros, payload: &str) -> EventKey {
    EventKey { run_id, timestamp, event_id: event_id(timestamp, "test", payload.as_bytes()) }
}

fn metrics_row(run_id: Uuid, timestamp: Micros, payload: &str) -> MetricsRow {
    MetricsRow {
        key: key(run_id, timestamp, payload),
        columns: MetricColumns { train_loss: Some(0.5), ..MetricColumns::default() },
        extra: [].into(),
        rest_json: None,
    }
}

fn batch(rows: impl IntoIterator<Item = Row>) -> Batch {
    let rows: Vec<Row> = rows.into_iter().collect();
    let (table, partition) = rows[0].destination();
    assert!(rows.iter().all(|row| row.destination() == (table, partition)), "a batch has one partition");
    Batch { table, partition, rows: rows.into() }
}

async fn put(store: &Shared, rows: impl IntoIterator<Item = Row>) {
    store.write(&batch(rows)).await.unwrap();
}

async fn newest(store: &Shared, run_id: Uuid) -> Vec<MetricsRow> {
    store.metrics(&RangeQuery { bytes: usize::MAX, ..RangeQuery::newest(run_id, 1_000_000) }).await.unwrap()
}

async fn repeating_a_batch_changes_nothing(store: &Shared) {
    let (run_id, now) = (Uuid::new_v4(), now());
    assert_eq!((newest(store, run_id).await, store.count_metrics(run_id).await.unwrap()), (vec![], 0));
    let rows: Vec<MetricsRow> = (0..50).map(|n| metrics_row(run_id, now + n * 1_000, "x")).collect();
    for _ in 0..3 {
        put(store, rows.iter().cloned().map(Row::Metrics)).await;
    }
    let newest_first: Vec<_> = rows.into_iter().rev().collect();
    assert_eq!(newest(store, run_id).await, newest_first);
    assert_eq!(store.count_metrics(run_id).await.unwrap(), 50);
    assert_eq!(store.metrics(&RangeQuery::newest(run_id, 7)).await.unwrap(), newest_first[..7]);
}

async fn one_millisecond_holds_many_rows(store: &Shared) {
    let (run_id, now) = (Uuid::new_v4(), now());
    let mut rows: Vec<_> = (0..10).map(|n| metrics_row(run_id, now + n * 100 + 7, "same bytes")).collect();
    rows.push(metrics_row(run_id, now + 7, "other bytes"));
    put(store, rows.iter().rev().cloned().map(Row::Metrics)).await;
    rows.sort_by_key(|row| std::cmp::Reverse(row.key));
    assert_eq!(newest(store, run_id).await, rows);
}

#[allow(clippy::needless_update, reason = "a column that is added needs no edit here")]
async fn every_number_comes_back_as_it_was(store: &Shared) {
    let (run_id, now) = (Uuid::new_v4(), now());
    let row = MetricsRow {
        columns: MetricColumns {
            epoch: Some(i32::MAX),
            step: Some(-1),
            train_loss: Some(f64::NAN),
            train_accuracy: Some(f64::INFINITY),
            val_loss: Some(f64::NEG_INFINITY),
            val_accuracy: Some(0.1 + 0.2),
            learning_rate: Some(5e-324),
            hidden_units: Some(0),
            phase: Some("candidate \u{1F393} \0 'x'".into()),
            seq: Some(i64::MAX),
            ..MetricColumns::default()
        },
        extra: [
            ("nan", f64::NAN),
            ("inf", f64::INFINITY),
            ("neg", f64::NEG_INFINITY),
            ("tiny", f64::MIN_POSITIVE),
            ("third", 1.0 / 3.0),
            ("whole", 3.0),
            ("long", 0.123_456_789_012_345_67e-200),
            ("big", 9_007_199_254_740_993.0),
            ("\"quoted\\\"", 1.5),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        rest_json: Some(r#"{"a":[1,null]}"#.into()),
        ..metrics_row(run_id, now + 1, "x")
    };
    put(store, [Row::Metrics(row.clone())]).await;
    // NaN is not equal to itself, but it is written like itself.
    assert_eq!(format!("{:?}", newest(store, run_id).await), format!("{:?}", [row]));
}

async fn absent_values_stay_absent(store: &Shared) {
    let (run_id, now) = (Uuid::new_v4(), now());
    let rows = [
        MetricsRow { columns: MetricColumns::default(), ..metrics_row(run_id, now + 1, "nothing") },
        MetricsRow {
            columns: MetricColumns { phase: Some(String::new()), train_loss: Some(0.0), ..MetricColumns::default() },
            ..metrics_row(run_id, now, "empty")
        },
    ];
    put(store, rows.iter().cloned().map(Row::Metrics)).await;
    assert_eq!(format!("{:?}", newest(store, run_id).await), format!("{rows:?}"));
}

async fn samples_are_the_numbers_of_the_rows(store: &Shared) {
    let (run_id, now) = (Uuid::new_v4(), now());
    let rows: Vec<_> = (0..30)
        .map(|n| MetricsRow {
            columns: MetricColumns {
                epoch: Some(n),
                step: (n % 2 == 0).then_some(n * 10),
                train_loss: [Some(f64::NAN), Some(f64::NEG_INFINITY), None, Some(0.1)][n as usize % 4],
                learning_rate: Some(1.0 / f64::from(n + 3)),
                hidden_units: Some(n / 7),
                phase: [Some("output"), Some("candidate"), None][n as usize % 3].map(str::to_owned),
                seq: Some(i64::from(n) + i64::MAX / 2),
                ..MetricColumns::default()
            },
            extra: [("grad".to_owned(), f64::from(n)), ("inf".to_owned(), f64::INFINITY)].into(),
            ..metrics_row(run_id, now + i64::from(n) * 333, "x")
        })
        .collect();
    put(store, rows.iter().cloned().map(Row::Metrics)).await;
    for names in [&["train_loss", "hidden_units", "lr"][..], &["grad", "loss", "inf", "none"], &[]] {
        let fields: Vec<_> = names.iter().map(|name| Field::named(name)).collect();
        for ascending in [true, false] {
            let after = Some((rows[12].key.timestamp, rows[12].key.event_id));
            let range = RangeQuery { ascending, after, ..RangeQuery::newest(run_id, 9) };
            let mut of_rows = Samples::default();
            for row in store.metrics(&range).await.unwrap() {
                of_rows.add(&row.key, &row.columns, &row.extra, &fields);
            }
            assert_eq!(of_rows.rows.len(), 9);
            let read = store.samples(&SamplesQuery { range, fields: fields.clone() }).await.unwrap();
            assert_eq!(format!("{read:?}"), format!("{of_rows:?}"), "{names:?}");
        }
    }
}

async fn a_big_topology_and_events_come_back(store: &Shared) {
    let (run_id, now) = (Uuid::new_v4(), now());
    let big = TopologyRow {
        key: key(run_id, now + 2, "big"),
        epoch: Some(3),
        input_size: Some(2),
        output_size: Some(1),
        hidden_units: Some(40_000),
        total_parameters: Some(7),
        topology_json: format!("{{\"nodes\":\"{}\"}}", "n".repeat(8 << 20)).into(),
        weights_summary: Some(r#"{"count":7}"#.into()),
    };
    let bare = TopologyRow {
        key: key(run_id, now, "bare"),
        epoch: None,
        input_size: None,
        output_size: None,
        hidden_units: None,
        total_parameters: None,
        topology_json: "{}".into(),
        weights_summary: None,
    };
    for row in [&big, &bare, &big] {
        put(store, [Row::Topology(row.clone())]).await;
    }
    assert!(
        store.topology(&RangeQuery { bytes: usize::MAX, ..RangeQuery::newest(run_id, 10) }).await.unwrap()
            == [big, bare.clone()],
        "as written"
    );
    let ascending = RangeQuery { ascending: true, ..RangeQuery::newest(run_id, 1) };
    assert_eq!(store.topology(&ascending).await.unwrap(), [bare]);

    let events = [(2, "training_end", Some(9)), (1, "cascade_add", None)].map(|(at, kind, epoch)| EventRow {
        key: key(run_id, now + at, kind),
        r#type: kind.into(),
        payload_json: format!("{{\"type\":\"{kind}\"}}").into(),
        epoch,
    });
    put(store, events.iter().cloned().map(Row::Event)).await;
    put(store, events.iter().cloned().map(Row::Event)).await;
    assert_eq!(store.events(&RangeQuery::newest(run_id, 10)).await.unwrap(), events);
}

async fn writers_at_once_lose_nothing(store: &Shared) {
    let now = now();
    let runs: Vec<Uuid> = (0..8).map(|_| Uuid::new_v4()).collect();
    let mut writers = JoinSet::new();
    for (n, run_id) in runs.iter().copied().cycle().take(64).enumerate() {
        let store = store.clone();
        writers.spawn(async move {
            let at = now + n as Micros * 10_000;
            let rows = (0..50).map(|i| Row::Metrics(metrics_row(run_id, at + i, "x")));
            store.write(&batch(rows)).await.unwrap();
            store.metrics(&RangeQuery::newest(run_id, 10)).await.unwrap().len()
        });
    }
    while let Some(read) = writers.join_next().await {
        assert_eq!(read.unwrap(), 10, "confirmed rows can be read");
    }
    for run_id in runs {
        assert_eq!(store.count_metrics(run_id).await.unwrap(), 400);
    }
}

#[tokio::test]
async fn rows_of_sqlite_survive_and_a_reader_needs_no_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cascor.db");
    let config = sqlite::Config { path: path.clone() };
    let run_id = Uuid::new_v4();
    let read_only = sqlite::open_read_only(&config, &Retention::default(), Metrics::new());
    assert!(matches!(read_only.ping().await, Err(StoreError::Misconfigured(_))), "there is no file");
    assert!(!path.exists(), "a reader does not create one");
    let store = sqlite_at(&path);
    store.write(&batch([Row::Metrics(metrics_row(run_id, now(), "x"))])).await.unwrap();
    assert_eq!(read_only.count_metrics(run_id).await.unwrap(), 1);
    assert!(matches!(read_only.write_run(&runs::run_row(run_id), None).await, Err(StoreError::Misconfigured(_))));
    drop(store);
    assert_eq!(sqlite_at(&path).count_metrics(run_id).await.unwrap(), 1);
}
