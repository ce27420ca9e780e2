//! What is promised about dead letters.

use std::{fs, sync::Arc};

use uuid::Uuid;

use super::*;
use crate::{frame::Rejection, metrics::Metrics, spool::segment};

fn letter(offset: u64, raw: &[u8]) -> NewDeadLetter<'_> {
    let rejection = Rejection { reason: Reason::MalformedJson, detail: format!("at {offset}") };
    let (rejected, payload) = RejectedMessage::new(rejection, raw);
    let spool_id = Uuid::from_u128(3);
    let decided =
        Resolved { run_id: Uuid::nil(), event_time: 17, received_at: 17, has_event_time: false, opened_run: false };
    let kind = RecordKind::Rejected;
    NewDeadLetter { rejected, channel: "cascor:training", decided, kind, spool_id, offset, row: 0, payload }
}

fn open(config: &Config) -> (DeadLetterLog, Arc<Metrics>) {
    let metrics = Metrics::new();
    (DeadLetterLog::open(config, Arc::clone(&metrics)).unwrap(), metrics)
}

fn temp_config() -> (tempfile::TempDir, Config) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { dir: dir.path().join("deadletter"), ..Config::default() };
    (dir, config)
}

#[test]
fn a_letter_is_listed_and_shown_with_its_bytes() {
    let (_dir, config) = temp_config();
    assert_eq!(list(&config.dir, &Filter::default()).unwrap(), []);
    let (log, _) = open(&config);
    log.put_all(&[letter(5, b"{broken"), letter(6, b"worse")]).unwrap();
    let found = list(&config.dir, &Filter::default()).unwrap();
    assert_eq!(found.iter().map(|info| (info.id, info.offset)).collect::<Vec<_>>(), [(0, 5), (1, 6)]);
    let (info, bytes) = get(&config.dir, 1).unwrap().unwrap();
    assert_eq!((info.detail.as_str(), info.length, bytes.as_slice()), ("at 6", 5, &b"worse"[..]));
    assert!(get(&config.dir, 2).unwrap().is_none());
    let none = Filter { reason: Some(Reason::TooLarge), ..Filter::default() };
    assert_eq!(list(&config.dir, &none).unwrap(), []);
    let newest = Filter { limit: Some(1), ..Filter::default() };
    assert_eq!(list(&config.dir, &newest).unwrap()[0].id, 1);
}

#[test]
fn a_replay_adds_nothing_also_after_a_restart() {
    let (_dir, config) = temp_config();
    for round in 0..3 {
        let (log, metrics) = open(&config);
        log.put_all(&[letter(5, b"a"), letter(5, b"a")]).unwrap();
        log.put(&letter(6, b"b")).unwrap();
        let count = metrics.dead_letters.of("malformed_json").get();
        assert_eq!(count, if round == 0 { 2 } else { 0 });
        assert_eq!(list(&config.dir, &Filter::default()).unwrap().len(), 2);
    }
    let (log, _) = open(&config);
    log.put(&letter(6, b"another message at that offset")).unwrap();
    log.put(&NewDeadLetter { row: 1, ..letter(6, b"b") }).unwrap();
    assert_eq!(list(&config.dir, &Filter::default()).unwrap().last().unwrap().id, 3);
}

#[test]
fn a_rejected_entry_that_is_delivered_again_adds_nothing_also_after_a_restart() {
    let (_dir, config) = temp_config();
    let entry = |id: &str| entry_source("s", id.parse().unwrap());
    let (one, other) = (entry("5-1"), entry("5-2"));
    let of = |offset, channel| NewDeadLetter { channel, ..letter(offset, b"{broken") };
    let refused = |offset| {
        let mut letter = of(offset, &one);
        letter.rejected.rejection.reason = Reason::RejectedByStore;
        letter
    };
    for delivery in 0..3 {
        let (log, _) = open(&config);
        // Each delivery is a record of its own, and may have another time of receipt.
        let mut again = of(10 + delivery, &one);
        again.decided.received_at += i64::try_from(delivery).unwrap();
        log.put_all(&[again, of(20 + delivery, &other), refused(30 + delivery)]).unwrap();
    }
    let (log, _) = open(&config);
    log.put(&NewDeadLetter { channel: &one, ..letter(40, b"{another message with that id") }).unwrap();
    let found = list(&config.dir, &Filter::default()).unwrap();
    let entries: Vec<_> = found.iter().map(|info| (info.entry.as_deref().unwrap(), info.offset)).collect();
    assert_eq!(entries, [("5-1", 10), ("5-2", 20), ("5-1", 30), ("5-1", 31), ("5-1", 32), ("5-1", 40)]);
}

#[test]
fn the_oldest_make_room_and_are_counted() {
    let (_dir, mut config) = temp_config();
    config.capacity = ByteSize::kib(64);
    let (log, metrics) = open(&config);
    let raw = vec![b'x'; 1_000];
    for offset in 0..200 {
        log.put(&letter(offset, &raw)).unwrap();
        assert!(log.usage().bytes <= config.capacity.0);
    }
    let found = list(&config.dir, &Filter::default()).unwrap();
    let dropped = metrics.dead_letters_dropped.get();
    assert_eq!(found.len() as u64 + dropped, 200);
    assert!(dropped > 100 && found[found.len() - 1].offset == 199);
}

#[test]
fn a_torn_letter_costs_only_itself() {
    let (_dir, config) = temp_config();
    open(&config).0.put_all(&[letter(1, b"one"), letter(2, b"two")]).unwrap();
    let path = segment::list(&crate::spool::disk::Disk::default(), &config.dir).unwrap().remove(0).path;
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let (log, _) = open(&config);
    log.put_all(&[letter(1, b"one"), letter(2, b"two")]).unwrap();
    let offsets: Vec<_> = list(&config.dir, &Filter::default()).unwrap().iter().map(|info| info.offset).collect();
    assert_eq!(offsets, [1, 2]);
}

#[test]
fn a_second_process_is_refused() {
    let (_dir, config) = temp_config();
    let (_log, metrics) = open(&config);
    assert!(matches!(DeadLetterLog::open(&config, metrics), Err(DeadLetterError::Locked { .. })));
}

#[test]
fn after_an_error_nothing_is_kept_and_the_next_try_works() {
    use std::sync::atomic::Ordering;
    let (_dir, config) = temp_config();
    let (disk, faults) = crate::spool::tests::faulty_disk::faulty_disk();
    let log = DeadLetterLog::open_on(&config, Metrics::new(), disk).unwrap();
    faults.full.store(true, Ordering::SeqCst);
    assert!(matches!(log.put(&letter(1, b"one")), Err(DeadLetterError::Write(_))));
    faults.full.store(false, Ordering::SeqCst);
    log.put(&letter(1, b"one")).unwrap();
    assert_eq!(list(&config.dir, &Filter::default()).unwrap().len(), 1);
}

#[test]
fn a_letter_that_may_be_in_memory_only_is_written_again() {
    use std::sync::atomic::Ordering;
    let (_dir, config) = temp_config();
    open(&config).0.put(&letter(1, b"one")).unwrap();
    let (disk, faults) = crate::spool::tests::faulty_disk::faulty_disk();
    faults.syncs.store(1, Ordering::SeqCst);
    let log = DeadLetterLog::open_on(&config, Metrics::new(), disk).unwrap();
    assert_eq!(faults.syncs.load(Ordering::SeqCst), 0, "it tries, before it believes what it reads");
    log.put(&letter(1, b"one")).unwrap();
    assert_eq!(list(&config.dir, &Filter::default()).unwrap().len(), 2);
}

#[test]
fn dropped_letters_are_gone_for_everybody_and_ids_go_on() {
    let (_dir, mut config) = temp_config();
    config.capacity = ByteSize::kib(64);
    let (log, _) = open(&config);
    let raw = vec![b'x'; 1_000];
    for offset in 0..40 {
        log.put(&letter(offset, &raw)).unwrap();
    }
    assert_eq!(log.usage().entries, 40);
    let bytes = log.usage().bytes;
    // While it is open here: as beside a running daemon.
    dropped::update(&config.dir, (0..30).chain([35]), []).unwrap();
    let left: Vec<_> = list(&config.dir, &Filter::default()).unwrap().iter().map(|info| info.id).collect();
    assert_eq!(left, (30..35).chain(36..40).collect::<Vec<_>>());
    assert_eq!(log.usage().entries, 9);
    assert!(log.usage().bytes < bytes, "segments without letters are gone");
    assert!(get(&config.dir, 35).unwrap().is_none());
    log.put(&letter(40, &raw)).unwrap();
    assert_eq!(log.usage().entries, 10);
    drop(log);
    let (log, _) = open(&config);
    assert_eq!(log.usage().entries, 10, "the same after a restart");
    dropped::update(&config.dir, 0..41, []).unwrap();
    log.put(&letter(41, &raw)).unwrap();
    assert_eq!(list(&config.dir, &Filter::default()).unwrap()[0].id, 41, "no id is used twice");
    assert_eq!(log.usage().entries, 1);
}

#[test]
fn no_id_is_used_twice_also_when_the_segments_were_lost() {
    let (_dir, config) = temp_config();
    let (log, _) = open(&config);
    log.put_all(&[letter(1, b"a"), letter(2, b"b"), letter(3, b"c"), letter(4, b"d")]).unwrap();
    drop(log);
    let still = Rejection { reason: Reason::InvalidField, detail: "still".into() };
    dropped::update(&config.dir, [0, 1], [(3, still)]).unwrap();
    for meta in segment::list(&crate::spool::disk::Disk::default(), &config.dir).unwrap() {
        fs::remove_file(meta.path).unwrap();
    }
    let (log, _) = open(&config);
    log.put(&letter(5, b"e")).unwrap();
    let found = list(&config.dir, &Filter::default()).unwrap();
    assert_eq!(found.iter().map(|info| (info.id, info.reason)).collect::<Vec<_>>(), [(4, Reason::MalformedJson)]);
    assert_eq!(log.usage().entries, 1);
}

#[test]
fn what_a_person_has_dropped_is_not_dropped_again_to_make_room() {
    let (_dir, mut config) = temp_config();
    config.capacity = ByteSize::kib(64);
    let (log, metrics) = open(&config);
    let raw = vec![b'x'; 1_000];
    for offset in 0..40 {
        log.put(&letter(offset, &raw)).unwrap();
    }
    // All but one of each segment, so that every segment stays.
    let segments = segment::list(&crate::spool::disk::Disk::default(), &config.dir).unwrap();
    let left: Vec<_> = segments.iter().map(|meta| meta.first).collect();
    dropped::update(&config.dir, (0..40).filter(|id| !left.contains(id)), []).unwrap();
    for offset in 40..140 {
        log.put(&letter(offset, &raw)).unwrap();
    }
    let found = list(&config.dir, &Filter::default()).unwrap().len() as u64;
    assert_eq!(metrics.dead_letters_dropped.get() + found, 100 + left.len() as u64);
    // And one whose segment has gone since the marks were read.
    let oldest = segment::list(&crate::spool::disk::Disk::default(), &config.dir).unwrap().remove(0);
    let before = log.usage().bytes;
    fs::remove_file(&oldest.path).unwrap();
    assert_eq!(log.usage().bytes, before - oldest.bytes);
}

#[test]
fn letters_are_browsed_a_segment_at_a_time_with_their_newest_reason() {
    let (_dir, mut config) = temp_config();
    config.capacity = ByteSize::kib(64);
    let (log, _) = open(&config);
    let raw = vec![b'x'; 1_000];
    for offset in 0..40 {
        log.put(&letter(offset, &raw)).unwrap();
    }
    let again = Rejection { reason: Reason::InvalidField, detail: "still".into() };
    dropped::update(&config.dir, [1], [(2, again)]).unwrap();
    let mut reader = Reader::open(&config.dir, Filter::default()).unwrap();
    let (mut ids, mut rounds) = (Vec::new(), 0);
    loop {
        let some = reader.next_entries().unwrap();
        if some.is_empty() {
            break;
        }
        rounds += 1;
        assert!(some.iter().all(|letter| letter.payload == raw && letter.decided.received_at == 17));
        ids.extend(some.iter().map(|letter| letter.info.id));
    }
    assert_eq!(ids, [0].into_iter().chain(2..40).collect::<Vec<_>>());
    assert!(rounds > 1);
    let filter = Filter { reason: Some(Reason::InvalidField), ..Filter::default() };
    assert_eq!(list(&config.dir, &filter).unwrap()[0].detail, "still");
}

#[test]
fn what_lies_in_the_way_of_the_lock_or_the_marks_stops_nothing() {
    for name in ["lock", "marks.json"] {
        for pipe in [false, true] {
            let (_dir, config) = temp_config();
            open(&config).0.put(&letter(1, b"one")).unwrap();
            let path = config.dir.join(name);
            let _ = fs::remove_file(&path);
            if pipe {
                assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
            } else {
                fs::create_dir(&path).unwrap();
            }
            open(&config).0.put(&letter(2, b"two")).unwrap();
            let _ = fs::remove_dir(&path).or_else(|_| fs::remove_file(&path));
            assert_eq!(list(&config.dir, &Filter::default()).unwrap().len(), 2, "{name}");
        }
    }
}
