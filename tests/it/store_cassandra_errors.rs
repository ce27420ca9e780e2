//! Errors of the Cassandra store, and its reconnection.

use std::{sync::Arc, time::Duration};

use cascor_ingest::{
    event::{EventKey, EventRow, Partition, Row, Table},
    lifecycle::{Signal, Tasks},
    metrics::Metrics,
    secret::Secret,
    store::{
        Batch, Retention, Store, StoreError,
        cassandra::{CassandraStore, Config},
    },
};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    store_cassandra::{NOW, admin, batch, config, connected, metrics_row, server, tool},
    support::{cassandra::Cluster, skip},
};

#[tokio::test]
async fn the_store_says_what_is_wrong() {
    let Some(server) = server() else { return };
    let config = config(&server);
    let store = CassandraStore::new(&config, &Retention::default(), Metrics::new());
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))), "not connected yet");
    let Err(StoreError::Misconfigured(error)) = store.connect().await else { panic!("there is no keyspace") };
    assert!(error.to_string().contains("cascor-ingest schema apply"), "{error}");
    tool(&config).apply(&|_| {}).await.unwrap();
    store.connect().await.unwrap();
    assert!(store.acks_may_be_lost(), "one replica");

    let run_id = Uuid::new_v4();
    let huge = EventRow {
        key: EventKey { run_id, timestamp: NOW, event_id: 1 },
        r#type: "x".into(),
        payload_json: "x".repeat(20 << 20).into(),
        epoch: None,
    };
    let huge = batch(vec![Row::Event(huge)]);
    let Err(StoreError::Rejected(_)) = store.write(&huge).await else { panic!("a row of 20 MiB") };
    let wrong = Batch {
        table: Table::Events,
        partition: Partition::Id(run_id),
        rows: vec![Row::Metrics(metrics_row(run_id, NOW, 1))].into(),
    };
    assert!(matches!(store.write(&wrong).await, Err(StoreError::Rejected(_))));

    let admin = admin(&server).await;
    let row = batch(vec![Row::Metrics(metrics_row(run_id, NOW, 1))]);
    let two = batch((0..2).map(|n| Row::Metrics(metrics_row(run_id, NOW, n))).collect());
    store.write(&row).await.unwrap();
    for change in ["ALTER TABLE {k}.training_metrics DROP seq", "DROP TABLE {k}.training_metrics"] {
        admin.query_unpaged(change.replace("{k}", &config.keyspace), ()).await.unwrap();
        for batch in [&row, &two] {
            let result = store.write(batch).await;
            let Err(StoreError::Misconfigured(error)) = result else { panic!("{change}: {result:?}") };
            assert!(error.to_string().contains("schema apply"), "{error}");
        }
    }
    tool(&config).apply(&|_| {}).await.unwrap();
    store.write(&row).await.unwrap();

    let elsewhere = Config { local_datacenter: Some("nowhere".into()), ..config.clone() };
    let store = CassandraStore::new(&elsewhere, &Retention::default(), Metrics::new());
    let Err(StoreError::Misconfigured(error)) = store.connect().await else { panic!("there is no such datacenter") };
    assert!(error.to_string().contains("nowhere") && error.to_string().contains("datacenter1"), "{error}");
    admin.query_unpaged(format!("DROP KEYSPACE {}", config.keyspace), ()).await.unwrap();
}

#[tokio::test]
async fn login_and_tls_are_needed_where_the_server_asks() {
    let Some(cluster) = Cluster::start(1, "127.0.22", 19044, &["--auth", "--tls"]) else {
        return skip("login_and_tls_are_needed_where_the_server_asks", "no Cassandra to start");
    };
    let mut config = config(&format!("{}:19044", cluster.host(1)));
    config.tls.ca = Some(cluster.ca());
    config.username = Some("cassandra".into());
    let password = std::env::temp_dir().join(format!("cassandra-password-{}", std::process::id()));
    std::fs::write(&password, "cassandra\n").unwrap();
    config.password_file = Some(password.clone());
    tool(&config).apply(&|_| {}).await.unwrap();
    connected(&config).await.ping().await.unwrap();

    let wrong = [
        Config { password_file: None, password: Some(Secret::new("wrong")), ..config.clone() },
        Config { username: None, password_file: None, ..config.clone() },
        Config { password_file: Some("/nonexistent".into()), ..config.clone() },
    ];
    for wrong in wrong {
        let store = CassandraStore::new(&wrong, &Retention::default(), Metrics::new());
        let result = store.connect().await;
        let Err(StoreError::Misconfigured(error)) = result else { panic!("{result:?}") };
        assert!(!error.to_string().contains("wrong\""), "{error}");
    }
    let mut plain = config.clone();
    plain.tls.ca = None;
    let store = CassandraStore::new(&plain, &Retention::default(), Metrics::new());
    assert!(store.connect().await.is_err(), "the server wants TLS");
    std::fs::remove_file(password).unwrap();
}

#[tokio::test]
async fn a_killed_server_is_unavailable_and_found_again() {
    let Some(cluster) = Cluster::start(1, "127.0.21", 19044, &[]) else {
        return skip("a_killed_server_is_unavailable_and_found_again", "no Cassandra to start");
    };
    let config = config(&format!("{}:19044", cluster.host(1)));
    tool(&config).apply(&|_| {}).await.unwrap();
    let store = CassandraStore::new(&config, &Retention::default(), Metrics::new());
    let (stopper, stop) = Signal::new();
    let mut tasks = Tasks::new();
    tasks.spawn("store", store.clone().run(stop.clone()));
    let until = async |up: bool| {
        let started = Instant::now();
        while store.connected().is_ok() != up {
            assert!(started.elapsed() < Duration::from_secs(30), "up: {up}, {:?}", store.connected());
            sleep(Duration::from_millis(20)).await;
        }
        started.elapsed()
    };
    until(true).await;
    let row = batch(vec![Row::Metrics(metrics_row(Uuid::new_v4(), NOW, 1))]);
    store.write(&row).await.unwrap();
    assert_eq!(store.restart_count(), 0);

    cluster.kill(1);
    let result = store.write(&row).await;
    assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    until(false).await;
    cluster.up(1);
    let took = until(true).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    store.write(&row).await.unwrap();
    assert!(store.restart_count() >= 1, "rows acknowledged before may be forgotten");

    let before = store.restart_count();
    cluster.pause(1);
    let started = Instant::now();
    let result = store.write(&row).await;
    assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    assert!(started.elapsed() < Duration::from_secs(13));
    cluster.resume(1);
    // The pool may notice the lost server only now; the writer would retry the same batch.
    let resumed = Instant::now();
    while let Err(error) = store.write(&row).await {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert!(resumed.elapsed() < Duration::from_secs(20), "{error:?}");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(store.restart_count() >= before);
    let grace = Duration::from_secs(1);
    stopper.stop();
    tasks.run(Arc::new(stopper), stop, grace).await.unwrap();
}
