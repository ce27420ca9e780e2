//! What happens when the store fails, refuses or forgets.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;

use super::support::*;
use crate::event::{RunRow, RunUpdate};
use crate::writer::{
    Config, DeadLetterBody, DeadLetterEntry,
    run_call::{RunCall, RunRead, StoredRun},
    runs::{RecordUpdate, RunTable},
};

#[tokio::test(start_paused = true)]
async fn an_outage_holds_the_writer_and_loses_nothing() {
    let records: Vec<_> = (0..5_000).map(|n| metrics(n, n % 4)).collect();
    let mut running = start(Config::default(), records);
    {
        let mut state = running.state();
        state.rows_fault = Some(Fault::Down);
        state.runs_fault = Some(Fault::Down);
        state.delay = Duration::from_millis(5);
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let tries = {
        let state = running.state();
        state.tries.len() + state.deletion_reads
    };
    assert!((60..150).contains(&tries), "{tries} tries in a minute");
    assert!(*running.progress.borrow() == 0);
    {
        let mut state = running.state();
        state.rows_fault = None;
        state.runs_fault = None;
    }
    let took = running.wait_for_offset(5_000).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(running.state().rows.len(), 5_000);
}

#[tokio::test(start_paused = true)]
async fn what_a_person_must_mend_is_tried_once_a_second() {
    let records: Vec<_> = (0..10).map(|n| metrics(n, 0)).collect();
    let mut running = start(Config::default(), records);
    running.state().rows_fault = Some(Fault::Misconfigured);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let tries = running.state().tries.len();
    assert!((9..=11).contains(&tries), "{tries}");
    assert!(running.dead_letters.entries.lock().unwrap().is_empty(), "nothing is set aside for a missing table");
    let problem = running.problem.borrow().clone().expect("it says what holds it");
    assert_eq!((problem.holds, problem.needs_attention, problem.reason.as_str()), ("rows", true, "no such table"));
    running.state().rows_fault = None;
    assert!(running.wait_for_offset(10).await <= Duration::from_secs(2));
    assert_eq!(*running.problem.borrow(), None);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_batch_is_halved_down_to_its_bad_rows() {
    let records: Vec<_> = (0..200).map(|n| metrics(n, 0)).collect();
    let mut running = start(Config::default(), records);
    running.state().poison.extend([17, 64, 150]);
    running.wait_for_offset(200).await;
    assert_eq!(running.state().rows.len(), 197);
    let entries = running.dead_letters.entries.lock().unwrap();
    assert_eq!(entries.keys().copied().collect::<Vec<_>>(), [(17, 0), (64, 0), (150, 0)]);
    assert!(matches!(&entries[&(17, 0)].body, DeadLetterBody::Refused { error, .. } if error == "poison"));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_column_of_a_run_does_not_take_the_others_with_it() {
    let mut bad = metrics(0, 0);
    if let crate::writer::Content::Rows { run_update: Some((_, update)), .. } = &mut bad.content {
        update.values.notes = Some("poison".into());
    }
    let mut running = start(Config::default(), vec![bad, metrics(1, 0)]);
    running.wait_for_offset(2).await;
    let state = running.state();
    let row = &state.runs[&run_id(0)];
    assert_eq!((row.notes.as_deref(), row.final_epoch, row.start_time), (None, Some(1), Some(0)));
    assert!(running.dead_letters.entries.lock().unwrap().keys().all(|(_, part)| *part == DeadLetterEntry::RUN_ROW));
    assert_eq!(running.dead_letters.entries.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn with_the_store_down_stopping_is_prompt() {
    let records: Vec<_> = (0..1_000).map(|n| metrics(n, 0)).collect();
    let mut running = start(Config::default(), records);
    running.state().rows_fault = Some(Fault::Down);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let began = Instant::now();
    running.stopper.stop();
    running.task.join_next().await.unwrap().unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_of_the_store_everything_since_the_checkpoint_is_written_again() {
    let records: Vec<_> = (0..500).map(|n| metrics(n, n % 2)).collect();
    let mut running = start(Config::default(), records);
    running.wait_for_offset(500).await;
    running.checkpoint.checkpoint.store(100, Ordering::SeqCst);
    running.state().rows.clear();
    running.state().runs.clear();
    running.store.restarts.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((running.state().rows.len(), *running.progress.borrow()), (400, 500));
    assert_eq!(running.state().runs.len(), 2, "runs are read and written again");
    assert_eq!(running.checkpoint.committed.load(Ordering::SeqCst), 500);
}

#[tokio::test(start_paused = true)]
async fn many_runs_of_one_event_each_make_progress() {
    let records: Vec<_> = (0..30_000).map(|n| metrics(n, n)).collect();
    let mut running = start(Config::default(), records);
    running.state().delay = Duration::from_millis(1);
    running.wait_for_offset(30_000).await;
    let state = running.state();
    assert_eq!((state.rows.len(), state.runs.len()), (30_000, 30_000));
}

#[test]
fn a_lower_best_does_not_replace_what_another_process_has_written() {
    let (mut runs, now) = (RunTable::new(10, 1 << 20), Instant::now());
    let accuracy = |time: i64, best: f64, epoch: i32, tag: &str| RunUpdate {
        event_time: time,
        lifecycle: None,
        values: Box::new(RunRow {
            final_val_accuracy: Some(best),
            final_epoch: Some(epoch),
            tags: [tag.to_owned()].into(),
            ..RunRow::default()
        }),
    };
    let mut row = RunRow { run_id: run_id(1), ..RunRow::default() };
    let mut step = |row: &mut RunRow, update: RunUpdate, token: u64, at: Instant| {
        assert!(runs.update(run_id(1), RecordUpdate { update, rows: &[], token }, at));
        let mut free = Vec::new();
        while free.is_empty() {
            match runs.next_call(at, true).expect("something is to be done") {
                RunCall::Read { run_id, .. } => {
                    free = runs.on_read(
                        run_id,
                        RunRead::Row(Box::new(StoredRun { row: Some(row.clone()), ..StoredRun::default() })),
                    );
                }
                RunCall::History(..) | RunCall::Names(_) => panic!("nothing of it is in doubt"),
                RunCall::Write(write) => {
                    overlay(row, &write.change);
                    free = runs.on_written(run_id(1), Vec::new(), at).stored;
                }
            }
        }
        assert_eq!(free, [token]);
    };
    step(&mut row, accuracy(10, 0.80, 1, "a"), 1, now);
    // A replay of dead letters, beside the daemon.
    (row.best_val_accuracy, row.best_epoch) = (Some(0.95), Some(7));
    row.tags.insert("b".into());
    (row.start_time, row.last_event_time) = (Some(5), Some(15));
    step(&mut row, accuracy(12, 0.85, 2, "c"), 2, now);
    assert_eq!((row.best_val_accuracy, row.best_epoch), (Some(0.95), Some(7)));
    assert_eq!(row.tags.iter().map(String::as_str).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!((row.start_time, row.last_event_time), (Some(5), Some(15)));
    step(&mut row, accuracy(20, 0.97, 9, "a"), 3, now);
    assert_eq!((row.best_val_accuracy, row.best_epoch, row.tags.len()), (Some(0.97), Some(9), 3), "a higher one does");
}

#[tokio::test(start_paused = true)]
async fn a_million_runs_are_not_remembered() {
    let mut runs = RunTable::new(1_000, 1 << 20);
    let now = Instant::now();
    for n in 0..1_000_000u64 {
        assert!(runs.has_room());
        let update = RunUpdate { event_time: n as i64, ..RunUpdate::default() };
        assert!(runs.update(run_id(n), RecordUpdate { update, rows: &[], token: n }, now));
        assert!(runs.next_call(now, false).is_some());
        assert!(runs.on_read(run_id(n), RunRead::Row(Box::default())).is_empty());
        assert!(runs.next_call(now, false).is_some());
        assert_eq!(runs.on_written(run_id(n), Vec::new(), now).stored, [n]);
    }
    assert!(runs.len() <= 1_000);
}
