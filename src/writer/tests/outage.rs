//! What ends an outage of runs, and what must not prolong it.

use std::{sync::Arc, time::Duration};

use super::support::*;
use crate::{
    event::{EventRow, Lifecycle, MetricsRow, Row, RunRow, RunUpdate},
    writer::{Config, Content, DecodedRecord, PauseBarrier},
};

/// A start or an end of the run, and its event row.
fn lives(offset: u64, run: u64, lifecycle: Lifecycle) -> DecodedRecord {
    let payload_json = match lifecycle {
        Lifecycle::Start => r#"{"type": "training_start"}"#,
        Lifecycle::End(_) => r#"{"type": "training_end", "status": "failed"}"#,
    };
    let Row::Metrics(MetricsRow { key, .. }) = metrics_row(offset, run) else { panic!() };
    let row = Row::Event(EventRow { key, r#type: String::new(), payload_json: payload_json.into(), epoch: None });
    let update = RunUpdate { event_time: key.timestamp, lifecycle: Some(lifecycle), ..RunUpdate::default() };
    record(offset, vec![row], Some((run_id(run), update)))
}

/// A record of the run that is older than its start and says nothing.
fn older(offset: u64, run: u64) -> DecodedRecord {
    let mut record = metrics(offset, run);
    if let Content::Rows { run_update: Some((_, update)), .. } = &mut record.content {
        (update.event_time, update.values) = (0, Box::default());
    }
    record
}

/// What another process writes of run 0 while this one cannot: the same end.
fn ended_elsewhere(running: &Running, last: i64) {
    let mut state = running.state();
    let row = state.runs.get_mut(&run_id(0)).unwrap();
    (row.end_time, row.duration_seconds, row.status) = (Some(2_000), Some(0), Some("failed".into()));
    row.last_event_time = Some(last);
}

async fn began(all: Vec<DecodedRecord>, changes: Option<u64>) -> Running {
    let store = Arc::<FakeStore>::default();
    store.state.lock().unwrap().outside_changes = changes;
    let mut running =
        start_with(Config::default(), Arc::new(all), store, Arc::default(), Arc::default(), PauseBarrier::At(1));
    running.wait_for_offset(1).await;
    running
}

#[tokio::test(start_paused = true)]
async fn run_rows_go_on_after_an_outage_in_which_another_process_wrote_the_same() {
    for (fault, older_first) in [(Fault::Down, true), (Fault::Misconfigured, true), (Fault::Misconfigured, false)] {
        let mut all = vec![lives(0, 0, Lifecycle::Start), older(1, 0), lives(2, 0, Lifecycle::End("failed"))];
        all.push(if older_first { older(3, 0) } else { metrics(3, 5) });
        all.extend((4..40).map(|n| metrics(n, n % 4 + 1)));
        let mut running = began(all, Some(0)).await;
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        running.state().outside_changes = Some(1);
        tokio::time::sleep(Duration::from_millis(300)).await;
        running.state().run_writes_fault = Some(fault);
        running.pause_barrier.send_replace(PauseBarrier::At(3));
        tokio::time::sleep(Duration::from_secs(3)).await;
        // The run is due to be looked at, and its next record has it looked at first.
        running.pause_barrier.send_replace(PauseBarrier::At(4));
        ended_elsewhere(&running, 2_500);
        tokio::time::sleep(Duration::from_secs(30)).await;
        running.pause_barrier.send_replace(PauseBarrier::None);
        tokio::time::sleep(Duration::from_secs(30)).await;
        running.state().run_writes_fault = None;
        running.wait_for_offset(40).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(*running.problem.borrow(), None, "{fault:?} {older_first}");
        assert_eq!(running.state().runs[&run_id(0)].end_time, Some(2_000));
        assert_eq!(running.state().runs[&run_id(1)].final_epoch, Some(36));
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_with_the_last_row_that_waits_for_it() {
    let mut running =
        began(vec![lives(0, 0, Lifecycle::Start), older(1, 0), lives(2, 0, Lifecycle::End("failed"))], Some(0)).await;
    running.state().run_writes_fault = Some(Fault::Misconfigured);
    running.pause_barrier.send_replace(PauseBarrier::None);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(running.problem.borrow().as_ref().is_some_and(|problem| problem.needs_attention));
    ended_elsewhere(&running, 2_000);
    running.wait_for_offset(3).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(*running.problem.borrow(), None, "nothing is left to be written");
}

#[tokio::test(start_paused = true)]
async fn a_row_of_which_nothing_has_changed_is_not_written() {
    let again = |offset| {
        let mut record = metrics(offset, 0);
        if let Content::Rows { run_update: Some((_, update)), .. } = &mut record.content {
            update.event_time = 1_000;
            *update.values = RunRow { final_epoch: Some(1), ..RunRow::default() };
        }
        record
    };
    let mut running = began(vec![metrics(0, 0), metrics(1, 0), again(2), again(3)], Some(0)).await;
    {
        let mut state = running.state();
        state.runs.clear();
        (state.outside_changes, state.delay) = (Some(1), Duration::from_millis(200));
    }
    running.pause_barrier.send_replace(PauseBarrier::None);
    running.wait_for_offset(4).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let state = running.state();
    let empty =
        state.run_writes.iter().filter(|(_, change, _)| *change == RunRow { run_id: run_id(0), ..RunRow::default() });
    assert_eq!(empty.count(), 0);
    assert_eq!(state.runs[&run_id(0)].final_epoch, Some(1));
}
