//! Changes of the spool's files by other users: replaced, made unreadable, linked, removed.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use rusqlite::Connection;
use serde_json::Value;
use uuid::Uuid;

use super::{
    arena::{Arena, Case, tier},
    judge,
    producer::{Load, Producer},
};
use crate::support::{
    daemon::{Daemon, binary},
    redis::Redis,
    skip, sqlite, wait_until,
};

const LIMIT: Duration = Duration::from_secs(30);

/// Blocks the store, so that everything stays in the spool; unblocks it when dropped.
struct Away(Connection);

impl Away {
    fn of(daemon: &Daemon) -> Self {
        let other = Connection::open(daemon.database()).unwrap();
        other.busy_timeout(Duration::from_secs(10)).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self(other)
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        let _ = self.0.execute_batch("ROLLBACK");
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut list: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    list.retain(|path| path.extension().is_some_and(|extension| extension == "seg") && path.is_file());
    list.sort();
    list
}

fn newest(spool: &Path) -> PathBuf {
    segments(spool).pop().unwrap()
}

/// Replaces the object of this name.
fn directory(path: &Path) {
    let _ = fs::remove_file(path);
    fs::create_dir_all(path).unwrap();
    fs::write(path.join("notes"), b"mine").unwrap();
}

fn pipe(path: &Path) {
    let _ = fs::remove_file(path);
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// A name that only a newer segment would have.
fn later(spool: &Path, n: u64) -> PathBuf {
    spool.join(format!("{:020}-000.seg", 9_000_000_000_000 + n))
}

type Deed = (&'static str, fn(&Path));

/// Each is done to a spool that no daemon holds, and costs nothing.
const DEEDS: &[Deed] = &[
    ("directory as checkpoint", |spool| directory(&spool.join("checkpoint"))),
    ("directory as half a checkpoint", |spool| directory(&spool.join("checkpoint.tmp"))),
    ("directory as lock", |spool| directory(&spool.join("lock"))),
    ("directory as owner", |spool| directory(&spool.join("instance"))),
    ("pipe as checkpoint", |spool| pipe(&spool.join("checkpoint"))),
    ("pipe as lock", |spool| pipe(&spool.join("lock"))),
    ("pipe as owner", |spool| pipe(&spool.join("instance"))),
    ("file as quarantine", |spool| {
        let _ = fs::remove_dir_all(spool.join("quarantine"));
        fs::write(spool.join("quarantine"), b"mine").unwrap();
    }),
    ("directory, pipe and socket as segments", |spool| {
        directory(&later(spool, 1));
        pipe(&later(spool, 2));
        let _ = fs::remove_file(later(spool, 3));
        drop(UnixListener::bind(later(spool, 3)).unwrap());
    }),
    ("segment with two more names", |spool| {
        let segment = newest(spool);
        let elsewhere = spool.parent().unwrap().join("elsewhere");
        let _ = fs::remove_file(&elsewhere);
        fs::hard_link(&segment, elsewhere).unwrap();
        let _ = fs::hard_link(&segment, segment.to_str().unwrap().replace("-000.", "-077."));
    }),
    ("spool behind a link", |spool| {
        let real = spool.with_extension("real");
        fs::rename(spool, &real).unwrap();
        symlink(&real, spool).unwrap();
    }),
];

/// Kills the daemon while its spool holds unstored records, applies the change, and starts the daemon again.
fn inflict(arena: &mut Arena, deeds: &[Deed]) {
    let spool = arena.daemon.state_dir().join("spool");
    for (name, deed) in deeds {
        println!("    {name}");
        let away = Away::of(&arena.daemon);
        thread::sleep(Duration::from_millis(300));
        arena.lossy(|arena| {
            arena.daemon.kill9();
            deed(&spool);
            arena.daemon.launch();
        });
        drop(away);
        arena.lively();
    }
}

#[test]
fn foreign_objects_in_the_place_of_files_cost_nothing() {
    let injected = "directory, pipe, socket, file or link as checkpoint, lock, owner, quarantine, segment, spool";
    let mut arena = Arena::start(Case::new("something else in the place of a file", injected));
    for _ in 0..tier(1, 5) {
        inflict(&mut arena, &DEEDS[..DEEDS.len() - 1]);
    }
    inflict(&mut arena, &DEEDS[DEEDS.len() - 1..]);
    arena.judge();
}

#[test]
fn a_segment_that_is_taken_away_while_it_is_written_costs_nothing() {
    let case = Case::new("newest segment taken away", "renamed while it is written, a directory in its place");
    let mut arena = Arena::start(case.errors(&["segment failed; writing"]));
    let spool = arena.daemon.state_dir().join("spool");
    for n in 0..tier(3, 20) {
        let away = Away::of(&arena.daemon);
        thread::sleep(Duration::from_millis(200));
        arena.harmless(|_| {
            let segment = newest(&spool);
            fs::rename(&segment, spool.parent().unwrap().join(format!("taken-{n}"))).unwrap();
            directory(&segment);
            thread::sleep(Duration::from_millis(200));
        });
        // Its records are still in memory.
        drop(away);
        arena.lively();
        // Until it is committed: rows of runs are written once a second.
        thread::sleep(Duration::from_millis(2_500));
        inflict(&mut arena, &[("kill -9 after it", |_| ())]);
    }
    arena.judge();
}

/// An unprivileged user.
const NOBODY_ID: &str = "65534:65534";
const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// A prepared daemon that is not root. None: the test is skipped.
fn unprivileged(test: &str, redis: &Redis) -> Option<Daemon> {
    let daemon = Daemon::on(redis).set("spool.segment", "\"16KiB\"").under(&NOBODY).prepare();
    let home = daemon.state_dir().parent().unwrap();
    let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    if run(Command::new("chown").args(["-R", NOBODY_ID]).arg(home))
        && run(Command::new(NOBODY[0]).args(&NOBODY[1..]).arg(binary()).arg("--version"))
        && run(Command::new(NOBODY[0]).args(&NOBODY[1..]).args(["ls"]).arg(home))
    {
        return Some(daemon);
    }
    skip(test, "needs root and setpriv, to run as another user who can reach the program and its directory");
    None
}

fn close(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
}

#[test]
fn closed_files_and_directories_are_opened_again() {
    let test = "closed_files_and_directories_are_opened_again";
    let redis = Redis::start();
    let Some(daemon) = unprivileged(test, &redis) else { return };
    let mut arena = Arena::of(
        Case::new("wrong permissions", "mode 000 on spool, segments, checkpoint, lock, as another user than root"),
        redis,
        daemon,
        None,
    );
    for _ in 0..tier(1, 5) {
        inflict(
            &mut arena,
            &[
                ("closed spool", close),
                ("closed segments", |spool| segments(spool).iter().for_each(|path| close(path))),
                ("closed checkpoint", |spool| close(&spool.join("checkpoint"))),
                ("closed lock", |spool| close(&spool.join("lock"))),
                ("everything closed", |spool| {
                    fs::read_dir(spool).unwrap().for_each(|entry| close(&entry.unwrap().path()));
                    close(spool);
                }),
            ],
        );
        // While it runs and makes segments.
        let spool = arena.daemon.state_dir().join("spool");
        arena.harmless(|_| {
            close(&spool);
            thread::sleep(Duration::from_secs(1));
        });
        arena.lively();
    }
    arena.judge();
}

fn give(path: &Path, user: &str) {
    assert!(Command::new("chown").arg(user).arg(path).status().unwrap().success());
}

/// Where a start is impossible, the error names the cause, and the spool is unchanged after the fix.
#[test]
fn a_spool_of_another_user_is_named_and_used_once_it_is_given_back() {
    let test = "a_spool_of_another_user_is_named_and_used_once_it_is_given_back";
    let redis = Redis::start();
    let Some(daemon) = unprivileged(test, &redis) else { return };
    let case = Case::new("spool of another user", "kill -9, chown and mode 000; chown back, start");
    let mut arena = Arena::of(case, redis, daemon, None);
    let spool = arena.daemon.state_dir().join("spool");
    let away = Away::of(&arena.daemon);
    thread::sleep(Duration::from_millis(300));
    arena.lossy(|arena| {
        arena.daemon.kill9();
        give(&spool, "root");
        close(&spool);
        arena.daemon.launch();
        let status = arena.daemon.process().wait(LIMIT);
        let expected = format!("`{}`", spool.join("lock").display());
        let log = arena.daemon.log();
        assert!(!status.success() && log.contains(&expected) && log.contains("chown"), "{log}");
        arena.daemon.kill9();
        give(&spool, NOBODY_ID);
        arena.daemon.launch();
    });
    drop(away);
    arena.lively();
    arena.judge();
}

/// Unstored messages in a spool that no daemon holds.
struct Abandoned {
    redis: Redis,
    daemon: Daemon,
    spool: PathBuf,
    run: Uuid,
    published: i64,
    away: Away,
}

fn abandoned(redis: Redis, mut daemon: Daemon) -> Abandoned {
    daemon.launch();
    daemon.wait_ready();
    let run = Uuid::new_v4();
    let producer = Producer::start(redis.port, run, &Load { rate: 300, pad: 0, password: None });
    let stored = || sqlite::count(&daemon.database(), "SELECT count(*) FROM training_metrics");
    wait_until("rows", LIMIT, || stored() > 50);
    let away = Away::of(&daemon);
    thread::sleep(Duration::from_millis(2_500));
    let published = producer.finish().last().unwrap().end;
    wait_until("everything in the spool", LIMIT, || {
        daemon.get("/api/status").json()["counters"]["events"] == published
    });
    // Until the open runs are saved.
    thread::sleep(Duration::from_millis(1_500));
    daemon.kill9();
    let spool = daemon.state_dir().join("spool");
    Abandoned { redis, daemon, spool, run, published, away }
}

impl Abandoned {
    /// Starts it without the segment in `taken`: exactly its records are missing, and are reported. After a drain none are missing.
    fn lacks(self, case: &Case, taken: impl FnOnce(&Daemon) -> PathBuf) {
        let Self { redis, mut daemon, run, published, away, .. } = self;
        daemon.launch();
        daemon.wait_ready();
        drop(away);
        let taken = taken(&daemon);
        let of = |report: &str, name: &str| serde_json::from_str::<Value>(report).unwrap()[name].as_i64().unwrap();
        let report = daemon.command(&["spool", "verify", taken.to_str().unwrap(), "--json"]);
        let lost = of(&String::from_utf8_lossy(&report.stdout), "records");
        let message = format!("{{\"type\":\"metrics\",\"run_id\":\"{run}\",\"seq\":{published},\"epoch\":1}}");
        redis.client().publish("cascor:training", message);
        let stored = || sqlite::count(&daemon.database(), "SELECT count(*) FROM training_metrics");
        wait_until("the rest", LIMIT, || stored() >= published + 1 - lost);
        wait_until("the last", LIMIT, || daemon.get("/api/status").json()["spool"]["pending_records"] == 0);
        assert_eq!((stored(), lost > 0), (published + 1 - lost, true), "{lost} of {published}");
        let run = run.to_string();
        let missing = || {
            let told: Value = serde_json::from_str(&daemon.succeed(&["gaps", "--run", &run, "--json"])).unwrap();
            told["missing"]["lost"].as_i64().unwrap()
        };
        assert_eq!(missing(), lost);
        let told = daemon.metric("cascor_spool_missing_records_total").unwrap();
        assert!(told as i64 >= lost && daemon.log().contains("records cannot be read any more"), "{told} of {lost}");
        // Records that are not messages do not become rows.
        let drained = daemon.succeed(&["spool", "drain", taken.to_str().unwrap(), "--owner", "test", "--json"]);
        assert_eq!(of(&drained, "records"), lost, "{drained}");
        assert_eq!((stored(), missing()), (published + 1, 0), "put back, all of it is there");
        let line = format!("| {} | {} | 1 of 1 | {} | {lost} | 0 | 0 |\n", case.name, case.injected, published + 1);
        judge::publish(&line);
    }
}

#[test]
fn a_newest_segment_that_is_gone_is_counted_and_can_be_put_back() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).set("spool.segment", "\"16KiB\"").prepare();
    let abandoned = abandoned(redis, daemon);
    let segment = newest(&abandoned.spool);
    let elsewhere = abandoned.spool.ancestors().nth(2).unwrap().join("taken");
    fs::create_dir(&elsewhere).unwrap();
    fs::rename(&segment, elsewhere.join(segment.file_name().unwrap())).unwrap();
    directory(&segment);
    let case = Case::new("newest segment gone", "kill -9, a directory in its place; later drained from where it was");
    abandoned.lacks(&case, |_| elsewhere);
}

#[test]
fn a_segment_that_cannot_be_opened_is_quarantined_counted_and_can_be_put_back() {
    let test = "a_segment_that_cannot_be_opened_is_quarantined_counted_and_can_be_put_back";
    let redis = Redis::start();
    let Some(daemon) = unprivileged(test, &redis) else { return };
    let abandoned = abandoned(redis, daemon);
    let list = segments(&abandoned.spool);
    let segment = &list[list.len() / 2];
    close(segment);
    give(segment, "root");
    let quarantine = abandoned.spool.join("quarantine");
    let case = Case::new("segment that cannot be opened", "kill -9, one segment belongs to root; later drained");
    abandoned.lacks(&case, |daemon| {
        daemon.wait_log("segment cannot be read; set aside");
        quarantine
    });
}
