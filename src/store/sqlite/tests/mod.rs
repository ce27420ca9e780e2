mod long;
mod run_order;

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use tempfile::TempDir;

use super::*;
use crate::{
    event::{EventKey, Row},
    units::now,
};

struct Fixture {
    folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("cascor.db")
    }

    fn store(&self) -> SqliteStore {
        open(&Config { path: self.path() }, &Retention::default(), Metrics::new())
    }

    fn writer(&self, retention: Retention) -> Writer {
        let database = Database { path: self.path(), create: true };
        Writer::new(database, retention, Metrics::new(), Arc::default(), Arc::default())
    }

    fn count(&self, table: &str) -> i64 {
        let connection = Connection::open(self.path()).unwrap();
        connection.query_row(&format!("SELECT COUNT(*) FROM {table}"), (), |row| row.get(0)).unwrap()
    }
}

fn batch(run_id: Uuid, epochs: std::ops::Range<i32>) -> Batch {
    let at = now();
    let row = |epoch: i32| MetricsRow {
        key: EventKey { run_id, timestamp: at + i64::from(epoch), event_id: i64::from(epoch) },
        columns: crate::event::MetricColumns {
            epoch: Some(epoch),
            train_loss: Some(0.5),
            train_accuracy: Some(0.75),
            val_loss: Some(0.25),
            learning_rate: Some(0.01),
            hidden_units: Some(3),
            phase: Some("output".into()),
            seq: Some(7),
            ..crate::event::MetricColumns::default()
        },
        extra: [].into(),
        rest_json: None,
    };
    let rows: Vec<Row> = epochs.map(|epoch| Row::Metrics(row(epoch))).collect();
    let (table, partition) = rows[0].destination();
    Batch { table, partition, rows: rows.into() }
}

fn write_request(batch: Batch) -> (WriteRequest, oneshot::Receiver<Result<(), StoreError>>) {
    let (done, answer) = oneshot::channel();
    (WriteRequest { op: WriteOp::Rows(batch), done }, answer)
}

#[test]
fn a_faulty_batch_does_not_affect_the_rest() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer(Retention::default());
    let open = writer.database.writer().unwrap();
    open.connection
        .execute_batch(
            "CREATE TRIGGER no_beast BEFORE INSERT ON training_metrics_rows WHEN new.epoch = 666
             BEGIN SELECT RAISE(ABORT, 'not this one'); END",
        )
        .unwrap();
    let runs = [0..5, 600..700, 10..15].map(|epochs| write_request(batch(Uuid::new_v4(), epochs)));
    let (mut group, answers): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
    writer.commit_group(&mut group);
    let answers: Vec<_> = answers.into_iter().map(|mut answer| answer.try_recv().unwrap()).collect();
    assert!(matches!(&answers[..], [Ok(()), Err(StoreError::Rejected(_)), Ok(())]), "{answers:?}");
    assert_eq!(fixture.count("training_metrics"), 10, "the bad batch left nothing");
}

#[test]
fn a_full_disk_is_retried() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer(Retention::default());
    let open = writer.database.writer().unwrap();
    let pages: i64 = open.connection.query_row("PRAGMA page_count", (), |row| row.get(0)).unwrap();
    open.connection.pragma_update(None, "max_page_count", pages).unwrap();
    writer.open = Some(open);
    let (mut group, answers): (Vec<_>, Vec<_>) =
        [0..5_000, 0..5_000].map(|epochs| write_request(batch(Uuid::new_v4(), epochs))).into_iter().unzip();
    writer.commit_group(&mut group);
    for mut answer in answers {
        let answer = answer.try_recv().unwrap();
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    }
    assert_eq!(fixture.count("training_metrics"), 0);
    let (again, mut answer) = write_request(batch(Uuid::new_v4(), 0..5_000));
    writer.commit_group(&mut vec![again]);
    assert!(answer.try_recv().unwrap().is_ok(), "a new connection has room");
}

#[test]
fn expired_rows_are_not_read_and_are_deleted_in_chunks() {
    let fixture = Fixture::new();
    let short = Retention { metrics: Duration::from_micros(1), ..Retention::default() };
    let mut writer = fixture.writer(short);
    let run_id = Uuid::new_v4();
    writer.commit_group(&mut vec![write_request(batch(run_id, 0..100)).0]);
    writer.retention.metrics = Duration::ZERO;
    writer.commit_group(&mut vec![write_request(batch(run_id, 100..110)).0]);
    let connection = &writer.open.as_ref().unwrap().connection;
    assert_eq!(read::count_metrics(connection, run_id).unwrap(), 10);
    let rows = read::metrics(connection, &RangeQuery::newest(run_id, 1_000)).unwrap();
    assert!(rows.len() == 10 && rows.iter().all(|row| row.columns.epoch >= Some(100)));
    let mut sweep = expire::Sweep::default();
    for left in [80, 50, 20, 10, 10] {
        sweep.step(connection, now(), 30).unwrap();
        assert_eq!(fixture.count("training_metrics"), left);
    }
    sweep.step(connection, i64::MAX, 30).unwrap();
    assert_eq!(fixture.count("training_metrics"), 10, "zero keeps for ever");
}

#[test]
fn every_table_with_retention_is_swept() {
    let fixture = Fixture::new();
    let open = fixture.writer(Retention::default()).database.writer().unwrap();
    open.connection
        .execute_batch(
            "INSERT INTO network_topology VALUES ('r', 1, 1, 0, 0, 0, 0, 0, '{}', NULL, 50);
             INSERT INTO training_events VALUES ('r', 1, 1, 't', '{}', 0, 50);
             INSERT INTO control_log VALUES ('d', 1, 1, 'i', 'c', NULL, NULL, 's', NULL, '{}', 50);
             INSERT INTO ingest_gaps VALUES ('d', 1, 'g', 1, 'r', 's', NULL, 'i', NULL, NULL, 50);
             INSERT INTO training_metrics_long VALUES ('r', 1, 1, NULL, '{}', 50);",
        )
        .unwrap();
    let mut sweep = expire::Sweep::default();
    for (now, deleted) in [(49, 0), (50, 5), (51, 0)] {
        assert_eq!(sweep.step(&open.connection, now, 10).unwrap(), deleted, "at {now}");
    }
}

#[tokio::test]
async fn a_removed_file_is_detected() {
    let fixture = Fixture::new();
    let (store, run_id) = (fixture.store(), Uuid::new_v4());
    store.write(&batch(run_id, 0..3)).await.unwrap();
    assert_eq!(store.count_metrics(run_id).await.unwrap(), 3);
    fs::remove_file(fixture.path()).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(fixture.folder.path().join(format!("cascor.db{suffix}")));
    }
    let lost = store.write(&batch(run_id, 3..5)).await;
    assert!(matches!(lost, Err(StoreError::Unavailable(_))), "not confirmed: {lost:?}");
    store.write(&batch(run_id, 3..5)).await.unwrap();
    assert_eq!(store.count_metrics(run_id).await.unwrap(), 2);
}

#[tokio::test]
async fn a_foreign_file_is_not_changed() {
    for (name, content) in [("damaged", None), ("newer", Some("UPDATE schema_version SET version = 99"))] {
        let fixture = Fixture::new();
        match content {
            None => fs::write(fixture.path(), "not a database, but long enough to look at it".repeat(100)).unwrap(),
            Some(sql) => {
                fixture.store().ping().await.unwrap();
                Connection::open(fixture.path()).unwrap().execute_batch(sql).unwrap();
            }
        }
        let store = fixture.store();
        let run_id = Uuid::new_v4();
        for result in [store.ping().await, store.read_run(run_id).await.map(|_| ())] {
            assert!(matches!(result, Err(StoreError::Misconfigured(_))), "{name}: {result:?}");
        }
        assert!(matches!(store.write(&batch(run_id, 0..1)).await, Err(StoreError::Misconfigured(_))), "{name}");
    }
}

#[tokio::test]
async fn a_migration_by_a_newer_program_loses_no_row() {
    let fixture = Fixture::new();
    let (store, run_id) = (fixture.store(), Uuid::new_v4());
    store.write(&batch(run_id, 0..3)).await.unwrap();
    Connection::open(fixture.path())
        .unwrap()
        .execute_batch(
            "BEGIN; ALTER TABLE training_metrics_rows RENAME TO elsewhere;
             CREATE VIEW training_metrics_rows AS SELECT * FROM elsewhere;
             UPDATE schema_version SET version = 99; COMMIT",
        )
        .unwrap();
    for _ in 0..2 {
        let held = store.write(&batch(run_id, 3..5)).await;
        assert!(matches!(held, Err(StoreError::Misconfigured(_))), "tried again later: {held:?}");
    }
    let Err(StoreError::Misconfigured(error)) = store.ping().await else { panic!() };
    assert!(error.to_string().contains("version 99"), "{error}");
}

#[tokio::test]
async fn the_file_is_private_and_shared_by_processes() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.store(), fixture.store());
    let run_id = Uuid::new_v4();
    for n in 0..20 {
        let (first, second) = (batch(run_id, n * 10..n * 10 + 5), batch(run_id, n * 10 + 5..n * 10 + 10));
        let (first, second) = tokio::join!(one.write(&first), two.write(&second));
        first.and(second).unwrap();
    }
    assert_eq!(two.count_metrics(run_id).await.unwrap(), 200);
    for suffix in ["", "-wal", "-shm"] {
        let mode = fs::metadata(fixture.folder.path().join(format!("cascor.db{suffix}"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "cascor.db{suffix}");
    }
}

/// `cargo test --lib sqlite -- --ignored --nocapture throughput`
#[tokio::test]
#[ignore = "a measurement"]
async fn throughput() {
    let fixture = Fixture::new();
    let store = Arc::new(fixture.store());
    store.ping().await.unwrap();
    let runs: Vec<Uuid> = (0..8).map(|_| Uuid::new_v4()).collect();
    let batches: Vec<Vec<Batch>> =
        runs.iter().map(|run_id| (0..500).map(|n| batch(*run_id, n * 100..(n + 1) * 100)).collect()).collect();
    let cpu = || {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let after = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
        after.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() * 10_000.0
    };
    let (began, cpu_before) = (Instant::now(), cpu());
    let mut tasks = tokio::task::JoinSet::new();
    for batches in batches {
        let store = store.clone();
        tasks.spawn(async move {
            for batch in &batches {
                store.write(batch).await.unwrap();
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    let (rows, seconds) = (400_000.0, began.elapsed().as_secs_f64());
    println!("{:.0} rows/s, {:.2} µs of CPU a row", rows / seconds, (cpu() - cpu_before) / rows);
}

#[tokio::test]
async fn only_changes_by_other_processes_are_counted() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let write = async |epoch: i32| store.write(&batch(Uuid::from_u128(1), epoch..epoch + 1)).await;
    write(0).await.unwrap();
    let before = store.outside_changes().unwrap();
    for epoch in 1..5 {
        write(epoch).await.unwrap();
        store.count_metrics(Uuid::from_u128(1)).await.unwrap();
    }
    assert_eq!(store.outside_changes(), Some(before));
    let other = Connection::open(fixture.path()).unwrap();
    other.execute("DELETE FROM training_metrics_rows WHERE epoch = 3", ()).unwrap();
    write(5).await.unwrap();
    assert_eq!(store.outside_changes(), Some(before + 1));
    drop(other);
    fs::remove_file(fixture.path()).unwrap();
    while write(6).await.is_err() {}
    assert_eq!(store.outside_changes(), Some(before + 2), "another file");
}

#[tokio::test]
async fn a_corrupt_row_is_distinguished_from_a_failing_store() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let row = RunRow { run_id: Uuid::from_u128(1), start_time: Some(5), ..RunRow::default() };
    store.write_run(&row, None).await.unwrap();
    let other = Connection::open(fixture.path()).unwrap();
    other.execute("UPDATE training_runs SET end_time = '2026-11-20 10:00:00'", ()).unwrap();
    let Err(StoreError::Rejected(error)) = store.read_run(Uuid::from_u128(1)).await else { panic!() };
    assert!(crate::logging::Chain(&*error).to_string().contains("end_time"), "{error}");
    other.execute("UPDATE training_runs SET end_time = NULL", ()).unwrap();
    assert_eq!(store.read_run(Uuid::from_u128(1)).await.unwrap().map(|row| row.start_time), Some(Some(5)));
}
