use super::*;

fn id(millis: u64) -> EntryId {
    EntryId { millis, sequence: 0 }
}

fn stream(first: Option<u64>, newest: u64, length: u64, added: Option<u64>) -> Snapshot {
    Snapshot { first: first.map(id), last_generated: id(newest), length, added, ..Snapshot::default() }
}

fn entries(range: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    range.map(|millis| Entry { id: id(millis), message: Some("{}".into()) }).collect()
}

#[test]
fn what_was_removed_before_it_was_read_is_noticed() {
    for counts in [true, false] {
        let stream = |first, newest, length, added| stream(first, newest, length, Some(added).filter(|_| counts));
        let mut position = Position::at_end(Some(&stream(Some(1), 10, 10, 10)));
        assert_eq!(position.after, id(10));
        assert!(!position.observe(Some(&stream(Some(1), 14, 14, 14))), "four are unread");
        position.advance(&entries(11..=14));
        assert!(!position.observe(Some(&stream(Some(14), 14, 1, 14))), "what was read may be removed");
        assert!(!position.observe(Some(&stream(Some(14), 20, 7, 20))));
        assert!(position.observe(Some(&stream(Some(22), 23, 2, 23))), "15 to 21 are gone");
        position.advance(&entries(22..=23));
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
    position.advance(&entries(5..=6));
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
fn the_streams_of_a_cluster_are_read_apart() {
    let streams = ["a".to_owned(), "b".to_owned(), "c".to_owned()].to_vec();
    for (url, readers) in [("redis://h", 1), ("redis-cluster://h", 3)] {
        let config = Config { url: url.into(), streams: streams.clone(), ..Config::default() };
        assert_eq!(Tail::all(&config).len(), readers, "{url}");
    }
    assert!(Tail::all(&Config::default()).is_empty());
}
