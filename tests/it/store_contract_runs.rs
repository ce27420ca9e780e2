//! Promises of every store about runs, datasets, gaps and commands.

use std::collections::BTreeSet;

use cascor_ingest::{
    event::{ControlRow, DAY, DatasetRow, GapRow, Row, RunRow, event_id, gap_id, status},
    store::{DaysQuery, RunsQuery},
};
use uuid::Uuid;

use super::{Shared, now, put};

pub fn run_row(run_id: Uuid) -> RunRow {
    RunRow { run_id, ..RunRow::default() }
}

pub async fn runs_take_the_columns_that_are_present(store: &Shared) {
    let (run_id, now) = (Uuid::new_v4(), now());
    assert_eq!(store.read_run(run_id).await.unwrap(), None);
    let full = RunRow {
        run_id,
        run_name: Some("spiral-7".into()),
        start_time: Some(now),
        end_time: Some(now + 1_000),
        duration_seconds: Some(0),
        status: Some(status::RUNNING.into()),
        dataset_name: Some("spiral".into()),
        dataset_size: Some(194),
        config_json: Some("{}".into()),
        final_epoch: Some(5),
        final_train_loss: Some(0.25),
        final_train_accuracy: Some(0.5),
        final_val_loss: Some(f64::INFINITY),
        final_val_accuracy: Some(0.75),
        best_val_accuracy: Some(0.875),
        best_epoch: Some(4),
        total_hidden_units: Some(3),
        total_parameters: Some(21),
        notes: Some("note".into()),
        tags: BTreeSet::from(["a".into(), "b \"quoted\"".into()]),
        created_by: Some("me".into()),
        last_event_time: Some(now + 1_000),
        restarted_at: Some(now + 1_000),
    };
    store.write_run(&full, None).await.unwrap();
    assert_eq!(store.read_run(run_id).await.unwrap().as_ref(), Some(&full));
    for (id, start, listed) in [(run_id, now, true), (run_id, now + 1_000, false), (Uuid::new_v4(), now, false)] {
        assert_eq!(store.is_listed(id, start).await.unwrap(), listed, "{id} {start}");
    }
    let change =
        RunRow { status: Some(status::COMPLETED.into()), final_epoch: Some(6), notes: None, ..run_row(run_id) };
    for _ in 0..2 {
        store.write_run(&change, Some(now)).await.unwrap();
    }
    let expected = RunRow { status: change.status, final_epoch: change.final_epoch, ..full };
    assert_eq!(store.read_run(run_id).await.unwrap(), Some(expected));
}

pub async fn a_restart_takes_away_the_end(store: &Shared) {
    let (run_id, now) = (Uuid::new_v4(), now());
    let ended = RunRow {
        start_time: Some(now),
        end_time: Some(now + 7_000_000),
        duration_seconds: Some(7),
        status: Some(status::FAILED.into()),
        final_epoch: Some(3),
        ..run_row(run_id)
    };
    store.write_run(&ended, None).await.unwrap();
    let again = RunRow { restarted_at: Some(now + 9_000_000), status: Some(status::RUNNING.into()), ..run_row(run_id) };
    let running =
        RunRow { end_time: None, duration_seconds: None, final_epoch: Some(3), start_time: Some(now), ..again.clone() };
    for _ in 0..2 {
        store.write_run(&again, Some(now)).await.unwrap();
        assert_eq!(store.read_run(run_id).await.unwrap().as_ref(), Some(&running));
    }
    let end = RunRow {
        end_time: Some(now + 20_000_000),
        duration_seconds: Some(20),
        status: Some(status::COMPLETED.into()),
        restarted_at: again.restarted_at,
        ..run_row(run_id)
    };
    store.write_run(&end, Some(now)).await.unwrap();
    let expected = RunRow { end_time: end.end_time, duration_seconds: Some(20), status: end.status, ..running };
    assert_eq!(store.read_run(run_id).await.unwrap(), Some(expected));
}

pub async fn metric_names_are_stored_once(store: &Shared) {
    let (run_id, other) = (Uuid::new_v4(), Uuid::new_v4());
    let mut names: Vec<String> = (0..250).map(|n| format!("layer.{n:03}/norm")).collect();
    names.extend(["".into(), "ü ß".into(), "Z".into(), "a".into(), "x".repeat(5_000)]);
    for _ in 0..2 {
        store.write_metric_names(run_id, &names).await.unwrap();
        store.write_metric_names(run_id, &names[3..5]).await.unwrap();
        store.write_metric_names(other, &["a".to_owned()]).await.unwrap();
        store.write_metric_names(other, &[]).await.unwrap();
    }
    names.sort();
    assert_eq!(store.metric_names(run_id).await.unwrap(), names);
    assert_eq!(store.metric_names(other).await.unwrap(), ["a"]);
    assert_eq!(store.metric_names(Uuid::new_v4()).await.unwrap(), Vec::<String>::new());
}

pub async fn a_run_takes_and_loses_a_nan(store: &Shared) {
    let run_id = Uuid::new_v4();
    for losses in [Some(f64::NAN), None, Some(0.5), Some(f64::NAN), Some(f64::NEG_INFINITY)] {
        let change = RunRow { final_train_loss: losses, best_epoch: Some(1), ..run_row(run_id) };
        store.write_run(&change, None).await.unwrap();
        let stored = store.read_run(run_id).await.unwrap().unwrap();
        let expected = losses.or(Some(f64::NAN));
        assert_eq!(format!("{:?}", stored.final_train_loss), format!("{expected:?}"));
        assert_eq!((stored.final_val_loss, stored.best_epoch), (None, Some(1)));
    }
}

pub async fn a_moved_start_leaves_one_entry(store: &Shared) {
    let (run_id, dataset, now) = (Uuid::new_v4(), Uuid::new_v4().to_string(), now());
    let query = RunsQuery { limit: 10, dataset: Some(dataset.clone()), ..RunsQuery::default() };
    let mut stored_start = None;
    // Back by an hour, across a month, and forward again.
    for start in [now, now - 3_600_000_000, now - 40 * DAY, now] {
        let change = RunRow { start_time: Some(start), dataset_name: Some(dataset.clone()), ..run_row(run_id) };
        store.write_run(&change, stored_start).await.unwrap();
        stored_start = Some(start);
        assert_eq!(store.runs(&query).await.unwrap().rows(), [change]);
    }
}

pub async fn runs_are_listed_by_start_status_and_dataset(store: &Shared) {
    let (dataset, now) = (Uuid::new_v4().to_string(), now());
    let mut expected = Vec::new();
    for n in 0..12 {
        // Every fourth in the month before; written oldest first.
        let start = now - (12 - n) * 60_000_000 - if n < 3 { 35 * DAY } else { 0 };
        let run = RunRow {
            start_time: Some(start),
            status: Some(if n % 2 == 0 { status::RUNNING } else { status::FAILED }.into()),
            dataset_name: Some(dataset.clone()),
            ..run_row(Uuid::new_v4())
        };
        store.write_run(&run, None).await.unwrap();
        expected.insert(0, run);
    }
    let query = RunsQuery { limit: 100, dataset: Some(dataset.clone()), ..RunsQuery::default() };
    assert_eq!(store.runs(&query).await.unwrap().rows(), expected);
    assert_eq!(store.runs(&RunsQuery { limit: 4, ..query.clone() }).await.unwrap().rows(), expected[..4]);
    let failed = RunsQuery { status: Some(status::FAILED.into()), limit: 3, ..query.clone() };
    let of_failed: Vec<_> = expected.iter().filter(|run| run.status == failed.status).take(3).cloned().collect();
    assert_eq!(store.runs(&failed).await.unwrap().rows(), of_failed);
    let none = RunsQuery { dataset: Some("no such dataset".into()), ..query.clone() };
    assert_eq!(store.runs(&none).await.unwrap().rows(), []);

    let mut paged = Vec::new();
    let mut page = RunsQuery { limit: 5, ..query };
    loop {
        let runs = store.runs(&page).await.unwrap();
        let next = runs.next.clone();
        paged.extend(runs.rows());
        let Some(next) = next else { break };
        page.from = next;
    }
    assert_eq!(paged, expected);
    let all = store.runs(&RunsQuery { limit: 1_000, ..RunsQuery::default() }).await.unwrap().rows();
    assert!(expected.iter().all(|run| all.contains(run)), "without a filter too");
    assert!(all.is_sorted_by_key(|run| std::cmp::Reverse(run.start_time)), "newest first");
}

pub async fn a_list_of_large_runs_ends_where_it_has_bytes_enough(store: &Shared) {
    let (dataset, now) = (Uuid::new_v4().to_string(), now());
    let mut expected = Vec::new();
    for n in 0..8 {
        let run = RunRow {
            start_time: Some(now - (8 - n) * 60_000_000),
            dataset_name: Some(dataset.clone()),
            config_json: Some(format!("\"{}\"", "x".repeat(1 << 20)).into()),
            ..run_row(Uuid::new_v4())
        };
        store.write_run(&run, None).await.unwrap();
        expected.insert(0, run);
    }
    let mut page = RunsQuery { limit: 100, dataset: Some(dataset), bytes: 2 << 20, ..RunsQuery::default() };
    let (mut paged, mut pages) = (Vec::new(), 0);
    loop {
        let runs = store.runs(&page).await.unwrap();
        assert!(runs.runs.len() <= 2, "{} MiB are more than was asked for", runs.runs.len());
        let next = runs.next.clone();
        pages += 1;
        paged.extend(runs.rows());
        let Some(next) = next else { break };
        page.from = next;
    }
    assert!(paged == expected && pages >= 2, "{} runs on {pages} pages", paged.len());
}

pub async fn a_dataset_keeps_what_a_later_description_leaves_out(store: &Shared) {
    let id = Uuid::new_v4();
    assert_eq!(store.dataset(id).await.unwrap(), None);
    let first = DatasetRow {
        dataset_id: id,
        name: Some("spiral".into()),
        description: Some("two spirals".into()),
        num_samples: Some(194),
        num_features: Some(2),
        num_classes: Some(2),
        class_distribution: [("0".to_owned(), 97), ("1".to_owned(), 97)].into(),
        created_at: Some(now()),
        file_path: Some("/data/spiral".into()),
        checksum: Some("abc".into()),
    };
    put(store, [Row::Dataset(first.clone())]).await;
    assert_eq!(store.dataset(id).await.unwrap().as_ref(), Some(&first));
    let later = DatasetRow { dataset_id: id, num_samples: Some(200), ..DatasetRow::default() };
    put(store, [Row::Dataset(later)]).await;
    assert_eq!(store.dataset(id).await.unwrap(), Some(DatasetRow { num_samples: Some(200), ..first }));
}

pub async fn gaps_are_found_by_day(store: &Shared) {
    let (instance, now) = (Uuid::new_v4().to_string(), now());
    // Newest first: one of today, two of yesterday.
    let gaps = [0, DAY, DAY + 60_000_000].map(|ago| GapRow {
        started_at: now - ago,
        gap_id: gap_id(&instance, "redis", None, "disconnected", now - ago),
        ended_at: now - ago + 5_000,
        reason: "disconnected".into(),
        source: "redis".into(),
        channel: (ago > 0).then(|| "cascor:training".into()),
        instance: instance.clone(),
        run_id: (ago > DAY).then(Uuid::new_v4),
        lost: (ago > 0).then_some(17),
    });
    for gap in gaps.iter().chain(&gaps) {
        put(store, [Row::Gap(gap.clone())]).await;
    }
    let found = async |start, end, limit| {
        let found = store.gaps(&DaysQuery { start, end, limit }).await.unwrap();
        found.into_iter().filter(|gap| gap.instance == instance).collect::<Vec<_>>()
    };
    assert_eq!(found(now - 3 * DAY, now, 1_000).await, gaps);
    assert_eq!(found(now - DAY, now - DAY, 1_000).await, gaps[1..2]);
    assert_eq!(found(now - DAY + 1_000, now, 1_000).await, gaps[..1]);
    assert_eq!(found(now - 9 * DAY, now - 5 * DAY, 1_000).await, []);
}

pub async fn an_outcome_is_added_to_a_command_and_stays(store: &Shared) {
    let (instance, now) = (Uuid::new_v4().to_string(), now());
    let received = ControlRow {
        timestamp: now + 123,
        event_id: event_id(now + 123, "cascor:control", b"pause"),
        instance: instance.clone(),
        command: "pause".into(),
        command_id: Some("c-1".into()),
        target: None,
        source: "cascor:control".into(),
        outcome: None,
        payload_json: "\"pause\"".into(),
    };
    let done = ControlRow { outcome: Some("done".into()), ..received.clone() };
    for (row, expected) in [(&received, &received), (&done, &done), (&received, &done)] {
        put(store, [Row::Control(row.clone())]).await;
        let log = store.control_log(&DaysQuery { start: now, end: now + DAY, limit: 1_000 }).await.unwrap();
        let of_us: Vec<_> = log.into_iter().filter(|row| row.instance == instance).collect();
        assert_eq!(of_us.as_slice(), std::slice::from_ref(expected));
    }
    let before = DaysQuery { start: now - DAY, end: now + 122, limit: 1_000 };
    assert!(store.control_log(&before).await.unwrap().iter().all(|row| row.instance != instance));
}
