//! The history of metrics that several daemons merge: it ages, and a deleted run stays deleted.

use std::{collections::BTreeSet, thread, time::Duration};

use serde_json::{Value as Json, json};
use tokio::time::Instant;

use crate::{
    streams::{LIMIT, METRICS, RUN, add, shared, sharing, stream_status},
    support::{daemon::Daemon, http, redis::Redis, resp::Resp, sqlite, wait_until},
};

const HISTORY: &str = "cascor:history:latest";
const OTHER_RUN: &str = "0c1e0a35-9cf7-4ac5-8a0b-7a0fd0b1f0c6";

fn add_one(client: &mut Resp, run: &str, epoch: i64) {
    add(client, &["data", &json!({"type": "metrics", "run_id": run, "epoch": epoch, "loss": 0.5}).to_string()]);
}

fn history(client: &mut Resp) -> Vec<Json> {
    client.get_json(HISTORY).and_then(|history| history.as_array().cloned()).unwrap_or_default()
}

/// The runs of its objects.
fn runs(client: &mut Resp) -> BTreeSet<String> {
    history(client).iter().map(|object| object["_ingest"]["run_id"].as_str().unwrap().to_owned()).collect()
}

/// Both daemons have taken part, and the history has so many objects.
fn wait_shared(client: &mut Resp, pair: &[Daemon], objects: usize) {
    wait_until("the history has all objects", LIMIT, || history(client).len() == objects);
    let taken: Vec<_> = pair.iter().map(|daemon| stream_status(daemon)["acknowledged"].as_i64().unwrap_or(0)).collect();
    assert!(taken.iter().all(|taken| *taken > 0), "both take part: {taken:?}");
}

#[test]
fn the_history_ages_although_daemons_merge_it() {
    let redis = Redis::start();
    let (_dir, database) = shared();
    let pair =
        ["a", "b"].map(|name| sharing(&redis, name, &database).set("latest.history_ttl", "\"10s\"").start_ready());
    let mut client = redis.client();
    for epoch in 0..200 {
        add_one(&mut client, RUN, epoch);
        thread::sleep(Duration::from_millis(5));
    }
    wait_shared(&mut client, &pair, 200);
    thread::sleep(Duration::from_secs(1));
    let left = |client: &mut Resp| client.command(&["PTTL", HISTORY]).integer().unwrap();
    let (begun, at_first) = (Instant::now(), left(&mut client));
    assert!((1..9_500).contains(&at_first), "{at_first} ms");
    thread::sleep(Duration::from_secs(2));
    // After a reconnect everything is merged and written again.
    client.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    while left(&mut client) > 0 {
        let (left, expected) = (left(&mut client), at_first - begun.elapsed().as_millis() as i64);
        assert!(left < expected + 500, "{left} ms are left, of {expected}");
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!(client.command(&["EXISTS", HISTORY]).integer(), Some(0));
}

#[test]
fn a_deleted_run_does_not_come_back_into_the_history() {
    let redis = Redis::start();
    let (_dir, database) = shared();
    let pair = ["a", "b"].map(|name| sharing(&redis, name, &database).start_ready());
    let mut client = redis.client();
    for epoch in 0..200 {
        add_one(&mut client, [RUN, OTHER_RUN][epoch as usize % 2], epoch);
        thread::sleep(Duration::from_millis(5));
    }
    wait_shared(&mut client, &pair, 200);
    wait_until("all are rows", LIMIT, || sqlite::count(&database, METRICS) == 200);
    let target = format!("/api/runs/{RUN}?force=true");
    let answer = http::send(pair[0].http_port(), "DELETE", &target, &[], "").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    // The other daemon reads of it within 5 s, and writes its objects until then.
    for epoch in 200..260 {
        add_one(&mut client, OTHER_RUN, epoch);
        thread::sleep(Duration::from_millis(150));
    }
    let rest = BTreeSet::from([OTHER_RUN.to_owned()]);
    wait_until("the deleted run is gone", Duration::from_secs(5), || runs(&mut client) == rest);
    for epoch in 260..290 {
        add_one(&mut client, OTHER_RUN, epoch);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(runs(&mut client), rest, "and stays gone");
    }
    wait_until("nothing else is touched", LIMIT, || history(&mut client).len() == 190);
}
