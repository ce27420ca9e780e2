use super::{position::Position, *};
use crate::{event::EntryId, source::streams::reply::Snapshot};

fn id(millis: u64) -> EntryId {
    EntryId { millis, sequence: 0 }
}

fn stream(first: Option<u64>, newest: u64, length: u64, added: Option<u64>) -> Snapshot {
    Snapshot { first: first.map(id), last_generated: id(newest), length, added, ..Snapshot::default() }
}

/// Reads all from one time to another.
fn read(position: &mut Position, range: std::ops::RangeInclusive<u64>) {
    position.advance(range.clone().count() as u64, id(*range.end()));
}

#[test]
fn what_was_removed_before_it_was_read_is_noticed() {
    for counts in [true, false] {
        let stream = |first, newest, length, added| stream(first, newest, length, Some(added).filter(|_| counts));
        let mut position = Position::at_end(Some(&stream(Some(1), 10, 10, 10)));
        assert_eq!(position.after, id(10));
        assert!(!position.observe(Some(&stream(Some(1), 14, 14, 14))), "four are unread");
        read(&mut position, 11..=14);
        assert!(!position.observe(Some(&stream(Some(14), 14, 1, 14))), "what was read may be removed");
        assert!(!position.observe(Some(&stream(Some(14), 20, 7, 20))));
        assert!(position.observe(Some(&stream(Some(22), 23, 2, 23))), "15 to 21 are gone");
        read(&mut position, 22..=23);
        assert!(!position.observe(Some(&stream(Some(22), 23, 2, 23))), "that is told once");
        assert!(!position.observe(Some(&stream(Some(22), 30, 9, 30))));
        assert!(position.observe(Some(&stream(None, 30, 0, 30))), "all of them are gone");
        assert!(!position.observe(Some(&stream(None, 30, 0, 30))) && position.after == id(30));
    }
}

#[test]
fn a_stream_that_is_deleted_replaced_or_behind_is_read_from_where_it_is() {
    let mut position = Position::at_end(None);
    assert_eq!((position.after, position.observe(None)), (id(0), false), "nothing was appended yet");
    assert!(!position.observe(Some(&stream(Some(5), 6, 2, Some(2)))));
    read(&mut position, 5..=6);
    assert!(!position.observe(Some(&stream(Some(5), 6, 2, Some(2)))));
    assert!(position.observe(Some(&stream(Some(5), 5, 1, Some(1)))), "the server lacks the newest");
    assert_eq!(position.after, id(5));
    assert!(position.observe(None), "it was deleted");
    assert_eq!(position.after, id(0), "the next one is read from its beginning");
    let mut position = Position::at_end(Some(&stream(Some(1), 10, 10, Some(10))));
    assert!(position.observe(Some(&stream(Some(20), 21, 2, Some(2)))), "another stream: its count is smaller");
    assert_eq!(position.after, id(10), "its entries are still to be read");
}

#[test]
fn each_stream_is_read_apart() {
    let streams = ["a".to_owned(), "b".to_owned(), "c".to_owned()].to_vec();
    for url in ["redis://h", "redis-cluster://h"] {
        let config = Config { url: url.into(), streams: streams.clone(), ..Config::default() };
        let names: Vec<_> = Tail::all(&config).iter().map(|tail| tail.stream().to_string()).collect();
        assert_eq!(names, streams, "{url}");
    }
    assert!(Tail::all(&Config::default()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_waits_for_memory_and_not_for_ever() {
    let memory = MemoryLimit::new(40 << 20);
    let ahead = |bytes| Ahead { entries: 1, bytes, last: id(1), more: false };
    let held = memory.charge(5 << 20);
    assert!(reserve(&memory, &ahead(20 << 20)).await.is_none());
    assert!(reserve(&memory, &ahead(10 << 20)).await.is_some_and(|reserved| reserved.bytes() == 20 << 20));
    drop(held);
    assert!(
        reserve(&memory, &ahead(ENTRY_BYTES_MAX)).await.is_some(),
        "more than all of it, while nothing else is used"
    );
    assert!(reserve(&memory, &ahead(ENTRY_BYTES_MAX + 1)).await.is_none());
    assert_eq!(memory.used(), 0);
}
