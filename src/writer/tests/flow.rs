//! What is written when, while the store works.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use super::support::*;
use crate::{
    event::{ControlRow, EventKey, Row, Table, TopologyRow},
    frame::{Reason, RejectedMessage, Rejection},
    writer::{Config, Content, DeadLetterEntry, DecodedRecord, PauseBarrier},
};

#[tokio::test(start_paused = true)]
async fn batches_are_due_by_rows_bytes_and_age() {
    let records = (0..250).map(|n| record(n, vec![metrics_row(n, 0)], None)).collect();
    let mut running = start(Config::default(), records);
    let took = running.wait_for_offset(250).await;
    assert!(took >= Duration::from_millis(250) && took < Duration::from_millis(300), "{took:?}");
    let sizes: Vec<usize> = running.state().tries.iter().map(|(_, _, rows)| *rows).collect();
    assert_eq!(sizes, [100, 100, 50]);

    let topology = |n: u64, bytes: usize| {
        let key = EventKey { run_id: run_id(0), timestamp: 0, event_id: n as i64 };
        let row = TopologyRow {
            key,
            epoch: None,
            input_size: None,
            output_size: None,
            hidden_units: None,
            total_parameters: None,
            topology_json: "x".repeat(bytes).into(),
            weights_summary: None,
        };
        record(n, vec![Row::Topology(row)], None)
    };
    let records = (0..6).map(|n| topology(n, if n == 3 { 1 << 20 } else { 30_000 })).collect();
    let mut running = start(Config::default(), records);
    running.wait_for_offset(6).await;
    let sizes: Vec<usize> = running.state().tries.iter().map(|(_, _, rows)| *rows).collect();
    assert_eq!(sizes, [2, 1, 1, 2], "a third row would exceed 64 KiB; the huge one travels alone");
}

#[tokio::test(start_paused = true)]
async fn what_has_waited_before_it_is_read_waits_only_for_the_rest_and_is_written_together() {
    for (age_ms, expected_ms) in [(250, 0), (200, 0), (125, 0), (100, 150), (20, 230)] {
        let records = (0..250).map(|n| record(n, vec![metrics_row(n, n % 2)], None)).collect();
        let mut running = start_aged(Config::default(), records, Duration::from_millis(age_ms));
        let took = running.wait_for_offset(250).await.as_millis();
        // By the next look, one age later, the batch would be overdue, or not yet.
        assert!((expected_ms..expected_ms + 10).contains(&took), "{took} ms after {age_ms}");
        let sizes: Vec<usize> = running.state().tries.iter().map(|(_, _, rows)| *rows).collect();
        assert_eq!(sizes, [100, 100, 25, 25], "a batch grows while there is more to read");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_written_in_parallel_within_the_limit() {
    let records: Vec<_> = (0..40_000).map(|n| metrics(n, n % 8)).collect();
    let mut running = start(Config { in_flight: 8, ..Config::default() }, records);
    running.state().delay = Duration::from_millis(10);
    running.wait_for_offset(40_000).await;
    let state = running.state();
    assert_eq!((state.rows.len(), state.in_flight_max), (40_000, 8));
    assert!(state.tries.len() < 420, "{} batches", state.tries.len());
    assert!(state.runs.iter().all(|(_, run)| run.status.as_deref() == Some("running")));
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_a_few_rows_takes_a_part_of_the_place_of_a_full_one() {
    // Rows of each run, runs, and batches at once where the limit is 4.
    for (rows, runs, at_once) in [(1, 300, 32), (12, 100, 32), (13, 100, 16), (50, 40, 8), (99, 20, 4), (100, 20, 4)] {
        let records: Vec<_> = (0..rows * runs).map(|n| metrics(n, n % runs)).collect();
        let mut running = start(Config { in_flight: 4, ..Config::default() }, records);
        running.state().delay = Duration::from_millis(10);
        running.wait_for_offset(rows * runs).await;
        let state = running.state();
        let found = (state.rows.len() as u64, state.tries.len() as u64, state.in_flight_max);
        assert_eq!(found, (rows * runs, runs, at_once), "{rows} rows of each run");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_a_few_large_rows_takes_a_place_by_its_bytes() {
    let config = Config { in_flight: 4, batch_bytes: crate::units::ByteSize(1), ..Config::default() };
    let mut running = start(config, (0..100).map(|n| metrics(n, n)).collect());
    running.state().delay = Duration::from_millis(10);
    running.wait_for_offset(100).await;
    assert_eq!(running.state().in_flight_max, 4);
}

#[tokio::test(start_paused = true)]
async fn the_frontier_waits_for_the_slowest_part() {
    let records: Vec<_> = (0..100).map(|n| metrics(n, 0)).collect();
    let running = start(Config::default(), records);
    running.state().runs_fault = Some(Fault::Down);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(running.state().rows.len(), 100, "event rows do not wait for the run");
    assert_eq!(*running.progress.borrow(), 0, "but their records are not passed");
    running.state().runs_fault = None;
    let mut running = running;
    running.wait_for_offset(100).await;
    assert_eq!(running.checkpoint.committed.load(Ordering::SeqCst), 100);
    assert_eq!(running.state().runs[&run_id(0)].final_epoch, Some(99));
}

#[tokio::test(start_paused = true)]
async fn a_hold_writes_what_is_below_at_once_and_nothing_beyond() {
    let records: Vec<_> = (0..100).map(|n| metrics(n, n % 3)).collect();
    let config = Config { flush_interval: Duration::from_secs(600), ..Config::default() };
    let checkpoint = Arc::default();
    let mut running =
        start_with(config, Arc::new(records), Arc::default(), Arc::default(), checkpoint, PauseBarrier::At(10));
    assert!(running.wait_for_offset(10).await < Duration::from_millis(50));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((running.state().rows.len(), *running.progress.borrow()), (10, 10));
    running.pause_barrier.send_replace(PauseBarrier::At(20));
    assert!(running.wait_for_offset(20).await < Duration::from_millis(50), "runs do not wait for their second either");
    running.pause_barrier.send_replace(PauseBarrier::None);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(running.state().rows.len(), 20, "without a hold the batch waits for its age");
    running.flush_to.send_replace(100);
    assert!(running.wait_for_offset(100).await < Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn a_run_row_is_written_at_once_then_once_a_second() {
    let records: Vec<_> = (0..60).map(|n| metrics(n, 0)).collect();
    let mut running = start_with(
        Config::default(),
        Arc::new(records),
        Arc::default(),
        Arc::default(),
        Arc::default(),
        PauseBarrier::At(0),
    );
    for n in 1..=60u64 {
        running.pause_barrier.send_replace(PauseBarrier::None);
        running.pause_barrier.send_replace(PauseBarrier::At(n));
        running.wait_for_offset(n).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let held = running.state().run_writes.len();
    assert_eq!(held, 60, "who waits for the frontier does not wait for the second");
    let records: Vec<_> = (0..20_000).map(|n| metrics(n, 0)).collect();
    let mut running = start(Config::default(), records);
    running.state().delay = Duration::from_millis(100);
    running.wait_for_offset(20_000).await;
    let state = running.state();
    for pair in state.run_writes.windows(2) {
        assert!(pair[1].0 - pair[0].0 >= Duration::from_secs(1));
    }
    assert!(state.run_writes.len() >= 2, "first at once, then what came since");
    let later = &state.run_writes[1].1;
    assert_eq!((later.start_time, later.status.as_deref()), (None, None), "only what changed");
}

#[tokio::test(start_paused = true)]
async fn rejected_messages_become_dead_letters_before_they_are_passed() {
    let (rejected, kept) = RejectedMessage::new(Rejection { reason: Reason::MalformedJson, detail: "x".into() }, b"{");
    let content =
        Content::Rejected { channel: "c".into(), rejected, preserved: kept.to_vec().into(), run_id: uuid::Uuid::nil() };
    let records = vec![
        metrics(0, 0),
        DecodedRecord { offset: 1, received_at: 5, content },
        DecodedRecord { offset: 4, received_at: 6, content: Content::Nothing },
    ];
    let mut running = start(Config::default(), records);
    running.dead_letters.full.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(*running.progress.borrow(), 1, "not durable yet");
    running.dead_letters.full.store(false, Ordering::SeqCst);
    running.wait_for_offset(5).await;
    let entries = running.dead_letters.entries.lock().unwrap();
    assert_eq!(entries.keys().copied().collect::<Vec<_>>(), [(1, DeadLetterEntry::WHOLE_RECORD)]);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_written_after_its_command() {
    let row = |n: u64, outcome: Option<&str>| {
        Row::Control(ControlRow {
            timestamp: (n / 2) as i64,
            event_id: 1,
            instance: "i".into(),
            command: "pause".into(),
            command_id: None,
            target: None,
            source: "redis".into(),
            outcome: outcome.map(Into::into),
            payload_json: "{}".into(),
        })
    };
    let records = (0..100).map(|n| record(n, vec![row(n, (n % 2 == 1).then_some("done"))], None)).collect();
    let mut running = start(Config { batch_rows: 1, ..Config::default() }, records);
    running.state().random_faults = Some((7, 80));
    running.wait_for_offset(100).await;
    let state = running.state();
    assert_eq!(state.rows.len(), 50);
    for row in state.rows.values() {
        assert!(matches!(row, Row::Control(row) if row.outcome.as_deref() == Some("done")));
    }
    assert!(state.tries.iter().all(|(_, table, _)| *table == Table::Control));
    assert_eq!(state.in_flight_max, 1);
}

#[tokio::test(start_paused = true)]
async fn stopping_writes_what_is_gathered() {
    let records: Vec<_> = (0..30).map(|n| metrics(n, n % 3)).collect();
    let config = Config { flush_interval: Duration::from_secs(600), ..Config::default() };
    let mut running = start(config, records);
    running.state().delay = Duration::from_millis(10);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(running.state().rows.len(), 0);
    running.stopper.stop();
    running.task.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!((running.state().rows.len(), *running.progress.borrow()), (30, 30));
}
