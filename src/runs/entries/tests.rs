//! Entries and the runs that they belong to, in any order, and once more.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

const GRACE: Duration = Duration::from_secs(5);
const SECOND: Micros = 1_000_000;

fn hints(kind: Kind, at: Micros, payload: &[u8]) -> RunHints<'_> {
    RunHints {
        kind,
        run_id: None,
        epoch: Some(0),
        phase: None,
        hidden_units: None,
        event_time: at,
        has_event_time: false,
        received_at: at,
        payload,
    }
}

/// Assigns and takes over what it changes.
fn take(shared: &mut Option<OpenRun>, hints: &RunHints<'_>) -> EntryAssignment {
    let assigned = assign_entry(shared.as_ref(), "s", hints, GRACE);
    if assigned.change.is_some() {
        shared.clone_from(&assigned.change);
    }
    assigned
}

#[test]
fn runs_open_and_end_by_start_and_end_and_an_entry_belongs_to_the_run_of_its_time() {
    let mut shared = None;
    let first = take(&mut shared, &hints(Kind::RunStart, SECOND, b"a")).run_id;
    assert_eq!(first, implicit_run_id("s", SECOND, b"a"));
    assert_eq!(take(&mut shared, &hints(Kind::Metrics, 2 * SECOND, b"m")).run_id, first);
    assert_eq!(take(&mut shared, &hints(Kind::RunEnd, 3 * SECOND, b"e")).run_id, first);
    assert!(shared.as_ref().unwrap().ended);
    let second = take(&mut shared, &hints(Kind::RunStart, 4 * SECOND, b"b")).run_id;
    assert_ne!(first, second);
    for (name, at, expected) in [
        ("of the second", 5 * SECOND, second),
        ("of the first, taken late", 2 * SECOND + 1, first),
        ("before the first", 1, first),
    ] {
        let assigned = take(&mut shared, &hints(Kind::Metrics, at, b"m"));
        assert_eq!((assigned.run_id, assigned.opened_run, assigned.change), (expected, false, None), "{name}");
    }
    for (name, hints, expected) in [
        ("the first start", hints(Kind::RunStart, SECOND, b"a"), first),
        ("the end of the first", hints(Kind::RunEnd, 3 * SECOND, b"e"), first),
        ("the second start", hints(Kind::RunStart, 4 * SECOND, b"b"), second),
    ] {
        let again = take(&mut shared, &hints);
        assert_eq!((again.run_id, again.change), (expected, None), "{name}, redelivered");
    }
}

#[test]
fn a_race_for_a_run_without_a_start_ends_in_one() {
    let (one, other) = (hints(Kind::Metrics, 10 * SECOND, b"1"), hints(Kind::Metrics, 11 * SECOND, b"2"));
    for order in [[&one, &other], [&other, &one]] {
        let mut shared = None;
        let winner = take(&mut shared, order[0]);
        let loser = take(&mut shared, order[1]);
        assert!(winner.opened_run && !loser.opened_run);
        assert_eq!((loser.run_id, loser.change), (winner.run_id, None));
        let again = take(&mut shared, order[0]);
        assert_eq!((again.run_id, again.opened_run, again.change), (winner.run_id, true, None), "redelivered");
    }
}

#[test]
fn after_an_end_metrics_open_a_run_once_the_grace_is_over() {
    let mut shared = None;
    let first = take(&mut shared, &hints(Kind::Metrics, SECOND, b"m")).run_id;
    take(&mut shared, &hints(Kind::RunEnd, 2 * SECOND, b"e"));
    assert_eq!(take(&mut shared, &hints(Kind::Metrics, 3 * SECOND, b"m")).run_id, first);
    assert_eq!(take(&mut shared, &hints(Kind::State, 60 * SECOND, b"s")).run_id, first);
    let later = take(&mut shared, &hints(Kind::Metrics, 61 * SECOND, b"m"));
    assert!(later.opened_run && later.run_id != first);
    let between = take(&mut shared, &hints(Kind::Metrics, 60 * SECOND, b"m"));
    assert_eq!((between.run_id, between.change), (later.run_id, None), "not a third");
}

#[test]
fn a_start_that_is_taken_late_is_one_of_the_runs_before() {
    let mut shared = None;
    let newer = take(&mut shared, &hints(Kind::RunStart, 9 * SECOND, b"b")).run_id;
    let older = take(&mut shared, &hints(Kind::RunStart, 5 * SECOND, b"a")).run_id;
    assert_eq!(shared.as_ref().unwrap().run_id, newer);
    assert_eq!(take(&mut shared, &hints(Kind::Metrics, 6 * SECOND, b"m")).run_id, older);
    assert_eq!(take(&mut shared, &hints(Kind::Metrics, 9 * SECOND, b"m")).run_id, newer);
    for n in 0..100 {
        take(&mut shared, &hints(Kind::RunStart, (10 + n) * SECOND, b"n"));
    }
    assert_eq!(shared.as_ref().unwrap().former.len(), FORMER_MAX);
}

#[test]
fn a_message_that_names_its_run_opens_and_ends_only_that() {
    let mut shared = None;
    let (id, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let of = |kind, at, run_id| RunHints { run_id: Some(run_id), ..hints(kind, at, b"x") };
    assert_eq!(take(&mut shared, &of(Kind::Metrics, SECOND, id)).change, None);
    take(&mut shared, &of(Kind::RunStart, 2 * SECOND, id));
    assert_eq!(take(&mut shared, &of(Kind::RunEnd, 3 * SECOND, other)).change, None);
    assert_eq!(take(&mut shared, &hints(Kind::Metrics, 3 * SECOND, b"m")).run_id, id);
    take(&mut shared, &of(Kind::RunEnd, 4 * SECOND, id));
    assert!(shared.as_ref().unwrap().ended);
    take(&mut shared, &of(Kind::RunStart, 5 * SECOND, id));
    assert!(!shared.unwrap().ended, "it runs again");
}

#[test]
fn a_closed_run_keeps_what_came_before_and_any_entry_behind_it_begins_the_next() {
    let mut shared = None;
    let first = take(&mut shared, &hints(Kind::Metrics, SECOND, b"1")).run_id;
    let open = shared.clone().unwrap();
    assert_eq!(close_entry_run(&open, SECOND - 1), None, "it was opened later");
    shared = close_entry_run(&open, 2 * SECOND);
    assert_eq!(close_entry_run(shared.as_ref().unwrap(), 3 * SECOND), None, "once");
    assert_eq!(take(&mut shared, &hints(Kind::Metrics, 2 * SECOND, b"late")).run_id, first);
    let state = take(&mut shared, &hints(Kind::State, 2 * SECOND + 1, b"s"));
    assert!(state.opened_run && state.run_id != first, "without a grace, whatever it is");
    assert_eq!(take(&mut shared, &hints(Kind::Metrics, 3 * SECOND, b"m")).run_id, state.run_id);
    assert_eq!(take(&mut shared, &hints(Kind::Metrics, SECOND + 1, b"later still")).run_id, first);
    // An end that begins a run does not end it, also not when it comes again.
    shared = close_entry_run(shared.as_ref().unwrap(), 3 * SECOND);
    let end = hints(Kind::RunEnd, 3 * SECOND + 1, b"e");
    let opened = take(&mut shared, &end);
    let again = take(&mut shared, &end);
    assert!(opened.opened_run && again.opened_run && again.run_id == opened.run_id && again.change.is_none());
    // A start that names the closed run again opens it again.
    let id = Uuid::from_u128(1);
    let start = |at| RunHints { run_id: Some(id), ..hints(Kind::RunStart, at, b"x") };
    take(&mut shared, &start(4 * SECOND));
    shared = close_entry_run(shared.as_ref().unwrap(), 5 * SECOND);
    take(&mut shared, &start(6 * SECOND));
    assert_eq!(take(&mut shared, &hints(Kind::Metrics, 7 * SECOND, b"m")).run_id, id);
}

#[test]
fn a_reset_that_several_daemons_hear_closes_one_run() {
    let mut shared = None;
    let reset = |shared: &mut Option<OpenRun>, at, by: &str| {
        let change = reset_entry_run(shared.as_ref().unwrap(), at, by);
        *shared = change.or(shared.take());
    };
    take(&mut shared, &hints(Kind::Metrics, SECOND, b"1"));
    reset(&mut shared, 2 * SECOND, "a");
    let second = take(&mut shared, &hints(Kind::Metrics, 3 * SECOND, b"2")).run_id;
    reset(&mut shared, 2 * SECOND + 7, "b");
    assert_eq!(take(&mut shared, &hints(Kind::Metrics, 4 * SECOND, b"3")).run_id, second, "the same reset");
    reset(&mut shared, 5 * SECOND, "b");
    reset(&mut shared, 5 * SECOND, "a");
    let third = take(&mut shared, &hints(Kind::Metrics, 6 * SECOND, b"4"));
    assert!(third.opened_run && third.run_id != second, "another reset");
    reset(&mut shared, 6 * SECOND + RESET_WINDOW, "c");
    assert!(take(&mut shared, &hints(Kind::Metrics, 30 * SECOND, b"5")).opened_run, "long after that one");
    assert_eq!(reset_entry_run(shared.as_ref().unwrap(), 6 * SECOND, "d"), None, "a newer one was heard");
}

#[test]
fn a_reset_that_is_applied_late_does_not_close_a_run_that_began_long_after_it() {
    let mut shared = None;
    let id = take(&mut shared, &hints(Kind::Metrics, 100 * SECOND, b"1")).run_id;
    let open = shared.clone().unwrap();
    assert_eq!(reset_entry_run(&open, 100 * SECOND - RESET_WINDOW - 1, "a"), None);
    // As far as clocks may differ, the run was open.
    let closed = reset_entry_run(&open, 100 * SECOND - RESET_WINDOW, "a").unwrap();
    assert_eq!((closed.run_id, closed.closed_at), (id, Some(100 * SECOND)));
}

#[test]
fn a_run_that_started_again_is_not_closed_by_its_end_or_its_deletion_of_before() {
    let id = Uuid::from_u128(1);
    let of = |kind, at| RunHints { run_id: Some(id), ..hints(kind, at, b"x") };
    for was_closed in [true, false] {
        let mut shared = None;
        take(&mut shared, &of(Kind::RunStart, SECOND));
        take(&mut shared, &of(Kind::RunEnd, 2 * SECOND));
        if was_closed {
            shared = close_entry_run(shared.as_ref().unwrap(), 5 * SECOND);
        }
        take(&mut shared, &of(Kind::RunStart, 6 * SECOND));
        assert_eq!(take(&mut shared, &hints(Kind::Metrics, 99 * SECOND, b"m")).run_id, id);
        // Each start of a daemon tells the deletion once more.
        assert_eq!(close_entry_run(shared.as_ref().unwrap(), 5 * SECOND), None);
        for (name, again) in [
            ("the first start", of(Kind::RunStart, SECOND)),
            ("the end", of(Kind::RunEnd, 2 * SECOND)),
            ("the end, without an id", hints(Kind::RunEnd, 2 * SECOND, b"x")),
            ("the second start", of(Kind::RunStart, 6 * SECOND)),
            ("of the first time", hints(Kind::Metrics, SECOND + 1, b"m")),
            ("of the second", hints(Kind::Metrics, 99 * SECOND, b"m")),
        ] {
            let assigned = take(&mut shared, &again);
            assert_eq!((assigned.run_id, assigned.change), (id, None), "{name}, redelivered");
        }
        let closed = close_entry_run(shared.as_ref().unwrap(), 100 * SECOND);
        assert_eq!(closed.unwrap().closed_at, Some(100 * SECOND), "deleted again");
    }
}

#[test]
fn the_times_of_a_run_that_starts_again_and_again_take_the_room_of_one() {
    let mut shared = None;
    let before = take(&mut shared, &hints(Kind::RunStart, SECOND, b"before")).run_id;
    let id = Uuid::from_u128(1);
    for n in 2..100 {
        take(&mut shared, &RunHints { run_id: Some(id), ..hints(Kind::RunStart, n * SECOND, b"x") });
    }
    assert_eq!(shared.as_ref().unwrap().former.len(), 2);
    for (at, expected) in [(SECOND, before), (2 * SECOND, id), (50 * SECOND, id), (99 * SECOND, id)] {
        let assigned = take(&mut shared, &hints(Kind::Metrics, at, b"m"));
        assert_eq!((assigned.run_id, assigned.change), (expected, None), "{at}");
    }
    // Its end was taken first, by another daemon: it is that of the last start.
    take(&mut shared, &hints(Kind::RunEnd, 200 * SECOND, b"e"));
    take(&mut shared, &RunHints { run_id: Some(id), ..hints(Kind::RunStart, 150 * SECOND, b"x") });
    let open = shared.unwrap();
    assert!(open.ended && open.opened_at == 150 * SECOND);
}

proptest! {
    #[test]
    fn an_entry_that_is_delivered_again_is_of_the_same_run_and_changes_nothing(
        steps in vec((0_u8..10, 1_u128..4, select(vec![1, 1_000, 1_000_000, 7_000_000])), 1..14)
    ) {
        let (mut shared, mut at, mut taken) = (None, 0, Vec::new());
        for (what, id, later) in steps {
            at += later;
            let (kind, run_id) = match what {
                0..3 => (Kind::Metrics, None),
                3 => (Kind::State, None),
                4 => (Kind::RunEnd, None),
                5 => (Kind::RunEnd, Some(Uuid::from_u128(id))),
                6 => (Kind::RunStart, None),
                7 => (Kind::RunStart, Some(Uuid::from_u128(id))),
                _ => {
                    let open = shared.take();
                    let close = |open: &OpenRun| match what {
                        8 => close_entry_run(open, at),
                        _ => reset_entry_run(open, at, "a"),
                    };
                    shared = open.as_ref().and_then(close).or(open);
                    continue;
                }
            };
            let hints = RunHints { run_id, ..hints(kind, at, b"x") };
            taken.push((hints, take(&mut shared, &hints)));
        }
        for (hints, first) in taken {
            let again = assign_entry(shared.as_ref(), "s", &hints, GRACE);
            prop_assert_eq!((again.run_id, again.opened_run, again.change), (first.run_id, first.opened_run, None));
        }
    }
}
