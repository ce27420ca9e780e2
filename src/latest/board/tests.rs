use super::*;

fn update(run: u128, time: i64, seq: Option<i64>, received: Instant) -> Update {
    Update {
        subject: Subject::Metrics,
        payload: Bytes::from_static(b"{}"),
        decided: Resolved {
            run_id: Uuid::from_u128(run),
            event_time: time,
            received_at: time,
            has_event_time: true,
            opened_run: false,
        },
        seq,
        received,
    }
}

#[test]
fn the_newest_wins_within_a_run_and_the_last_between_runs() {
    let start = Instant::now();
    let ttl = Duration::from_secs(1);
    for (name, held, new, later, wins) in [
        ("later time", (1, 10, None), (1, 11, None), 0, true),
        ("earlier time", (1, 10, None), (1, 9, None), 0, false),
        ("same time, no seq: arrival", (1, 10, None), (1, 10, Some(1)), 0, true),
        ("same time, lower seq", (1, 10, Some(5)), (1, 10, Some(4)), 0, false),
        ("same time, higher seq", (1, 10, Some(5)), (1, 10, Some(6)), 0, true),
        ("earlier time, but what is held has expired", (1, 10, None), (1, 9, None), 1_000, true),
        ("another run, earlier time", (1, 10, None), (2, 9, None), 0, true),
    ] {
        let held = update(held.0, held.1, held.2, start);
        let new = update(new.0, new.1, new.2, start + Duration::from_millis(later));
        assert_eq!(supersedes(&new, &held, ttl), wins, "{name}");
    }
}

#[test]
fn many_updates_are_one_write_and_the_busiest_runs_keep_their_keys() {
    let config = Config { runs: 3, history_objects: 4, ..Config::default() };
    let board = Board::new(&config, "cascor:", MemoryLimit::default(), Metrics::new());
    let start = Instant::now();
    for n in 0..10u32 {
        board.offer(update(u128::from(n % 5), i64::from(n), None, start + Duration::from_millis(u64::from(n))));
    }
    let news = board.take(start, false, true);
    let everybody: Vec<_> = news.due.iter().filter(|due| due.run.is_none()).collect();
    assert_eq!((everybody.len(), everybody[0].update.decided.event_time), (1, 9));
    assert_eq!(news.due.len() - 1, 3, "runs 2, 3 and 4");
    assert_eq!(news.history.iter().map(|held| held.decided.event_time).collect::<Vec<_>>(), [6, 7, 8, 9]);
    assert!(board.take(start, false, true).due.is_empty());
    assert_eq!(board.take(start, true, true).due.len(), 4, "again after a reconnect");
    assert!(board.take(start + Duration::from_secs(2), true, true).due.is_empty(), "but not what has expired");
    assert_eq!(board.forget().len(), 5 + 6);
    assert!(board.take(start, true, true).due.is_empty());
}

#[test]
fn what_lives_no_longer_is_not_held() {
    let board = Board::new(&Config::default(), "cascor:", MemoryLimit::default(), Metrics::new());
    let (start, payload) = (Instant::now(), Bytes::from(vec![b' '; 9]));
    for run in 0..9 {
        let update = update(run, 1, None, start);
        board.offer(Update { subject: Subject::Topology, payload: payload.clone(), ..update });
    }
    let ttl = Subject::Topology.ttl(&board.config());
    board.expire(start + ttl - Duration::from_millis(1));
    assert_eq!(board.take(start, true, true).due.len(), 10);
    assert!(!payload.is_unique());
    board.expire(start + ttl);
    assert!(payload.is_unique());
}

#[test]
fn the_keys_of_a_run_that_makes_room_for_another_are_deleted() {
    let board = Board::new(&Config { runs: 2, ..Config::default() }, "cascor:", MemoryLimit::default(), Metrics::new());
    let start = Instant::now();
    let offer = |run: u128, at: u64| board.offer(update(run, 1, None, start + Duration::from_millis(at)));
    offer(1, 0);
    offer(2, 1);
    assert!(board.take(start, false, true).stale.is_empty());
    offer(3, 2);
    offer(4, 3);
    offer(5, 4);
    let keys = |run: u128| {
        let run = Uuid::from_u128(run);
        ["metrics", "topology"].map(|name| format!("cascor:{name}:{run}:latest"))
    };
    let news = board.take(start, false, true);
    assert_eq!(news.stale, [keys(1), keys(2)].concat(), "3 was never written");
    assert_eq!(news.due.iter().filter_map(|due| due.run).count(), 2);
    // However many come between two writes, there are no more keys to delete than runs that are kept.
    for run in 10..10_010 {
        offer(run, 5);
    }
    assert_eq!(board.take(start, false, true).stale.len(), 4);
    offer(5, 6);
    offer(6, 7);
    assert_eq!(board.forget().len(), 5 + 2 * 2 + 2 * 2, "two runs that are kept, and two whose keys may exist");
}

#[test]
fn of_large_values_the_newest_stay_and_while_memory_is_short_the_last_alone() {
    const MIB: usize = 1 << 20;
    for (used, values) in [(0, 4), (1 << 30, 1)] {
        let memory = MemoryLimit::default();
        let metrics = Metrics::new();
        let board = Board::new(&Config::default(), "cascor:", memory.clone(), Arc::clone(&metrics));
        let _received = memory.charge(used);
        for run in 0..6 {
            let payload = Bytes::from(vec![b' '; 8 * MIB]);
            let update = update(run, i64::try_from(run).unwrap(), None, Instant::now());
            board.offer(Update { subject: Subject::Topology, payload, ..update });
        }
        let due = board.take(Instant::now(), true, true).due;
        let mut runs: Vec<_> = due.iter().filter_map(|due| due.run).map(|run| run.as_u128()).collect();
        runs.sort_unstable();
        assert_eq!(runs, (6 - values..6).collect::<Vec<_>>(), "{used} bytes are used");
        assert_eq!(due.len(), runs.len() + 1, "and the newest of all");
        assert!(metrics.latest_skipped.get() >= 6 - values as u64, "what is let go of is counted");
    }
}
