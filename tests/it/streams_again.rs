//! Streams: an entry that comes again, runs that are closed by a command, and a cluster.

use std::{collections::BTreeSet, thread, time::Duration};

use serde_json::{Value as Json, json};

use crate::{
    streams::{GROUP, LIMIT, METRICS, RUN, STREAM, add, on, pending, shared, sharing, wait_metrics},
    support::{
        daemon::Daemon,
        http,
        redis::Redis,
        redis_group::Cluster,
        resp::{Resp, Value},
        sqlite, wait_until,
    },
};

#[test]
fn a_rejected_entry_that_is_delivered_again_is_one_dead_letter() {
    let redis = Redis::start();
    let mut client = redis.client();
    let mut daemon = on(&redis).start_ready();
    let broken = add(&mut client, &["data", "{broken"]);
    add(&mut client, &["data", "{broken"]);
    let letters = |daemon: &Daemon| -> Vec<String> {
        let list: Json = serde_json::from_str(&daemon.succeed(&["deadletter", "list", "--json"])).unwrap();
        list["deadletters"].as_array().unwrap().iter().map(|of| of["entry"].as_str().unwrap().to_owned()).collect()
    };
    wait_until("both are dead letters", LIMIT, || letters(&daemon).len() == 2);
    wait_until("both are acknowledged", LIMIT, || pending(&mut client) == 0);
    let rejected = |daemon: &Daemon| daemon.metric("cascor_intake_rejected_total{reason=\"malformed_json\"}");
    // As after a kill between the dead letter and the acknowledgement: while the daemon runs, and after a start.
    for _ in 0..2 {
        let before = rejected(&daemon).unwrap();
        client.command(&["XGROUP", "SETID", STREAM, GROUP, "0"]);
        wait_until("both are delivered again", LIMIT, || rejected(&daemon) == Some(before + 2.0));
        wait_until("both are acknowledged", LIMIT, || pending(&mut client) == 0);
        daemon.restart();
    }
    let found = letters(&daemon);
    assert!(found.len() == 2 && found.contains(&broken.to_string()), "{found:?}");
}

/// Run ids of the rows, by epoch.
fn run_of(daemon: &Daemon, epoch: i64) -> String {
    let file = daemon.database();
    let rows = format!("SELECT count(*) FROM training_metrics WHERE epoch = {epoch}");
    wait_until(&format!("the row of epoch {epoch}"), LIMIT, || sqlite::count(&file, &rows) == 1);
    let rows = sqlite::rows(&file, &format!("SELECT run_id FROM training_metrics WHERE epoch = {epoch}"));
    rows[0]["run_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_reset_closes_the_open_run_of_a_stream_and_redelivered_entries_stay_where_they_are() {
    let redis = Redis::start();
    let mut client = redis.client();
    let daemon = on(&redis).start_ready();
    let mut runs = Vec::new();
    for round in 0..3 {
        for epoch in [2 * round, 2 * round + 1] {
            add(&mut client, &["epoch", &epoch.to_string(), "loss", "0.5"]);
        }
        let (one, other) = (run_of(&daemon, 2 * round), run_of(&daemon, 2 * round + 1));
        assert_eq!(one, other, "one run until the reset");
        runs.push(one);
        daemon.succeed(&["control", "reset", "--wait"]);
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(runs.iter().collect::<BTreeSet<_>>().len(), 3, "{runs:?}");
    // Read once more, all entries are the same rows.
    client.command(&["XGROUP", "SETID", STREAM, GROUP, "0"]);
    add(&mut client, &["epoch", "6", "loss", "0.5"]);
    let last = run_of(&daemon, 6);
    assert!(!runs.contains(&last));
    wait_until("everything is acknowledged", LIMIT, || pending(&mut client) == 0);
    wait_metrics(&daemon.database(), 7);
    assert_eq!(sqlite::count(&daemon.database(), "SELECT count(DISTINCT run_id) FROM training_metrics"), 4);
}

#[test]
fn a_reset_that_two_daemons_hear_closes_one_run() {
    let redis = Redis::start();
    let (_dir, database) = shared();
    let _pair = [sharing(&redis, "a", &database).start_ready(), sharing(&redis, "b", &database).start_ready()];
    let mut client = redis.client();
    for round in 0..4 {
        for epoch in 0..50 {
            add(&mut client, &["epoch", &(50 * round + epoch).to_string(), "loss", "0.5"]);
        }
        wait_metrics(&database, 50 * (round + 1));
        assert_eq!(client.publish("cascor:control", "reset"), 2, "both hear it");
        thread::sleep(Duration::from_millis(500));
    }
    let rows =
        sqlite::rows(&database, "SELECT COUNT(*) AS n, MIN(epoch) AS first FROM training_metrics GROUP BY run_id");
    let found: BTreeSet<_> = rows.iter().map(|row| (row["first"].as_i64(), row["n"].as_i64())).collect();
    assert_eq!(found, (0..4).map(|round| (Some(50 * round), Some(50))).collect());
}

#[test]
fn entries_behind_the_deletion_of_their_open_run_begin_another() {
    let redis = Redis::start();
    let mut client = redis.client();
    let daemon = on(&redis).start_ready();
    add(&mut client, &["epoch", "1", "loss", "0.5"]);
    let run = run_of(&daemon, 1);
    let target = format!("/api/runs/{run}?force=true");
    let answer = http::send(daemon.http_port(), "DELETE", &target, &[], "").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    // An entry that comes before its open run is closed is of the deleted run.
    daemon.wait_log("its open run and its latest keys are removed");
    // The id of an entry has the millisecond: one of that of the deletion is of the deleted run.
    thread::sleep(Duration::from_millis(5));
    wait_until("the next entry is of another run", LIMIT, || {
        add(&mut client, &["epoch", "2", "loss", "0.5"]);
        thread::sleep(Duration::from_millis(300));
        sqlite::count(&daemon.database(), METRICS) > 0
    });
    let rows = sqlite::rows(&daemon.database(), "SELECT DISTINCT run_id, epoch FROM training_metrics");
    assert_eq!(rows.len(), 1);
    assert!(rows[0]["run_id"] != run && rows[0]["epoch"] == 2, "{rows:?}");
}

/// Appends at whichever node has the stream.
pub(crate) fn add_to(cluster: &Cluster, stream: &str, epochs: std::ops::Range<i64>) {
    let owns = |client: &mut Resp| !matches!(client.command(&["EXISTS", stream]), Value::Error(_));
    let mut client = cluster.nodes.iter().map(Redis::client).find_map(|mut client| owns(&mut client).then_some(client));
    let client = client.as_mut().expect("a node has the stream");
    for epoch in epochs {
        let message = json!({"run_id": RUN, "epoch": epoch, "loss": 0.5}).to_string();
        let answer = client.command(&["XADD", stream, "*", "data", &message]);
        assert!(matches!(answer, Value::Bulk(_)), "{answer:?}");
    }
}

#[test]
fn streams_on_all_nodes_of_a_cluster_are_read_also_when_one_moves_or_a_daemon_is_killed() {
    let cluster = Cluster::start();
    // Some names, one on each node.
    let mut streams: [Option<String>; 3] = [None, None, None];
    for n in 0..100 {
        let name = format!("lab:{n}:stream");
        streams[cluster.owner(&name).1].get_or_insert(name);
    }
    let streams = streams.map(Option::unwrap);
    let mut daemon = Daemon::at(&cluster.url())
        .set("redis.streams", format!("{streams:?}"))
        .set("redis.training_channels", "[]")
        .start_ready();
    for (at, stream) in (0..).zip(&streams) {
        add_to(&cluster, stream, 1_000 * at..1_000 * at + 200);
    }
    wait_metrics(&daemon.database(), 600);
    daemon.kill9();
    for (at, stream) in (0..).zip(&streams) {
        add_to(&cluster, stream, 1_000 * at + 200..1_000 * at + 400);
    }
    daemon.launch();
    daemon.wait_ready();
    wait_metrics(&daemon.database(), 1_200);
    let (slot, owner) = cluster.owner(&streams[0]);
    cluster.move_slot(slot, owner, (owner + 1) % 3);
    add_to(&cluster, &streams[0], 400..600);
    wait_metrics(&daemon.database(), 1_400);
    let epochs = sqlite::count(&daemon.database(), "SELECT COUNT(DISTINCT epoch) FROM training_metrics");
    assert_eq!(epochs, 1_400);
    assert_eq!(sqlite::count(&daemon.database(), "SELECT count(*) FROM ingest_gaps"), 0, "{}", daemon.log());
    let read = || {
        let status = daemon.get("/api/status").json()["redis"]["streams"].clone();
        status.as_array().unwrap().iter().all(|stream| stream["reading"] == true && stream["pending"] == 0)
    };
    wait_until("all are read and acknowledged", LIMIT, read);
}

/// The key of the counters that the daemons share.
pub(crate) const COUNTERS_KEY: &str = "cascor:ingest:stream:{cascor:training:stream}";

/// Reason, instance and number of the gaps.
fn gaps(daemon: &Daemon) -> Vec<(String, String, i64)> {
    let rows = sqlite::rows(&daemon.database(), "SELECT reason, instance, lost FROM ingest_gaps ORDER BY reason, lost");
    let trimmed = rows.iter().filter(|of| of["reason"].as_str().unwrap().starts_with("trimmed"));
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    trimmed.map(|of| (text(&of["reason"]), text(&of["instance"]), of["lost"].as_i64().unwrap())).collect()
}

#[test]
fn a_report_that_a_daemon_has_left_open_is_taken_over_and_is_one_row_however_often_it_is_written() {
    let redis = Redis::start();
    let mut client = redis.client();
    let mut daemon = on(&redis).start_ready();
    let mut command = |words: &[&str]| {
        let fields = words[1..].iter().map(|of| of.replace('#', GROUP)).collect::<Vec<_>>();
        let fields: Vec<_> = fields.iter().map(String::as_str).collect();
        client.command(&[&[words[0], COUNTERS_KEY], &fields[..]].concat())
    };
    let report = |instance: &str| {
        format!(
            r#"{{"instance":"{instance}","started_at":1764400000000000,"ended_at":1764400000500000,"trimmed":70,"exact":true,"gone":3}}"#
        )
    };
    // Of another, twice: it may have been killed when its rows were durable. Then the daemon's own, as after a kill.
    for (round, instance) in ["dead", "dead", "test"].into_iter().enumerate() {
        command(&["HSET", "report:#", &report(instance), "report_to:#", "0", "gone:#", "5"]);
        if instance == "test" {
            daemon.kill9();
            daemon.launch();
            daemon.wait_ready();
        }
        wait_until(&format!("report {round} is closed"), LIMIT, || command(&["HGET", "report:#"]).text().is_none());
        // The two that the report does not include are reported on their own.
        wait_until("nothing is left to report", LIMIT, || command(&["HGET", "gone:#"]).text().as_deref() == Some("0"));
        wait_until("the rows are stored", LIMIT, || {
            let found = gaps(&daemon);
            let own = usize::from(instance == "test") * 2;
            found.len() == 2 + round + 1 + own
        });
    }
    let row = |reason: &str, instance: &str, lost| (reason.to_owned(), instance.to_owned(), lost);
    let mut expected = vec![row("trimmed", "dead", 70), row("trimmed", "test", 70)];
    expected.extend([2, 2, 2].map(|lost| row("trimmed_at_most", "test", lost)));
    expected.extend(["dead", "test"].map(|instance| row("trimmed_at_most", instance, 3)));
    let mut found = gaps(&daemon);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn pending_entries_that_were_trimmed_are_counted_once_whoever_has_read_them() {
    let redis = Redis::start();
    let mut client = redis.client();
    let mut daemon = on(&redis).set("redis.claim_after", "\"5s\"").start_ready();
    daemon.terminate();
    for epoch in 0..12 {
        add(&mut client, &["data", &json!({"type": "metrics", "run_id": RUN, "epoch": epoch}).to_string()]);
    }
    for (consumer, count) in [("test", "5"), ("dead", "4")] {
        client.command(&["XREADGROUP", "GROUP", GROUP, consumer, "COUNT", count, "STREAMS", STREAM, ">"]);
    }
    client.command(&["XTRIM", STREAM, "MAXLEN", "1"]);
    daemon.launch();
    daemon.wait_ready();
    let bound = || gaps(&daemon).iter().filter(|gap| gap.0 == "trimmed_at_most").map(|gap| gap.2).sum::<i64>();
    wait_until("all of them are counted", LIMIT, || bound() >= 9);
    wait_until("all of them are acknowledged", LIMIT, || pending(&mut client) == 0);
    thread::sleep(Duration::from_millis(2_500));
    assert_eq!(bound(), 9);
    let exact = gaps(&daemon).into_iter().filter(|gap| gap.0 == "trimmed").map(|gap| gap.2).collect::<Vec<_>>();
    assert_eq!(exact, [2]);
    assert_eq!(sqlite::count(&daemon.database(), METRICS), 1);
}
