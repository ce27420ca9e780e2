//! The names of a run's other numbers, through the writer.

use std::{sync::Arc, sync::atomic::Ordering};

use super::support::*;
use crate::{
    event::Row,
    store::METRIC_NAMES_MAX,
    writer::{Config, Content, DecodedRecord, PauseBarrier},
};

/// Metrics whose other numbers have these names.
fn named(offset: u64, run: u64, names: &[&str]) -> DecodedRecord {
    let mut record = metrics(offset, run);
    if let Content::Rows { rows, .. } = &mut record.content
        && let Row::Metrics(row) = &mut rows[0]
    {
        row.extra = names.iter().map(|name| ((*name).to_owned(), 0.5)).collect();
    }
    record
}

/// What was written of a run, in order.
fn written(running: &Running, run: u64) -> Vec<String> {
    running.state().name_writes.iter().filter(|(id, _)| *id == run_id(run)).map(|(_, name)| name.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_record_is_passed_when_its_names_are_written() {
    let mut records: Vec<_> = (0..10).map(|n| named(n, 0, &["a", "b"])).collect();
    records.extend((10..500).map(|n| named(n, n % 2, &["a", "c"])));
    let mut running = start(Config::default(), records.clone());
    running.state().runs_fault = Some(Fault::Down);
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert_eq!(*running.progress.borrow(), 0, "the names of the first record are not written");
    running.state().runs_fault = None;
    running.wait_for_offset(500).await;
    assert_eq!(
        (written(&running, 0), written(&running, 1)),
        (vec!["a".into(), "b".into(), "c".into()], vec!["a".into(), "c".into()])
    );
    // The process starts again in the middle and reads the log once more: only what is new is written.
    running.task.abort_all();
    while running.task.join_next().await.is_some() {}
    records.push(named(500, 0, &["c", "d"]));
    running.checkpoint.checkpoint.store(100, Ordering::SeqCst);
    let (store, dead_letters) = (running.store.clone(), running.dead_letters.clone());
    let mut running = start_with(
        Config::default(),
        Arc::new(records),
        store,
        dead_letters,
        running.checkpoint.clone(),
        PauseBarrier::None,
    );
    running.wait_for_offset(501).await;
    assert_eq!(written(&running, 0), ["a", "b", "c", "d"]);
    assert_eq!(written(&running, 1), ["a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn the_first_names_stay_and_a_refused_one_costs_no_other() {
    let all: Vec<String> = (0..METRIC_NAMES_MAX + 50).map(|n| format!("name-{n:05}")).collect();
    let records = all.chunks(7).enumerate().map(|(at, names)| {
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        if at == 3 {
            names[0] = "poison";
        }
        named(at as u64, 0, &names)
    });
    let records: Vec<_> = records.collect();
    let end = records.len() as u64;
    let mut running = start(Config::default(), records);
    running.wait_for_offset(end).await;
    let written = written(&running, 0);
    assert_eq!(written.len(), METRIC_NAMES_MAX - 1, "all but the refused one");
    assert!(written.contains(&all[0]) && !written.contains(&all[METRIC_NAMES_MAX + 49]));
    assert_eq!(running.dead_letters.entries.lock().unwrap().len(), 1);
    assert_eq!(running.state().rows.len() as u64, end, "every row is stored");
}

#[tokio::test(start_paused = true)]
async fn many_runs_with_many_names_are_remembered_together() {
    let (runs, names) = (600, (0..512).map(|n| format!("validation/metric-{n:04}")).collect::<Vec<_>>());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let all: Vec<_> = (0..2 * runs).map(|n| named(n, n % runs, &names)).collect();
    let store = Arc::<super::fake::FakeStore>::default();
    store.state.lock().unwrap().outside_changes = Some(0);
    let mut running =
        start_with(Config::default(), Arc::new(all), store, Arc::default(), Arc::default(), PauseBarrier::At(0));
    // Names that are not written yet count otherwise.
    for end in (100..=runs).step_by(100) {
        running.pause_barrier.send_replace(PauseBarrier::At(end));
        running.wait_for_offset(end).await;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
    let before = running.state().run_reads.len();
    running.pause_barrier.send_replace(PauseBarrier::None);
    running.wait_for_offset(2 * runs).await;
    assert_eq!(running.state().run_reads.len(), before, "none was forgotten");
}
