//! Crashes at any moment, with a store that fails by chance: after the last replay the tables are what they would have been.

use std::{collections::HashMap, sync::Arc, sync::atomic::Ordering, time::Duration};

use super::{merge, support::*};
use crate::{
    event::{EventRow, Lifecycle, Row, RunRow, RunUpdate},
    writer::{Config, Content, DecodedRecord, PauseBarrier},
};

fn log(kinds: &[(u8, u8)]) -> Vec<DecodedRecord> {
    let record = |(index, (run, what)): (usize, &(u8, u8))| {
        let offset = index as u64 * 2;
        let mut record = metrics(offset, u64::from(*run));
        if let Content::Rows { rows, run_update: Some((_, update)) } = &mut record.content {
            let (lifecycle, payload) = match what {
                0 => (Some(Lifecycle::Start), r#"{"type": "training_start"}"#.to_owned()),
                1 => (
                    Some(Lifecycle::End("completed")),
                    format!(r#"{{"type": "training_end", "status": "completed", "epoch": {offset}}}"#),
                ),
                _ => (None, String::new()),
            };
            update.lifecycle = lifecycle;
            if *what == 0 {
                update.values.final_epoch = None;
            }
            if let (Some(_), Row::Metrics(row)) = (lifecycle, &rows[0]) {
                let (key, epoch) = (row.key, update.values.final_epoch);
                rows[0] = Row::Event(EventRow { key, r#type: String::new(), payload_json: payload.into(), epoch });
            }
            update.values.final_val_accuracy = (*what > 4).then(|| f64::from(*what) / 16.0);
            if let Row::Metrics(row) = &mut rows[0] {
                (row.columns.train_loss, row.columns.val_accuracy) = (None, update.values.final_val_accuracy);
            }
            update.values.tags.extend((*what == 3).then(|| format!("tag{index}")));
        }
        record
    };
    kinds.iter().enumerate().map(record).collect()
}

fn expected_runs(log: &[DecodedRecord]) -> HashMap<uuid::Uuid, RunRow> {
    let mut updates: HashMap<_, Vec<RunUpdate>> = HashMap::new();
    for record in log {
        if let Content::Rows { run_update: Some((run_id, update)), .. } = &record.content {
            updates.entry(*run_id).or_default().push(update.clone());
        }
    }
    updates
        .into_iter()
        .map(|(run_id, updates)| (run_id, RunRow { run_id, ..merge::stored(&updates, 0, 1_000) }))
        .collect()
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn any_crashes_and_failures_end_in_the_same_tables(
        kinds in proptest::collection::vec((0u8..5, 0u8..12), 1..300),
        crashes in proptest::collection::vec(1u64..3_000, 0..5),
        seed in 0u64..1_000_000,
        batch_rows in 1usize..40,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let log = Arc::new(log(&kinds));
            let end = log.last().unwrap().offset + 1;
            let (store, dead_letters, checkpoint) = (Arc::<FakeStore>::default(), Arc::default(), Arc::<FakeCheckpoint>::default());
            store.state.lock().unwrap().random_faults = Some((seed, 60));
            let config = Config { batch_rows, ..Config::default() };
            let start = || {
                let committed = checkpoint.committed.load(Ordering::SeqCst);
                checkpoint.checkpoint.store(committed, Ordering::SeqCst);
                start_with(config.clone(), log.clone(), store.clone(), Arc::clone(&dead_letters), checkpoint.clone(), PauseBarrier::None)
            };
            for crash in crashes {
                let mut running = start();
                tokio::time::sleep(Duration::from_millis(crash)).await;
                running.task.abort_all();
                while running.task.join_next().await.is_some() {}
            }
            start().wait_for_offset(end).await;
            let state = store.state.lock().unwrap();
            assert_eq!(state.rows.len(), log.len());
            assert_eq!(state.runs, expected_runs(&log));
        });
    }
}
