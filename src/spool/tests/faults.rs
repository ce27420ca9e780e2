//! What a failing disk can do to a spool.

use super::*;
use crate::spool::Full;

#[tokio::test]
async fn a_failed_sync_moves_the_group_to_a_new_segment() {
    let test_spool = TestSpool::new();
    let mut opened = test_spool.open();
    append(&mut opened, 3);
    opened.appender.sync();
    test_spool.faults.syncs.store(1, Ordering::SeqCst);
    append(&mut opened, 3);
    let synced = opened.appender.sync();
    assert_eq!((synced.durable, synced.healthy), (6, true));
    assert_eq!(test_spool.segments().len(), 2);
    drop(opened);
    assert_eq!(drain(&mut test_spool.open()).await, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_large_record_survives_what_a_group_survives() {
    let large = vec![b'l'; 2 << 20];
    for fault in ["none", "sync", "full"] {
        let test_spool = TestSpool::new();
        let mut opened = test_spool.open();
        opened.appender.append(&record(b"before")).unwrap();
        let faults = &test_spool.faults;
        faults.syncs.store(u64::from(fault == "sync"), Ordering::SeqCst);
        faults.full.store(fault == "full", Ordering::SeqCst);
        opened.appender.append(&record(&large)).unwrap();
        assert!(opened.appender.sync_due(false).is_some(), "{fault}: the sender is told with a sync");
        opened.appender.append(&record(b"after")).unwrap();
        let synced = opened.appender.sync();
        assert_eq!((synced.durable, synced.healthy), if fault == "full" { (0, false) } else { (3, true) }, "{fault}");
        faults.full.store(false, Ordering::SeqCst);
        if fault == "full" {
            tokio::time::sleep_until(opened.appender.sync_due(false).expect("a retry is due")).await;
            assert_eq!(opened.appender.sync().durable, 3);
        }
        assert_eq!(opened.appender.sync_due(false), None, "{fault}");
        drop(opened);
        let (mut opened, mut lengths) = (test_spool.open(), Vec::new());
        while lengths.len() < 3 {
            lengths.extend(opened.reader.next().await.records().map(|record| record.payload.len()));
        }
        assert_eq!(lengths, [6, large.len(), 5], "{fault}");
    }
}

#[tokio::test]
async fn while_the_disk_takes_nothing_records_live_in_memory_and_reach_it_later() {
    for fault in ["full", "read-only", "sync"] {
        let test_spool = TestSpool::new();
        let mut opened = test_spool.open();
        append(&mut opened, 5);
        opened.appender.sync();
        let faults = &test_spool.faults;
        match fault {
            "full" => faults.full.store(true, Ordering::SeqCst),
            "read-only" => {
                faults.read_only.store(true, Ordering::SeqCst);
                faults.syncs.store(1, Ordering::SeqCst);
            }
            _ => faults.syncs.store(u64::MAX, Ordering::SeqCst),
        }
        for _ in 0..3 {
            append(&mut opened, 5);
            let synced = opened.appender.sync();
            assert_eq!((synced.durable, synced.healthy), (5, false), "{fault}");
        }
        assert!(!opened.view.healthy() && opened.view.memory_bytes() > 0 && opened.view.durable() == 5);
        assert_eq!(drain(&mut opened).await, (0..20).collect::<Vec<_>>(), "{fault}: the reader sees them");
        faults.full.store(false, Ordering::SeqCst);
        faults.read_only.store(false, Ordering::SeqCst);
        faults.syncs.store(0, Ordering::SeqCst);
        let due = opened.appender.sync_due(false).expect("a retry is due even without new records");
        tokio::time::sleep_until(due).await;
        let synced = opened.appender.sync();
        assert_eq!((synced.durable, synced.healthy, opened.view.memory_bytes()), (20, true, 0), "{fault}");
        append(&mut opened, 5);
        opened.appender.sync();
        drop(opened);
        assert_eq!(
            drain(&mut test_spool.open()).await,
            (0..25).collect::<Vec<_>>(),
            "{fault}: all are on disk, in order"
        );
    }
}

#[test]
fn full_memory_refuses_events_and_keeps_room_for_gaps() {
    let test_spool = TestSpool::new();
    let mut opened = test_spool.open();
    test_spool.faults.full.store(true, Ordering::SeqCst);
    append(&mut opened, 1);
    opened.appender.sync();
    let large = vec![0; 100 << 10];
    while opened.appender.append(&record(&large)).is_ok() {
        opened.appender.sync();
    }
    let end = opened.appender.end();
    assert!(opened.view.memory_bytes() > (2 << 20) && opened.view.memory_bytes() <= (3 << 20));
    assert_eq!(opened.appender.append(&record_of(RecordKind::Gap, b"gap")), Ok(end));
    assert_eq!(opened.appender.append(&record(&large)), Err(Full));
}

#[tokio::test]
async fn at_capacity_memory_takes_over_until_commits_make_room() {
    let mut test_spool = TestSpool::new();
    test_spool.config.capacity = ByteSize::kib(8);
    let mut opened = test_spool.open();
    while opened.view.healthy() {
        append(&mut opened, 10);
        opened.appender.sync();
    }
    let end = opened.appender.end();
    assert!(opened.view.bytes() <= opened.view.capacity() && opened.view.durable() < end);
    assert_eq!(drain(&mut opened).await, (0..end).collect::<Vec<_>>());
    opened.committer.commit(opened.view.durable());
    eventually("room", || opened.appender.sync().healthy);
    assert_eq!(opened.view.durable(), end);
    let committed = opened.view.committed();
    drop(opened);
    assert_eq!(drain(&mut test_spool.open()).await, (committed..end).collect::<Vec<_>>());
}

#[tokio::test]
async fn offsets_of_records_committed_from_memory_are_not_used_again() {
    let test_spool = TestSpool::new();
    let mut opened = test_spool.open();
    append(&mut opened, 5);
    opened.appender.sync();
    test_spool.faults.read_only.store(true, Ordering::SeqCst);
    test_spool.faults.syncs.store(1, Ordering::SeqCst);
    append(&mut opened, 5);
    opened.appender.sync();
    opened.committer.commit(10);
    eventually("memory is given back", || opened.view.memory_bytes() == 0);
    test_spool.faults.read_only.store(false, Ordering::SeqCst);
    drop(opened);
    let opened = test_spool.open();
    assert_eq!((opened.recovery.next, opened.recovery.pending), (10, 0));
}

#[tokio::test]
async fn a_full_tmpfs_is_survived() {
    let mut test_spool = TestSpool::new();
    let mount = test_spool.dir.path().join("mount");
    fs::create_dir(&mount).unwrap();
    let target = mount.to_str().unwrap();
    let command = |program: &str, arguments: &[&str]| {
        std::process::Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    if !command("mount", &["-t", "tmpfs", "-o", "size=256k", "tmpfs", target]) {
        eprintln!("skipped: cannot mount a tmpfs here");
        return;
    }
    test_spool.config.dir = mount.join("spool");
    let mut opened = test_spool.open();
    let payload = vec![b'p'; 1 << 10];
    for _ in 0..500 {
        opened.appender.append(&record(&payload)).unwrap();
        opened.appender.sync();
    }
    let (durable, healthy) = (opened.view.durable(), opened.view.healthy());
    let mut read = 0;
    while read < 500 {
        read = opened.reader.next().await.end;
    }
    opened.committer.commit(durable);
    let start = Instant::now();
    while opened.view.durable() < 500 && start.elapsed() < Duration::from_secs(10) {
        opened.committer.commit(opened.view.durable());
        std::thread::sleep(Duration::from_millis(20));
        opened.appender.sync();
    }
    let recovered = (opened.view.durable(), opened.view.healthy());
    drop(opened);
    assert!(command("umount", &[target]));
    assert!(!healthy && durable > 100 && durable < 500, "{durable}");
    assert_eq!(recovered, (500, true));
}
