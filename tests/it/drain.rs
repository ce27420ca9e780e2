//! `spool drain`: records of an orphaned spool are written to the store.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

use super::tools::{LIMIT, RUN, TRAINING, damage, image, json_of, killed_with_pending, metrics, segments, stderr};
use crate::support::{cassandra::Cassandra, daemon::Daemon, redis::Redis, skip, sqlite, wait_until};

/// The status of all daemons; it does not succeed while that of a killed one is there.
fn status_of(daemon: &Daemon, arguments: &[&str]) -> Value {
    serde_json::from_slice(&daemon.command(&[&["status", "--json"], arguments].concat()).stdout).unwrap()
}

#[test]
fn an_orphan_is_listed_and_drained_into_the_store() {
    let redis = Redis::start();
    let orphan = killed_with_pending(&redis, 60);
    let spool = orphan.state_dir().join("spool");
    let dir = spool.to_str().unwrap();
    let daemon = Daemon::on(&redis).start_ready();
    let home = orphan.state_dir().to_str().unwrap();
    let status = status_of(&daemon, &["--look-in", home]);
    let listed = &status["orphaned_spools"][0];
    assert_eq!(listed["instance"], "orphan", "{status}");
    assert!(listed["pending"].as_u64().unwrap() >= 62, "{status}");
    wait_until("the daemon's own status beside it", LIMIT, || status_of(&daemon, &[])["test"].is_object());
    let own = daemon.state_dir().join("spool");
    let held = daemon.command(&["spool", "drain", own.to_str().unwrap()]);
    assert!(held.status.code() == Some(1) && stderr(&held).contains("is in use"), "{}", stderr(&held));

    let before = image(&spool);
    let away = daemon.command(&["spool", "drain", dir, "--store", "cassandra", "--set", "store.cassandra.port=17149"]);
    assert_eq!(away.status.code(), Some(1));
    assert!(stderr(&away).contains("the store is away"), "{}", stderr(&away));
    assert_eq!(image(&spool), before, "nothing has changed");

    let drained = json_of(&daemon, &["spool", "drain", dir, "--json"]);
    assert!(drained["records"].as_u64().unwrap() >= 62, "{drained}");
    assert_eq!(drained["dead_letters"], 1, "{drained}");
    let stored = drained["records"].as_u64().unwrap() - 1;
    assert_eq!(drained["stored"], stored, "all but the dead letter: {drained}");
    let file = daemon.database();
    assert_eq!(sqlite::count(&file, "SELECT count(*) FROM training_metrics"), 60);
    assert_eq!(sqlite::count(&file, "SELECT final_epoch FROM training_runs"), 60, "run rows, too");
    let own = "SELECT count(*) FROM control_log WHERE instance = 'orphan'";
    assert_eq!(sqlite::count(&file, own), 1, "under the name given by --owner");
    assert!(segments(&spool).is_empty());
    assert_eq!(json_of(&daemon, &["spool", "drain", dir, "--json"])["records"], 0);
    let status = status_of(&daemon, &["--look-in", home]);
    assert_eq!(status["orphaned_spools"], json!([]), "{status}");

    // Draining a copy of the original spool again changes nothing.
    for (path, bytes) in
        before.iter().filter(|(path, _)| Path::new(path.as_str()).extension().is_some_and(|e| e == "seg"))
    {
        fs::write(path, bytes).unwrap();
    }
    fs::remove_file(spool.join("checkpoint")).unwrap();
    let again = json_of(&daemon, &["spool", "drain", dir, "--json"]);
    assert!(again["records"].as_u64().unwrap() >= 62, "{again}");
    assert_eq!((sqlite::count(&file, own), &again["dead_letters"]), (1, &json!(1)));
    let twice = "SELECT count(*) FROM (SELECT seq FROM training_metrics GROUP BY seq HAVING count(*) > 1)";
    assert_eq!(sqlite::count(&file, twice), 0);
}

#[test]
fn a_daemon_whose_spool_was_drained_misses_nothing_when_it_comes_back() {
    let redis = Redis::start();
    let mut daemon = killed_with_pending(&redis, 30);
    let spool = daemon.state_dir().join("spool");
    let drained = json_of(&daemon, &["spool", "drain", spool.to_str().unwrap(), "--json"]);
    assert_eq!(drained["unreadable"], 0, "{drained}");
    daemon.launch();
    daemon.wait_ready();
    redis.client().publish(TRAINING, metrics(31));
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 32);
    let holes = "SELECT count(*) FROM ingest_gaps WHERE reason = 'sequence'";
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(sqlite::count(&daemon.database(), holes), 0, "drained records are not lost");
    assert_eq!(json_of(&daemon, &["spool", "status", "--json"])["pending"], 0);
}

#[test]
fn a_drain_says_what_could_not_be_read() {
    let redis = Redis::start();
    let orphan = killed_with_pending(&redis, 40);
    let daemon = Daemon::on(&redis).start_ready();
    let spool = orphan.state_dir().join("spool");
    damage(&spool);
    let output = daemon.command(&["spool", "drain", spool.to_str().unwrap(), "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("1 record could not be read"), "{}", stderr(&output));
    let drained: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (records, stored) = (drained["records"].as_u64().unwrap(), drained["stored"].as_u64().unwrap());
    assert_eq!((stored, &drained["unreadable"], &drained["dead_letters"]), (records - 2, &json!(1), &json!(1)));
}

#[test]
fn records_between_quarantined_segments_are_not_missing() {
    let redis = Redis::start();
    let mut orphan = killed_with_pending(&redis, 5);
    let blocker = rusqlite::Connection::open(orphan.database()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    for seq in [6, 7] {
        orphan.launch();
        wait_until("it listens", LIMIT, || redis.subscribers(TRAINING) == 1);
        redis.client().publish(TRAINING, metrics(seq));
        orphan.wait_http("/healthz", 200);
        wait_until("it is in the spool", LIMIT, || orphan.get("/api/status").json()["counters"]["events"] == 1);
        std::thread::sleep(Duration::from_millis(300));
        orphan.kill9();
    }
    let spool = orphan.state_dir().join("spool");
    let segments = segments(&spool);
    assert!(segments.len() >= 3, "{segments:?}");
    let aside = spool.join("quarantine");
    fs::create_dir_all(&aside).unwrap();
    for path in [&segments[0], &segments[segments.len() - 1]] {
        fs::rename(path, aside.join(path.file_name().unwrap())).unwrap();
    }
    let daemon = Daemon::on(&redis).start_ready();
    let dir = aside.to_str().unwrap();
    let nameless = daemon.command(&["spool", "drain", dir]);
    assert!(stderr(&nameless).contains("--owner"), "{}", stderr(&nameless));
    let drained = json_of(&daemon, &["spool", "drain", dir, "--owner", "orphan", "--json"]);
    assert_eq!(drained["unreadable"], 0, "{drained}");
    assert!(drained["elsewhere"].as_u64().unwrap() > 0, "{drained}");
    assert_eq!(sqlite::count(&daemon.database(), "SELECT count(*) FROM training_metrics WHERE seq = 7"), 1);
    assert_eq!(sqlite::count(&daemon.database(), "SELECT count(*) FROM training_metrics WHERE seq = 6"), 0);
}

#[test]
fn an_orphan_and_dead_letters_go_to_cassandra_and_gaps_list_what_a_run_lacks_there() {
    let name = "an_orphan_and_dead_letters_go_to_cassandra_and_gaps_list_what_a_run_lacks_there";
    let Some(cassandra) = Cassandra::shared() else { return skip(name, "CASCOR_TEST_CASSANDRA is not set") };
    let redis = Redis::start();
    let orphan = killed_with_pending(&redis, 20);
    let spool = orphan.state_dir().join("spool");
    // One replica may lose acknowledged rows: they count as confirmed after `spool.checkpoint_delay`.
    let daemon = Daemon::on(&redis).cassandra(&cassandra).set("spool.checkpoint_delay", "\"3s\"").prepare();
    let start = tokio::time::Instant::now();
    daemon.apply_schema();
    let drained = json_of(&daemon, &["spool", "drain", spool.to_str().unwrap(), "--json"]);
    assert!(drained["records"].as_u64().unwrap() >= 22 && start.elapsed() > Duration::from_secs(3), "{drained}");
    assert_eq!(cassandra.count("SELECT count(*) FROM training_metrics"), 20);
    let letters = orphan.state_dir().join("deadletter");
    let of_orphan = format!("deadletter.dir={}", letters.display());
    assert_eq!(daemon.command(&["deadletter", "replay", "--set", &of_orphan]).status.code(), Some(1), "still broken");
    assert_eq!(json_of(&daemon, &["deadletter", "drop", "--all", "--json", "--set", &of_orphan])["dropped"], 1);

    let mut daemon = daemon;
    daemon.launch();
    daemon.wait_ready();
    let mut client = redis.client();
    for seq in [25, 26] {
        client.publish(TRAINING, metrics(seq));
    }
    let missing = || json_of(&daemon, &["gaps", "--run", RUN, "--json"])["missing"].clone();
    wait_until("the gap", LIMIT, || missing()["last_seq"] == 26);
    let found = missing();
    let expected = json!({"first": 21, "last": 24, "lost": 4});
    let hole = &found["holes"][0];
    assert_eq!(
        (&hole["first"], &hole["last"], &hole["lost"]),
        (&expected["first"], &expected["last"], &expected["lost"])
    );
    assert_eq!((&found["stored"], &found["lost"], &found["ranges"]), (&json!(22), &json!(4), &json!(1)), "{found}");
    daemon.terminate();
}

#[test]
fn dead_letters_of_a_quarantine_go_to_those_of_its_daemon() {
    let redis = Redis::start();
    let daemon = killed_with_pending(&redis, 3);
    let spool = daemon.state_dir().join("spool");
    let aside = spool.join("quarantine");
    fs::create_dir_all(&aside).unwrap();
    for segment in segments(&spool) {
        fs::rename(&segment, aside.join(segment.file_name().unwrap())).unwrap();
    }
    let letters = daemon.state_dir().join("deadletter");
    fs::remove_dir_all(&letters).unwrap();
    let listed = || json_of(&daemon, &["deadletter", "list", "--json"])["count"].clone();
    assert_eq!(listed(), 0);
    // While the daemon runs, it holds the lock of its dead letters.
    fs::create_dir(&letters).unwrap();
    let held = fs::File::create(letters.join("lock")).unwrap();
    held.lock().unwrap();
    let (place, told) = (aside.to_str().unwrap(), letters.to_str().unwrap());
    let refused = daemon.command(&["spool", "drain", place, "--owner", "orphan", "--deadletter", told]);
    assert!(stderr(&refused).contains("--deadletter"), "{}", stderr(&refused));
    let before = image(&aside);
    let drain = ["spool", "drain", place, "--owner", "orphan", "--json"];
    let drained = json_of(&daemon, &drain);
    assert_eq!(drained["dead_letters"], 1, "{drained}");
    assert!(drained["dead_letters_in"].as_str().unwrap().ends_with("quarantine/deadletter"), "{drained}");
    drop(held);
    // Once it is stopped, they go to its own dead letters.
    fs::remove_dir_all(&aside).unwrap();
    fs::create_dir(&aside).unwrap();
    before.iter().for_each(|(name, bytes)| fs::write(aside.join(name), bytes).unwrap());
    let drained = json_of(&daemon, &drain);
    assert_eq!((&drained["dead_letters"], listed()), (&json!(1), json!(1)), "{drained}");
    assert!(!aside.join("deadletter").exists() && !spool.join("deadletter").exists());
}
