//! Deleted runs: what was received before is skipped, what was received later is written.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use uuid::Uuid;

use super::support::*;
use crate::{
    event::Row,
    units::Micros,
    writer::{Config, DecodedRecord, PauseBarrier},
};

/// Metrics of the runs 0 and 1 in turn, received at 1, 2, 3, …
fn records(count: u64) -> Vec<DecodedRecord> {
    (0..count).map(|n| DecodedRecord { received_at: n as Micros + 1, ..metrics(n, n % 2) }).collect()
}

fn run(n: u64) -> Uuid {
    match &metrics(0, n).content {
        crate::writer::Content::Rows { run_update: Some((run_id, _)), .. } => *run_id,
        other => panic!("{other:?}"),
    }
}

fn stored(running: &Running, run_id: Uuid) -> usize {
    running.state().rows.values().filter(|row| matches!(row, Row::Metrics(row) if row.key.run_id == run_id)).count()
}

#[tokio::test(start_paused = true)]
async fn records_received_up_to_the_deletion_are_skipped_and_later_ones_begin_the_run_anew() {
    let store = Arc::<FakeStore>::default();
    store.state.lock().unwrap().deletions.insert(run(0), 50);
    let all = Arc::new(records(100));
    let mut running =
        start_with(Config::default(), all, Arc::clone(&store), Arc::default(), Arc::default(), PauseBarrier::None);
    running.wait_for_offset(100).await;
    // Run 0 has the records 0, 2, …, 98, received at 1, 3, …, 99.
    assert_eq!((stored(&running, run(0)), stored(&running, run(1))), (25, 50));
    let reads = running.state().deletion_reads;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!((11..=13).contains(&(running.state().deletion_reads - reads)), "every five seconds");
}

#[tokio::test(start_paused = true)]
async fn a_run_deleted_while_its_records_are_held_is_not_written_again() {
    let all = Arc::new(records(100));
    let checkpoint = Arc::<FakeCheckpoint>::default();
    let mut running = start_with(
        Config::default(),
        all,
        Arc::default(),
        Arc::default(),
        Arc::clone(&checkpoint),
        PauseBarrier::At(50),
    );
    running.wait_for_offset(50).await;
    assert_eq!(stored(&running, run(0)), 25);
    {
        // As another process deletes it; the store may report that, or not.
        let mut state = running.state();
        state.rows.retain(|_, row| !matches!(row, Row::Metrics(row) if row.key.run_id == run(0)));
        state.runs.remove(&run(0));
        state.deletions.insert(run(0), 80);
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    running.pause_barrier.send_replace(PauseBarrier::None);
    running.wait_for_offset(100).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((stored(&running, run(0)), stored(&running, run(1))), (10, 50));
    let row = running.state().runs[&run(0)].clone();
    assert_eq!(row.final_epoch, Some(98), "{row:?}");
    assert_eq!(running.store.restarts.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_recent_read_of_the_deletions_nothing_is_written() {
    let all = Arc::new(records(100));
    let mut running =
        start_with(Config::default(), all, Arc::default(), Arc::default(), Arc::default(), PauseBarrier::At(50));
    running.wait_for_offset(50).await;
    running.state().deletions_fault = true;
    tokio::time::sleep(Duration::from_secs(8)).await;
    running.pause_barrier.send_replace(PauseBarrier::None);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(*running.progress.borrow(), 50);
    let problem = running.problem.borrow().clone().expect("it says what holds it");
    assert_eq!(problem.holds, "deletions");
    running.state().deletions_fault = false;
    assert!(running.wait_for_offset(100).await <= Duration::from_secs(2));
    assert_eq!(*running.problem.borrow(), None);
}
