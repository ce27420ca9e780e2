//! Disks that are full, read-only, failing or slow, and power cuts.

use std::{fs, thread, time::Duration};

use rustix::process::Signal;
use tokio::time::Instant;

use super::{
    arena::{Arena, Case, tier, times},
    mount::{Drive, Mount},
    strace::{self, Attached},
};
use crate::support::{daemon::Daemon, redis::Redis, wait_until};

/// ERROR of a full disk, which needs an operator.
const DISK: &[&str] = &["segment failed; writing", "disk takes no records"];

fn healthy(arena: &Arena) -> bool {
    arena.daemon.get("/readyz").status == 200
}

/// Full for a while, several times.
fn fill(arena: &mut Arena, disk: &Mount) {
    for _ in 0..tier(2, 10) {
        let filling = disk.fill();
        wait_until("the alarm", Duration::from_secs(30), || !healthy(arena));
        arena.harmless(|_| thread::sleep(Duration::from_secs(2)));
        drop(filling);
        let freed = Instant::now();
        arena.daemon.wait_ready();
        assert!(freed.elapsed() < Duration::from_secs(5), "ready {:?} after there was room again", freed.elapsed());
        arena.lively();
    }
}

#[test]
fn a_full_disk_under_the_spool_costs_nothing_while_memory_lasts() {
    let test = "a_full_disk_under_the_spool_costs_nothing_while_memory_lasts";
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).prepare();
    let spool = daemon.state_dir().join("spool");
    fs::create_dir(&spool).unwrap();
    let Some(disk) = Mount::tmpfs(test, &spool, 64) else { return };
    let case = Case::new("spool on a full disk", "tmpfs of 64 MiB filled to the brim for 2 s, then freed").errors(DISK);
    let mut arena = Arena::of(case.load(300, 1_000), redis, daemon, None);
    fill(&mut arena, &disk);
    arena.judge();
}

#[test]
fn a_full_disk_under_everything_costs_nothing_while_memory_lasts() {
    let test = "a_full_disk_under_everything_costs_nothing_while_memory_lasts";
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).prepare();
    let Some(disk) = Mount::tmpfs(test, daemon.state_dir(), 64) else { return };
    let case = Case::new("everything on a full disk", "tmpfs of 64 MiB filled to the brim for 2 s, then freed");
    let mut arena = Arena::of(case.errors(DISK).load(300, 1_000), redis, daemon, None);
    fill(&mut arena, &disk);
    arena.judge();
}

#[test]
fn a_full_disk_for_longer_than_memory_lasts_loses_what_it_counts() {
    let test = "a_full_disk_for_longer_than_memory_lasts_loses_what_it_counts";
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).set("spool.memory", "\"2MiB\"").prepare();
    let Some(disk) = Mount::tmpfs(test, daemon.state_dir(), 64) else { return };
    let case = Case::new("full disk, memory full", "tmpfs of 64 MiB full until 2 MiB of memory are full, too");
    let errors = &["segment failed; writing", "disk takes no records", "spool is full; messages are being dropped"];
    let mut arena = Arena::of(case.errors(errors).load(300, 4_000), redis, daemon, None);
    arena.lossy(|arena| {
        let _filling = disk.fill();
        wait_until("drops", Duration::from_secs(30), || arena.daemon.log().contains("messages are being dropped"));
        thread::sleep(Duration::from_secs(2));
    });
    arena.lively();
    let verdict = arena.judge();
    assert!(verdict.excused > 0, "nothing was dropped");
}

fn injected(test: &str, case: Case, call: &str, inject: &str, seconds: u64, alarm: bool) {
    if !strace::usable(test) {
        return;
    }
    let mut arena = Arena::start(case);
    for _ in 0..tier(1, 5) {
        let pid = arena.daemon.process().id();
        let fault = Attached::to(pid, call, inject, &[]);
        arena.harmless(|arena| {
            if alarm {
                wait_until("the alarm", Duration::from_secs(30), || !healthy(arena));
            }
            thread::sleep(Duration::from_secs(seconds));
        });
        drop(fault);
        let ended = Instant::now();
        arena.daemon.wait_ready();
        assert!(ended.elapsed() < Duration::from_secs(5), "ready {:?} after the fault", ended.elapsed());
        arena.lively();
    }
    arena.judge();
}

#[test]
fn a_sync_that_fails_now_and_then_costs_nothing() {
    let case = Case::new("fdatasync fails now and then", "strace: fdatasync EIO, when=3+10").errors(DISK);
    injected("a_sync_that_fails_now_and_then_costs_nothing", case, "fdatasync", "error=EIO:when=3+10", 3, false);
}

#[test]
fn a_sync_that_fails_for_seconds_costs_nothing() {
    let case = Case::new("fdatasync fails for 2 s", "strace: fdatasync EIO").errors(DISK);
    injected("a_sync_that_fails_for_seconds_costs_nothing", case, "fdatasync", "error=EIO", 2, true);
}

#[test]
fn directory_and_database_syncs_that_fail_cost_nothing() {
    let case =
        Case::new("fsync fails now and then", "strace: fsync EIO (database, directories), when=1+3").errors(DISK);
    injected("directory_and_database_syncs_that_fail_cost_nothing", case, "fsync", "error=EIO:when=1+3", 3, false);
}

#[test]
fn a_slow_sync_costs_nothing() {
    let case = Case::new("fdatasync takes 200 ms", "strace: fdatasync delay_enter=200000");
    injected("a_slow_sync_costs_nothing", case, "fdatasync", "delay_enter=200000", 4, false);
}

#[test]
fn a_disk_that_turns_read_only_costs_nothing_while_memory_lasts() {
    // A real remount is refused while a file is open for writing; what the program sees is the same.
    let case = Case::new("disk turns read-only for 2 s", "strace: EROFS from every sync, create, rename and unlink");
    let errors = &["segment failed; writing", "disk takes no records", "store needs attention"];
    let calls = "fdatasync,fsync,rename,unlink,ftruncate,mkdir";
    injected(
        "a_disk_that_turns_read_only_costs_nothing_while_memory_lasts",
        case.errors(errors),
        calls,
        "error=EROFS",
        2,
        true,
    );
}

/// What is simulated: the kernel and the daemon are gone at one moment. What the file system has not sent to its device is lost
/// (pages that were never synced, names whose directory was not), its journal is replayed at the next mount. What is not: writes
/// that the device has acknowledged and loses (there is no cache in it), and sectors that are half written; the in-memory model
/// of the spool's own tests tears those.
#[test]
fn a_power_cut_loses_60_ms_at_most() {
    // A drive of its own for every twenty-five: what they store has to fit.
    let cuts: Vec<u64> = (0..times("CUTS", 10, 200)).collect();
    cuts.chunks(25).for_each(power_cuts);
}

fn power_cuts(cuts: &[u64]) {
    let test = "a_power_cut_loses_60_ms_at_most";
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).set("spool.segment", "\"256KiB\"").prepare();
    let Some(mut drive) = Drive::new(test, daemon.state_dir(), 96) else { return };
    let case = Case::new("power cut", "ext4 on a loop device, its backing file copied and mounted again");
    let mut arena = Arena::of(case.load(300, 1_000), redis, daemon, None);
    for n in cuts {
        thread::sleep(Duration::from_millis(300 + n * 613 % 1_700));
        arena.power_cut(|arena| {
            arena.daemon.process().signal(Signal::STOP);
            drive.photograph();
            arena.daemon.kill9();
            drive.replace();
            arena.daemon.launch();
        });
    }
    arena.judge();
}
