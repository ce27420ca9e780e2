//! Processes that are paused, restarted, and told to end while their store is away.

use std::{thread, time::Duration};

use rusqlite::Connection;
use rustix::process::Signal;
use tokio::time::Instant;

use super::arena::{Arena, Case, tier};

#[test]
fn a_stopped_process_goes_on_and_records_what_it_missed() {
    let mut arena = Arena::start(Case::new("SIGSTOP", "for 5 s; long tier: 5, 20 and 90 s"));
    for seconds in tier(&[5][..], &[5, 20, 90]) {
        arena.lossy(|arena| {
            arena.daemon.process().signal(Signal::STOP);
            thread::sleep(Duration::from_secs(*seconds));
            arena.daemon.process().signal(Signal::CONT);
            // It may find out only now that its connection is gone.
            thread::sleep(Duration::from_secs(1));
        });
        arena.lively();
    }
    arena.judge();
}

#[test]
fn restarts_under_load_lose_only_the_time_between() {
    let mut arena = Arena::start(Case::new("restart under load", "SIGTERM, start"));
    for n in 0..tier(10, 100) {
        thread::sleep(Duration::from_millis(50 + n * 37 % 300));
        arena.lossy(|arena| {
            let status = arena.daemon.terminate();
            assert!(status.success(), "ended with {status}");
            arena.daemon.launch();
        });
    }
    arena.lively();
    arena.judge();
}

#[test]
fn sigterm_while_the_store_is_away_ends_soon_and_loses_nothing() {
    let case = Case::new("SIGTERM with the store down", "SQLite locked by another process, SIGTERM, start, unlocked");
    let mut arena = Arena::start(case);
    for _ in 0..tier(1, 10) {
        let other = Connection::open(arena.daemon.database()).unwrap();
        other.busy_timeout(Duration::from_secs(10)).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        thread::sleep(Duration::from_secs(1));
        arena.lossy(|arena| {
            let asked = Instant::now();
            let status = arena.daemon.terminate();
            assert!(status.success(), "ended with {status}");
            assert!(asked.elapsed() < Duration::from_secs(3), "it took {:?} to end", asked.elapsed());
            arena.daemon.launch();
        });
        thread::sleep(Duration::from_secs(1));
        other.execute_batch("ROLLBACK").unwrap();
        arena.lively();
    }
    arena.judge();
}
