//! SIGKILL, SIGSTOP and SIGTERM.

use std::{path::Path, thread, time::Duration};

use super::{
    arena::{Arena, Case, tier, times},
    strace::{self, Attached, Points},
};
use crate::support::{redis::Redis, sqlite};

/// Deterministic, so that a failure can be repeated: moments at varying positions within a group.
fn moment(n: u64) -> Duration {
    Duration::from_micros(20_000 + n.wrapping_mul(7_368_787) % 180_000)
}

#[test]
fn kill_9_at_random_moments() {
    let case = Case::new("kill -9 at random moments", "SIGKILL 20 to 200 ms after ready");
    let mut arena = Arena::start(case);
    for n in 0..times("KILLS", 50, 1_000) {
        thread::sleep(moment(n));
        arena.lossy(|arena| {
            arena.daemon.kill9();
            arena.daemon.launch();
        });
    }
    arena.judge();
}

#[test]
fn kill_9_while_segments_come_and_go() {
    let case = Case::new("kill -9, segments of 16 KiB", "SIGKILL; each few milliseconds a rotation and an unlink")
        .load(300, 2_000);
    let mut arena = Arena::with(case, Redis::start(), |daemon| daemon.set("spool.segment", "\"16KiB\""));
    for n in 0..tier(10, 500) {
        thread::sleep(Duration::from_millis(1_350) + moment(n) * 3);
        arena.lossy(|arena| {
            arena.daemon.kill9();
            arena.daemon.launch();
        });
    }
    arena.judge();
}

/// Calls before which the program is killed: on a file of the state directory or on any, and at which of them (counted per
/// thread). What lies between two of them is a step: killed before the later one is killed after the earlier one.
const STEPS: [(&str, Option<&str>, &[u32]); 11] = [
    ("pwrite64", None, &[60, 70, 81]),     // append: header and records of a segment
    ("fdatasync", None, &[1, 2, 9, 20]),   // sync: the segment
    ("openat", None, &[4, 30, 31, 32]),    // rotate: the next segment
    ("openat", Some("spool"), &[1, 2, 3]), // to sync names
    ("fsync", Some("spool"), &[1, 2, 3]),  // the names of segments and checkpoint
    ("unlink", None, &[2, 3, 4]),          // unlink
    ("pwrite64", Some("cascor.db-wal"), &[1, 5, 20]), // send: rows into the database
    ("fsync", Some("cascor.db-wal"), &[1, 2, 3]), // acknowledge
    ("ftruncate", None, &[1]),
    ("writev", None, &[3, 20]), // subscriptions, latest keys
    ("flock", None, &[1]),
];

/// Points that must have been hit.
const NAMED: [&str; 7] = [
    "pwrite64 segment",
    "fdatasync segment",
    "fsync database",
    "fsync spool directory",
    "openat segment",
    "unlink segment",
    "pwrite64 database",
];

/// The same for the small files that are replaced: a new one is made, written, synced and renamed. Its name is random until then,
/// so these calls are found by the thread that makes them; the thread of the checkpoint makes no others.
const REPLACED: [(&str, &str); 8] = [
    ("openat checkpoint", "spool-commit"),
    ("pwrite64 checkpoint", "spool-commit"),
    ("fdatasync checkpoint", "spool-commit"),
    ("rename checkpoint", "spool-commit"),
    ("openat open runs", "intake"),
    ("pwrite64 open runs", "intake"),
    ("fdatasync open runs", "intake"),
    ("rename open runs", "intake"),
];

/// Messages a second while the thread of the open runs is looked at, which also appends: between two saves, one second apart, it does
/// so a few times only.
const FEW: u64 = 2;

#[test]
fn kill_9_at_each_named_point() {
    if !strace::usable("kill_9_at_each_named_point") {
        return;
    }
    let injected = "strace: SIGKILL before each step of append, sync, rotate, checkpoint, unlink, send, acknowledge";
    let case = Case::new("kill -9 at each named point", injected).load(300, 150);
    let mut arena = Arena::with(case, Redis::start(), |daemon| daemon.set("spool.segment", "\"16KiB\""));
    let state = arena.daemon.state_dir().to_owned();
    let log = state.with_file_name("strace.log");
    let mut points = Points::new();
    let rounds = times("ROUNDS", 1, 5) as u32;
    // Which thread makes the nth call first is not the same each time: points that were missed are tried again.
    for round in 0..rounds + 6 {
        let missed = |points: &Points, call: &str| {
            NAMED.iter().any(|name| name.starts_with(call) && !points.contains_key(*name))
        };
        for (call, path, counts) in STEPS {
            let path = path.map(|path| state.join(path));
            for nth in counts {
                if round >= rounds && !missed(&points, call) {
                    break;
                }
                let killed = arena.killed_under(strace::killer(call, path.as_deref(), nth + 3 * round, &log));
                let point = if killed { strace::point(&log) } else { format!("not killed: {call} {path:?} {nth}") };
                *points.entry(point).or_default() += 1;
            }
        }
    }
    kill_while_files_are_replaced(&mut arena, &log, 2 * rounds, &mut points);
    println!("killed before: {points:#?}");
    arena.judge();
    let replaced = REPLACED.iter().map(|(name, _)| name);
    let missed: Vec<_> = NAMED.iter().chain(replaced).filter(|name| !points.contains_key(**name)).collect();
    assert!(missed.is_empty(), "never killed before {missed:?}: {points:?}");
}

/// Repeats until each of [`REPLACED`] was hit `often`, or the number of tries is exhausted.
fn kill_while_files_are_replaced(arena: &mut Arena, log: &Path, often: u32, points: &mut Points) {
    let rate = arena.case.load.rate;
    for (wanted, thread) in REPLACED {
        let call = wanted.split(' ').next().unwrap_or_default();
        arena.producer.set_rate(if thread == "intake" { FEW } else { rate });
        let mut hits = 0;
        for attempt in 0..20 * often {
            if arena.killed_by(|pid| Attached::killer(pid, thread, call, 1 + attempt % 5, log)) {
                let point = strace::point(log);
                hits += u32::from(point == wanted);
                *points.entry(point).or_default() += 1;
            }
            if hits >= often {
                break;
            }
        }
    }
    arena.producer.set_rate(rate);
}

/// Messages without a `run_id` belong to the channel's open run after any number of crashes: the record that opened it must not
/// be lost, wherever it is stored.
#[test]
fn open_runs_survive_any_number_of_kills() {
    let case = Case::new("kill -9, messages without a run", "SIGKILL; segments of 16 KiB; one run start, then none");
    let mut arena = Arena::with(case.load(300, 2_000), Redis::start(), |daemon| {
        daemon
            .set("spool.segment", "\"16KiB\"")
            .set("redis.training_channels", "[\"cascor:training\", \"cascor:events\"]")
    });
    let run = "6f0c853b-6794-4685-b2f5-43019da8836b";
    let publish = |arena: &Arena, message: &str| arena.redis.client().publish("cascor:events", message);
    publish(&arena, &format!("{{\"type\":\"training_start\",\"run_id\":\"{run}\"}}"));
    thread::sleep(Duration::from_millis(300));
    for n in 0..tier(10, 200_u64) {
        for epoch in 0..5 {
            publish(&arena, &format!("{{\"type\":\"metrics\",\"epoch\":{},\"loss\":0.5}}", n * 5 + epoch));
        }
        thread::sleep(Duration::from_millis(200) + moment(n) * 7);
        arena.lossy(|arena| {
            arena.daemon.kill9();
            // The copy of the open run in Redis must not hide a loss.
            arena.redis.client().command(&["FLUSHALL"]);
            arena.daemon.launch();
        });
    }
    let file = arena.daemon.database();
    arena.lively();
    let sql = "SELECT run_id, count(*) AS n FROM training_metrics WHERE seq IS NULL GROUP BY run_id";
    let rows = sqlite::rows(&file, sql);
    let expected = (1, run, tier(10, 200_i64) * 5);
    assert_eq!((rows.len(), rows[0]["run_id"].as_str().unwrap(), rows[0]["n"].as_i64().unwrap()), expected, "{rows:?}");
    arena.judge();
}
