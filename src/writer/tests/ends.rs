//! Stored rows that say that a run has ended, which this process did not see.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::support::*;
use crate::{
    event::{EventRow, Lifecycle, MetricsRow, Row, RunRow, RunUpdate},
    units::Micros,
    writer::{
        Config, Content, DecodedRecord, PauseBarrier,
        run_call::{RunCall, RunRead, StoredRun},
        runs::{RecordUpdate, RunTable},
        summary::Summary,
    },
};

fn update(time: Micros, lifecycle: Option<Lifecycle>) -> RunUpdate {
    RunUpdate { event_time: time, lifecycle, values: Box::default() }
}

/// A run that another process has written, as seen by one that reads it first or knows it already.
fn seen(stored: &RunRow, is_known: bool) -> Box<Summary> {
    let mut summary = Summary::not_loaded(stored.run_id);
    if is_known {
        let before = RunRow { status: Some("running".into()), end_time: None, restarted_at: None, ..stored.clone() };
        summary.merge_stored(Some(before));
    }
    summary.merge_stored(Some(stored.clone()));
    summary
}

fn row(status: &str, end: Option<Micros>, restarted: Option<Micros>) -> RunRow {
    RunRow {
        run_id: run_id(0),
        start_time: Some(1_000),
        last_event_time: Some(90_000),
        status: Some(status.into()),
        end_time: end,
        restarted_at: restarted,
        duration_seconds: end.map(|_| 0),
        ..RunRow::default()
    }
}

fn whole(summary: &Summary) -> RunRow {
    summary.projected(u32::MAX)
}

#[test]
fn a_status_that_a_person_wrote_stays_until_a_start_or_an_end() {
    for (status, is_known) in [("stopped", false), ("failed", true), ("lost", true), ("lost", false)] {
        let stored = row(status, None, None);
        let mut summary = seen(&stored, is_known);
        assert_eq!((summary.dirty, whole(&summary).status), (0, stored.status.clone()), "{is_known}");
        summary.apply(update(95_000, None));
        summary.apply(update(80_000, None));
        summary.merge_stored(Some(stored.clone()));
        assert_eq!((whole(&summary).status, whole(&summary).end_time), (stored.status.clone(), None), "{is_known}");
        let mut again = seen(&stored, is_known);
        again.apply(update(1_000, Some(Lifecycle::Start)));
        assert_eq!(whole(&again).status, stored.status, "it is the start that the row knows");
        summary.apply(update(99_000, Some(Lifecycle::End("completed"))));
        assert_eq!(whole(&summary).status.as_deref(), Some("completed"));
        // Opened again by hand.
        again.merge_stored(Some(row("running", None, None)));
        again.apply(update(99_000, None));
        assert_eq!(whole(&again).status.as_deref(), Some("running"));
    }
}

#[test]
fn a_start_after_a_status_that_a_person_wrote_makes_the_run_run() {
    let mut summary = seen(&row("stopped", None, None), true);
    summary.apply(update(99_000, Some(Lifecycle::Start)));
    if summary.history_request().is_some() {
        summary.apply_history(crate::writer::summary::History::none());
    }
    assert_eq!(whole(&summary).status.as_deref(), Some("running"));
}

#[test]
fn a_row_that_is_stored_as_ended_is_read_as_ended_whatever_its_restart() {
    for is_known in [false, true] {
        for restarted in [5_000, 7_000, 9_000] {
            let stored = row("failed", Some(7_000), Some(restarted));
            let mut summary = seen(&stored, is_known);
            if summary.history_request().is_some() {
                summary.apply_history(crate::writer::summary::History::none());
            }
            summary.apply(update(95_000, None));
            let now = whole(&summary);
            assert_eq!((now.status.as_deref(), now.end_time), (Some("failed"), Some(7_000)), "{restarted} {is_known}");
        }
    }
    // Seen here to the microsecond, ended elsewhere in the same millisecond.
    let mut summary = seen(&row("running", None, None), false);
    summary.apply(update(2_000, Some(Lifecycle::End("failed"))));
    summary.apply(update(7_200, Some(Lifecycle::Start)));
    if summary.history_request().is_some() {
        summary.apply_history(crate::writer::summary::History::none());
    }
    summary.merge_stored(Some(row("completed", Some(7_000), Some(7_000))));
    assert_eq!(whole(&summary).status.as_deref(), Some("completed"));
}

/// An end that gives a final value, with its event row.
fn end(offset: u64) -> DecodedRecord {
    let payload_json = r#"{"type": "training_end", "status": "completed", "final_loss": 0.125, "final_metrics": {"train_loss": 0.125}}"#;
    let Row::Metrics(MetricsRow { key, .. }) = metrics_row(offset, 0) else { panic!() };
    let row = Row::Event(EventRow { key, r#type: String::new(), payload_json: payload_json.into(), epoch: None });
    let values = Box::new(RunRow { final_train_loss: Some(0.125), ..RunRow::default() });
    let update = RunUpdate { event_time: key.timestamp, lifecycle: Some(Lifecycle::End("completed")), values };
    record(offset, vec![row], Some((run_id(0), update)))
}

fn lossy(offset: u64) -> DecodedRecord {
    let mut record = metrics(offset, 0);
    if let Content::Rows { run_update: Some((_, update)), .. } = &mut record.content {
        *update.values = RunRow { final_train_loss: Some(offset as f64), ..RunRow::default() };
    }
    record
}

#[tokio::test(start_paused = true)]
async fn what_an_end_gave_that_another_process_wrote_is_not_changed_by_metrics() {
    for in_one in [true, false] {
        let store = Arc::<FakeStore>::default();
        store.state.lock().unwrap().outside_changes = Some(0);
        let here = Arc::new(vec![lossy(0), lossy(1), lossy(3), lossy(4), lossy(5)]);
        let start = |all, pause_barrier| {
            start_with(Config::default(), all, store.clone(), Arc::default(), Arc::default(), pause_barrier)
        };
        let mut running = start(here, PauseBarrier::At(2));
        running.wait_for_offset(2).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let mut other = start(Arc::new(vec![end(2)]), PauseBarrier::None);
        other.wait_for_offset(3).await;
        assert_eq!(running.state().runs[&run_id(0)].final_train_loss, Some(0.125));
        running.state().outside_changes = Some(1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        if !in_one {
            running.pause_barrier.send_replace(PauseBarrier::At(4));
            running.wait_for_offset(4).await;
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        running.pause_barrier.send_replace(PauseBarrier::None);
        running.wait_for_offset(6).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let row = running.state().runs[&run_id(0)].clone();
        assert_eq!((row.final_train_loss, row.last_event_time), (Some(0.125), Some(5_000)), "{in_one}");
        assert_eq!((row.status.as_deref(), row.end_time), (Some("completed"), Some(2_000)));
    }
}

#[test]
fn an_end_does_not_wait_for_the_second_between_two_writes() {
    let (mut runs, start) = (RunTable::new(10, 1 << 20), Instant::now());
    let at = |ms: u64| start + Duration::from_millis(ms);
    let mut row = RunRow { run_id: run_id(1), ..RunRow::default() };
    let take = |runs: &mut RunTable, lifecycle, token: u64, now| {
        let update = update(1_000 * token as i64, lifecycle);
        assert!(runs.update(run_id(1), RecordUpdate { update, rows: &[], token }, now));
    };
    // Begins the write that is due; `false`: none is.
    let mut begin = |runs: &mut RunTable, now| loop {
        let read = match runs.next_call(now, false) {
            None => return false,
            Some(RunCall::Write(write)) => {
                overlay(&mut row, &write.change);
                return true;
            }
            Some(RunCall::Read { .. }) => {
                RunRead::Row(Box::new(StoredRun { row: Some(row.clone()), ..StoredRun::default() }))
            }
            Some(RunCall::History(..)) => RunRead::History(crate::writer::summary::History::none()),
            Some(RunCall::Names(_)) => RunRead::Names(Vec::new()),
        };
        runs.on_read(run_id(1), read);
    };
    let end = |runs: &mut RunTable, now| runs.on_written(run_id(1), Vec::new(), now).stored;
    take(&mut runs, Some(Lifecycle::Start), 1, at(0));
    assert!(begin(&mut runs, at(0)));
    assert_eq!(end(&mut runs, at(10)), [1]);
    take(&mut runs, None, 2, at(20));
    assert!(runs.due_at(at(20)).unwrap() >= at(1_010));
    take(&mut runs, Some(Lifecycle::End("completed")), 3, at(30));
    assert_eq!(runs.due_at(at(30)), Some(at(110)), "not sooner, however often it begins and ends");
    assert!(!begin(&mut runs, at(109)) && begin(&mut runs, at(110)));
    assert_eq!(end(&mut runs, at(110)), [2, 3]);
    assert!(runs.is_idle(), "its former turn is not waited for");
    take(&mut runs, Some(Lifecycle::End("failed")), 4, at(500));
    assert!(begin(&mut runs, at(500)));
    // It ends once more while that is written.
    take(&mut runs, Some(Lifecycle::End("stopped")), 5, at(501));
    assert_eq!(end(&mut runs, at(505)), [4]);
    assert_eq!(runs.due_at(at(505)), Some(at(605)));
    assert!(begin(&mut runs, at(605)));
    assert_eq!(end(&mut runs, at(605)), [5]);
    // What is left over of former turns is no turn.
    assert!(!begin(&mut runs, at(60_000)) && runs.due_at(at(60_000)).is_none());
}
