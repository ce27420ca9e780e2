//! Stores of earlier versions.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use cascor_ingest::{
    event::{Row, RunRow},
    metrics::Metrics,
    schema::{CassandraSchema, Options, Replication},
    store::{
        RangeQuery, Retention, RunsQuery, Store, StoreError,
        cassandra::CassandraStore,
        sqlite::{self, SqliteStore},
    },
};
use rusqlite::Connection;
use serde_json::json;
use uuid::Uuid;

use crate::{
    store_cassandra::{NOW, admin, batch, config, connected, metrics_row, server, tool},
    support::{cassandra::Cassandra, daemon::Daemon, redis::Redis, repository, skip, wait_until},
};

const COMPLETED: Uuid = Uuid::from_u128(0x1111_1111_1111_4111_8111_1111_1111_1111);
const AGAIN: Uuid = Uuid::from_u128(0x2222_2222_2222_4222_8222_2222_2222_2222);

/// A file as version 1 left it.
fn old_file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cascor.db");
    let text = fs::read_to_string(repository("tests/fixtures/stores/sqlite_version_1.sql")).unwrap();
    Connection::open(&path).unwrap().execute_batch(&text).unwrap();
    (folder, path)
}

fn open(path: PathBuf) -> SqliteStore {
    sqlite::open(&sqlite::Config { path }, &Retention::default(), Metrics::new())
}

#[tokio::test]
async fn a_sqlite_file_of_version_1_keeps_its_rows_and_is_migrated() {
    let (_folder, path) = old_file();
    let tables =
        ["training_metrics", "network_topology", "training_events", "training_runs", "runs_by_month", "control_log"];
    let all = |path: &PathBuf| -> Vec<Vec<String>> {
        let connection = Connection::open(path).unwrap();
        let rows = |table: &&str| {
            let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
            let old = names.iter().enumerate().filter(|(_, name)| *name != "restarted_at").map(|(at, _)| at);
            let old: Vec<usize> = old.collect();
            let text = |row: &rusqlite::Row<'_>| {
                Ok(old.iter().map(|at| format!("{:?}", row.get_ref(*at).unwrap())).collect::<Vec<_>>().join("|"))
            };
            statement.query_map((), text).unwrap().map(Result::unwrap).collect()
        };
        tables.iter().map(rows).collect()
    };
    let before = all(&path);
    assert!(before.iter().all(|rows: &Vec<String>| !rows.is_empty()), "every table holds something: {before:?}");
    let store = open(path.clone());
    store.ping().await.unwrap();
    assert_eq!(all(&path), before);
    let run = store.read_run(COMPLETED).await.unwrap().unwrap();
    assert_eq!((run.status.as_deref(), run.final_train_loss, run.restarted_at), (Some("completed"), Some(0.125), None));
    assert_eq!(store.runs(&RunsQuery { limit: 9, ..RunsQuery::default() }).await.unwrap().rows().len(), 2);
    assert_eq!(store.metric_names(COMPLETED).await.unwrap(), Vec::<String>::new());
    store.write_metric_names(COMPLETED, &["grad_norm".to_owned()]).await.unwrap();
    assert_eq!(store.metric_names(COMPLETED).await.unwrap(), ["grad_norm"]);
    let change = RunRow { run_id: COMPLETED, restarted_at: run.end_time, ..RunRow::default() };
    store.write_run(&change, run.start_time).await.unwrap();
    let expected = RunRow { end_time: None, duration_seconds: None, restarted_at: run.end_time, ..run };
    assert_eq!(store.read_run(COMPLETED).await.unwrap(), Some(expected));
    // A second opening migrates nothing.
    drop(store);
    open(path).ping().await.unwrap();
}

/// The statements of `deploy/upgrades.md` that begin with this text.
fn manual(beginning: &str) -> String {
    let manual = fs::read_to_string(repository("deploy/upgrades.md")).unwrap();
    let (_, rest) = manual.split_once(&format!("cascor.db \"{beginning}")).unwrap();
    format!("{beginning}{}", rest.split_once('"').unwrap().0)
}

#[tokio::test]
async fn long_rows_of_a_sqlite_file_of_version_1_are_read_where_they_are_and_where_the_manual_moves_them() {
    let (_folder, path) = old_file();
    let other = Connection::open(&path).unwrap();
    let long = "INSERT INTO training_metrics (run_id, timestamp, event_id, extra, rest_json)
        SELECT run_id, 4000000000000000 + value, 1, iif(value <> 1, '{\"a\":1.5' || printf('%6000s', '') || '}', NULL),
        iif(value <> 2, '{\"b\":\"' || printf('%1000000s', '') || '\"}', '{}')
        FROM training_runs, (SELECT 1 AS value UNION SELECT 2 UNION SELECT 3) WHERE run_id = ?1";
    other.execute(long, [COMPLETED.to_string()]).unwrap();
    other.execute("CREATE VIEW theirs AS SELECT * FROM training_metrics", ()).unwrap();
    let texts = |table: &str| -> Vec<(Option<String>, Option<String>)> {
        let sql = format!("SELECT extra, rest_json FROM {table} ORDER BY run_id, timestamp, event_id");
        let mut statement = other.prepare(&sql).unwrap();
        statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    let longest = |table: &str| -> Option<i64> {
        let sql = format!("SELECT max(octet_length(extra) + octet_length(rest_json)) FROM {table}");
        other.query_row(&sql, (), |row| row.get(0)).unwrap()
    };
    let before = texts("training_metrics");
    let store = open(path.clone());
    let query = RangeQuery { bytes: usize::MAX, ..RangeQuery::newest(COMPLETED, 100) };
    let rows = store.metrics(&query).await.unwrap();
    assert_eq!(
        (rows[0].extra.get("a"), rows[0].rest_json.as_ref().map(|text| text.len())),
        (Some(&1.5), Some(1_000_008))
    );
    assert!(texts("training_metrics") == before && texts("theirs") == before);
    assert_eq!((longest("training_metrics_rows"), texts("training_metrics_long").len()), (Some(1_006_017), 0));

    other.execute_batch(&manual("BEGIN IMMEDIATE;")).unwrap();
    assert!(texts("training_metrics") == before && texts("theirs") == before);
    assert_eq!((longest("training_metrics_rows"), texts("training_metrics_long").len()), (Some(2), 3));
    // A NaN is not equal to itself.
    let rows = format!("{rows:?}");
    assert!(format!("{:?}", store.metrics(&query).await.unwrap()) == rows);
    drop(store);

    for statements in [manual("BEGIN; DROP TRIGGER"), manual("BEGIN; DROP TABLE"), manual("BEGIN; PRAGMA")] {
        other.execute_batch(&statements).unwrap();
    }
    assert!(texts("training_metrics") == before && texts("theirs") == before);
    assert_eq!(longest("training_metrics"), Some(1_006_017), "as version 2 keeps them");
    assert!(format!("{:?}", open(path).metrics(&query).await.unwrap()) == rows, "up again");
}

/// The statements of `deploy/upgrades.md`, by which an older program can use the file again.
#[tokio::test]
async fn a_sqlite_file_goes_back_to_version_1_as_the_manual_says_and_up_again() {
    let (_folder, path) = old_file();
    let schema = |path: &PathBuf| -> Vec<String> {
        let connection = Connection::open(path).unwrap();
        let mut statement = connection.prepare("SELECT name FROM pragma_table_list WHERE schema = 'main'").unwrap();
        let tables: Vec<String> = statement.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let mut columns = Vec::new();
        for table in tables {
            let statement = connection.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
            columns.push(format!("{table}: {}", statement.column_names().collect::<Vec<_>>().join(", ")));
        }
        columns.sort();
        columns
    };
    let before = schema(&path);
    let store = open(path.clone());
    let run = store.read_run(COMPLETED).await.unwrap();
    drop(store);
    assert_ne!(schema(&path), before);
    let parts = ["BEGIN; DROP TRIGGER", "BEGIN; DROP TABLE", "BEGIN; PRAGMA", "BEGIN; ALTER"];
    for statements in parts.map(manual) {
        Connection::open(&path).unwrap().execute_batch(&statements).unwrap();
    }
    assert_eq!(schema(&path), before);
    let store = open(path.clone());
    assert_eq!(store.read_run(COMPLETED).await.unwrap(), run);
    store.write_metric_names(COMPLETED, &["a".to_owned()]).await.unwrap();
}

/// Version 1 kept the old end in the row of a run that started again: the run's next message removes it.
#[test]
fn a_run_that_ran_again_in_version_1_loses_its_old_end() {
    let (_folder, path) = old_file();
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).set("store.sqlite.path", format!("{path:?}")).start_ready();
    let row = |daemon: &Daemon| daemon.get(&format!("/api/runs/{AGAIN}")).json()["run"].clone();
    let before = row(&daemon);
    assert!(!before["end_time"].is_null() && before["restarted_at"].is_null(), "{before}");
    let message = json!({"type": "metrics", "run_id": AGAIN, "epoch": 2, "loss": 0.25});
    redis.client().publish("cascor:training", message.to_string());
    wait_until("the row is whole", Duration::from_secs(20), || {
        let run = row(&daemon);
        run["final_epoch"] == 2
            && run["end_time"].is_null()
            && run["duration_seconds"].is_null()
            && run["restarted_at"] == "2026-11-28T13:43:49.700007Z"
    });
}

/// The keyspace of version 1, as `schema apply` of that version left it.
async fn apply_version_1(config: &cascor_ingest::store::cassandra::Config, server: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(repository("schema/cassandra/001_tables.cql"), folder.path().join("001_tables.cql")).unwrap();
    apply_statements(config, server, folder.path(), 1).await;
}

/// A keyspace as `schema apply` of a version with these statements left it.
pub async fn apply_statements(
    config: &cascor_ingest::store::cassandra::Config,
    server: &str,
    statements: &Path,
    version: u32,
) {
    let options = Options {
        replication: Some(Replication::Simple(1)),
        wait: Duration::from_secs(30),
        dir: Some(statements.to_owned()),
    };
    CassandraSchema::new(config, options).apply(&|_| {}).await.unwrap();
    let version = format!(
        "INSERT INTO {}.schema_version (component, version, applied_at) VALUES ('cascor', {version}, toTimestamp(now()))",
        config.keyspace
    );
    admin(server).await.query_unpaged(version, ()).await.unwrap();
}

#[tokio::test]
async fn schema_apply_brings_a_keyspace_of_version_1_up_and_keeps_its_rows() {
    let Some(server) = server() else { return };
    let config = config(&server);
    apply_version_1(&config, &server).await;
    let (admin, run_id) = (admin(&server).await, Uuid::new_v4());
    let insert = format!(
        "INSERT INTO {}.training_runs (run_id, status, end_time) VALUES ({run_id}, 'failed', 5000)",
        config.keyspace
    );
    admin.query_unpaged(insert, ()).await.unwrap();
    let store = CassandraStore::new(&config, &Retention::default(), Metrics::new());
    let Err(StoreError::Misconfigured(error)) = store.connect().await else { panic!("a column is missing") };
    assert!(error.to_string().contains("cascor-ingest schema apply"), "{error}");

    let tool = tool(&config);
    let missing: Vec<String> = tool.verify().await.unwrap().iter().map(ToString::to_string).collect();
    assert!(
        missing.iter().any(|text| text.contains("training_runs.restarted_at is missing (timestamp)")),
        "{missing:?}"
    );
    assert!(missing.iter().any(|text| text == "version is 1, not 3"), "{missing:?}");
    let steps = tool.plan().await.unwrap().steps;
    let steps: Vec<&str> = steps.iter().map(|step| step.text.split_whitespace().next().unwrap()).collect();
    assert_eq!(steps, ["ALTER", "CREATE", "CREATE", "CREATE"], "only what is new");
    let (one, two) = tokio::join!(tool.apply(&|_| {}), tool.apply(&|_| {}));
    one.unwrap();
    two.unwrap();
    assert_eq!((tool.verify().await.unwrap(), tool.plan().await.unwrap().steps), (vec![], vec![]));

    let store = connected(&config).await;
    let run = store.read_run(run_id).await.unwrap().unwrap();
    assert_eq!((run.status.as_deref(), run.end_time, run.restarted_at), (Some("failed"), Some(5_000_000), None));
    store.write_run(&RunRow { run_id, restarted_at: Some(6_000_000), ..RunRow::default() }, None).await.unwrap();
    let run = store.read_run(run_id).await.unwrap().unwrap();
    assert_eq!((run.end_time, run.restarted_at), (None, Some(6_000_000)));
    store.write(&batch(vec![Row::Metrics(metrics_row(run_id, NOW, 1))])).await.unwrap();
    store.write_metric_names(run_id, &["a".to_owned()]).await.unwrap();
    assert_eq!(store.metric_names(run_id).await.unwrap(), ["a"]);
    admin.query_unpaged(format!("DROP KEYSPACE {}", config.keyspace), ()).await.unwrap();
}

#[test]
fn a_daemon_on_a_keyspace_of_version_1_holds_and_loses_nothing() {
    let Some(cassandra) = Cassandra::shared() else { return skip("upgrade", "CASCOR_TEST_CASSANDRA is not set") };
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).cassandra(&cassandra).prepare();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = format!("{}:{}", cassandra.host, cassandra.port);
    let config = cascor_ingest::store::cassandra::Config {
        contact_points: vec![server.clone()],
        keyspace: cassandra.keyspace.clone(),
        ..Default::default()
    };
    runtime.block_on(apply_version_1(&config, &server));
    daemon.launch();
    wait_until("the subscription", Duration::from_secs(20), || redis.subscribers("cascor:training") == 1);
    let mut client = redis.client();
    let run = Uuid::new_v4();
    for n in 0..20 {
        client.publish("cascor:training", json!({"run_id": run, "epoch": n, "loss": 0.5, "lr_x": 0.25}).to_string());
    }
    daemon.wait_log("cascor-ingest schema apply");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(cassandra.count("SELECT count(*) FROM training_metrics"), 0, "it holds");
    daemon.apply_schema();
    let count = format!("SELECT count(*) FROM training_metrics WHERE run_id = {run}");
    wait_until("every row", Duration::from_secs(30), || cassandra.count(&count) == 20);
    wait_until("its row", Duration::from_secs(10), || {
        cassandra
            .rows(&format!("SELECT final_epoch FROM training_runs WHERE run_id = {run}"))
            .first()
            .is_some_and(|row| row["final_epoch"] == 19)
    });
    let dead: serde_json::Value = serde_json::from_str(&daemon.succeed(&["deadletter", "list", "--json"])).unwrap();
    assert!(!dead.to_string().contains("reason"), "nothing is set aside: {dead}");
}
