//! Promises of every store about lists of runs: words, filters, order and pages.

use std::collections::BTreeSet;

use cascor_ingest::{
    event::{EditedRun, RunEdit, RunRow, status},
    store::{
        RunsCursor, RunsQuery,
        run_list::{RunsSort, SortBy, Words, sort_columns},
    },
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Shared, now, runs::run_row};

/// Every run of a list, page by page.
async fn all(store: &Shared, query: &RunsQuery) -> Vec<EditedRun> {
    let (mut query, mut found) = (query.clone(), Vec::new());
    loop {
        let page = store.runs(&query).await.unwrap();
        assert!(page.runs.len() <= query.limit && page.scanned > 0 || page.next.is_none());
        found.extend(page.runs);
        let Some(next) = page.next else { return found };
        query.from = next;
    }
}

fn names(runs: &[EditedRun]) -> Vec<&str> {
    runs.iter().map(|run| run.row.run_name.as_deref().unwrap()).collect()
}

fn searched(dataset: &str, words: &str) -> RunsQuery {
    let words = Words::parse(words).unwrap();
    RunsQuery { limit: 2, dataset: Some(dataset.to_owned()), words, ..RunsQuery::default() }
}

pub async fn words_are_found_in_every_text_of_a_run(store: &Shared) {
    let (dataset, now) = (Uuid::new_v4().to_string(), now());
    let texts = [
        ("Größe_50%", "", r#"{"lr": 0.1, "opt": {"name": "Adam"}}"#),
        ("' OR 1=1 --", "ΟΔΟΣ Привет", "{}"),
        ("日本語", "c:\\dir \"q\"", r#"{"lr": "0.10", "path": "a\"b"}"#),
    ];
    let mut ids = Vec::new();
    for (n, (name, notes, config)) in texts.into_iter().enumerate() {
        let row = RunRow {
            run_name: Some(name.into()),
            start_time: Some(now - n as i64 * 1_000_000),
            status: Some(status::COMPLETED.into()),
            dataset_name: Some(dataset.clone()),
            notes: Some(notes.into()).filter(|notes: &String| !notes.is_empty()),
            config_json: Some(config.into()),
            tags: [format!("tag{n}"), "all".into()].into(),
            created_by: Some("Зоя".into()),
            ..run_row(Uuid::new_v4())
        };
        ids.push(row.run_id);
        store.write_run(&row, None).await.unwrap();
    }
    // What people changed is searched in place of what a trainer sent.
    let edit = RunEdit {
        run_id: ids[0],
        display_name: Some("Best of all".into()),
        notes: Some("edited".into()),
        add_tags: ["new".into()].into(),
        remove_tags: ["tag0".into()].into(),
        archived: Some(true),
        edited_at: Some(now),
        ..RunEdit::default()
    };
    store.write_edit(&edit).await.unwrap();
    let id = ids[1].to_string();
    for (words, found) in [
        ("", &[0, 1, 2][..]),
        ("GRÖSSE", &[0]),
        ("50%", &[0]),
        ("5_%", &[]),
        ("best ADAM", &[0]),
        ("edited new", &[0]),
        ("tag0", &[]),
        ("tag1 all", &[1]),
        ("' or", &[1]),
        ("1=1", &[1]),
        ("οδοσ ПРИВЕТ", &[1]),
        (&id, &[1]),
        (&id[..13], &[1]),
        ("日本", &[2]),
        ("\"q\" c:\\", &[2]),
        ("a\"b", &[2]),
        ("зоя", &[0, 1, 2]),
        ("lr=0.1", &[0, 2]),
        ("opt.name=adam", &[0]),
        ("opt.name=ada", &[]),
        ("nothing", &[]),
    ] {
        let expected: Vec<_> = found.iter().map(|n| texts[*n].0).collect();
        assert_eq!(names(&all(store, &searched(&dataset, words)).await), expected, "{words}");
    }
    for (archived, found) in [(Some(true), &[0][..]), (Some(false), &[1, 2]), (None, &[0, 1, 2])] {
        let expected: Vec<_> = found.iter().map(|n| texts[*n].0).collect();
        let query = RunsQuery { archived, ..searched(&dataset, "") };
        assert_eq!(names(&all(store, &query).await), expected, "{archived:?}");
    }
    for (tags, found) in [(&["all", "tag1"][..], &[1][..]), (&["all"], &[0, 1, 2]), (&["new", "tag0"], &[])] {
        let expected: Vec<_> = found.iter().map(|n| texts[*n].0).collect();
        let tags: BTreeSet<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let query = RunsQuery { tags, ..searched(&dataset, "") };
        assert_eq!(names(&all(store, &query).await), expected);
    }
}

pub async fn pages_are_whole_while_runs_are_added(store: &Shared) {
    let (dataset, now) = (Uuid::new_v4().to_string(), now());
    let add = async |n: i64| {
        let row = RunRow {
            run_name: Some(format!("r{n}")),
            // Several start in one millisecond.
            start_time: Some(now - n / 3 * 86_400_000_000),
            dataset_name: Some(dataset.clone()),
            final_val_loss: [Some(0.5), Some(f64::NAN), None, Some(n as f64)][n as usize % 4],
            ..run_row(Uuid::new_v4())
        };
        store.write_run(&row, None).await.unwrap();
        row.run_id
    };
    let mut added = Vec::new();
    for n in 0..40 {
        added.push(add(n).await);
    }
    let before: BTreeSet<Uuid> = added.into_iter().collect();
    let sort = |descending| Some(RunsSort { by: SortBy::Column("final_val_loss"), descending });
    for sort in [None, sort(false), sort(true)] {
        // The time is always up: every page is as short as it may be.
        let mut query = RunsQuery { limit: 3, sort, deadline: Some(Instant::now()), ..searched(&dataset, "r") };
        query.limit = 3;
        let mut found = Vec::new();
        for n in 0.. {
            let page = store.runs(&query).await.unwrap();
            found.extend(page.runs.into_iter().map(|run| run.row.run_id).filter(|id| before.contains(id)));
            let Some(next) = page.next else { break };
            query.from = next;
            if n < 8 {
                add(n * 5).await;
            }
        }
        assert_eq!(found.len(), before.len(), "{:?}", query.sort);
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), before, "none is missing, none is there twice");
    }
}

pub async fn runs_are_sorted_by_any_column(store: &Shared) {
    let (dataset, now) = (Uuid::new_v4().to_string(), now());
    for n in 0..6_i32 {
        let some = n < 4;
        let number = f64::from((n * 3) % 4);
        let text = |prefix: &str| {
            some.then(|| format!("{}{number}", if n % 2 == 0 { prefix.to_uppercase() } else { prefix.into() }))
        };
        let row = RunRow {
            run_name: Some(format!("r{n}")),
            start_time: Some(now - i64::from(n) * 1_000_000),
            end_time: some.then_some(now + i64::from((n * 3) % 4) * 1_000_000),
            duration_seconds: some.then_some((n * 3) % 4),
            dataset_name: Some(dataset.clone()),
            final_val_loss: if n == 4 { Some(f64::NAN) } else { some.then_some(number) },
            notes: text("ä"),
            created_by: text("b"),
            config_json: some.then(|| format!(r#"{{"deep": {{"lr": {number}}}}}"#).into()),
            ..run_row(Uuid::new_v4())
        };
        store.write_run(&row, None).await.unwrap();
    }
    let sorted = async |by: SortBy, descending| {
        let query = RunsQuery { sort: Some(RunsSort { by, descending }), ..searched(&dataset, "") };
        names(&all(store, &query).await).join(" ")
    };
    for column in ["end_time", "duration_seconds", "final_val_loss", "notes", "created_by", "config.deep.lr"] {
        let by = SortBy::named(column).unwrap();
        assert_eq!(sorted(by.clone(), false).await, "r0 r3 r2 r1 r4 r5", "{column}");
        assert_eq!(sorted(by, true).await, "r1 r2 r3 r0 r4 r5", "{column}");
    }
    let named = |name| SortBy::named(name).unwrap();
    assert_eq!(sorted(named("start_time"), false).await, "r5 r4 r3 r2 r1 r0");
    assert_eq!(sorted(named("name"), true).await, "r5 r4 r3 r2 r1 r0");
    for column in sort_columns() {
        let sort = Some(RunsSort { by: named(column), descending: true });
        let found = all(store, &RunsQuery { sort, limit: 10, ..searched(&dataset, "") }).await;
        assert_eq!(names(&found).into_iter().collect::<BTreeSet<_>>().len(), 6, "{column}");
    }
}

pub async fn sorted_pages_follow_edits_and_deletions(store: &Shared) {
    let (dataset, now) = (Uuid::new_v4().to_string(), now());
    let mut ids = Vec::new();
    for n in 0..24 {
        let row = RunRow {
            run_name: Some(format!("r{n}")),
            start_time: Some(now - n * 60_000_000),
            dataset_name: Some(dataset.clone()),
            final_val_loss: Some(n as f64),
            ..run_row(Uuid::new_v4())
        };
        ids.push(row.run_id);
        store.write_run(&row, None).await.unwrap();
    }
    let edit = async |n: usize, change: RunEdit| {
        let change = RunEdit { run_id: ids[n], edited_at: Some(now), ..change };
        store.write_edit(&change).await.unwrap();
    };
    let sort = Some(RunsSort { by: SortBy::Column("final_val_loss"), descending: false });
    let mut query = RunsQuery { limit: 5, archived: Some(false), sort, ..searched(&dataset, "") };
    let (mut found, mut pages) = (Vec::new(), 0);
    loop {
        let page = store.runs(&query).await.unwrap();
        found.extend(page.runs);
        let Some(next) = page.next else { break };
        query.from = next;
        pages += 1;
        match pages {
            1 => {
                edit(3, RunEdit { archived: Some(true), ..RunEdit::default() }).await;
                edit(7, RunEdit { archived: Some(true), ..RunEdit::default() }).await;
                edit(8, RunEdit { display_name: Some("eight".into()), ..RunEdit::default() }).await;
            }
            2 => {
                store.delete_run(ids[0], None).await.unwrap();
                store.delete_run(ids[12], None).await.unwrap();
                store.deletions_applied(&store.deletions().await.unwrap());
            }
            3 => {
                // Runs move to pages that come, and from those to pages that were there.
                let moved = |n: usize, loss| RunRow { final_val_loss: Some(loss), ..run_row(ids[n]) };
                store.write_run(&moved(1, 22.5), None).await.unwrap();
                store.write_run(&moved(21, 0.5), None).await.unwrap();
            }
            _ => {}
        }
    }
    let expected =
        (0..24).filter(|n| ![7, 12, 21].contains(n)).flat_map(|n| if n == 23 { vec![1, 23] } else { vec![n] });
    assert_eq!(names(&found), expected.map(|n| format!("r{n}")).collect::<Vec<_>>());
    assert_eq!(found.iter().filter_map(|run| run.display_name.as_deref()).collect::<Vec<_>>(), ["eight"]);
    query.from = RunsCursor::default();
    let again: Vec<_> = all(store, &query).await.into_iter().map(|run| run.row.final_val_loss.unwrap()).collect();
    assert!(again.len() == 20 && again.is_sorted() && again[0] == 0.5, "{again:?}");
}
