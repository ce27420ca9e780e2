//! `doctor` on a real Cassandra: what is wrong with keyspace, tables, limits, rights and nodes is named first.

use std::{fs, process::Output};

use crate::{
    doctor::{self, QUICK, fault, good_redis},
    store_cassandra::admin,
    support::{
        cassandra::{Cassandra, Cluster},
        daemon::Builder,
        redis::Redis,
        skip,
    },
};

/// Asks for the tests with nodes of their own, which take a minute.
const LONG: &str = "CASCOR_TEST_DOCTOR";

fn on(redis: &Redis, cassandra: &Cassandra) -> Builder {
    doctor::on(redis).cassandra(cassandra)
}

#[track_caller]
fn assert_good(output: &Output) {
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !shown.contains("FAULT"), "{shown}");
}

#[tokio::test]
async fn what_is_wrong_with_keyspace_and_tables_is_named_first() {
    let Some(cassandra) = Cassandra::shared() else {
        return skip("what_is_wrong_with_keyspace_and_tables_is_named_first", "no Cassandra");
    };
    let redis = good_redis();
    let daemon = on(&redis, &cassandra).prepare();
    let admin = admin(&format!("{}:{}", cassandra.host, cassandra.port)).await;
    let change = async |cql: &str| {
        admin.query_unpaged(cql.replace("KS", &cassandra.keyspace), ()).await.unwrap();
    };
    let replicated =
        |n: u8| format!("KEYSPACE KS WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': {n}}}");
    fault("does not exist", "schema apply").check("no keyspace", &daemon.command(&QUICK));
    change(&format!("CREATE {}", replicated(3))).await;
    fault("LOCAL_QUORUM cannot be met", "ALTER KEYSPACE").check("three copies on one node", &daemon.command(&QUICK));
    change(&format!("ALTER {}", replicated(1))).await;
    fault("tables are missing", "schema apply").check("no tables", &daemon.command(&QUICK));
    daemon.apply_schema();
    assert_good(&daemon.command(&QUICK));

    for (broken, mended, expected) in [
        (
            "ALTER TABLE KS.training_runs WITH default_time_to_live = 86400",
            "ALTER TABLE KS.training_runs WITH default_time_to_live = 0",
            fault("should be kept for ever expire after 1 days", "default_time_to_live = 0"),
        ),
        (
            "ALTER KEYSPACE KS WITH durable_writes = false",
            "ALTER KEYSPACE KS WITH durable_writes = true",
            fault("has no commit log", "durable_writes = true"),
        ),
        (
            "ALTER TABLE KS.training_metrics WITH compaction = {'class': 'SizeTieredCompactionStrategy'}",
            "ALTER TABLE KS.training_metrics WITH compaction = {'class': 'TimeWindowCompactionStrategy', \
             'compaction_window_unit': 'DAYS', 'compaction_window_size': 1}",
            fault("tables differ", "schema verify"),
        ),
    ] {
        change(broken).await;
        expected.check(broken, &daemon.command(&QUICK));
        change(mended).await;
    }
    for (key, value, expected) in [
        ("consistency_write", "\"TWO\"", fault("TWO cannot be met", "consistency_write")),
        ("request_timeout", "\"3s\"", fault("given up before Cassandra answers", "request_timeout")),
        ("local_datacenter", "\"nosuch\"", fault("refuses the connection", "local_datacenter")),
    ] {
        let daemon = on(&redis, &cassandra).set(&format!("store.cassandra.{key}"), value).prepare();
        expected.check(key, &daemon.command(&QUICK));
    }
    let absent = on(&redis, &cassandra.at_port(1)).prepare();
    fault("does not answer", "start Cassandra").check("no server", &absent.command(&QUICK));
}

#[test]
fn limits_and_rights_of_a_node_are_named_first() {
    if std::env::var_os(LONG).is_none() {
        return skip("limits_and_rights_of_a_node_are_named_first", "set CASCOR_TEST_DOCTOR=1; it takes half a minute");
    }
    let dir = tempfile::tempdir().unwrap();
    let yaml = dir.path().join("yaml");
    fs::write(&yaml, "native_transport_max_frame_size: 4MiB\nitems_per_collection_fail_threshold: 20\n").unwrap();
    let Some(cluster) = Cluster::start(1, "127.0.41", 19_241, &["--auth", "--yaml", yaml.to_str().unwrap()]) else {
        return skip("limits_and_rights_of_a_node_are_named_first", "CASCOR_TEST_CASSANDRA_JARS is not set");
    };
    let (redis, cassandra) = (good_redis(), cluster.keyspace());
    let login = |user: &str, password: &str| {
        let builder = on(&redis, &cassandra).set("store.cassandra.username", format!("{user:?}"));
        builder.env("CASSANDRA_PASSWORD", password)
    };
    let root = login("cassandra", "cassandra").prepare();
    root.apply_schema();
    fault("refuses rows of more than 4.0 MiB", "48MiB").check("a small frame", &root.command(&QUICK));
    let small = login("cassandra", "cassandra").set("limits.text", "\"3MiB\"").prepare();
    fault("a guardrail", "items_per_collection_fail_threshold").check("a guardrail", &small.command(&QUICK));
    let keyspace = &cassandra.keyspace;
    for (role, right) in [("deaf", ""), ("reader", "SELECT"), ("writer", "SELECT, MODIFY")] {
        cluster.query(&format!("CREATE ROLE {role} WITH PASSWORD = 'pw' AND LOGIN = true"));
        for right in right.split(", ").filter(|right| !right.is_empty()) {
            cluster.query(&format!("GRANT {right} ON KEYSPACE {keyspace} TO {role}"));
        }
    }
    let (deaf, reader) = (login("deaf", "pw").prepare(), login("reader", "pw").prepare());
    fault("may not SELECT", "GRANT SELECT ON KEYSPACE").check("no rights", &deaf.command(&QUICK));
    fault("may not MODIFY", "GRANT MODIFY ON KEYSPACE").check("only reading", &reader.command(&QUICK));
    let writer = login("writer", "pw").prepare().command(&QUICK);
    assert_good(&writer);
    let shown = String::from_utf8_lossy(&writer.stdout);
    assert!(shown.contains("UNKNOWN cassandra: limits of requests and rows"), "{shown}");
    let wrong = login("writer", "wrong").prepare();
    fault("refuses the connection", "password_file").check("a wrong password", &wrong.command(&QUICK));
}

#[test]
fn nodes_and_copies_of_a_cluster_are_named_first() {
    if std::env::var_os(LONG).is_none() {
        return skip("nodes_and_copies_of_a_cluster_are_named_first", "set CASCOR_TEST_DOCTOR=1; it takes a minute");
    }
    let Some(cluster) = Cluster::start(3, "127.0.42", 19_242, &[]) else {
        return skip("nodes_and_copies_of_a_cluster_are_named_first", "CASCOR_TEST_CASSANDRA_JARS is not set");
    };
    let (redis, cassandra) = (good_redis(), cluster.keyspace());
    let daemon = on(&redis, &cassandra).prepare();
    daemon.apply_schema();
    fault("each row has one copy", "ALTER KEYSPACE").check("one copy on three nodes", &daemon.command(&QUICK));
    let replication = "{'class': 'NetworkTopologyStrategy', 'datacenter1': 3}";
    cluster.query(&format!("ALTER KEYSPACE {} WITH replication = {replication}", cassandra.keyspace));
    assert_good(&daemon.command(&QUICK));
    cluster.kill(3);
    fault("do not answer", "nodetool status").check("a node is down", &daemon.command(&QUICK));
    cluster.kill(2);
    fault("LOCAL_QUORUM cannot be met", "start the nodes").check("two nodes are down", &daemon.command(&QUICK));
}
