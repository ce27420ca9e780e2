//! SIGKILL, SIGSTOP and SIGTERM.

use std::{thread, time::Duration};

use super::arena::{Arena, Case, tier};
use crate::support::redis::Redis;

/// Not random at all, and that is what makes a failure repeatable: moments that fall differently into each group.
fn moment(n: u64) -> Duration {
    Duration::from_micros(20_000 + n.wrapping_mul(7_368_787) % 180_000)
}

#[test]
fn kill_9_at_random_moments() {
    let case = Case::new("kill -9 at random moments", "SIGKILL 20 to 200 ms after ready");
    let mut arena = Arena::start(case);
    for n in 0..tier(50, 1_000) {
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
    let case = Case::new("kill -9, segments of 16 KiB", "SIGKILL; each few milliseconds a rotation and an unlink").load(300, 2_000);
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
