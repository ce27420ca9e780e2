use super::*;

fn update(run: u128, time: i64, seq: Option<i64>, received: Instant) -> Update {
    Update {
        kind: LatestKind::Metrics,
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
    let latest_state = LatestState::new(&config, "cascor:", MemoryLimit::default(), Metrics::new());
    let start = Instant::now();
    for n in 0..10u32 {
        latest_state.update(update(u128::from(n % 5), i64::from(n), None, start + Duration::from_millis(u64::from(n))));
    }
    let changes = latest_state.take_changes(start, false, true);
    let shared_keys: Vec<_> = changes.writes.iter().filter(|due| due.run.is_none()).collect();
    assert_eq!((shared_keys.len(), shared_keys[0].update.decided.event_time), (1, 9));
    assert_eq!(changes.writes.len() - 1, 3, "runs 2, 3 and 4");
    assert_eq!(changes.history.iter().map(|held| held.decided.event_time).collect::<Vec<_>>(), [6, 7, 8, 9]);
    assert!(latest_state.take_changes(start, false, true).writes.is_empty());
    assert_eq!(latest_state.take_changes(start, true, true).writes.len(), 4, "again after a reconnect");
    assert!(
        latest_state.take_changes(start + Duration::from_secs(2), true, true).writes.is_empty(),
        "but not what has expired"
    );
    assert_eq!(latest_state.reset().len(), 5 + 6);
    assert!(latest_state.take_changes(start, true, true).writes.is_empty());
}

#[test]
fn what_lives_no_longer_is_not_held() {
    let latest_state = LatestState::new(&Config::default(), "cascor:", MemoryLimit::default(), Metrics::new());
    let (start, payload) = (Instant::now(), Bytes::from(vec![b' '; 9]));
    for run in 0..9 {
        let update = update(run, 1, None, start);
        latest_state.update(Update { kind: LatestKind::Topology, payload: payload.clone(), ..update });
    }
    let ttl = LatestKind::Topology.ttl(&latest_state.config());
    latest_state.expire(start + ttl - Duration::from_millis(1));
    assert_eq!(latest_state.take_changes(start, true, true).writes.len(), 10);
    assert!(!payload.is_unique());
    latest_state.expire(start + ttl);
    assert!(payload.is_unique());
}

#[test]
fn the_keys_of_a_run_that_makes_room_for_another_are_deleted() {
    let latest_state =
        LatestState::new(&Config { runs: 2, ..Config::default() }, "cascor:", MemoryLimit::default(), Metrics::new());
    let start = Instant::now();
    let update_at = |run: u128, at: u64| latest_state.update(update(run, 1, None, start + Duration::from_millis(at)));
    update_at(1, 0);
    update_at(2, 1);
    assert!(latest_state.take_changes(start, false, true).stale.is_empty());
    update_at(3, 2);
    update_at(4, 3);
    update_at(5, 4);
    let keys = |run: u128| {
        let run = Uuid::from_u128(run);
        ["metrics", "topology"].map(|name| format!("cascor:{name}:{run}:latest"))
    };
    let changes = latest_state.take_changes(start, false, true);
    assert_eq!(changes.stale, [keys(1), keys(2)].concat(), "3 was never written");
    assert_eq!(changes.writes.iter().filter_map(|due| due.run).count(), 2);
    // However many come between two writes, there are no more keys to delete than runs that are kept.
    for run in 10..10_010 {
        update_at(run, 5);
    }
    assert_eq!(latest_state.take_changes(start, false, true).stale.len(), 4);
    update_at(5, 6);
    update_at(6, 7);
    assert_eq!(latest_state.reset().len(), 5 + 2 * 2 + 2 * 2, "two runs that are kept, and two whose keys may exist");
}

#[test]
fn of_large_values_the_newest_stay_and_while_memory_is_short_the_last_alone() {
    const MIB: usize = 1 << 20;
    for (used, values) in [(0, 4), (1 << 30, 1)] {
        let memory = MemoryLimit::default();
        let metrics = Metrics::new();
        let latest_state = LatestState::new(&Config::default(), "cascor:", memory.clone(), Arc::clone(&metrics));
        let _received = memory.charge(used);
        for run in 0..6 {
            let payload = Bytes::from(vec![b' '; 8 * MIB]);
            let update = update(run, i64::try_from(run).unwrap(), None, Instant::now());
            latest_state.update(Update { kind: LatestKind::Topology, payload, ..update });
        }
        let due = latest_state.take_changes(Instant::now(), true, true).writes;
        let mut runs: Vec<_> = due.iter().filter_map(|due| due.run).map(|run| run.as_u128()).collect();
        runs.sort_unstable();
        assert_eq!(runs, (6 - values..6).collect::<Vec<_>>(), "{used} bytes are used");
        assert_eq!(due.len(), runs.len() + 1, "and the newest of all");
        assert!(metrics.latest_skipped.get() >= 6 - values as u64, "what is let go of is counted");
    }
}
