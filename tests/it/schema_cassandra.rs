//! The schema tool against a real Cassandra.

use std::{fs, path::PathBuf, time::Duration};

use cascor_ingest::schema::{CassandraSchema, Options, Replication, SchemaError};

use crate::{
    store_cassandra::{admin, config, server, tool},
    support::{
        daemon::Daemon,
        redis::{Options as RedisOptions, Redis},
    },
};

#[tokio::test]
async fn two_applies_at_once_make_one_schema_and_verify_names_what_differs() {
    let Some(server) = server() else { return };
    let config = config(&server);
    let tool = tool(&config);
    let plan = tool.plan().await.unwrap();
    let files = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/schema/cassandra")).unwrap();
    let statements: usize =
        files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap().matches(";\n").count()).sum();
    assert_eq!(plan.steps.len(), statements, "{:?}", plan.steps);
    let missing = tool.verify().await.unwrap();
    assert!(missing[0].to_string().contains(&format!("keyspace {} is missing", config.keyspace)), "{missing:?}");
    let (one, two) = tokio::join!(tool.apply(&|_| {}), tool.apply(&|_| {}));
    one.unwrap();
    two.unwrap();
    assert_eq!(tool.apply(&|_| {}).await.unwrap().steps, [], "nothing is left to do");

    let admin = admin(&server).await;
    for change in [
        "ALTER TABLE {k}.training_metrics DROP seq",
        "ALTER TABLE {k}.training_metrics WITH compaction = {'class': 'SizeTieredCompactionStrategy'}",
        "DROP TABLE {k}.dataset_info",
        "ALTER TABLE {k}.training_runs DROP restarted_at",
        "DROP INDEX {k}.training_runs_status",
        "DROP TABLE {k}.training_events",
        "CREATE TABLE {k}.training_events (run_id uuid, timestamp timestamp, event_id int, type text, payload_json text, \
         epoch int, PRIMARY KEY (run_id, timestamp, event_id))",
    ] {
        admin.query_unpaged(change.replace("{k}", &config.keyspace), ()).await.unwrap();
    }
    let differences = tool.verify().await.unwrap();
    let text: Vec<String> = differences.iter().map(|d| d.to_string().replace(&config.keyspace, "k")).collect();
    for expected in [
        "column k.training_metrics.seq is missing (bigint)",
        "table k.dataset_info is missing",
        "column k.training_runs.restarted_at is missing (timestamp)",
        "index on k.training_runs (status) is missing",
        "type of column k.training_events.event_id is int, not bigint",
        "role of column k.training_events.timestamp is clustering key 1 asc, not clustering key 1 desc",
    ] {
        assert!(text.iter().any(|found| found == expected), "{expected}: {text:#?}");
    }
    assert!(
        text.iter().any(|found| found.starts_with("option compaction of table k.training_metrics is")),
        "{text:#?}"
    );
    let Err(SchemaError::Differs(left)) = tool.apply(&|_| {}).await else { panic!("apply cannot mend types") };
    let is_mended = |name: &str| !left.iter().any(|difference| difference.object.contains(name));
    assert!(is_mended("dataset_info") && is_mended("restarted_at"), "{left:?}");
    admin.query_unpaged(format!("DROP KEYSPACE {}", config.keyspace), ()).await.unwrap();
}

#[tokio::test]
async fn a_folder_of_statements_is_applied_with_the_same_care() {
    let Some(server) = server() else { return };
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schema/pekko");
    let options = Options { replication: Some(Replication::Simple(1)), wait: Duration::from_secs(30), dir: Some(dir) };
    let tool = CassandraSchema::new(&config(&server), options);
    tool.apply(&|_| {}).await.unwrap();
    assert_eq!(tool.verify().await.unwrap(), []);
    assert_eq!(tool.plan().await.unwrap().steps, []);
}

#[test]
fn the_replication_is_a_setting_and_the_flag_comes_first() {
    let redis = Redis::absent(RedisOptions::default());
    let daemon = Daemon::on(&redis)
        .set("store.kind", "\"cassandra\"")
        .set("store.cassandra.replication", "\"NetworkTopologyStrategy:dc1=3\"")
        .prepare();
    let printed = daemon.succeed(&["schema", "print"]);
    assert!(printed.contains("{'class': 'NetworkTopologyStrategy', 'dc1': 3}"), "{printed}");
    let printed = daemon.succeed(&["schema", "print", "--replication", "SimpleStrategy:2"]);
    assert!(printed.contains("{'class': 'SimpleStrategy', 'replication_factor': 2}"), "{printed}");
    daemon.configure("store.cassandra.local_datacenter", "\"dc1\"");
    let wrong = daemon.command(&["check", "--set", "store.cassandra.replication=three"]);
    let error = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(wrong.status.code() == Some(78) && error.contains("`store.cassandra.replication`"), "{error}");
    assert!(daemon.succeed(&["check", "--print"]).contains("NetworkTopologyStrategy:dc1=3"));
}
