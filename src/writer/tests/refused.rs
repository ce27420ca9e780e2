//! Which record a refused value of a run's row is blamed on.

use std::sync::Arc;

use super::support::*;
use crate::{
    event::{EventKey, EventRow, Lifecycle, MetricsRow, Row, RunRow, RunUpdate},
    writer::{Config, Content, Decoded, Hold, Kept, Letter, summary::Summary},
};

fn says(offset: u64, fill: impl FnOnce(&mut RunRow)) -> Decoded {
    let mut values = Box::<RunRow>::default();
    fill(&mut values);
    let lifecycle = (offset == 0).then_some(Lifecycle::Start);
    let touch = RunUpdate { event_time: offset as i64 * 1_000, lifecycle, values };
    record(offset, vec![metrics_row(offset, 0)], Some((run_id(0), touch)))
}

fn blamed(running: &Running) -> Vec<(u64, u32)> {
    running.aside.letters.lock().unwrap().keys().copied().collect()
}

fn poison() -> Option<String> {
    Some("poison".to_owned())
}

#[tokio::test(start_paused = true)]
async fn the_record_whose_value_is_refused_is_set_aside_however_many_came_after_it() {
    let all = vec![
        says(0, |row| (row.config_json, row.run_name) = (poison().map(Into::into), Some("spiral".into()))),
        metrics(1, 0),
        says(2, |row| row.notes = poison()),
        says(3, |row| row.tags = ["good".to_owned()].into()),
        says(4, |row| row.tags = ["poisonous".to_owned(), "fair".to_owned()].into()),
        says(5, |row| row.tags = ["last".to_owned()].into()),
        metrics(6, 0),
    ];
    let mut running = start(Config::default(), all);
    running.reaches(7).await;
    assert_eq!(blamed(&running), [(0, Letter::RUN), (2, Letter::RUN), (4, Letter::RUN)]);
    let state = running.state();
    let row = &state.runs[&run_id(0)];
    assert_eq!((row.run_name.as_deref(), row.final_epoch, row.start_time), (Some("spiral"), Some(6), Some(0)));
    assert_eq!((&row.config_json, &row.notes), (&None, &None));
    assert_eq!(row.tags.iter().map(String::as_str).collect::<Vec<_>>(), ["fair", "good", "last"]);
    let letters = running.aside.letters.lock().unwrap();
    let Kept::Refused { row, error, .. } = &letters[&(4, Letter::RUN)].kept else { panic!() };
    assert_eq!((row.as_str(), error.as_str()), ("tag \"poisonous\"", "poison"));
}

#[tokio::test(start_paused = true)]
async fn neither_an_older_value_nor_a_wait_for_the_history_moves_the_blame() {
    let dated = |offset, time: i64, fill: fn(&mut RunRow)| {
        let mut record = says(offset, fill);
        if let Content::Rows { rows, touch: Some((_, touch)) } = &mut record.content
            && let Row::Metrics(MetricsRow { key, .. }) = &rows[0]
        {
            touch.event_time = time * 1_000;
            touch.lifecycle = (offset == 1).then_some(Lifecycle::Start);
            let key = EventKey { timestamp: touch.event_time, ..*key };
            let payload_json = r#"{"type": "training_start", "created_by": "me"}"#.to_owned();
            if offset == 1 {
                rows[0] =
                    Row::Event(EventRow { key, r#type: String::new(), payload_json: payload_json.into(), epoch: None });
            }
        }
        record
    };
    let all = vec![
        says(0, |row| row.notes = Some("first".into())),
        dated(1, 50, |row| row.created_by = Some("me".into())),
        // From here on of a run that has been forgotten: what is older than its row waits for the history.
        dated(2, 40, |row| row.created_by = Some("her".into())),
        dated(3, 45, |row| row.notes = poison()),
        dated(4, 30, |row| row.notes = Some("older".into())),
        dated(5, 20, |row| row.tags = ["poisonous".to_owned()].into()),
        dated(6, 60, |row| row.final_train_loss = Some(0.5)),
    ];
    let (all, store, aside) = (Arc::new(all), Arc::<Fake>::default(), Arc::<Box_>::default());
    let mut running =
        start_with(Config::default(), all.clone(), store.clone(), aside.clone(), Arc::default(), Hold::After(2));
    running.reaches(2).await;
    drop(running);
    let checkpoint = Arc::<Checkpoint>::default();
    checkpoint.checkpoint.store(2, std::sync::atomic::Ordering::SeqCst);
    let mut running = start_with(Config::default(), all, store, aside, checkpoint, Hold::Open);
    running.reaches(7).await;
    assert_eq!(blamed(&running), [(3, Letter::RUN), (5, Letter::RUN)]);
    let state = running.state();
    let row = &state.runs[&run_id(0)];
    assert_eq!((row.created_by.as_deref(), row.final_train_loss, row.tags.len()), (Some("me"), Some(0.5), 0));
}

#[test]
fn a_refused_final_value_gives_way_to_the_next_and_is_not_restored() {
    let touch = |time, lifecycle, loss| {
        let values = Box::new(RunRow { final_train_loss: Some(loss), ..RunRow::default() });
        RunUpdate { event_time: time, lifecycle, values }
    };
    let mut summary = Summary::unknown(run_id(0));
    summary.load(None);
    summary.apply(touch(1, Some(Lifecycle::Start), 0.5));
    summary.apply(touch(2, Some(Lifecycle::End("completed")), 0.1));
    let columns = summary.take_dirty();
    let column = (0..13).map(|bit| 1 << bit).find(|bit| summary.change(*bit).final_train_loss.is_some()).unwrap();
    assert_eq!((columns & column, summary.change(column).final_train_loss), (column, Some(0.1)));
    summary.forget(column);
    assert_eq!((summary.dirty(), summary.change(column).final_train_loss), (column, Some(0.5)), "what metrics said");
    summary.take_dirty();
    summary.forget(column);
    assert_eq!((summary.dirty(), summary.change(column).final_train_loss), (0, None));
    assert!(summary.restore(None));
    assert_eq!(summary.dirty() & column, 0);
    assert!(summary.apply(touch(1, None, 0.7)), "a column that is absent takes any value");
}

#[tokio::test(start_paused = true)]
async fn a_refused_value_is_not_tried_again_with_what_comes_later() {
    let all = vec![
        says(0, |row| (row.notes, row.tags) = (poison(), ["poisonous".to_owned()].into())),
        metrics(1, 0),
        says(2, |row| row.tags = ["good".to_owned()].into()),
        says(3, |row| row.notes = poison()),
        says(4, |row| row.notes = Some("good".into())),
    ];
    let mut running =
        start_with(Config::default(), Arc::new(all), Arc::default(), Arc::default(), Arc::default(), Hold::After(1));
    for end in 1..=5 {
        running.hold.send_replace(Hold::After(end));
        running.reaches(end).await;
    }
    assert_eq!(blamed(&running), [(0, Letter::RUN), (3, Letter::RUN)], "once for each record that says it");
    let state = running.state();
    let row = &state.runs[&run_id(0)];
    assert_eq!((row.notes.as_deref(), row.tags.len(), row.final_epoch), (Some("good"), 1, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_replay_blames_the_same_record() {
    let all = Arc::new(vec![says(0, |row| row.config_json = poison().map(Into::into)), metrics(1, 0), metrics(2, 0)]);
    for from in 0..3 {
        let (store, aside) = (Arc::<Fake>::default(), Arc::<Box_>::default());
        let start = |checkpoint| {
            start_with(Config::default(), all.clone(), store.clone(), aside.clone(), checkpoint, Hold::Open)
        };
        let mut running = start(Arc::default());
        running.reaches(3).await;
        let checkpoint = Arc::<Checkpoint>::default();
        checkpoint.checkpoint.store(from, std::sync::atomic::Ordering::SeqCst);
        drop(running);
        let mut running = start(checkpoint);
        running.reaches(3).await;
        assert_eq!(blamed(&running), [(0, Letter::RUN)], "from {from}");
        assert_eq!(running.state().runs[&run_id(0)].final_epoch, Some(2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_read_holds_no_other_and_its_records_wait_as_letters() {
    let all: Vec<_> = (0..20).map(|n| metrics(n, n % 2)).collect();
    let (store, aside) = (Arc::<Fake>::default(), Arc::<Box_>::default());
    store.state.lock().unwrap().garbled.insert(run_id(0));
    let mut running =
        start_with(Config::default(), Arc::new(all), store, aside.clone(), Arc::default(), Hold::After(10));
    running.reaches(10).await;
    assert_eq!(*running.problem.borrow(), None);
    assert_eq!(blamed(&running), [0, 2, 4, 6, 8].map(|offset| (offset, Letter::RUN)));
    let kept = aside.letters.lock().unwrap()[&(0, Letter::RUN)].kept.clone();
    let Kept::Refused { error, .. } = kept else { panic!() };
    assert!(error.contains(&run_id(0).to_string()) && error.ends_with("end_time is a text"), "{error}");
    assert_eq!(running.state().runs[&run_id(1)].final_epoch, Some(9));
    assert_eq!(running.state().rows.len(), 10, "every row is stored");
    running.state().garbled.clear();
    running.hold.send_replace(Hold::Open);
    running.reaches(20).await;
    assert_eq!((blamed(&running).len(), running.state().runs[&run_id(0)].final_epoch), (5, Some(18)));
}
