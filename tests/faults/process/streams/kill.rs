//! The daemon is killed, or stands still.

use std::{path::Path, thread, time::Duration};

use rustix::process::Signal;
use tokio::time::Instant;

use super::rig::{Publisher, RATE, assert_kept, assert_same, entries, on, random, rows, wait_acknowledged, wait_count};
use crate::{
    arena::{tier, times},
    support::{redis::Redis, sqlite},
};

/// Bytes of the files in a directory.
fn size(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).filter(std::fs::Metadata::is_file).map(|of| of.len()).sum()
}

/// `CASCOR_FAULTS_STREAM_KILLS`: the number of kills. 1,000 of them take six minutes.
#[test]
fn a_daemon_on_a_stream_that_is_killed_loses_nothing_and_stores_nothing_twice() {
    let redis = Redis::start();
    let mut daemon = on(&redis).start_ready();
    let publisher = Publisher::start(&[redis.port], RATE);
    let (kills, begun, mut spool) = (times("STREAM_KILLS", 20, 1_000), Instant::now(), 0);
    for kill in 0..kills {
        thread::sleep(Duration::from_micros(150_000 + random(kill, 400_000)));
        daemon.kill9();
        spool = spool.max(size(&daemon.state_dir().join("spool")));
        daemon.launch();
        if kill % 100 == 99 {
            println!("{} kills after {:?}, {} entries", kill + 1, begun.elapsed(), publisher.count());
        }
    }
    let (killed, added) = (begun.elapsed(), publisher.finish());
    daemon.wait_ready();
    let mut client = redis.client();
    let (expected, database) = (added.acknowledged.len(), daemon.database());
    assert_eq!(added.unanswered, 0);
    wait_count(&database, expected);
    wait_acknowledged(&mut client);
    let count = |what: &str| sqlite::count(&database, &format!("SELECT COUNT({what}) FROM training_metrics"));
    let expected = i64::try_from(expected).unwrap();
    println!(
        "{kills} kills in {killed:?}, {expected} entries, {} rows, all stored after {:?}; spool at most {} KiB, at the end {} KiB, table {} KiB",
        count("*"),
        begun.elapsed(),
        spool >> 10,
        size(&daemon.state_dir().join("spool")) >> 10,
        size(daemon.state_dir()) >> 10
    );
    assert_eq!((count("*"), count("DISTINCT epoch")), (expected, expected));
    assert_eq!(sqlite::count(&database, "SELECT count(*) FROM ingest_gaps WHERE source = 'stream'"), 0);
}

#[test]
fn a_daemon_that_is_stopped_or_stands_still_loses_nothing() {
    let redis = Redis::start();
    let mut daemon = on(&redis).start_ready();
    let publisher = Publisher::start(&[redis.port], RATE);
    let away = Duration::from_secs(tier(2, 60));
    thread::sleep(Duration::from_millis(500));
    assert!(daemon.terminate().success());
    thread::sleep(away);
    daemon.launch();
    daemon.wait_ready();
    thread::sleep(Duration::from_millis(500));
    daemon.process().signal(Signal::STOP);
    thread::sleep(away);
    daemon.process().signal(Signal::CONT);
    thread::sleep(Duration::from_millis(500));
    let added = publisher.finish();
    let mut client = redis.client();
    let stream = entries(&mut client);
    assert_kept(&added, &stream);
    wait_count(&daemon.database(), stream.len());
    wait_acknowledged(&mut client);
    assert_same("stopped, then SIGSTOP", &rows(&daemon.database()), &stream);
    assert_eq!(sqlite::count(&daemon.database(), "SELECT count(*) FROM ingest_gaps WHERE source = 'stream'"), 0);
}
