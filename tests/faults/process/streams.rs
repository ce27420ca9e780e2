//! A stream whose daemon is killed: every entry is stored once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;

use super::arena::times;
use crate::support::{
    daemon::Daemon,
    redis::Redis,
    resp::{Resp, Value},
    sqlite, wait_for,
};

const STREAM: &str = "cascor:training:stream";
const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const RATE: f64 = 2_000.0;
const LIMIT: Duration = Duration::from_secs(120);

/// Adds entries at the rate until told to stop; returns their number.
fn add_entries(port: u16, stop: &AtomicBool) -> u64 {
    let mut client = Resp::connect(port).unwrap();
    let (begun, mut added) = (Instant::now(), 0_u64);
    while !stop.load(Ordering::Relaxed) {
        let due = (begun.elapsed().as_secs_f64() * RATE) as u64;
        while added < due {
            let message = format!(r#"{{"run_id":"{RUN}","epoch":{added},"loss":0.5}}"#);
            client.command(&["XADD", STREAM, "*", "data", &message]);
            added += 1;
        }
        thread::sleep(Duration::from_millis(5));
    }
    added
}

#[test]
fn a_daemon_on_a_stream_that_is_killed_loses_nothing_and_stores_nothing_twice() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis)
        .set("redis.streams", format!("[{STREAM:?}]"))
        .set("redis.training_channels", "[]")
        .start_ready();
    let stop = Arc::new(AtomicBool::new(false));
    let (port, stopped) = (redis.port, Arc::clone(&stop));
    let producer = thread::spawn(move || add_entries(port, &stopped));
    for kill in 0..times("STREAM_KILLS", 20, 1_000) {
        thread::sleep(Duration::from_micros(150_000 + kill.wrapping_mul(7_368_787) % 400_000));
        daemon.kill9();
        daemon.launch();
    }
    stop.store(true, Ordering::Relaxed);
    let added = i64::try_from(producer.join().unwrap()).unwrap();
    daemon.wait_ready();
    let count = |what: &str| sqlite::count(&daemon.database(), &format!("SELECT COUNT({what}) FROM training_metrics"));
    wait_for("every entry in the table", LIMIT, || (count("*") >= added).then_some(()));
    assert_eq!((count("*"), count("DISTINCT epoch")), (added, added));
    let mut client = redis.client();
    wait_for("every entry to be acknowledged", LIMIT, || {
        match client.command(&["XPENDING", STREAM, "cascor-ingest"]) {
            Value::Array(parts) => (parts[0].integer() == Some(0)).then_some(()),
            other => panic!("XPENDING was answered {other:?}"),
        }
    });
}
