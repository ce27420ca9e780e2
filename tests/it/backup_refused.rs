//! Backups that are damaged, cut short, too new, interrupted or in the way, and disks that are full: an error, and nothing lost.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rusqlite::Connection;

use crate::{
    backup::{back_up, beside, drained, restored},
    support::{daemon::Daemon, redis::Redis, skip, sqlite, wait_for, wait_until},
    tools::{LIMIT, TRAINING, image, killed_with_pending, metrics, stderr},
};

const ROWS: &str = "SELECT count(*) FROM training_metrics";
/// Length of the trailer of a backup.
const TRAILER: usize = 48;

/// A daemon with this many rows.
fn with_rows(redis: &Redis, count: u64) -> Daemon {
    let daemon = Daemon::on(redis).start_ready();
    let messages: Vec<String> = (0..count).map(metrics).collect();
    redis.client().publish_all(TRAINING, &messages).unwrap();
    daemon.wait_rows(ROWS, count as i64);
    daemon
}

/// A command that must fail; its error.
#[track_caller]
fn refused(output: &Output, expected: &str) {
    let error = stderr(output);
    assert!(output.status.code() == Some(1) && error.contains(expected), "{expected}: {}: {error}", output.status);
}

#[test]
fn a_damaged_short_or_newer_backup_is_refused_and_nothing_is_touched() {
    let redis = Redis::start();
    let daemon = with_rows(&redis, 50);
    let good = fs::read(back_up(&daemon, "good.backup")).unwrap();
    let target = Daemon::on(&redis).prepare();
    let file = beside(&target, "bad.backup");
    let trailer = good.len() - TRAILER;
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let sealed = |mut bytes: Vec<u8>| {
        let checksum = crc32c::crc32c(&bytes[trailer..bytes.len() - 4]).to_le_bytes();
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&checksum);
        bytes
    };
    let mut newer = good.clone();
    newer[trailer + 8] = 2;
    for (bytes, expected) in [
        (flipped(100), "is damaged"),
        (flipped(good.len() / 2), "is damaged"),
        (flipped(trailer - 10), "is damaged"),
        (flipped(trailer + 30), "is damaged"),
        (flipped(trailer), "is no backup, or was cut short"),
        (good[..good.len() - 1].to_vec(), "is no backup, or was cut short"),
        (good[..4096].to_vec(), "is no backup, or was cut short"),
        (Vec::new(), "is no backup, or was cut short"),
        (sealed(newer), "has format 2 of backups, and this program knows 1 at most"),
    ] {
        fs::write(&file, bytes).unwrap();
        refused(&target.command(&["restore", file.to_str().unwrap()]), expected);
        assert_eq!(image(target.state_dir()).len(), 0, "{expected}: nothing is touched");
    }
    refused(&target.command(&["restore", "/nosuch.backup"]), "failed to read `/nosuch.backup`");
    fs::write(&file, &good).unwrap();
    target.succeed(&["restore", file.to_str().unwrap()]);
}

#[test]
fn a_restore_is_refused_beside_a_daemon_and_moves_aside_what_is_there_only_when_told() {
    let redis = Redis::start();
    let mut daemon = with_rows(&redis, 20);
    let file = back_up(&daemon, "twenty.backup");
    let restore = ["restore", file.to_str().unwrap()];
    let force = ["restore", file.to_str().unwrap(), "--force"];
    refused(&daemon.command(&force), "is in use by process");
    refused(&daemon.command(&["backup", file.to_str().unwrap()]), "give --overwrite");
    redis.client().publish(TRAINING, metrics(20));
    daemon.wait_rows(ROWS, 21);
    daemon.terminate();
    // The lock file names the process that asked last.
    let kept =
        || image(daemon.state_dir()).into_iter().filter(|(name, _)| !name.ends_with("/lock")).collect::<Vec<_>>();
    let before = kept();
    refused(&daemon.command(&restore), "there is state in the way");
    assert!(kept() == before, "nothing is touched");
    let reader = Connection::open(daemon.database()).unwrap();
    reader.query_row(ROWS, (), |_| Ok(())).unwrap();
    refused(&daemon.command(&force), "is open in process");
    drop(reader);
    daemon.succeed(&force);
    let daemon = drained(daemon);
    assert_eq!(sqlite::count(&daemon.database(), ROWS), 20);
    let aside = fs::read_dir(daemon.state_dir()).unwrap().map(|entry| entry.unwrap().path());
    let aside = aside.into_iter().find(|path| path.to_string_lossy().contains("cascor.db.before-restore-")).unwrap();
    assert_eq!(sqlite::count(&aside, ROWS), 21, "the newer row is where it was");
}

/// Records that only the old spool has are in it after a restore over it, and the command says so.
#[test]
fn records_of_a_spool_moved_aside_are_stored_by_draining_it() {
    let redis = Redis::start();
    let mut source = with_rows(&redis, 1);
    let file = back_up(&source, "one.backup");
    source.terminate();
    let daemon = killed_with_pending(&redis, 40);
    let shown = daemon.succeed(&["restore", file.to_str().unwrap(), "--force"]);
    let command = shown.split('`').nth(1).unwrap().trim_start_matches("cascor-ingest ");
    daemon.succeed(&command.split(' ').collect::<Vec<_>>());
    let daemon = drained(daemon);
    assert_eq!(sqlite::count(&daemon.database(), &format!("{ROWS} WHERE seq > 0")), 40, "{shown}");
}

/// A table of this many MiB, so that a backup takes its time.
fn enlarge(database: &Path, mib: u64) {
    let connection = Connection::open(database).unwrap();
    connection.busy_timeout(LIMIT).unwrap();
    connection.execute_batch("CREATE TABLE filler (bytes BLOB)").unwrap();
    for _ in 0..mib {
        connection.execute("INSERT INTO filler VALUES (randomblob(1048576))", ()).unwrap();
    }
}

#[test]
fn a_killed_backup_leaves_the_old_file_whole_and_the_next_one_works() {
    let redis = Redis::start();
    let daemon = with_rows(&redis, 10);
    let file = back_up(&daemon, "kept.backup");
    let old = fs::read(&file).unwrap();
    enlarge(&daemon.database(), 48);
    let part = beside(&daemon, "kept.backup.part");
    for moment in [0, 1, 20, 40] {
        let arguments = ["backup", file.to_str().unwrap(), "--overwrite"];
        let mut child = daemon.prepared(&arguments).spawn().unwrap();
        wait_for("the backup to write", LIMIT, || fs::metadata(&part).ok().filter(|found| found.len() >= moment << 20));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(part.exists() && fs::read(&file).unwrap() == old, "killed at {moment} MiB");
    }
    daemon.succeed(&["backup", file.to_str().unwrap(), "--overwrite"]);
    assert!(!part.exists() && fs::metadata(&file).unwrap().len() > 48 << 20);
    let restored = drained(restored(&Redis::start(), &file));
    assert_eq!(sqlite::count(&restored.database(), ROWS), 10);
}

#[test]
fn an_interrupted_restore_keeps_the_daemon_from_starting_until_it_is_repeated() {
    let redis = Redis::start();
    let mut daemon = with_rows(&redis, 10);
    enlarge(&daemon.database(), 48);
    let file = back_up(&daemon, "large.backup");
    daemon.terminate();
    let target = Daemon::on(&redis).prepare();
    let mut child = target.prepared(&["restore", file.to_str().unwrap()]).spawn().unwrap();
    wait_for("the restore to write", LIMIT, || fs::metadata(target.database()).ok().filter(|found| found.len() > 0));
    child.kill().unwrap();
    child.wait().unwrap();
    refused(&target.command(&["run"]), "was interrupted: run `cascor-ingest restore");
    target.succeed(&["restore", file.to_str().unwrap(), "--force"]);
    let target = drained(target);
    assert_eq!(sqlite::count(&target.database(), ROWS), 10);
}

/// A tmpfs, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, mib: u32) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_an_error_and_leaves_no_file() {
    let redis = Redis::start();
    let daemon = with_rows(&redis, 10);
    enlarge(&daemon.database(), 12);
    let Some(small) = Small::mount(&beside(&daemon, "small"), 8) else {
        return skip("a_full_disk_is_an_error_and_leaves_no_file", "needs root, to mount a file system");
    };
    let file = small.0.join("full.backup");
    refused(&daemon.command(&["backup", file.to_str().unwrap()]), "no backup was made");
    assert_eq!(fs::read_dir(&small.0).unwrap().count(), 0);
    // The database fits, the spool does not.
    daemon.succeed(&["control", "pause", "--wait"]);
    let texts = vec!["x".repeat(60_000); 16];
    for seq in 0..12 {
        let message = serde_json::json!({"type": "metrics", "run_id": "wide", "seq": seq, "loss": 0.5, "texts": texts});
        redis.client().publish(TRAINING, message.to_string());
    }
    wait_until("the spool", LIMIT, || daemon.get("/api/status").json()["counters"]["events"] == 22);
    Connection::open(daemon.database()).unwrap().execute_batch("DROP TABLE filler; VACUUM").unwrap();
    refused(&daemon.command(&["backup", file.to_str().unwrap()]), "no backup was made");
    assert_eq!(fs::read_dir(&small.0).unwrap().count(), 0);

    let good = back_up(&daemon, "good.backup");
    let state = small.0.join("state");
    let into_it = ["--state-dir", state.to_str().unwrap()];
    let restore = daemon.command(&[&["restore", good.to_str().unwrap()], &into_it[..]].concat());
    refused(&restore, "the restore was interrupted");
    refused(&daemon.command(&[&["run"], &into_it[..]].concat()), "was interrupted");
}
