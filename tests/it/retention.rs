//! How long rows are kept: a changed key holds for new rows; the statements of `deploy/backup.md` change it for those that are there.

use std::{fs, time::Duration};

use rusqlite::Connection;

use crate::{
    support::{cassandra::Cassandra, daemon::Daemon, redis::Redis, repository, skip, sqlite},
    tools::{RUN, TRAINING, metrics},
};

const ROWS: &str = "SELECT count(*) FROM training_metrics";
const DAY: i64 = 86_400;

/// Days that the row with this `seq` is still kept, rounded; `None`: for ever.
fn days_left(daemon: &Daemon, seq: u64) -> Option<i64> {
    let sql = format!(
        "SELECT round((expires_at / 1e6 - unixepoch()) / {DAY}) AS days FROM training_metrics_rows WHERE seq = {seq}"
    );
    sqlite::rows(&daemon.database(), &sql)[0]["days"].as_f64().map(|days| days as i64)
}

/// Runs the statements of the page that begin with this text.
fn run_manual(daemon: &Daemon, beginning: &str) {
    let page = fs::read_to_string(repository("deploy/backup.md")).unwrap();
    let (_, rest) = page.split_once(&format!("cascor.db \"{beginning}")).unwrap();
    let statements = format!("{beginning}{}", rest.split_once('"').unwrap().0);
    let connection = Connection::open(daemon.database()).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    connection.execute_batch(&statements).unwrap();
}

#[test]
fn a_changed_retention_holds_for_new_rows_and_the_manual_changes_it_for_old_ones() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    client.publish(TRAINING, metrics(0));
    daemon.wait_rows(ROWS, 1);
    daemon.configure("store.retention.metrics", "\"7d\"");
    daemon.restart();
    client.publish(TRAINING, metrics(1));
    daemon.wait_rows(ROWS, 2);
    assert_eq!([days_left(&daemon, 0), days_left(&daemon, 1)], [Some(30), Some(7)]);
    let longer = "BEGIN IMMEDIATE; UPDATE training_metrics_rows SET expires_at = expires_at +";
    run_manual(&daemon, longer);
    assert_eq!([days_left(&daemon, 0), days_left(&daemon, 1)], [Some(90), Some(67)]);
    run_manual(&daemon, "BEGIN IMMEDIATE; UPDATE training_metrics_rows SET expires_at = NULL");
    assert_eq!([days_left(&daemon, 0), days_left(&daemon, 1)], [None, None]);
    run_manual(&daemon, "BEGIN IMMEDIATE; UPDATE training_metrics_rows SET expires_at = (unixepoch()");
    assert_eq!([days_left(&daemon, 0), days_left(&daemon, 1)], [Some(30), Some(30)]);
    // A row past its end is in no answer.
    let past = "UPDATE training_metrics_rows SET expires_at = 1 WHERE seq = 0";
    Connection::open(daemon.database()).unwrap().execute(past, ()).unwrap();
    let answer = daemon.get(&format!("/api/metrics/range?run_id={RUN}")).json();
    assert_eq!((&answer["count"], &answer["metrics"][0]["seq"]), (&1.into(), &1.into()), "{answer}");
}

#[test]
fn on_cassandra_a_changed_retention_leaves_the_ttl_of_rows_that_are_there() {
    let Some(cassandra) = Cassandra::shared() else { return skip("retention", "CASCOR_TEST_CASSANDRA is not set") };
    let redis = Redis::start();
    // What the checkpoint does not cover is written again at a restart, with the new end.
    let mut daemon = Daemon::on(&redis).cassandra(&cassandra).set("spool.checkpoint_delay", "\"0s\"").prepare();
    daemon.apply_schema();
    daemon.launch();
    daemon.wait_ready();
    let mut client = redis.client();
    let days = |seq: u64| {
        let cql = "SELECT seq, ttl(epoch) AS ttl FROM training_metrics";
        let rows = cassandra.rows(cql);
        let row = rows.iter().find(|row| row["seq"] == seq)?;
        Some((row["ttl"].as_f64()? / DAY as f64).round() as i64)
    };
    let wait = |seq| crate::support::wait_for("the row", crate::tools::LIMIT, || days(seq));
    client.publish(TRAINING, metrics(0));
    assert_eq!(wait(0), 30);
    let spool = || daemon.get("/api/status").json()["spool"].clone();
    crate::support::wait_until("the checkpoint", crate::tools::LIMIT, || spool()["committed"] == spool()["end"]);
    daemon.configure("store.retention.metrics", "\"7d\"");
    daemon.restart();
    client.publish(TRAINING, metrics(1));
    assert_eq!((wait(1), wait(0)), (7, 30));
}
