//! Sorted lists along remembered orders, compared with all runs sorted anew.

use std::collections::BTreeSet;

use super::*;
use crate::{
    event::{EditedRun, status},
    store::run_list::{RunsSort, SortBy, Words, sort_columns},
};

const LISTED: [&str; 3] = ["config.lr", "config.opt.name", "config.nothing"];

/// A run whose values repeat, lack, and have no order.
fn run(n: i64) -> RunRow {
    let value = [Some(0.5), Some(f64::NAN), None, Some(f64::INFINITY), Some(-(n as f64)), Some(f64::NEG_INFINITY)];
    let config = json_config(n);
    RunRow {
        run_id: Uuid::from_u128((n as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)),
        run_name: (n % 5 != 0).then(|| format!("{}-{}", ["Ä", "b", "日本"][n as usize % 3], n % 11)),
        // Some start at once.
        start_time: (n % 37 != 36).then(|| now() - n / 3 * 1_000_000),
        end_time: (n % 2 == 0).then(|| now() + n % 4),
        status: Some([status::RUNNING, status::COMPLETED, status::FAILED][n as usize % 3].into()),
        // Half of the running ones are stale.
        last_event_time: Some(now() - if n % 2 == 0 { 3_600_000_000 } else { 0 }),
        dataset_name: Some(format!("d{}", n % 2)),
        config_json: config,
        final_val_loss: value[n as usize % 6],
        final_epoch: Some((n % 7) as i32),
        tags: [format!("t{}", n % 3)].into(),
        notes: Some("n".repeat(n as usize % 90)),
        ..RunRow::default()
    }
}

fn json_config(n: i64) -> Option<crate::event::SharedText> {
    let lr = ["0.1", "\"NaN\"", "null", "\"text\"", "1e-3"][n as usize % 5];
    (n % 4 != 3).then(|| format!(r#"{{"lr": {lr}, "opt": {{"name": "o{}"}}}}"#, n % 3).into())
}

async fn all(store: &SqliteStore, query: &RunsQuery) -> Vec<EditedRun> {
    let (mut query, mut found) = (query.clone(), Vec::new());
    loop {
        let page = store.runs(&query).await.unwrap();
        assert!(page.runs.len() <= query.limit);
        found.extend(page.runs);
        let Some(next) = page.next else { return found };
        query.from = next;
    }
}

fn ids(runs: &[EditedRun]) -> Vec<Uuid> {
    runs.iter().map(|run| run.row.run_id).collect()
}

/// The list, from all runs as they are stored, sorted here.
async fn expected(store: &SqliteStore, query: &RunsQuery) -> Vec<Uuid> {
    let mut runs = all(store, &RunsQuery { sort: None, limit: 1_000, deadline: None, ..query.clone() }).await;
    let sort = query.sort.as_ref().unwrap();
    let position = |run: &EditedRun| sort.position(run, query.stale_before()).unwrap();
    runs.sort_by(|a, b| sort.compare(&position(a), &position(b)));
    ids(&runs)
}

fn sorts() -> impl Iterator<Item = RunsSort> {
    let names = sort_columns().iter().chain(&LISTED);
    let by = names.map(|name| SortBy::named(name).unwrap());
    by.flat_map(|by| [false, true].map(|descending| RunsSort { by: by.clone(), descending }))
}

async fn change(store: &SqliteStore, step: i64) {
    let edit = |n: i64| RunEdit { run_id: run(n).run_id, edited_at: Some(now()), ..RunEdit::default() };
    let n = step % 60;
    match step % 6 {
        0 => store.write_run(&run(100 + step), None).await.unwrap(),
        1 => store.write_run(&RunRow { run_id: run(n).run_id, ..run(n + 1) }, None).await.unwrap(),
        2 => store.write_edit(&RunEdit { display_name: Some(format!("g{step}")), ..edit(n) }).await.unwrap(),
        3 => store.write_edit(&RunEdit { archived: Some(step % 4 == 1), ..edit(n) }).await.unwrap(),
        4 => store.delete_run(run(n).run_id, None).await.unwrap(),
        _ => {
            let row = RunRow { run_id: run(n).run_id, status: Some(status::STOPPED.into()), ..RunRow::default() };
            store.write_run(&row, None).await.unwrap();
        }
    }
    let deletions = store.deletions().await.unwrap();
    store.deletions_applied(&deletions);
}

#[tokio::test]
async fn a_remembered_order_lists_what_is_stored_now() {
    let fixture = Fixture::new();
    let store = fixture.store();
    for n in 0..80 {
        store.write_run(&run(n), None).await.unwrap();
    }
    let mut step = 0;
    for sort in sorts().chain(sorts()) {
        for (limit, words, archived) in [(7, "", Some(false)), (3, "o1", None)] {
            let words = Words::parse(words).unwrap();
            // The time is always up: each page ends as early as it may.
            let query = RunsQuery { limit, words, archived, sort: Some(sort.clone()), ..RunsQuery::default() };
            let listed = ids(&all(&store, &query).await);
            assert_eq!(listed, expected(&store, &query).await, "{sort:?} {limit}");
        }
        change(&store, step).await;
        step += 1;
    }
    assert!(step > 100);
}

#[tokio::test]
async fn runs_that_do_not_change_are_listed_once_while_others_do() {
    let fixture = Fixture::new();
    let store = fixture.store();
    for n in 0..400 {
        store.write_run(&run(n), None).await.unwrap();
    }
    // Steps change the first 60 runs, and add some.
    let kept: BTreeSet<Uuid> =
        (60..400).map(run).filter(|run| run.start_time.is_some()).map(|run| run.run_id).collect();
    let mut step = 0;
    for name in ["final_val_loss", "name", "status", "config.lr"] {
        let sort = Some(RunsSort { by: SortBy::named(name).unwrap(), descending: true });
        let mut query = RunsQuery { limit: 20, sort: sort.clone(), ..RunsQuery::default() };
        // The order is there; from now on the time is always up.
        all(&store, &query).await;
        let (mut found, mut places) = (Vec::new(), Vec::new());
        loop {
            query.deadline = Some(Instant::now() + Duration::from_millis(1));
            let page = store.runs(&query).await.unwrap();
            let sort = sort.as_ref().unwrap();
            places.extend(page.runs.iter().map(|run| sort.position(run, query.stale_before()).unwrap()));
            found.extend(ids(&page.runs).into_iter().filter(|id| kept.contains(id)));
            let Some(next) = page.next else { break };
            query.from = next;
            change(&store, step).await;
            step += 1;
        }
        assert_eq!(found.len(), kept.len(), "{name}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), kept, "{name}");
        assert!(places.is_sorted_by(|a, b| sort.as_ref().unwrap().compare(a, b).is_lt()), "{name}");
    }
}

#[tokio::test]
async fn an_outdated_order_is_not_used() {
    let fixture = Fixture::new();
    let store = fixture.store();
    for n in 0..40 {
        store.write_run(&run(n), None).await.unwrap();
    }
    let sort = RunsSort { by: SortBy::named("final_epoch").unwrap(), descending: false };
    let query = RunsQuery { limit: 9, sort: Some(sort), ..RunsQuery::default() };
    let other = Connection::open(fixture.path()).unwrap();
    let first = all(&store, &query).await[0].row.run_id;
    for statements in [
        "VACUUM",
        // Rows have other numbers.
        "UPDATE training_runs SET rowid = -rowid; VACUUM",
        // The change is not named.
        "UPDATE training_runs SET final_epoch = 50 - final_epoch; DELETE FROM run_changes WHERE number < 300",
        "DELETE FROM run_changes",
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION SELECT n + 1 FROM n LIMIT 5000) INSERT INTO run_changes (run_id)
         SELECT printf('00000000-0000-0000-0000-%012d', n) FROM n",
    ] {
        other.execute_batch(statements).unwrap();
        assert_eq!(ids(&all(&store, &query).await), expected(&store, &query).await, "{statements}");
    }
    assert_ne!(all(&store, &query).await[0].row.run_id, first);
    // Another file, whose changes have the same numbers.
    drop(other);
    for file in ["cascor.db", "cascor.db-wal", "cascor.db-shm"] {
        let _ = fs::remove_file(fixture.folder.path().join(file));
    }
    let other = fixture.store();
    for n in 0..20 {
        other.write_run(&run(n + 3), None).await.unwrap();
    }
    let listed = ids(&all(&store, &query).await);
    assert_eq!((listed.len(), &listed), (20, &expected(&store, &query).await));
    // The clock was set back: what is stale was not, then.
    let query = RunsQuery { now: now() - 86_400_000_000, ..query };
    assert_eq!(ids(&all(&store, &query).await), expected(&store, &query).await);
}

#[tokio::test]
async fn a_list_that_cannot_be_sorted_in_time_says_where_it_goes_on() {
    let fixture = Fixture::new();
    let store = fixture.store();
    // So many that sorting them takes a while.
    let runs = "WITH RECURSIVE n (n) AS (SELECT 1 UNION SELECT n + 1 FROM n LIMIT 5000)
        INSERT INTO training_runs (run_id, run_name, start_time, final_epoch)
        SELECT printf('00000000-0000-0000-0000-%012d', n), 'r' || n, n, n % 9 FROM n";
    store.write_run(&run(1), None).await.unwrap();
    Connection::open(fixture.path()).unwrap().execute_batch(runs).unwrap();
    for (n, name) in ["final_epoch", "name", "config.lr"].into_iter().enumerate() {
        let sort = Some(RunsSort { by: SortBy::named(name).unwrap(), descending: n % 2 == 0 });
        let mut query = RunsQuery { limit: 9, sort, deadline: Some(Instant::now()), ..RunsQuery::default() };
        let first = store.runs(&query).await.unwrap();
        assert!(first.is_sorting && !first.sorts_all && first.runs.is_empty(), "{first:?}");
        assert_eq!(first.next, Some(query.from.clone()), "never: there are no more");
        (query.deadline, query.limit) = (None, 1_000);
        query.from = first.next.unwrap();
        assert_eq!(all(&store, &query).await.len(), 5_001, "{name}");
    }
}

#[tokio::test]
async fn running_runs_become_stale_in_a_remembered_order() {
    let fixture = Fixture::new();
    let store = fixture.store();
    for n in 0..30 {
        store.write_run(&run(n), None).await.unwrap();
    }
    let sort = RunsSort { by: SortBy::named("status").unwrap(), descending: true };
    let query = RunsQuery { limit: 4, sort: Some(sort), ..RunsQuery::default() };
    let before = ids(&all(&store, &query).await);
    // After a longer silence, and a shorter one again.
    for (stale_after, stale) in [(7_200_000_000, 0), (query.stale_after, 5)] {
        let query = RunsQuery { stale_after, ..query.clone() };
        assert_eq!(ids(&all(&store, &query).await), expected(&store, &query).await, "{stale_after}");
        let query = RunsQuery { status: Some("stale".into()), ..query };
        assert_eq!(all(&store, &query).await.len(), stale, "{stale_after}");
    }
    let later = RunsQuery { now: query.now + 400_000_000, ..query };
    let after = ids(&all(&store, &later).await);
    assert_eq!(after, expected(&store, &later).await);
    assert_ne!(before, after);
}

#[test]
fn old_changes_are_removed_while_runs_are_written() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer(Retention::default());
    writer.commit_group(&mut vec![]);
    let entries =
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION SELECT n + 1 FROM n LIMIT 70000) INSERT INTO run_changes (run_id)
        SELECT 'x' FROM n";
    Connection::open(fixture.path()).unwrap().execute_batch(entries).unwrap();
    let (mut group, answers): (Vec<_>, Vec<_>) = (0..5_000)
        .map(|n| {
            let (done, answer) = oneshot::channel();
            (WriteRequest { op: WriteOp::Run { change: Box::new(run(n)), stored_start: None }, done }, answer)
        })
        .unzip();
    writer.commit_group(&mut group);
    assert!(answers.into_iter().all(|mut answer| answer.try_recv().unwrap().is_ok()));
    assert_eq!(fixture.count("run_changes"), 75_000 - 8_192);
    assert_eq!(fixture.count("run_changes WHERE run_id <> 'x'"), 5_000);
}
