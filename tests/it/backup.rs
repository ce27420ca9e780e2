//! Backups beside a daemon that writes: what was durable when the backup began is there after a restore, once.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rusqlite::Connection;
use serde_json::{Map, Value, json};

use crate::{
    crash::{self, Producer},
    support::{cassandra::Cassandra, daemon::Daemon, redis::Redis, resp::Resp, skip, sqlite, wait_until},
    tools::{LIMIT, RUN, TRAINING, json_of, metrics},
};

/// Files of the state directory that are in no backup, each with its reason.
const NOT_IN_A_BACKUP: [(&str, &str); 5] = [
    ("cascor.db-wal", "the copy of the database holds what it holds"),
    ("cascor.db-shm", "SQLite makes it again"),
    ("session.key", "a secret; people sign in again"),
    ("sessions.json", "of sessions under that key"),
    ("lock", "of a process"),
];

/// A file in the directory of the daemon's settings.
pub(super) fn beside(daemon: &Daemon, name: &str) -> PathBuf {
    daemon.state_dir().parent().unwrap().join(name)
}

pub(super) fn back_up(daemon: &Daemon, name: &str) -> PathBuf {
    let file = beside(daemon, name);
    daemon.succeed(&["backup", file.to_str().unwrap()]);
    file
}

/// A daemon on a restored backup, not running.
pub(super) fn restored(redis: &Redis, backup: &Path) -> Daemon {
    let daemon = Daemon::on(redis).prepare();
    daemon.succeed(&["restore", backup.to_str().unwrap()]);
    daemon
}

/// The rows of a run, but for the end that each writing gives anew.
fn rows(daemon: &Daemon, run: &str) -> Vec<Map<String, Value>> {
    let sql = format!("SELECT * FROM training_metrics WHERE run_id = '{run}' ORDER BY seq, event_id");
    let mut rows = sqlite::rows(&daemon.database(), &sql);
    rows.iter_mut().for_each(|row| _ = row.remove("expires_at"));
    rows
}

/// Starts the daemon, and waits until nothing waits for the store.
pub(super) fn drained(mut daemon: Daemon) -> Daemon {
    daemon.launch();
    daemon.wait_ready();
    wait_until("an empty spool", LIMIT, || daemon.get("/api/status").json()["spool"]["pending_records"] == 0);
    daemon
}

/// Messages that are durable when this returns.
fn post_durable(daemon: &Daemon, run: &str, count: u64) {
    let message = |seq: u64| json!({"type": "metrics", "run_id": run, "seq": seq, "epoch": seq, "loss": 0.5});
    let messages: Vec<Value> = (0..count).map(message).collect();
    let answer = daemon.post("/api/messages", &messages.into());
    assert_eq!(answer.json()["accepted"], count, "{}", answer.body);
}

#[test]
fn a_backup_beside_2000_events_a_second_has_every_durable_row_once() {
    let redis = Redis::start();
    // Small segments, so that many are removed while a backup reads them.
    let mut daemon = Daemon::on(&redis).set("spool.segment", "\"64KiB\"").start_ready();
    let producer = Producer::start(redis.port, 2_000);
    let stored = || {
        sqlite::count(
            &daemon.database(),
            &format!("SELECT max(seq) FROM training_metrics WHERE run_id = '{}'", crash::RUN),
        )
    };
    let mut backups = Vec::new();
    for n in 0..3_u32 {
        thread::sleep(Duration::from_millis(700));
        let run = format!("durable-{n}");
        // The newest are in the spool only when the backup begins.
        post_durable(&daemon, &run, 128);
        let before = stored();
        backups.push((back_up(&daemon, &format!("{n}.backup")), run, before));
    }
    let published = producer.finish().len();
    let whole = {
        daemon.wait_rows(
            &format!("SELECT count(*) FROM training_metrics WHERE run_id = '{}'", crash::RUN),
            published as i64,
        );
        rows(&daemon, crash::RUN)
    };
    daemon.terminate();
    let elsewhere = Redis::start();
    for (file, run, before) in backups {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        // A backup begins with the database; reading it there changes nothing of it.
        let check =
            |connection: Connection| connection.query_row("PRAGMA quick_check", (), |row| row.get::<_, String>(0));
        assert_eq!(check(Connection::open(&file).unwrap()).unwrap(), "ok");
        let restored = drained(restored(&elsewhere, &file));
        let found = rows(&restored, crash::RUN);
        assert!(found.len() as i64 > before && before > 0, "{} rows of {before} that were stored before", found.len());
        assert!(
            found == whole[..found.len()],
            "the rows are the first of the original, none is missing, none is twice"
        );
        let id = restored.get(&format!("/api/runs/{run}")).json()["run"]["run_id"].clone();
        let durable = rows(&restored, id.as_str().unwrap());
        let seqs: Vec<_> = durable.iter().map(|row| row["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, (0..128).collect::<Vec<_>>(), "{run} was durable");
    }
}

/// A paused daemon whose spool holds records of several kinds, a dead letter and open runs.
fn paused(redis: &Redis) -> Daemon {
    let daemon = Daemon::on(redis).start_ready();
    let mut client = redis.client();
    client.publish(TRAINING, json!({"type": "training_start", "run_id": "first", "data": {}}).to_string());
    client.publish(TRAINING, "{broken");
    wait_until("the dead letter", LIMIT, || json_of(&daemon, &["deadletter", "list", "--json"])["count"] == 1);
    daemon.succeed(&["control", "pause", "--wait"]);
    client.publish(TRAINING, json!({"type": "training_start", "data": {"dataset": "spiral"}}).to_string());
    for epoch in 0..500 {
        client.publish(TRAINING, json!({"epoch": epoch, "loss": 0.25}).to_string());
    }
    client.publish(TRAINING, "{broken again");
    wait_until("everything in the spool", LIMIT, || {
        let status = daemon.get("/api/status").json();
        status["counters"]["rejected"] == 2 && status["spool"]["durable"] == status["spool"]["end"]
    });
    daemon
}

#[test]
fn a_paused_daemon_is_restored_paused_with_its_spool_dead_letters_and_open_runs() {
    let (redis, elsewhere) = (Redis::start(), Redis::start());
    let mut daemon = paused(&redis);
    // The file of open runs is replaced once a second.
    wait_until("the open run in its file", LIMIT, || {
        fs::read_to_string(daemon.state_dir().join("runs.json")).is_ok_and(|text| text.contains("499"))
    });
    let file = beside(&daemon, "paused.backup");
    let made = json_of(&daemon, &["backup", file.to_str().unwrap(), "--json"]);
    assert!(
        made["waiting"].as_u64() > Some(500) && made["bytes"].as_u64() == Some(fs::metadata(&file).unwrap().len()),
        "{made}"
    );
    daemon.kill9();
    let mut restored = restored(&elsewhere, &file);
    restored.launch();
    restored.wait_ready();
    assert_eq!(restored.get("/api/status").json()["paused"], true);
    assert_eq!(sqlite::count(&restored.database(), "SELECT count(*) FROM training_metrics"), 0);
    restored.succeed(&["control", "resume", "--wait"]);
    restored.wait_rows("SELECT count(*) FROM training_metrics", 500);
    wait_until("both dead letters", LIMIT, || json_of(&restored, &["deadletter", "list", "--json"])["count"] == 2);
    // The next message without an id belongs to the run that was open.
    elsewhere.client().publish(TRAINING, json!({"epoch": 500, "loss": 0.125}).to_string());
    restored.wait_rows("SELECT count(*) FROM training_metrics", 501);
    assert_eq!(sqlite::count(&restored.database(), "SELECT count(DISTINCT run_id) FROM training_metrics"), 1);
}

/// The restored daemon uses offsets again that the original used after the backup, under the same id of the spool.
#[test]
fn offsets_used_again_after_a_restore_cost_no_dead_letter_and_no_row() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    client.publish(TRAINING, metrics(0));
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
    let file = back_up(&daemon, "early.backup");
    let offsets = |daemon: &Daemon| -> BTreeSet<u64> {
        let letters = json_of(daemon, &["deadletter", "list", "--json"]);
        letters["deadletters"].as_array().unwrap().iter().map(|letter| letter["offset"].as_u64().unwrap()).collect()
    };
    let break_eight = |client: &mut Resp, place: &str| {
        for n in 0..8 {
            client.publish(TRAINING, format!("{{broken in the {place} {n}"));
        }
    };
    break_eight(&mut client, "original");
    client.publish(TRAINING, metrics(1));
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 2);
    wait_until("its dead letters", LIMIT, || offsets(&daemon).len() == 8);
    let original = offsets(&daemon);
    daemon.terminate();
    let shown = daemon.succeed(&["restore", file.to_str().unwrap(), "--force"]);
    assert!(shown.contains("spool.before-restore-") && shown.contains("cascor.db.before-restore-"), "{shown}");
    daemon.launch();
    daemon.wait_ready();
    break_eight(&mut client, "restored");
    client.publish(TRAINING, metrics(2));
    wait_until("eight dead letters", LIMIT, || offsets(&daemon).len() == 8);
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 2);
    assert!(!original.is_disjoint(&offsets(&daemon)), "offsets are used again");
    // What was moved aside is drained beside it.
    daemon.terminate();
    let aside = fs::read_dir(daemon.state_dir()).unwrap().map(|entry| entry.unwrap().path());
    let aside = aside.into_iter().find(|path| path.to_string_lossy().contains("spool.before-restore-")).unwrap();
    daemon.succeed(&["spool", "drain", aside.to_str().unwrap(), "--owner", "test"]);
}

#[test]
fn a_backup_of_a_full_spool_has_every_record_that_is_on_disk() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).set("spool.capacity", "\"256KiB\"").set("spool.segment", "\"64KiB\"");
    let mut daemon = daemon.start_ready();
    let mut client = redis.client();
    client.publish(TRAINING, metrics(0));
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
    let blocker = Connection::open(daemon.database()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let messages: Vec<_> = (1..4_000).map(metrics).collect();
    // What arrives together is written together, or not at all: parts much smaller than the spool.
    for part in messages.chunks(100) {
        client.publish_all(TRAINING, part).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    let spool = || daemon.get("/api/status").json()["spool"].clone();
    wait_until("a full spool", LIMIT, || spool()["healthy"] == false);
    let durable = spool()["durable"].as_u64().unwrap();
    let file = back_up(&daemon, "full.backup");
    daemon.kill9();
    let elsewhere = Redis::start();
    let restored = restored(&elsewhere, &file);
    let end = json_of(&restored, &["spool", "status", "--json"])["end"].as_u64().unwrap();
    let restored = drained(restored);
    let seqs: Vec<_> = rows(&restored, RUN).iter().map(|row| row["seq"].as_u64().unwrap()).collect();
    assert!(end >= durable && durable > 500, "{end} of {durable}");
    assert_eq!(seqs, (0..seqs.len() as u64).collect::<Vec<_>>(), "none is missing, none is twice");
    // A record that is no message may be among them.
    assert!((end - 4..=end).contains(&(seqs.len() as u64)), "{} rows of {end} records", seqs.len());
}

#[test]
fn every_file_of_the_state_directory_is_in_the_backup_or_is_left_out_for_a_reason() {
    let redis = Redis::start();
    let daemon = paused(&redis);
    let file = back_up(&daemon, "all.backup");
    let restored = restored(&redis, &file);
    let names = |dir: &Path| -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut waiting = vec![dir.to_owned()];
        while let Some(inner) = waiting.pop() {
            for entry in fs::read_dir(inner).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    waiting.push(path);
                } else {
                    names.insert(path.strip_prefix(dir).unwrap().to_string_lossy().into_owned());
                }
            }
        }
        names
    };
    let there = names(restored.state_dir());
    let is_known = |name: &String| {
        let last = name.rsplit('/').next().unwrap();
        there.contains(name) || NOT_IN_A_BACKUP.iter().any(|(known, _)| *known == last)
    };
    let unknown: Vec<_> = names(daemon.state_dir()).into_iter().filter(|name| !is_known(name)).collect();
    assert!(unknown.is_empty(), "neither in the backup nor left out for a reason: {unknown:?}");
    assert!(["cascor.db", "runs.json", "pause.json", "spool/checkpoint"].iter().all(|name| there.contains(*name)));
}

#[test]
fn with_cassandra_a_backup_has_the_spool_and_says_what_it_lacks() {
    let Some(cassandra) = Cassandra::shared() else { return skip("backup", "CASCOR_TEST_CASSANDRA is not set") };
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).cassandra(&cassandra).prepare();
    daemon.apply_schema();
    daemon.launch();
    daemon.wait_ready();
    daemon.succeed(&["control", "pause", "--wait"]);
    for seq in 0..100 {
        redis.client().publish(TRAINING, metrics(seq));
    }
    wait_until("the spool", LIMIT, || daemon.get("/api/status").json()["counters"]["events"] == 100);
    let file = beside(&daemon, "state.backup");
    let shown = daemon.succeed(&["backup", file.to_str().unwrap()]);
    assert!(shown.contains(&format!("nodetool snapshot {}", cassandra.keyspace)), "{shown}");
    daemon.kill9();
    fs::remove_dir_all(daemon.state_dir()).unwrap();
    let sqlite = Daemon::on(&redis).prepare();
    let refused = sqlite.command(&["restore", file.to_str().unwrap()]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("`store.kind` cassandra"));
    let shown = daemon.succeed(&["restore", file.to_str().unwrap()]);
    assert!(shown.contains("in Cassandra"), "{shown}");
    daemon.launch();
    daemon.wait_ready();
    daemon.succeed(&["control", "resume", "--wait"]);
    wait_until("every row", LIMIT, || cassandra.count("SELECT count(*) FROM training_metrics") == 100);
}
