//! What the spool promises, rule by rule.

mod faults;
pub(crate) mod faulty_disk;
mod files;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use self::faulty_disk::{Faults, faulty_disk};
use super::{Config, NewRecord, Opened, RecordKind, SpoolError, disk::Disk, recovery};
use crate::{event::Resolved, metrics::Metrics, units::ByteSize};

/// A spool in a temporary directory, with small segments and a disk that can fail.
struct TestSpool {
    dir: tempfile::TempDir,
    config: Config,
    disk: Disk,
    faults: Arc<Faults>,
}

impl TestSpool {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            dir: dir.path().join("spool"),
            segment: ByteSize::kib(4),
            capacity: ByteSize::mib(64),
            memory: ByteSize::mib(4),
            ..Config::default()
        };
        let (disk, faults) = faulty_disk();
        Self { dir, config, disk, faults }
    }

    fn open(&self) -> Opened {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<Opened, SpoolError> {
        recovery::open(&self.config, Metrics::new(), self.disk.clone())
    }

    fn path(&self) -> &Path {
        &self.config.dir
    }

    fn segments(&self) -> Vec<PathBuf> {
        super::segment::list(&Disk::default(), self.path()).unwrap().into_iter().map(|meta| meta.path).collect()
    }
}

fn record(payload: &[u8]) -> NewRecord<'_> {
    record_of(RecordKind::Event, payload)
}

fn record_of(kind: RecordKind, payload: &[u8]) -> NewRecord<'_> {
    let decided = Resolved {
        run_id: Uuid::from_u128(7),
        event_time: -5,
        received_at: 1_763_633_700_123_456,
        has_event_time: true,
        opened_run: false,
    };
    NewRecord {
        kind,
        decided,
        strict_json: false,
        from_stream: false,
        channel: "cascor:training",
        preamble: b"",
        payload,
    }
}

/// A payload that tells its offset.
fn payload(offset: u64) -> Vec<u8> {
    format!("payload of {offset} {}", "x".repeat(offset as usize % 200)).into_bytes()
}

fn append(opened: &mut Opened, count: u64) {
    for _ in 0..count {
        let offset = opened.appender.end();
        assert_eq!(opened.appender.append(&record(&payload(offset))), Ok(offset));
    }
}

/// All offsets that the reader has right now; checks that each record is the one that was written.
async fn drain(opened: &mut Opened) -> Vec<u64> {
    let mut offsets = Vec::new();
    while let Ok(chunk) = tokio::time::timeout(Duration::from_millis(30), opened.reader.next()).await {
        assert_eq!(chunk.records().count() as u64, chunk.end - chunk.first);
        for (record, offset) in chunk.records().zip(chunk.first..) {
            assert_eq!((record.offset, record.channel), (offset, "cascor:training"));
            assert_eq!(record.payload, payload(offset));
            assert_eq!(record.decided, self::record(b"").decided);
            offsets.push(offset);
        }
    }
    offsets
}

/// Waits, for at most 5 s, until it holds.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(5), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn records_come_back_in_order_from_memory_and_from_files() {
    let test_spool = TestSpool::new();
    let mut opened = test_spool.open();
    for _ in 0..20 {
        append(&mut opened, 10);
        let synced = opened.appender.sync();
        assert_eq!((synced.durable, synced.end, synced.healthy), (synced.end, opened.appender.end(), true));
    }
    assert_eq!(drain(&mut opened).await, (0..200).collect::<Vec<_>>());
    assert!(opened.view.segments() > 5);
    drop(opened);
    let mut opened = test_spool.open();
    assert_eq!(opened.recovery.pending, 200);
    assert_eq!(opened.recovery.last_received_at, Some(1_763_633_700_123_456));
    append(&mut opened, 10);
    opened.appender.sync();
    assert_eq!(drain(&mut opened).await, (0..210).collect::<Vec<_>>());
}

#[tokio::test]
async fn nothing_is_visible_before_its_sync() {
    let test_spool = TestSpool::new();
    let mut opened = test_spool.open();
    append(&mut opened, 3);
    assert_eq!(drain(&mut opened).await, [0u64; 0]);
    assert_eq!((opened.view.durable(), opened.view.end(), opened.view.appended()), (0, 0, 3));
    opened.appender.sync();
    assert_eq!(drain(&mut opened).await, [0, 1, 2]);
}

#[tokio::test]
async fn what_is_written_is_not_visible_and_survives_the_process() {
    let test_spool = TestSpool::new();
    let mut opened = test_spool.open();
    for _ in 0..4 {
        append(&mut opened, 30); // more than a segment together
        opened.appender.write();
    }
    let seen = drain(&mut opened).await;
    assert!(seen.len() < 120 && opened.view.durable() == seen.len() as u64, "visible before its sync: {seen:?}");
    assert_eq!(opened.appender.sync_due(false).map(|due| due <= Instant::now()), Some(true));
    // Whatever the process does from here on is lost: another one reads a copy of its files.
    let copy = TestSpool::new();
    fs::create_dir_all(copy.path()).unwrap();
    for path in test_spool.segments() {
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let mut after = copy.open();
    assert_eq!(drain(&mut after).await, (0..120).collect::<Vec<_>>());
    opened.appender.sync();
    assert_eq!(drain(&mut opened).await, (seen.len() as u64..120).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_written_and_cannot_be_synced_goes_to_a_new_segment() {
    for (fault, syncs) in [("a sync fails once", 1), ("syncs fail for a while", 2)] {
        let test_spool = TestSpool::new();
        let mut opened = test_spool.open();
        append(&mut opened, 3);
        opened.appender.sync();
        append(&mut opened, 2);
        opened.appender.write();
        test_spool.faults.syncs.store(syncs, Ordering::SeqCst);
        append(&mut opened, 2);
        let synced = opened.appender.sync();
        assert_eq!((synced.healthy, synced.end), (syncs == 1, 7), "{fault}");
        if let Some(due) = opened.appender.sync_due(false) {
            tokio::time::sleep_until(due).await;
            assert!(opened.appender.sync().healthy, "{fault}");
        }
        assert_eq!(test_spool.segments().len(), 2, "{fault}");
        assert_eq!(drain(&mut opened).await, (0..7).collect::<Vec<_>>(), "{fault}");
        drop(opened);
        assert_eq!(drain(&mut test_spool.open()).await, (0..7).collect::<Vec<_>>(), "{fault}");
    }
}

#[test]
fn a_sync_that_something_waits_for_is_due_soon() {
    let mut test_spool = TestSpool::new();
    test_spool.config.sync_interval = Duration::from_secs(60);
    let mut opened = test_spool.open();
    for _ in 0..4 {
        append(&mut opened, 1);
        opened.appender.sync();
    }
    append(&mut opened, 1);
    let soon = Instant::now() + Duration::from_secs(1);
    assert!(opened.appender.sync_due(false).unwrap() > soon && opened.appender.sync_due(true).unwrap() < soon);
}

#[test]
fn a_group_is_due_at_once_until_the_syncs_are_ahead_of_their_pace() {
    let mut test_spool = TestSpool::new();
    // Long enough that no slow machine gets past it.
    test_spool.config.sync_interval = Duration::from_secs(60);
    let mut opened = test_spool.open();
    assert_eq!(opened.appender.sync_due(false), None);
    let before = Instant::now();
    for _ in 0..4 {
        append(&mut opened, 1);
        assert!(opened.appender.sync_due(false).unwrap() <= Instant::now(), "nothing, or little, was synced before");
        opened.appender.sync();
        assert_eq!(opened.appender.sync_due(false), None);
    }
    append(&mut opened, 1);
    let due = opened.appender.sync_due(false).unwrap();
    assert!(due >= before + test_spool.config.sync_interval && due <= Instant::now() + test_spool.config.sync_interval);
    // One that was asked for nevertheless makes nobody wait longer than the interval.
    for _ in 0..3 {
        opened.appender.sync();
        append(&mut opened, 1);
    }
    assert!(opened.appender.sync_due(false).unwrap() <= Instant::now() + test_spool.config.sync_interval);
}

#[tokio::test]
async fn committed_records_are_not_replayed_and_their_segments_are_removed() {
    let test_spool = TestSpool::new();
    let mut opened = test_spool.open();
    append(&mut opened, 200);
    opened.appender.sync();
    append(&mut opened, 200);
    opened.appender.sync();
    let segments = test_spool.segments().len();
    opened.appender.retain_from(10);
    opened.committer.commit(250);
    eventually("checkpoint", || opened.view.committed() == 250);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(test_spool.segments().len(), segments, "somebody needs them still");
    opened.appender.retain_from(250);
    eventually("removal", || opened.view.committed() == 250 && test_spool.segments().len() < segments);
    opened.committer.commit(260);
    let Opened { committer, appender, reader, view, recovery } = opened;
    committer.close();
    drop((appender, reader, view, recovery));
    let mut opened = test_spool.open();
    assert_eq!((opened.recovery.first_uncommitted, opened.recovery.pending), (260, 140));
    assert_eq!(drain(&mut opened).await, (260..400).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_checkpoint_trails_by_the_linger_and_a_rewind_forgets_what_lingers() {
    let test_spool = TestSpool::new();
    let mut opened = test_spool.open();
    opened.committer.set_linger(Duration::from_millis(300));
    append(&mut opened, 10);
    opened.appender.sync();
    assert_eq!(drain(&mut opened).await.len(), 10);
    let start = Instant::now();
    opened.committer.commit(4);
    eventually("linger", || opened.view.committed() == 4);
    assert!(start.elapsed() >= Duration::from_millis(300));
    opened.committer.commit(9);
    opened.reader.rewind(0);
    assert_eq!(drain(&mut opened).await, (4..10).collect::<Vec<_>>());
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(opened.view.committed(), 4, "what was confirmed before the rewind counts no more");
}

#[tokio::test]
async fn a_record_larger_than_segment_and_chunk_is_one_record() {
    let test_spool = TestSpool::new();
    let mut opened = test_spool.open();
    let large = vec![b'l'; 33 << 20];
    opened.appender.append(&record(b"before")).unwrap();
    opened.appender.append(&record(&large)).unwrap();
    opened.appender.append(&record(b"after")).unwrap();
    opened.appender.sync();
    for _ in 0..2 {
        let mut lengths = Vec::new();
        while lengths.len() < 3 {
            lengths.extend(opened.reader.next().await.records().map(|record| record.payload.len()));
        }
        assert_eq!(lengths, [6, large.len(), 5]);
        drop(opened);
        opened = test_spool.open();
    }
    assert_eq!(opened.appender.append(&record(&vec![0; super::record::MAX])), Err(super::Full));
}

#[test]
fn a_second_process_is_refused_and_told_who_holds_it() {
    let test_spool = TestSpool::new();
    let opened = test_spool.open();
    let error = test_spool.try_open().unwrap_err();
    assert!(
        matches!(&error, SpoolError::Locked { holder, .. } if *holder == std::process::id().to_string()),
        "{error}"
    );
    assert_eq!(super::inspect(test_spool.path()).unwrap().holder, Some(std::process::id().to_string()));
    drop(opened);
    test_spool.open();
}

#[test]
fn files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let test_spool = TestSpool::new();
    let mut opened = test_spool.open();
    append(&mut opened, 1);
    opened.appender.sync();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(test_spool.path()), 0o700);
    for entry in fs::read_dir(test_spool.path()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert!(test_spool.dir.path().exists());
}

#[test]
fn opening_does_not_depend_on_the_number_of_segments() {
    let test_spool = TestSpool::new();
    let mut opened = test_spool.open();
    append(&mut opened, 10);
    opened.appender.sync();
    drop(opened);
    let id = super::inspect(test_spool.path()).unwrap().id.unwrap();
    for n in 1..2_000u64 {
        let mut bytes = super::segment::Header::encode(*b"CASSPOOL", id, n * 10).to_vec();
        for offset in n * 10..n * 10 + 10 {
            super::record::encode(&mut bytes, super::record::seed(id), offset, &record(&payload(offset)));
        }
        fs::write(test_spool.path().join(format!("{:020}-000.seg", n * 10)), &bytes).unwrap();
    }
    let start = Instant::now();
    let opened = test_spool.open();
    let took = start.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert_eq!((opened.view.segments(), opened.recovery.pending), (2_000, 20_000));
}
