//! A run's row that vanishes from the store while the run is remembered.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use super::support::*;
use crate::{
    event::{DatasetRow, EventRow, Lifecycle, MetricsRow, Row, RunRow, RunUpdate},
    writer::{Config, Content, DeadLetterEntry, DecodedRecord, PauseBarrier},
};

const DATASET: Uuid = Uuid::from_u128(77);

/// A start with everything that only a start says.
fn begin(offset: u64, run: u64) -> DecodedRecord {
    let values = RunRow {
        run_name: Some("spiral".into()),
        dataset_name: Some("two spirals".into()),
        config_json: Some("{\"lr\":0.1}".into()),
        notes: Some("first try".into()),
        tags: ["a".to_owned()].into(),
        ..RunRow::default()
    };
    let dataset = DatasetRow { dataset_id: DATASET, name: Some("two spirals".into()), ..DatasetRow::default() };
    let update =
        RunUpdate { event_time: offset as i64 * 1_000, lifecycle: Some(Lifecycle::Start), values: Box::new(values) };
    record(offset, vec![Row::Dataset(dataset)], Some((run_id(run), update)))
}

/// A writer that has taken the first records of `all` and is at rest.
async fn written_and_idle(all: Vec<DecodedRecord>, first: u64, outside_changes: Option<u64>) -> Running {
    let store = Arc::<FakeStore>::default();
    store.state.lock().unwrap().outside_changes = outside_changes;
    let pause_barrier = PauseBarrier::At(first);
    let mut running =
        start_with(Config::default(), Arc::new(all), store, Arc::default(), Arc::default(), pause_barrier);
    running.wait_for_offset(first).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    running
}

#[tokio::test(start_paused = true)]
async fn a_row_that_vanished_is_whole_again_after_the_next_message() {
    for told in [Some(0), None] {
        let mut running =
            written_and_idle(vec![begin(0, 0), metrics(1, 0), metrics(2, 0), metrics(3, 1)], 2, told).await;
        let (whole, dataset) = {
            let mut state = running.state();
            state.outside_changes = told.map(|n| n + 1);
            (state.runs.remove(&run_id(0)).unwrap(), state.datasets.remove(&DATASET).unwrap())
        };
        running.pause_barrier.send_replace(PauseBarrier::None);
        running.wait_for_offset(4).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        let state = running.state();
        let expected = RunRow { final_epoch: Some(2), last_event_time: Some(2_000), ..whole };
        assert_eq!(state.runs.get(&run_id(0)), Some(&expected), "{told:?}");
        assert_eq!(state.datasets.get(&DATASET), Some(&dataset), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stub_of_a_row_gets_back_what_it_lacks_and_keeps_what_others_wrote() {
    let mut running = written_and_idle(vec![begin(0, 0), metrics(1, 0), metrics(2, 0)], 2, None).await;
    let whole = running.state().runs[&run_id(0)].clone();
    let stub = RunRow {
        run_id: run_id(0),
        notes: Some("by hand".into()),
        last_event_time: Some(1_500),
        start_time: Some(900),
        ..RunRow::default()
    };
    running.state().runs.insert(run_id(0), stub);
    running.pause_barrier.send_replace(PauseBarrier::None);
    running.wait_for_offset(3).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let expected =
        RunRow { final_epoch: Some(2), last_event_time: Some(2_000), notes: Some("by hand".into()), ..whole };
    assert_eq!(running.state().runs[&run_id(0)], expected);
}

#[tokio::test(start_paused = true)]
async fn an_entry_of_the_index_and_a_dataset_that_vanished_alone_come_back() {
    for told in [Some(0), None] {
        let mut running = written_and_idle(vec![begin(0, 0), metrics(1, 0)], 1, told).await;
        {
            let mut state = running.state();
            state.missing_in_index.insert(run_id(0));
            state.datasets.clear();
            state.outside_changes = told.map(|n| n + 1);
        }
        running.pause_barrier.send_replace(PauseBarrier::None);
        running.wait_for_offset(2).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        let state = running.state();
        assert_eq!((state.missing_in_index.len(), state.datasets.len()), (0, 1), "{told:?}");
    }
}

/// A start or an end of the run, and its event row.
fn lives(offset: u64, lifecycle: Lifecycle) -> DecodedRecord {
    let payload_json = match lifecycle {
        Lifecycle::Start => r#"{"type": "training_start"}"#,
        Lifecycle::End(_) => r#"{"type": "training_end", "status": "failed"}"#,
    };
    let Row::Metrics(MetricsRow { key, .. }) = metrics_row(offset, 0) else { panic!() };
    let row = Row::Event(EventRow { key, r#type: String::new(), payload_json: payload_json.into(), epoch: None });
    let update = RunUpdate { event_time: key.timestamp, lifecycle: Some(lifecycle), ..RunUpdate::default() };
    record(offset, vec![row], Some((run_id(0), update)))
}

#[tokio::test(start_paused = true)]
async fn the_names_and_the_restart_come_back_with_the_row() {
    for (told, keeps_a_stub) in [(Some(0), false), (None, false), (None, true)] {
        let name = |offset, names: &[&str]| {
            let mut record = metrics(offset, 0);
            if let Content::Rows { rows, .. } = &mut record.content
                && let Row::Metrics(row) = &mut rows[0]
            {
                row.extra = names.iter().map(|name| ((*name).to_owned(), 0.5)).collect();
            }
            record
        };
        let all = vec![
            begin(0, 0),
            name(1, &["a", "poison"]),
            lives(2, Lifecycle::End("failed")),
            lives(3, Lifecycle::Start),
            name(4, &["b"]),
            metrics(5, 0),
        ];
        let mut running = written_and_idle(all, 5, told).await;
        let whole = {
            let mut state = running.state();
            state.outside_changes = told.map(|n| n + 1);
            assert_eq!(state.name_writes.len(), 2);
            state.name_writes.clear();
            let whole = state.runs.remove(&run_id(0)).unwrap();
            if keeps_a_stub {
                let stub = RunRow { run_id: run_id(0), final_epoch: Some(4), ..RunRow::default() };
                state.runs.insert(run_id(0), stub);
            }
            whole
        };
        assert_eq!((whole.restarted_at, whole.end_time, whole.status.as_deref()), (Some(3_000), None, Some("running")));
        running.pause_barrier.send_replace(PauseBarrier::None);
        running.wait_for_offset(6).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        let state = running.state();
        let expected = RunRow { final_epoch: Some(5), last_event_time: Some(5_000), ..whole };
        assert_eq!(state.runs.get(&run_id(0)), Some(&expected), "{told:?} {keeps_a_stub}");
        let names: Vec<_> = state.name_writes.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["a", "b"], "{told:?} {keeps_a_stub}: what was refused is not tried again");
        let entries = running.dead_letters.entries.lock().unwrap();
        assert_eq!(
            entries.keys().collect::<Vec<_>>(),
            [&(1, DeadLetterEntry::RUN_ROW)],
            "under the record that brought it"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_another_process_has_cleared_does_not_come_back() {
    for told in [Some(0), None] {
        let all = vec![begin(0, 0), lives(2, Lifecycle::End("failed")), metrics(5, 0)];
        let mut running = written_and_idle(all, 3, told).await;
        {
            let mut state = running.state();
            state.outside_changes = told.map(|n| n + 1);
            let row = state.runs.get_mut(&run_id(0)).unwrap();
            assert_eq!((row.end_time, row.status.as_deref()), (Some(2_000), Some("failed")));
            (row.end_time, row.duration_seconds) = (None, None);
            (row.restarted_at, row.status) = (Some(4_000), Some("running".into()));
        }
        running.pause_barrier.send_replace(PauseBarrier::None);
        running.wait_for_offset(6).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let state = running.state();
        let row = &state.runs[&run_id(0)];
        assert_eq!((row.end_time, row.restarted_at, row.status.as_deref()), (None, Some(4_000), Some("running")));
        assert_eq!((row.duration_seconds, row.final_epoch, row.last_event_time), (None, Some(5), Some(5_000)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_not_touched_stays_away() {
    let mut running = written_and_idle(vec![begin(0, 0), begin(1, 1), metrics(2, 1)], 2, Some(0)).await;
    {
        let mut state = running.state();
        state.runs.clear();
        state.outside_changes = Some(1);
    }
    running.pause_barrier.send_replace(PauseBarrier::None);
    running.wait_for_offset(3).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(running.state().runs.keys().collect::<Vec<_>>(), [&run_id(1)]);
}

/// What the second message says is known already, so that only what vanished makes it wait.
#[tokio::test(start_paused = true)]
async fn a_record_is_not_passed_before_the_row_that_it_finds_missing_is_back() {
    let again = |offset| {
        let update = RunUpdate { event_time: 0, ..RunUpdate::default() };
        record(offset, vec![metrics_row(offset, 0)], Some((run_id(0), update)))
    };
    let mut running = written_and_idle(vec![begin(0, 0), metrics(1, 1), again(2)], 1, Some(0)).await;
    {
        let mut state = running.state();
        state.runs.clear();
        state.outside_changes = Some(1);
    }
    // Another run's record tells; then the record under test comes while nothing can be written of runs.
    running.pause_barrier.send_replace(PauseBarrier::At(2));
    running.wait_for_offset(2).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!running.state().runs.contains_key(&run_id(0)), "it is not touched yet");
    running.state().runs_fault = Some(Fault::Down);
    running.pause_barrier.send_replace(PauseBarrier::None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(*running.progress.borrow(), 2);
    running.state().runs_fault = None;
    running.wait_for_offset(3).await;
    assert_eq!(running.state().runs[&run_id(0)].run_name.as_deref(), Some("spiral"));
}

#[tokio::test(start_paused = true)]
async fn a_run_is_read_again_at_most_every_five_seconds_and_written_only_when_it_lost_something() {
    let all: Vec<_> = (0..200).map(|n| metrics(n, n % 2)).collect();
    let running = written_and_idle(all, 2, None).await;
    let before = {
        let state = running.state();
        (state.run_reads.len(), state.run_writes.len())
    };
    for end in (4..=200).step_by(2) {
        running.pause_barrier.send_replace(PauseBarrier::At(end));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let state = running.state();
    let reads = state.run_reads.len() - before.0;
    // 49 s: at once, and 10 times more, for two runs.
    assert!((18..=24).contains(&reads), "{reads}");
    let starts = state.run_writes[before.1..].iter().filter(|(_, change, _)| change.start_time.is_some()).count();
    assert_eq!(starts, 0, "nothing was lost");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_busy_runs_share_the_reads() {
    let runs = 5_000;
    let mut all: Vec<_> = (0..runs).map(|n| metrics(n, n)).collect();
    all.extend((0..runs).map(|n| metrics(runs + n, n)));
    let mut running = written_and_idle(all, runs, None).await;
    let before = running.state().run_reads.len();
    running.pause_barrier.send_replace(PauseBarrier::None);
    running.wait_for_offset(2 * runs).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let state = running.state();
    let times: Vec<_> = state.run_reads[before..].iter().map(|(at, _)| *at).collect();
    // Each look is two reads: of the row, and of the index.
    let most =
        times.iter().map(|from| times.iter().filter(|at| (*from..*from + Duration::from_secs(1)).contains(at)).count());
    let most = most.max().unwrap();
    assert!((80..=100).contains(&most), "{most}");
}

#[tokio::test(start_paused = true)]
async fn a_neighbour_that_writes_all_the_time_costs_a_look_every_five_seconds() {
    let all: Vec<_> = (0..400).map(|n| metrics(n, n % 2)).collect();
    let running = written_and_idle(all, 2, Some(0)).await;
    let before = running.state().run_reads.len();
    for end in (4..=400).step_by(2) {
        running.state().outside_changes = Some(end);
        running.pause_barrier.send_replace(PauseBarrier::At(end));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let reads = running.state().run_reads.len() - before;
    // 50 s, two runs.
    assert!((18..=26).contains(&reads), "{reads}");
    // The last change counts, too.
    running.state().runs.clear();
    running.state().outside_changes = Some(1_000);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(running.state().runs.len(), 2, "both were touched just before");
}
