//! Two daemons that are killed, and the rows in Cassandra.

use std::{thread, time::Duration};

use super::rig::{GROUP, LIMIT, Publisher, RUN, assert_kept, assert_same, entries, on, random, wait_acknowledged};
use crate::{
    arena::{tier, times},
    support::{cassandra::Cassandra, daemon::Daemon, redis::Redis, skip, wait_until},
};

#[test]
fn daemons_that_are_killed_store_every_entry_once_in_cassandra() {
    let test = "daemons_that_are_killed_store_every_entry_once_in_cassandra";
    let Some(cassandra) = Cassandra::shared() else { return skip(test, "no Cassandra") };
    if crate::support::cassandra::python().is_none() {
        return skip(test, "CASCOR_TEST_PYTHON is not set");
    }
    let redis = Redis::start();
    let prepare = |name: &str| {
        on(&redis)
            .set("instance", format!("{name:?}"))
            .set("redis.claim_after", "\"5s\"")
            .cassandra(&cassandra)
            .prepare()
    };
    let mut daemons = ["a", "b"].map(prepare);
    daemons[0].apply_schema();
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
    let count = format!("SELECT count(*) FROM training_metrics WHERE run_id = {RUN}");
    wait_until("every entry to be a row", LIMIT, || cassandra.count(&count) >= stream.len() as i64);
    // The store keeps milliseconds; the microseconds are in the id of the event.
    let stored =
        cassandra.rows(&format!("SELECT timestamp, event_id, epoch FROM training_metrics WHERE run_id = {RUN}"));
    let number = |row: &serde_json::Map<String, serde_json::Value>, name: &str| row[name].as_i64().unwrap();
    let stored: Vec<_> = stored
        .iter()
        .map(|row| (number(row, "timestamp") * 1_000 + (number(row, "event_id") >> 43), number(row, "epoch")))
        .collect();
    println!("{kills} kills of the daemons of {GROUP}");
    assert_same("killed daemons, Cassandra", &stored, &stream);
}
