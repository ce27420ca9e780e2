//! Every rule by which a run's row is merged.

use proptest::strategy::Strategy;

use crate::{
    event::{Lifecycle, RunRow, RunUpdate},
    units::Micros,
    writer::{
        summary::{History, Summary},
        tests::support::{overlay, run_id},
    },
};

const S: Micros = 1_000_000;

fn update(time: Micros, lifecycle: Option<Lifecycle>, fill: impl FnOnce(&mut RunRow)) -> RunUpdate {
    let mut values = Box::<RunRow>::default();
    fill(&mut values);
    RunUpdate { event_time: time * S, lifecycle, values }
}

fn seen(time: Micros) -> RunUpdate {
    update(time, None, |_| ())
}

fn began(time: Micros) -> RunUpdate {
    update(time, Some(Lifecycle::Start), |_| ())
}

fn ended(time: Micros, how: &'static str) -> RunUpdate {
    update(time, Some(Lifecycle::End(how)), |_| ())
}

fn accuracy(time: Micros, value: f64, epoch: i32) -> RunUpdate {
    update(time, None, |row| {
        row.final_val_accuracy = Some(value);
        row.final_epoch = Some(epoch);
    })
}

/// What is stored after these events, with the stored row known after `late` of them, and read again after each `restart`.
pub fn stored(events: &[RunUpdate], late: usize, restart: usize) -> RunRow {
    replayed(events, |index| index % restart == late % restart, |index| index % restart == restart - 1)
}

/// The same with the row read before the events that `reads`, and forgotten after those that `forgets`.
fn replayed(events: &[RunUpdate], reads: impl Fn(usize) -> bool, forgets: impl Fn(usize) -> bool) -> RunRow {
    let mut stored: Option<RunRow> = None;
    let mut summary = Summary::not_loaded(run_id(0));
    for (index, event) in events.iter().enumerate() {
        let known = &events[..index];
        if reads(index) {
            settle(&mut summary, &mut stored, known);
        }
        summary.apply(event.clone());
        let known = &events[..=index];
        if summary.loaded {
            settle(&mut summary, &mut stored, known);
        }
        if forgets(index) {
            settle(&mut summary, &mut stored, known);
            summary = Summary::not_loaded(run_id(0));
        }
    }
    settle(&mut summary, &mut stored, events);
    stored.unwrap_or_default()
}

/// Reads what the summary needs and writes what changed, in a store that holds the rows of the events so far.
fn settle(summary: &mut Summary, stored: &mut Option<RunRow>, events: &[RunUpdate]) {
    if !summary.loaded {
        summary.merge_stored(stored.clone());
    }
    if let Some(wanted) = summary.history_request() {
        let is_read = |update: &&RunUpdate| update.lifecycle.is_some() || update.event_time >= wanted.from;
        let updates = events.iter().filter(is_read).cloned().collect();
        summary.apply_history(History { updates, metrics_from: wanted.from, events_from: Micros::MIN });
        assert_eq!(summary.history_request(), None, "once is enough");
    }
    let columns = std::mem::take(&mut summary.dirty);
    if columns != 0 || stored.is_some() || !events.is_empty() {
        overlay(stored.get_or_insert_default(), &summary.projected(columns));
    }
}

type Check = fn(&RunRow) -> bool;

#[test]
fn rows_are_merged_by_value() {
    let cases: Vec<(&str, Vec<RunUpdate>, Check)> = vec![
        ("the first event creates a running run", vec![seen(5), seen(7)], |row| {
            row.start_time == Some(5 * S) && row.status.as_deref() == Some("running") && row.end_time.is_none()
        }),
        ("an earlier start moves the start", vec![seen(5), began(2)], |row| row.start_time == Some(2 * S)),
        ("a later start does not", vec![seen(5), began(9)], |row| row.start_time == Some(5 * S)),
        ("without a start the earliest event is it", vec![seen(5), seen(1), seen(3)], |row| row.start_time == Some(S)),
        ("an earlier plain event moves it, too", vec![began(5), seen(1)], |row| row.start_time == Some(S)),
        ("also after later events", vec![seen(7), began(5), seen(6), seen(1)], |row| row.start_time == Some(S)),
        ("an earlier event lengthens a run without a start", vec![seen(5), ended(11, "completed"), seen(1)], |row| {
            (row.start_time, row.duration_seconds) == (Some(S), Some(10))
        }),
        ("the last event is the latest", vec![seen(5), seen(9), seen(7)], |row| row.last_event_time == Some(9 * S)),
        ("an end ends", vec![began(1), ended(11, "completed")], |row| {
            (row.status.as_deref(), row.end_time, row.duration_seconds) == (Some("completed"), Some(11 * S), Some(10))
        }),
        ("an earlier start lengthens it", vec![seen(5), ended(11, "completed"), began(1)], |row| {
            (row.status.as_deref(), row.duration_seconds) == (Some("completed"), Some(10))
        }),
        ("a late metric leaves it completed", vec![began(1), ended(11, "completed"), seen(12), seen(3)], |row| {
            row.status.as_deref() == Some("completed") && row.end_time == Some(11 * S)
        }),
        ("an older end changes nothing", vec![ended(11, "completed"), ended(5, "failed")], |row| {
            row.status.as_deref() == Some("completed") && row.end_time == Some(11 * S)
        }),
        ("a newer end does", vec![ended(11, "completed"), ended(12, "failed")], |row| {
            row.status.as_deref() == Some("failed") && row.end_time == Some(12 * S)
        }),
        ("a start after the end runs again", vec![began(1), ended(11, "completed"), began(20)], |row| {
            row.status.as_deref() == Some("running")
                && row.start_time == Some(S)
                && (row.end_time, row.duration_seconds, row.restarted_at) == (None, None, Some(20 * S))
        }),
        ("whatever arrives first", vec![began(20), ended(11, "failed"), began(1)], |row| {
            (row.status.as_deref(), row.start_time, row.end_time, row.restarted_at)
                == (Some("running"), Some(S), None, Some(20 * S))
        }),
        ("and ends again", vec![began(1), ended(11, "failed"), began(20), ended(31, "completed")], |row| {
            (row.status.as_deref(), row.end_time, row.duration_seconds, row.restarted_at)
                == (Some("completed"), Some(31 * S), Some(30), Some(20 * S))
        }),
        ("without an end a second start is none either", vec![began(1), began(5), seen(6)], |row| {
            (row.start_time, row.restarted_at, row.status.as_deref()) == (Some(S), None, Some("running"))
        }),
        ("unless the end between them comes late", vec![began(1), began(5), seen(6), ended(3, "failed")], |row| {
            (row.restarted_at, row.status.as_deref(), row.end_time) == (Some(5 * S), Some("running"), None)
        }),
        ("one start is no restart", vec![seen(1), began(2), began(2), ended(9, "completed"), began(2)], |row| {
            row.restarted_at.is_none() && row.end_time == Some(9 * S)
        }),
        (
            "and the old end does not end it twice",
            vec![ended(11, "completed"), began(20), ended(11, "failed")],
            |row| row.status.as_deref() == Some("running"),
        ),
        (
            "the best is kept with its epoch",
            vec![accuracy(1, 0.9, 3), accuracy(2, f64::INFINITY, 4), accuracy(2, 0.8, 4), accuracy(3, f64::NAN, 5)],
            |row| {
                (row.best_val_accuracy, row.best_epoch, row.final_epoch) == (Some(0.9), Some(3), Some(5))
                    && row.final_val_accuracy.is_some_and(f64::is_nan)
            },
        ),
        ("an equal one does not move its epoch", vec![accuracy(1, 0.9, 3), accuracy(2, 0.9, 4)], |row| {
            row.best_epoch == Some(3)
        }),
        (
            "tags are united",
            ["a", "b", "a"]
                .map(|tag| {
                    update(1, None, |row| {
                        row.tags.insert(tag.into());
                    })
                })
                .to_vec(),
            |row| row.tags.iter().map(String::as_str).eq(["a", "b"]),
        ),
        (
            "the newest text wins, an older one fills a hole",
            vec![
                update(5, None, |row| row.notes = Some("new".into())),
                update(3, None, |row| (row.notes, row.created_by) = (Some("old".into()), Some("me".into()))),
            ],
            |row| (row.notes.as_deref(), row.created_by.as_deref()) == (Some("new"), Some("me")),
        ),
    ];
    for (name, events, check) in cases {
        for (late, restart) in [(0, 100), (1, 100), (2, 100), (99, 100), (0, 1), (0, 2), (1, 2)] {
            let row = stored(&events, late, restart);
            assert!(check(&row), "{name} (late {late}, restart {restart}): {row:?}");
        }
    }
}

#[test]
fn an_older_attempt_does_not_end_a_run_whose_start_the_history_does_not_reach() {
    // The start of the stored row may be that of a start message. Where the history reaches it, it is none: nothing says so.
    for (events_from, restarted, ended_at) in [(20 * S, Some(10 * S), None), (10 * S, None, Some(6 * S))] {
        let row = RunRow {
            start_time: Some(10 * S),
            last_event_time: Some(90 * S),
            status: Some("running".into()),
            ..RunRow::default()
        };
        let mut summary = Summary::not_loaded(run_id(0));
        summary.apply(began(1));
        summary.apply(ended(6, "failed"));
        summary.merge_stored(Some(row));
        assert!(summary.history_request().is_some());
        summary.apply_history(History { updates: Vec::new(), metrics_from: S, events_from });
        let row = summary.projected(u32::MAX);
        assert_eq!((row.start_time, row.restarted_at, row.end_time), (Some(S), restarted, ended_at), "{events_from}");
    }
}

#[test]
fn what_says_nothing_new_changes_nothing() {
    let mut summary = Summary::not_loaded(run_id(0));
    summary.merge_stored(None);
    assert!(summary.apply(accuracy(5, f64::NAN, 1)));
    summary.dirty = 0;
    assert!(!summary.apply(accuracy(5, f64::NAN, 1)));
    assert!(!summary.apply(seen(5)));
    assert_eq!(summary.dirty, 0);
}

const NUMBERS: usize = 5;

/// Metrics (or an end) that say some of the final values, each of its own.
fn numbers(mut update: RunUpdate, which: u8) -> RunUpdate {
    let values = &mut update.values;
    let value = update.event_time / S;
    let said = |column: u8| (which >> column & 1 == 1).then_some(value as f64);
    values.final_epoch = said(0).map(|_| value as i32);
    values.final_train_loss = said(1);
    values.final_train_accuracy = said(2);
    values.final_val_loss = said(3);
    values.final_val_accuracy = said(4);
    update
}

/// What is shown of each number: by the rules, from all events at once.
fn shown(row: &RunRow) -> [Option<i64>; NUMBERS] {
    let whole = |value: Option<f64>| value.map(|value| value as i64);
    [
        row.final_epoch.map(i64::from),
        whole(row.final_train_loss),
        whole(row.final_train_accuracy),
        whole(row.final_val_loss),
        whole(row.final_val_accuracy),
    ]
}

/// Start at 0, metrics at 20, failed at 40, started again at 50, metrics at 60, completed at 80.
fn a_run_that_failed_once(which: [u8; 4]) -> Vec<RunUpdate> {
    vec![
        began(0),
        numbers(seen(20), which[0]),
        numbers(ended(40, "failed"), which[1]),
        began(50),
        numbers(seen(60), which[2]),
        numbers(ended(80, "completed"), which[3]),
    ]
}

#[test]
fn without_its_history_a_stored_run_counts_as_being_new() {
    let stored = RunRow {
        run_id: run_id(0),
        start_time: Some(0),
        status: Some("running".into()),
        final_epoch: Some(7),
        last_event_time: Some(50 * S),
        ..RunRow::default()
    };
    let mut summary = Summary::not_loaded(run_id(0));
    assert!(summary.apply(numbers(seen(40), 3)));
    summary.merge_stored(Some(stored));
    assert!(summary.history_request().is_some() && summary.apply(numbers(seen(60), 2)));
    summary.apply_history(History::none());
    let row = summary.projected(u32::MAX);
    assert_eq!((row.final_epoch, row.final_train_loss, summary.history_request()), (Some(7), Some(60.0), None));
    assert!(!summary.apply(numbers(seen(45), 1)), "it is not asked for again");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]

    /// In any order, some of them twice, with the row read and forgotten at any moment.
    #[test]
    fn neither_order_nor_repetition_nor_forgetting_changes_a_run(
        order in proptest::sample::subsequence((0usize..6).collect::<Vec<_>>(), 6)
            .prop_flat_map(|all| (proptest::strategy::Just(all).prop_shuffle(), proptest::collection::vec(0usize..6, 0..6)))
            .prop_map(|(all, again)| all.into_iter().chain(again).collect::<Vec<_>>()),
        which in proptest::array::uniform4(0u8..32),
        reads in 0u32..1 << 12,
        forgets in 0u32..1 << 12,
    ) {
        let all = a_run_that_failed_once(which);
        let events: Vec<_> = order.iter().map(|at| all[*at].clone()).collect();
        let row = replayed(&events, |at| reads >> at & 1 == 1, |at| forgets >> at & 1 == 1);
        proptest::prop_assert_eq!(
            (row.status.as_deref(), row.start_time, row.restarted_at, row.end_time, row.duration_seconds),
            (Some("completed"), Some(0), Some(50 * S), Some(80 * S), Some(80))
        );
        let said = |at: usize, column: usize| which[at] >> column & 1 == 1;
        for (column, shown) in shown(&row).into_iter().enumerate() {
            // The end's own; else of the metrics after the restart; else the earlier end's own; else of the earlier metrics.
            let expected = [(3, 80), (2, 60), (1, 40), (0, 20)].into_iter().find(|(at, _)| said(*at, column));
            proptest::prop_assert_eq!(shown, expected.map(|(_, value)| value), "column {}", column);
        }
        proptest::prop_assert_eq!(row.last_event_time, Some(80 * S));
    }

    /// Any starts and ends in any order: of those that are later than an end the latest start counts, and the latest end after it.
    #[test]
    fn starts_and_ends_in_any_order_make_the_same_life(
        times in proptest::sample::subsequence((1i64..40).collect::<Vec<_>>(), 1..10).prop_shuffle(),
        ends in 0u32..1 << 10,
        forgets in 0u32..1 << 12,
    ) {
        let is_end = |index: usize| ends >> index & 1 == 1;
        let others = times.iter().enumerate();
        let events = others.map(|(index, time)| if is_end(index) { ended(*time, "failed") } else { began(*time) });
        let events: Vec<_> = [began(0)].into_iter().chain(events).collect();
        let row = replayed(&events, |_| true, |at| forgets >> at & 1 == 1);
        let of = |end: bool| times.iter().enumerate().filter(move |(index, _)| is_end(*index) == end).map(|(_, time)| *time);
        let restart = of(false).max().filter(|start| of(true).any(|end| end < *start));
        let end = of(true).max().filter(|end| restart.is_none_or(|restart| *end > restart));
        proptest::prop_assert_eq!((row.start_time, row.restarted_at), (Some(0), restart.map(|time| time * S)));
        proptest::prop_assert_eq!((row.end_time, row.duration_seconds), (end.map(|time| time * S), end.map(|end| end as i32)));
        proptest::prop_assert_eq!(row.status.as_deref(), Some(if end.is_some() { "failed" } else { "running" }));
    }

    /// Start messages, ends and plain events in any order, with the row read and forgotten at any moment.
    #[test]
    fn a_run_begins_with_its_earliest_event(
        times in proptest::sample::subsequence((1i64..40).collect::<Vec<_>>(), 1..10).prop_shuffle(),
        kinds in proptest::collection::vec(0u8..3, 10),
        reads in 0u32..1 << 12,
        forgets in 0u32..1 << 12,
    ) {
        let event = |(time, kind): (&i64, &u8)| match kind {
            0 => began(*time),
            1 => ended(*time, "failed"),
            _ => seen(*time),
        };
        let events: Vec<_> = times.iter().zip(&kinds).map(event).collect();
        let row = replayed(&events, |at| reads >> at & 1 == 1, |at| forgets >> at & 1 == 1);
        proptest::prop_assert_eq!(row.start_time, times.iter().min().map(|time| time * S));
    }

    /// What an end gave is not changed by metrics, older or newer, before or after it; what it did not give follows their time.
    #[test]
    fn what_the_end_gave_stays(
        times in proptest::sample::subsequence((1i64..60).collect::<Vec<_>>(), 1..12).prop_shuffle(),
        which in proptest::collection::vec(0u8..32, 12),
        given in 0u8..32,
        place in 0usize..13,
        forgets in 0u32..1 << 14,
    ) {
        let metrics = times.iter().zip(&which).filter(|(time, _)| **time != 30);
        let metrics: Vec<_> = metrics.map(|(time, which)| numbers(seen(*time), *which)).collect();
        let mut events = vec![began(0)];
        events.extend(metrics.iter().cloned());
        events.insert((1 + place).min(events.len()), numbers(ended(30, "completed"), given));
        let row = replayed(&events, |_| true, |at| forgets >> at & 1 == 1);
        for (column, shown_value) in shown(&row).into_iter().enumerate() {
            let newest = metrics.iter().filter_map(|update| shown(&update.values)[column]).max();
            let expected = if given >> column & 1 == 1 { Some(30) } else { newest };
            proptest::prop_assert_eq!(shown_value, expected, "column {}", column);
        }
        proptest::prop_assert_eq!(row.end_time, Some(30 * S));
    }

    /// Whether the stored row is known before or after the events makes no difference.
    #[test]
    fn reading_late_is_reading_early(
        events in proptest::collection::vec((0i64..20, 0u8..8, 0u8..10), 1..30),
        late in 0usize..30,
    ) {
        let events: Vec<_> = events.into_iter().map(|(time, what, value)| match what {
            0 => began(time),
            1 => ended(time, "completed"),
            2 => ended(time, "failed"),
            3 => update(time, None, |row| row.notes = Some(value.to_string())),
            4 => update(time, None, |row| { row.tags.insert(value.to_string()); }),
            _ => accuracy(time, f64::from(value), i32::from(value)),
        }).collect();
        proptest::prop_assert_eq!(stored(&events, 0, 100), stored(&events, late, 100));
    }
}
