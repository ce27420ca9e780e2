//! What bytes on disk can do to a spool: torn, flipped, deleted, newer.

use super::*;
use crate::spool::{inspect, verify};

fn small() -> TestSpool {
    let test_spool = TestSpool::new();
    let mut opened = test_spool.open();
    append(&mut opened, 5);
    opened.appender.sync();
    test_spool
}

#[tokio::test]
async fn every_truncation_costs_only_what_was_cut() {
    let test_spool = small();
    let segment = test_spool.segments().remove(0);
    let bytes = fs::read(&segment).unwrap();
    let mut ends = vec![super::super::segment::HEADER];
    while ends[ends.len() - 1] < bytes.len() {
        let at = ends[ends.len() - 1];
        ends.push(at + super::super::record::length(&bytes[at..]).unwrap());
    }
    for cut in 0..bytes.len() {
        let other = TestSpool::new();
        fs::create_dir_all(other.path()).unwrap();
        fs::copy(test_spool.path().join("checkpoint"), other.path().join("checkpoint")).unwrap();
        fs::write(other.path().join(segment.file_name().unwrap()), &bytes[..cut]).unwrap();
        let opened = other.open();
        let whole = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1) as u64;
        assert_eq!((opened.recovery.next, opened.recovery.pending), (whole, whole), "cut at {cut}");
        let torn = cut as u64 - *ends.iter().filter(|end| **end <= cut).max().unwrap_or(&cut) as u64;
        assert_eq!(opened.recovery.torn_bytes, torn, "cut at {cut}");
        assert_eq!(inspect(other.path()).unwrap().quarantine_bytes > 0, torn > 0, "cut at {cut}");
    }
}

#[tokio::test]
async fn every_flipped_bit_costs_at_most_one_record() {
    let test_spool = small();
    let segment = test_spool.segments().remove(0);
    let bytes = fs::read(&segment).unwrap();
    for bit in (0..bytes.len() * 8).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let _ = fs::remove_dir_all(test_spool.path().join("quarantine"));
        test_spool.segments().iter().for_each(|path| fs::remove_file(path).unwrap());
        fs::write(&segment, &damaged).unwrap();
        let mut opened = test_spool.open();
        append(&mut opened, 1);
        opened.appender.sync();
        let mut offsets = Vec::new();
        let next = opened.appender.end();
        while opened.reader.position() < next {
            let chunk = opened.reader.next().await;
            for record in chunk.records() {
                assert_eq!(record.payload, payload(record.offset), "bit {bit}");
                offsets.push(record.offset);
            }
        }
        assert!(offsets.is_sorted() && offsets.len() >= 5, "bit {bit}: {offsets:?}");
        let header_bits = super::super::segment::HEADER * 8;
        if bit < header_bits {
            assert_eq!(offsets.len(), 6, "a header costs nothing: bit {bit}");
        } else {
            assert!(inspect(test_spool.path()).unwrap().quarantine_bytes > 0, "bit {bit}");
        }
    }
}

#[tokio::test]
async fn a_quoted_record_never_passes_for_a_record() {
    let (test_spool, other) = (TestSpool::new(), small());
    let quoted = fs::read(&other.segments()[0]).unwrap();
    let mut opened = test_spool.open();
    opened.appender.append(&record(b"first")).unwrap();
    opened.appender.append(&record(&quoted)).unwrap();
    opened.appender.append(&record(b"last")).unwrap();
    opened.appender.sync();
    drop(opened);
    // The length of the record that quotes: its end is not known any more.
    let path = &test_spool.segments()[0];
    let mut bytes = fs::read(path).unwrap();
    let second = 40 + super::super::record::length(&bytes[40..]).unwrap();
    bytes[second] ^= 0x40;
    fs::write(path, bytes).unwrap();
    let mut opened = test_spool.open();
    assert_eq!(opened.reader.next().await.records().next().unwrap().payload, b"first");
    let chunk = opened.reader.next().await;
    assert_eq!((chunk.first, chunk.lost), (2, 1));
    assert_eq!(chunk.records().next().unwrap().payload, b"last");
    assert_eq!(opened.view.missing(), 1);
}

#[tokio::test]
async fn deleted_segments_are_counted_and_stop_nothing() {
    let test_spool = TestSpool::new();
    let mut opened = test_spool.open();
    for _ in 0..30 {
        append(&mut opened, 10);
        opened.appender.sync();
    }
    drop(opened);
    let segments = test_spool.segments();
    for path in &segments[1..4] {
        fs::remove_file(path).unwrap();
    }
    let mut opened = test_spool.open();
    // Another one while it is open.
    fs::remove_file(&segments[5]).unwrap();
    let offsets = drain(&mut opened).await;
    assert_eq!(offsets.len() as u64 + opened.view.missing(), 300);
    assert!(offsets.is_sorted() && offsets[0] == 0 && offsets[offsets.len() - 1] == 299);
    assert!(!verify(test_spool.path()).unwrap().is_sound());
}

#[tokio::test]
async fn without_a_believable_checkpoint_everything_is_replayed() {
    for damage in [None, Some(vec![]), Some(vec![0x5a; 40])] {
        let test_spool = small();
        let opened = test_spool.open();
        opened.committer.commit(3);
        eventually("checkpoint", || opened.view.committed() == 3);
        drop(opened);
        let checkpoint = test_spool.path().join("checkpoint");
        match &damage {
            None => fs::remove_file(&checkpoint).unwrap(),
            Some(bytes) => fs::write(&checkpoint, bytes).unwrap(),
        }
        let mut opened = test_spool.open();
        assert!(!opened.recovery.checkpoint);
        assert_eq!(drain(&mut opened).await, [0, 1, 2, 3, 4], "{damage:?}");
    }
}

#[test]
fn a_newer_format_is_refused_by_name_and_untouched() {
    for (name, magic) in [("checkpoint", b"CASCHECK"), ("00000000000000000005-000.seg", b"CASSPOOL")] {
        let test_spool = small();
        let mut bytes = super::super::segment::Header::encode(*magic, Uuid::from_u128(1), 5);
        bytes[8] = 9;
        let crc = crc32c::crc32c(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        fs::write(test_spool.path().join(name), bytes).unwrap();
        let error = test_spool.try_open().unwrap_err();
        assert!(error.to_string().contains(name) && error.to_string().contains("format 9"), "{error}");
        assert_eq!(fs::read(test_spool.path().join(name)).unwrap(), bytes);
    }
}

#[test]
fn temporary_files_are_removed_and_other_names_left_alone() {
    let test_spool = small();
    fs::write(test_spool.path().join("checkpoint.tmp"), b"half").unwrap();
    fs::write(test_spool.path().join("notes.txt"), b"mine").unwrap();
    test_spool.open();
    assert!(!test_spool.path().join("checkpoint.tmp").exists() && test_spool.path().join("notes.txt").exists());
}

#[test]
fn verify_reports_what_is_there_and_what_is_wrong() {
    let test_spool = small();
    let report = verify(test_spool.path()).unwrap();
    assert_eq!((report.records, report.pending, report.lost, report.is_sound()), (5, 5, 0, true));
    let path = &test_spool.segments()[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[100] ^= 1;
    fs::write(path, bytes).unwrap();
    let report = verify(test_spool.path()).unwrap();
    assert_eq!((report.records, report.lost, report.is_sound()), (4, 1, false));
}

#[test]
fn the_replay_for_open_runs_leaves_the_reader_alone() {
    let test_spool = TestSpool::new();
    let mut opened = test_spool.open();
    for _ in 0..10 {
        append(&mut opened, 20);
        opened.appender.sync();
    }
    drop(opened);
    let opened = test_spool.open();
    for from in [0, 7, 150, 199, 200, 500] {
        let chunks = opened.recovery.records_from(from).map(|chunk| chunk.unwrap());
        let offsets: Vec<u64> = chunks.flat_map(|chunk| chunk.first..chunk.end).collect();
        assert_eq!(offsets, (from..200).collect::<Vec<_>>());
    }
    assert_eq!(opened.reader.position(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_in_the_middle_of_a_large_segment_finds_its_place() {
    let mut test_spool = TestSpool::new();
    test_spool.config.segment = ByteSize::mib(16);
    let mut opened = test_spool.open();
    append(&mut opened, 10_000);
    opened.appender.sync();
    opened.committer.commit(8_765);
    drop(opened);
    let mut opened = test_spool.open();
    let chunk = tokio::time::timeout(Duration::from_secs(5), opened.reader.next()).await.unwrap();
    assert_eq!((chunk.first, chunk.lost), (8_765, 0));
}

#[tokio::test]
async fn what_lies_in_the_way_of_a_small_file_is_moved_and_costs_nothing() {
    for (name, pipe) in [
        ("checkpoint", false),
        ("checkpoint.tmp", false),
        ("lock", false),
        ("instance", false),
        ("checkpoint", true),
        ("lock", true),
        ("instance", true),
        ("00000000000000000005-000.seg", true),
        ("00000000000000000005-000.seg", false),
    ] {
        let test_spool = small();
        let path = test_spool.path().join(name);
        let _ = fs::remove_file(&path);
        if pipe {
            assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        } else {
            fs::create_dir(&path).unwrap();
            fs::write(path.join("notes"), b"mine").unwrap();
        }
        crate::spool::set_owner(test_spool.path(), "me");
        let mut opened = test_spool.open();
        append(&mut opened, 1);
        opened.appender.sync();
        assert_eq!(drain(&mut opened).await, [0, 1, 2, 3, 4, 5], "{name}");
        opened.committer.commit(6);
        eventually(name, || opened.view.committed() == 6);
        drop(opened);
        let report = inspect(test_spool.path()).unwrap();
        assert_eq!((report.committed, report.owner.as_deref()), (Some(6), Some("me")), "{name}");
        if !pipe {
            let moved = test_spool.path().join(format!("{name}.1")).join("notes");
            assert!(moved.exists() || path.join("notes").exists(), "{name}: nobody's files are deleted");
        }
    }
}

#[tokio::test]
async fn a_file_in_place_of_the_quarantine_is_moved_and_nothing_is_replaced_in_it() {
    let test_spool = small();
    let segment = test_spool.segments().remove(0);
    let bytes = fs::read(&segment).unwrap();
    fs::write(test_spool.path().join("quarantine"), b"mine").unwrap();
    for junk in ["one", "two"] {
        let other = test_spool.path().join("00000000000000000099-000.seg");
        fs::write(&other, [bytes.as_slice(), junk.as_bytes()].concat()).unwrap();
        // As if it were another spool's.
        let mut foreign = fs::read(&other).unwrap();
        foreign[15] ^= 1;
        foreign[60] ^= 1;
        foreign.truncate(120);
        foreign.extend_from_slice(junk.as_bytes());
        fs::write(&other, foreign).unwrap();
        drop(test_spool.open());
    }
    let kept = fs::read_dir(test_spool.path().join("quarantine")).unwrap().count();
    assert_eq!((kept, fs::read(test_spool.path().join("quarantine.1")).unwrap()), (2, b"mine".to_vec()));
}

#[test]
fn a_lock_file_that_was_deleted_or_replaced_locks_nobody_out_of_the_first_one() {
    let test_spool = TestSpool::new();
    let opened = test_spool.open();
    let lock = test_spool.path().join("lock");
    for replaced in [false, true] {
        let _ = fs::remove_file(&lock);
        if replaced {
            fs::write(&lock, b"1\n").unwrap();
        }
        assert!(matches!(test_spool.try_open(), Err(SpoolError::Locked { .. })), "replaced: {replaced}");
    }
    drop(opened);
    test_spool.open();
}

#[tokio::test]
async fn a_segment_that_is_moved_while_it_is_written_costs_nothing_that_comes_later() {
    for replaced in [false, true] {
        let test_spool = TestSpool::new();
        let mut opened = test_spool.open();
        append(&mut opened, 3);
        opened.appender.sync();
        let segment = test_spool.segments().remove(0);
        fs::rename(&segment, test_spool.dir.path().join("elsewhere")).unwrap();
        if replaced {
            fs::create_dir(&segment).unwrap();
        }
        append(&mut opened, 3);
        assert!(opened.appender.sync().healthy);
        assert_eq!(drain(&mut opened).await, [0, 1, 2, 3, 4, 5], "in memory all are there");
        drop(opened);
        let mut opened = test_spool.open();
        assert_eq!(drain(&mut opened).await, [3, 4, 5]);
        assert_eq!(opened.view.missing(), 3);
        // What is in its place is no reason to keep what is behind it.
        opened.committer.commit(6);
        eventually("removal", || opened.view.committed() == 6 && test_spool.segments().len() < 2);
    }
}

#[tokio::test]
async fn offsets_that_somebody_remembers_are_lost_when_the_end_is_gone_and_not_used_again() {
    let test_spool = small();
    drop(test_spool.open());
    fs::remove_file(test_spool.segments().remove(0)).unwrap();
    let mut opened = test_spool.open();
    opened.appender.skip_to(5);
    opened.appender.skip_to(3);
    append(&mut opened, 2);
    assert!(opened.appender.sync().healthy);
    assert_eq!(drain(&mut opened).await, [5, 6]);
    assert_eq!(opened.view.missing(), 5);
    drop(opened);
    // Without a checkpoint nobody knows whether it is the same spool.
    fs::remove_dir_all(test_spool.path()).unwrap();
    let mut opened = test_spool.open();
    opened.appender.skip_to(5);
    assert_eq!(opened.appender.end(), 0);
}

#[test]
fn who_holds_a_spool_is_seen_without_its_lock_file() {
    let test_spool = TestSpool::new();
    let opened = test_spool.open();
    let lock = test_spool.path().join("lock");
    assert_eq!(inspect(test_spool.path()).unwrap().holder, Some(std::process::id().to_string()));
    fs::remove_file(&lock).unwrap();
    assert_eq!(inspect(test_spool.path()).unwrap().holder.as_deref(), Some("unknown"));
    fs::write(&lock, "").unwrap();
    assert_eq!(inspect(test_spool.path()).unwrap().holder.as_deref(), Some("unknown"));
    drop(opened);
    assert_eq!(inspect(test_spool.path()).unwrap().holder, None);
}
