//! Which record a refused value of a run's row is blamed on.

use std::sync::Arc;

use super::support::*;
use crate::{
    event::{EventKey, EventRow, Lifecycle, MetricsRow, Row, RunRow, RunUpdate},
    writer::{Config, Content, DeadLetterBody, DeadLetterEntry, DecodedRecord, PauseBarrier, summary::Summary},
};

fn metrics_with(offset: u64, fill: impl FnOnce(&mut RunRow)) -> DecodedRecord {
    let mut values = Box::<RunRow>::default();
    fill(&mut values);
    let lifecycle = (offset == 0).then_some(Lifecycle::Start);
    let update = RunUpdate { event_time: offset as i64 * 1_000, lifecycle, values };
    record(offset, vec![metrics_row(offset, 0)], Some((run_id(0), update)))
}

fn dead_letter_keys(running: &Running) -> Vec<(u64, u32)> {
    running.dead_letters.entries.lock().unwrap().keys().copied().collect()
}

fn poison() -> Option<String> {
    Some("poison".to_owned())
}

#[tokio::test(start_paused = true)]
async fn the_record_whose_value_is_refused_is_set_aside_however_many_came_after_it() {
    let all = vec![
        metrics_with(0, |row| (row.config_json, row.run_name) = (poison().map(Into::into), Some("spiral".into()))),
        metrics(1, 0),
        metrics_with(2, |row| row.notes = poison()),
        metrics_with(3, |row| row.tags = ["good".to_owned()].into()),
        metrics_with(4, |row| row.tags = ["poisonous".to_owned(), "fair".to_owned()].into()),
        metrics_with(5, |row| row.tags = ["last".to_owned()].into()),
        metrics(6, 0),
    ];
    let mut running = start(Config::default(), all);
    running.wait_for_offset(7).await;
    assert_eq!(
        dead_letter_keys(&running),
        [(0, DeadLetterEntry::RUN_ROW), (2, DeadLetterEntry::RUN_ROW), (4, DeadLetterEntry::RUN_ROW)]
    );
    let state = running.state();
    let row = &state.runs[&run_id(0)];
    assert_eq!((row.run_name.as_deref(), row.final_epoch, row.start_time), (Some("spiral"), Some(6), Some(0)));
    assert_eq!((&row.config_json, &row.notes), (&None, &None));
    assert_eq!(row.tags.iter().map(String::as_str).collect::<Vec<_>>(), ["fair", "good", "last"]);
    let entries = running.dead_letters.entries.lock().unwrap();
    let DeadLetterBody::Refused { row, error, .. } = &entries[&(4, DeadLetterEntry::RUN_ROW)].body else { panic!() };
    assert_eq!((row.as_str(), error.as_str()), ("tag \"poisonous\"", "poison"));
}

#[tokio::test(start_paused = true)]
async fn neither_an_older_value_nor_a_wait_for_the_history_moves_the_blame() {
    let dated = |offset, time: i64, fill: fn(&mut RunRow)| {
        let mut record = metrics_with(offset, fill);
        if let Content::Rows { rows, run_update: Some((_, update)) } = &mut record.content
            && let Row::Metrics(MetricsRow { key, .. }) = &rows[0]
        {
            update.event_time = time * 1_000;
            update.lifecycle = (offset == 1).then_some(Lifecycle::Start);
            let key = EventKey { timestamp: update.event_time, ..*key };
            let payload_json = r#"{"type": "training_start", "created_by": "me"}"#.to_owned();
            if offset == 1 {
                rows[0] =
                    Row::Event(EventRow { key, r#type: String::new(), payload_json: payload_json.into(), epoch: None });
            }
        }
        record
    };
    let all = vec![
        metrics_with(0, |row| row.notes = Some("first".into())),
        dated(1, 50, |row| row.created_by = Some("me".into())),
        // From here on of a run that has been forgotten: what is older than its row waits for the history.
        dated(2, 40, |row| row.created_by = Some("her".into())),
        dated(3, 45, |row| row.notes = poison()),
        dated(4, 30, |row| row.notes = Some("older".into())),
        dated(5, 20, |row| row.tags = ["poisonous".to_owned()].into()),
        dated(6, 60, |row| row.final_train_loss = Some(0.5)),
    ];
    let (all, store, dead_letters) = (Arc::new(all), Arc::<FakeStore>::default(), Arc::<FakeDeadLetters>::default());
    let mut running = start_with(
        Config::default(),
        all.clone(),
        store.clone(),
        dead_letters.clone(),
        Arc::default(),
        PauseBarrier::At(2),
    );
    running.wait_for_offset(2).await;
    drop(running);
    let checkpoint = Arc::<FakeCheckpoint>::default();
    checkpoint.checkpoint.store(2, std::sync::atomic::Ordering::SeqCst);
    let mut running = start_with(Config::default(), all, store, dead_letters, checkpoint, PauseBarrier::None);
    running.wait_for_offset(7).await;
    assert_eq!(dead_letter_keys(&running), [(3, DeadLetterEntry::RUN_ROW), (5, DeadLetterEntry::RUN_ROW)]);
    let state = running.state();
    let row = &state.runs[&run_id(0)];
    assert_eq!((row.created_by.as_deref(), row.final_train_loss, row.tags.len()), (Some("me"), Some(0.5), 0));
}

#[test]
fn a_refused_final_value_gives_way_to_the_next_and_is_not_restored() {
    let update = |time, lifecycle, loss| {
        let values = Box::new(RunRow { final_train_loss: Some(loss), ..RunRow::default() });
        RunUpdate { event_time: time, lifecycle, values }
    };
    let mut summary = Summary::not_loaded(run_id(0));
    summary.merge_stored(None);
    summary.apply(update(1, Some(Lifecycle::Start), 0.5));
    summary.apply(update(2, Some(Lifecycle::End("completed")), 0.1));
    let columns = std::mem::take(&mut summary.dirty);
    let column = (0..13).map(|bit| 1 << bit).find(|bit| summary.projected(*bit).final_train_loss.is_some()).unwrap();
    assert_eq!((columns & column, summary.projected(column).final_train_loss), (column, Some(0.1)));
    summary.discard_refused(column);
    assert_eq!((summary.dirty, summary.projected(column).final_train_loss), (column, Some(0.5)), "what metrics said");
    std::mem::take(&mut summary.dirty);
    summary.discard_refused(column);
    assert_eq!((summary.dirty, summary.projected(column).final_train_loss), (0, None));
    assert!(summary.restore(None));
    assert_eq!(summary.dirty & column, 0);
    assert!(summary.apply(update(1, None, 0.7)), "a column that is absent takes any value");
}

#[tokio::test(start_paused = true)]
async fn a_refused_value_is_not_tried_again_with_what_comes_later() {
    let all = vec![
        metrics_with(0, |row| (row.notes, row.tags) = (poison(), ["poisonous".to_owned()].into())),
        metrics(1, 0),
        metrics_with(2, |row| row.tags = ["good".to_owned()].into()),
        metrics_with(3, |row| row.notes = poison()),
        metrics_with(4, |row| row.notes = Some("good".into())),
    ];
    let mut running = start_with(
        Config::default(),
        Arc::new(all),
        Arc::default(),
        Arc::default(),
        Arc::default(),
        PauseBarrier::At(1),
    );
    for end in 1..=5 {
        running.pause_barrier.send_replace(PauseBarrier::At(end));
        running.wait_for_offset(end).await;
    }
    assert_eq!(
        dead_letter_keys(&running),
        [(0, DeadLetterEntry::RUN_ROW), (3, DeadLetterEntry::RUN_ROW)],
        "once for each record that says it"
    );
    let state = running.state();
    let row = &state.runs[&run_id(0)];
    assert_eq!((row.notes.as_deref(), row.tags.len(), row.final_epoch), (Some("good"), 1, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_replay_blames_the_same_record() {
    let all =
        Arc::new(vec![metrics_with(0, |row| row.config_json = poison().map(Into::into)), metrics(1, 0), metrics(2, 0)]);
    for from in 0..3 {
        let (store, dead_letters) = (Arc::<FakeStore>::default(), Arc::<FakeDeadLetters>::default());
        let start = |checkpoint| {
            start_with(
                Config::default(),
                all.clone(),
                store.clone(),
                dead_letters.clone(),
                checkpoint,
                PauseBarrier::None,
            )
        };
        let mut running = start(Arc::default());
        running.wait_for_offset(3).await;
        let checkpoint = Arc::<FakeCheckpoint>::default();
        checkpoint.checkpoint.store(from, std::sync::atomic::Ordering::SeqCst);
        drop(running);
        let mut running = start(checkpoint);
        running.wait_for_offset(3).await;
        assert_eq!(dead_letter_keys(&running), [(0, DeadLetterEntry::RUN_ROW)], "from {from}");
        assert_eq!(running.state().runs[&run_id(0)].final_epoch, Some(2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_read_holds_no_other_and_its_records_wait_as_letters() {
    let all: Vec<_> = (0..20).map(|n| metrics(n, n % 2)).collect();
    let (store, dead_letters) = (Arc::<FakeStore>::default(), Arc::<FakeDeadLetters>::default());
    store.state.lock().unwrap().undecodable.insert(run_id(0));
    let mut running =
        start_with(Config::default(), Arc::new(all), store, dead_letters.clone(), Arc::default(), PauseBarrier::At(10));
    running.wait_for_offset(10).await;
    assert_eq!(*running.problem.borrow(), None);
    assert_eq!(dead_letter_keys(&running), [0, 2, 4, 6, 8].map(|offset| (offset, DeadLetterEntry::RUN_ROW)));
    let kept = dead_letters.entries.lock().unwrap()[&(0, DeadLetterEntry::RUN_ROW)].body.clone();
    let DeadLetterBody::Refused { error, .. } = kept else { panic!() };
    assert!(error.contains(&run_id(0).to_string()) && error.ends_with("end_time is a text"), "{error}");
    assert_eq!(running.state().runs[&run_id(1)].final_epoch, Some(9));
    assert_eq!(running.state().rows.len(), 10, "every row is stored");
    running.state().undecodable.clear();
    running.pause_barrier.send_replace(PauseBarrier::None);
    running.wait_for_offset(20).await;
    assert_eq!((dead_letter_keys(&running).len(), running.state().runs[&run_id(0)].final_epoch), (5, Some(18)));
}
