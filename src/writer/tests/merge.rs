//! Every rule by which a run's row is merged.

use crate::{
    event::{Lifecycle, RunRow, RunTouch},
    units::Micros,
    writer::{
        summary::Summary,
        tests::support::{overlay, run_id},
    },
};

const S: Micros = 1_000_000;

fn touch(time: Micros, lifecycle: Option<Lifecycle>, fill: impl FnOnce(&mut RunRow)) -> RunTouch {
    let mut values = Box::<RunRow>::default();
    fill(&mut values);
    RunTouch { event_time: time * S, lifecycle, values }
}

fn seen(time: Micros) -> RunTouch {
    touch(time, None, |_| ())
}

fn began(time: Micros) -> RunTouch {
    touch(time, Some(Lifecycle::Start), |_| ())
}

fn ended(time: Micros, how: &'static str) -> RunTouch {
    touch(time, Some(Lifecycle::End(how)), |_| ())
}

fn accuracy(time: Micros, value: f64, epoch: i32) -> RunTouch {
    touch(time, None, |row| {
        row.final_val_accuracy = Some(value);
        row.final_epoch = Some(epoch);
    })
}

/// What is stored after these events, with the stored row known after `late` of them, and read again after each `restart`.
pub fn stored(events: &[RunTouch], late: usize, restart: usize) -> RunRow {
    let mut stored: Option<RunRow> = None;
    let mut summary = Summary::unknown(run_id(0));
    for (index, event) in events.iter().enumerate() {
        if index % restart == late % restart {
            summary.load(stored.clone());
        }
        summary.apply(event.clone());
        if summary.is_loaded() {
            let columns = summary.take_dirty();
            overlay(stored.get_or_insert_default(), &summary.change(columns));
        }
        if index % restart == restart - 1 {
            summary.load(stored.clone());
            let columns = summary.take_dirty();
            overlay(stored.get_or_insert_default(), &summary.change(columns));
            summary = Summary::unknown(run_id(0));
        }
    }
    summary.load(stored.clone());
    let columns = summary.take_dirty();
    let mut row = stored.unwrap_or_default();
    overlay(&mut row, &summary.change(columns));
    row
}

type Check = fn(&RunRow) -> bool;

#[test]
fn rows_are_merged_by_value() {
    let cases: Vec<(&str, Vec<RunTouch>, Check)> = vec![
        ("the first event creates a running run", vec![seen(5), seen(7)], |row| {
            row.start_time == Some(5 * S) && row.status.as_deref() == Some("running") && row.end_time.is_none()
        }),
        ("an earlier start moves the start", vec![seen(5), began(2)], |row| row.start_time == Some(2 * S)),
        ("a later start does not", vec![seen(5), began(9)], |row| row.start_time == Some(5 * S)),
        ("an earlier plain event does not", vec![seen(5), seen(1)], |row| row.start_time == Some(5 * S)),
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
            row.status.as_deref() == Some("running") && row.start_time == Some(S)
        }),
        (
            "and the old end does not end it twice",
            vec![ended(11, "completed"), began(20), ended(11, "failed")],
            |row| row.status.as_deref() == Some("running"),
        ),
        (
            "the best is kept with its epoch",
            vec![accuracy(1, 0.9, 3), accuracy(2, 0.8, 4), accuracy(3, f64::NAN, 5)],
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
                    touch(1, None, |row| {
                        row.tags.insert(tag.into());
                    })
                })
                .to_vec(),
            |row| row.tags.iter().map(String::as_str).eq(["a", "b"]),
        ),
        (
            "the newest text wins, an older one fills a hole",
            vec![
                touch(5, None, |row| row.notes = Some("new".into())),
                touch(3, None, |row| (row.notes, row.created_by) = (Some("old".into()), Some("me".into()))),
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
fn what_says_nothing_new_changes_nothing() {
    let mut summary = Summary::unknown(run_id(0));
    summary.load(None);
    assert!(summary.apply(accuracy(5, f64::NAN, 1)));
    summary.take_dirty();
    assert!(!summary.apply(accuracy(5, f64::NAN, 1)));
    assert!(!summary.apply(seen(4)));
    assert_eq!(summary.dirty(), 0);
}

proptest::proptest! {
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
            3 => touch(time, None, |row| row.notes = Some(value.to_string())),
            4 => touch(time, None, |row| { row.tags.insert(value.to_string()); }),
            _ => accuracy(time, f64::from(value), i32::from(value)),
        }).collect();
        proptest::prop_assert_eq!(stored(&events, 0, 100), stored(&events, late, 100));
    }
}
