//! Daemons that are killed, and the rows in Cassandra.

use std::{thread, time::Duration};

use super::{
    rig::{Entry, GROUP, LIMIT, Publisher, RUN, assert_kept, assert_same, entries, on, random, wait_acknowledged},
    storm::{NAMES, Survived, survive},
};
use crate::{
    arena::{tier, times},
    support::{
        cassandra::{Cassandra, python},
        daemon::Daemon,
        redis::Redis,
        skip, wait_until,
    },
};

/// The shared Cassandra, and the driver to read it; `None`: the test is skipped.
fn store(test: &str) -> Option<Cassandra> {
    let Some(cassandra) = Cassandra::shared() else {
        skip(test, "no Cassandra");
        return None;
    };
    if python().is_none() {
        skip(test, "CASCOR_TEST_PYTHON is not set");
        return None;
    }
    Some(cassandra)
}

/// Daemons that share the stream and the keyspace, which is there.
fn sharing(redis: &Redis, cassandra: &Cassandra, names: &[&str]) -> Vec<Daemon> {
    let prepare = |name: &&str| {
        let builder = on(redis).set("instance", format!("{name:?}")).set("redis.claim_after", "\"5s\"");
        builder.cassandra(cassandra).prepare()
    };
    let daemons: Vec<_> = names.iter().map(prepare).collect();
    daemons[0].apply_schema();
    daemons
}

/// The rows, once there are so many.
fn rows(cassandra: &Cassandra, expected: usize) -> Vec<Entry> {
    let count = format!("SELECT count(*) FROM training_metrics WHERE run_id = {RUN}");
    wait_until("every entry to be a row", LIMIT, || cassandra.count(&count) >= expected as i64);
    // The store keeps milliseconds; the microseconds are in the id of the event.
    let stored =
        cassandra.rows(&format!("SELECT timestamp, event_id, epoch FROM training_metrics WHERE run_id = {RUN}"));
    let number = |row: &serde_json::Map<String, serde_json::Value>, name: &str| row[name].as_i64().unwrap();
    stored
        .iter()
        .map(|row| (number(row, "timestamp") * 1_000 + (number(row, "event_id") >> 43), number(row, "epoch")))
        .collect()
}

#[test]
fn daemons_that_are_killed_store_every_entry_once_in_cassandra() {
    let Some(cassandra) = store("daemons_that_are_killed_store_every_entry_once_in_cassandra") else { return };
    let redis = Redis::start();
    let mut daemons = sharing(&redis, &cassandra, &["a", "b"]);
    daemons.iter_mut().for_each(Daemon::launch);
    daemons.iter_mut().for_each(Daemon::wait_ready);
    let publisher = Publisher::start(&[redis.port], tier(500, 2_000));
    let kills = times("STREAM_CASSANDRA_KILLS", 8, 100);
    for kill in 0..kills {
        thread::sleep(Duration::from_micros(150_000 + random(kill, 400_000)));
        let daemon = &mut daemons[kill as usize % 2];
        daemon.kill9();
        daemon.launch();
    }
    let added = publisher.finish();
    daemons.iter_mut().for_each(Daemon::wait_ready);
    let mut client = redis.client();
    let stream = entries(&mut client);
    assert_kept(&added, &stream);
    wait_acknowledged(&mut client);
    println!("{kills} kills of the daemons of {GROUP}");
    assert_same("killed daemons, Cassandra", &rows(&cassandra, stream.len()), &stream);
}

#[test]
fn four_daemons_that_are_killed_at_random_store_every_entry_once_in_cassandra() {
    let test = "four_daemons_that_are_killed_at_random_store_every_entry_once_in_cassandra";
    let Some(cassandra) = store(test) else { return };
    let redis = Redis::start();
    let mut daemons = sharing(&redis, &cassandra, &NAMES);
    let length = Duration::from_secs(times("STREAM_CASSANDRA_STORM_SECONDS", 9, 120));
    let Survived { stream, kills, .. } = survive(&redis, &mut daemons, tier(500, 2_000), length);
    assert!(kills > 0);
    assert_same("claim storm, Cassandra", &rows(&cassandra, stream.len()), &stream);
    let gaps = "SELECT count(*) FROM ingest_gaps WHERE source = 'stream' ALLOW FILTERING";
    assert_eq!(cassandra.count(gaps), 0, "nothing is recorded as missed");
}
