//! Clocks that jump, and messages with implausible times.

use std::{fs, path::PathBuf, thread, time::Duration};

use serde_json::json;

use super::{
    arena::{Arena, Case},
    producer::{CHANNEL, wall},
};
use crate::support::{daemon::Daemon, redis::Redis, skip, sqlite, wait_until};

/// Its path on Debian, on any architecture.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?;
    folders.flatten().map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|file| file.exists())
}

#[test]
fn a_wall_clock_that_jumps_moves_nothing_else() {
    let Some(library) = library() else {
        return skip("a_wall_clock_that_jumps_moves_nothing_else", "libfaketime is not installed");
    };
    let redis = Redis::start();
    let clock = tempfile::NamedTempFile::new().unwrap();
    fs::write(clock.path(), "+0").unwrap();
    // The monotonic clock stays real, as it does when a clock is set.
    let daemon = Daemon::on(&redis)
        .env("LD_PRELOAD", library.to_str().unwrap())
        .env("FAKETIME_TIMESTAMP_FILE", clock.path().to_str().unwrap())
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .prepare();
    let mut case = Case::new("wall clock jumps", "libfaketime: an hour and ten years, either way, while it runs");
    case.own_time = false;
    let mut arena = Arena::of(case, redis, daemon, None);
    for jump in ["+3600", "+0", "-3600", "+0", "+3650d", "+0", "-3650d", "+0"] {
        arena.harmless(|_| {
            fs::write(clock.path(), jump).unwrap();
            thread::sleep(Duration::from_secs(2));
        });
        arena.lively();
        assert_eq!(arena.daemon.get("/readyz").status, 200, "at {jump}");
        let latest = arena.redis.client().get_json("cascor:metrics:latest");
        assert!(latest.is_some(), "no latest key at {jump}");
    }
    arena.judge();
}

#[test]
fn events_of_implausible_times_are_rows_with_a_valid_time() {
    let arena = Arena::start(Case::new("events from other times", "from year 1 to year 292277"));
    let times = [
        json!("0001-01-01T00:00:00Z"),
        json!("9999-12-31T23:59:59.999999Z"),
        json!("-262143-01-01T00:00:00Z"),
        json!("+262142-12-31T23:59:59Z"),
        json!(0),
        json!(-1),
        json!(-1.0e300),
        json!(1.0e300),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e-300),
        json!("1970-01-01"),
        json!("2038-01-19T03:14:08Z"),
        json!("2026-02-30T00:00:00Z"),
        json!(""),
        json!(null),
        json!(wall() + 400_000_000),
        json!(wall() - 11 * 365 * 86_400 * 1_000_000),
    ];
    let mut client = arena.redis.client();
    for (n, time) in times.iter().enumerate() {
        let message = json!({"type": "metrics", "run_id": "far", "timestamp": time, "epoch": n, "loss": 0.5});
        client.publish(CHANNEL, message.to_string());
    }
    let count = "SELECT count(*) FROM training_metrics WHERE train_loss = 0.5 AND seq IS NULL";
    let letters =
        || arena.daemon.metric("cascor_deadletter_messages_total{reason=\"invalid_field\"}").unwrap_or(0.0) as i64;
    wait_until("a row or a dead letter of each", Duration::from_secs(10), || {
        sqlite::count(&arena.daemon.database(), count) + letters() == times.len() as i64
    });
    let odd = "SELECT count(*) FROM training_metrics WHERE timestamp NOT BETWEEN 1400000000000000 AND 2000000000000000";
    assert_eq!(sqlite::count(&arena.daemon.database(), odd), 0, "a row far from its neighbours");
    println!("dead letters: {}", letters());
    arena.judge();
}
