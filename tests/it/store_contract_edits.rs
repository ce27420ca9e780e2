//! Promises of every store about what people change of runs.

use std::collections::BTreeSet;

use cascor_ingest::{
    event::{EditedRun, RunEdit, RunRow},
    store::{NAMED_RUNS_MAX, edited, edited_run},
};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Shared, now, runs::run_row};

fn tags<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

fn edit(run_id: Uuid) -> RunEdit {
    RunEdit { run_id, edited_at: Some(now()), edited_by: Some("ann".into()), ..RunEdit::default() }
}

async fn shown(store: &Shared, run_id: Uuid) -> EditedRun {
    edited_run(&**store, run_id).await.unwrap().unwrap()
}

pub async fn an_edit_is_laid_over_the_row_and_neither_changes_the_other(store: &Shared) {
    let (run_id, other) = (Uuid::new_v4(), Uuid::new_v4());
    let row = RunRow {
        run_name: Some("published".into()),
        start_time: Some(now()),
        notes: Some("of the trainer".into()),
        tags: tags(["a", "b"]),
        ..run_row(run_id)
    };
    let change = RunEdit {
        display_name: Some("Spirale \u{fc}ber \u{6e2c}\u{8a66}".into()),
        notes: Some(String::new()),
        add_tags: tags(["c"]),
        remove_tags: tags(["a"]),
        archived: Some(true),
        ..edit(run_id)
    };
    // The edit may come before the row.
    store.write_edit(&change).await.unwrap();
    assert_eq!(edited_run(&**store, run_id).await.unwrap(), None);
    store.write_run(&row, None).await.unwrap();
    store.write_run(&run_row(other), None).await.unwrap();
    assert_eq!(store.read_edits(&[other, run_id]).await.unwrap(), std::slice::from_ref(&change));
    let expected = EditedRun {
        row: RunRow { notes: None, tags: tags(["b", "c"]), ..row.clone() },
        display_name: change.display_name.clone(),
        archived: true,
        edited_at: change.edited_at,
        edited_by: Some("ann".into()),
    };
    assert_eq!(shown(store, run_id).await, expected);
    assert_eq!(edited(&**store, vec![run_row(other), row.clone()]).await.unwrap()[1], expected);
    assert_eq!(store.read_run(run_id).await.unwrap().as_ref(), Some(&row), "the row has nothing of it");

    // What messages say later changes the row, not the edit.
    let later = RunRow { notes: Some("again".into()), tags: tags(["a", "c", "d"]), ..row.clone() };
    store.write_run(&later, row.start_time).await.unwrap();
    assert_eq!(store.read_edits(&[run_id]).await.unwrap(), std::slice::from_ref(&change));
    let EditedRun { row: run, .. } = shown(store, run_id).await;
    assert!(run.notes.is_none() && !run.tags.contains("a") && run.tags.contains("d"), "{run:?}");

    // Present values replace, absent ones stay.
    let (back, by) = (Some(String::new()), Some("bob".into()));
    store.write_edit(&RunEdit { display_name: back, edited_by: by, ..edit(run_id) }).await.unwrap();
    let run = shown(store, run_id).await;
    assert_eq!((run.name(), run.archived, run.edited_by.as_deref()), (Some("published"), true, Some("bob")));
    store.write_edit(&RunEdit { archived: Some(false), notes: Some("n".into()), ..edit(run_id) }).await.unwrap();
    let run = shown(store, run_id).await;
    assert_eq!((run.archived, run.row.notes.as_deref()), (false, Some("n")));
}

pub async fn a_tag_is_there_or_not_as_the_last_change_says(store: &Shared) {
    let run_id = Uuid::new_v4();
    store.write_run(&RunRow { tags: tags(["own"]), start_time: Some(now()), ..run_row(run_id) }, None).await.unwrap();
    for (add, remove, expected) in [
        (&["x"][..], &[][..], &["own", "x"][..]),
        (&[], &["x", "own"], &[]),
        (&["x", "own"], &[], &["own", "x"]),
        (&["y"], &["x"], &["own", "y"]),
        (&["x"], &["y", "own"], &["x"]),
        (&["\u{1f600} a, b"], &[], &["x", "\u{1f600} a, b"]),
        (&[], &["never there"], &["x", "\u{1f600} a, b"]),
    ] {
        let [add_tags, remove_tags] = [add, remove].map(|names| tags(names.iter().copied()));
        store.write_edit(&RunEdit { add_tags, remove_tags, ..edit(run_id) }).await.unwrap();
        assert_eq!(shown(store, run_id).await.row.tags, tags(expected.iter().copied()), "after {add:?} {remove:?}");
    }
}

pub async fn two_edits_at_once_are_both_kept(store: &Shared) {
    let run_id = Uuid::new_v4();
    store.write_run(&RunRow { start_time: Some(now()), ..run_row(run_id) }, None).await.unwrap();
    let mut edits = JoinSet::new();
    for n in 0..20 {
        let store = store.clone();
        edits.spawn(async move {
            let (add_tags, remove_tags) = ([format!("add-{n}")].into(), [format!("remove-{n}")].into());
            store.write_edit(&RunEdit { add_tags, remove_tags, ..edit(run_id) }).await.unwrap();
        });
    }
    edits.spawn({
        let store = store.clone();
        async move { store.write_edit(&RunEdit { notes: Some("n".into()), ..edit(run_id) }).await.unwrap() }
    });
    edits.join_all().await;
    let stored = store.read_edits(&[run_id]).await.unwrap().pop().unwrap();
    let numbered = |prefix: &str| (0..20).map(|n| format!("{prefix}-{n}")).collect::<BTreeSet<_>>();
    assert_eq!((stored.add_tags, stored.remove_tags), (numbered("add"), numbered("remove")));
    assert_eq!(stored.notes.as_deref(), Some("n"));
}

pub async fn runs_are_found_by_the_name_that_people_gave_them(store: &Shared) {
    let name = format!("Versuch {} / \u{4e8c}", Uuid::new_v4());
    assert!(store.runs_named(&name).await.unwrap().is_empty());
    let mut runs: Vec<Uuid> = (0..NAMED_RUNS_MAX).map(|_| Uuid::new_v4()).collect();
    for (n, run) in runs.iter().enumerate() {
        store.write_edit(&RunEdit { display_name: Some(name.clone()), ..edit(*run) }).await.unwrap();
        if n < 2 {
            assert_eq!(store.runs_named(&name).await.unwrap().len(), n + 1, "an edit of this process is seen at once");
        }
    }
    let mut found = store.runs_named(&name).await.unwrap();
    found.sort();
    runs.sort();
    assert_eq!(found, runs);
    store.write_edit(&RunEdit { display_name: Some(name.clone()), ..edit(Uuid::new_v4()) }).await.unwrap();
    assert_eq!(store.runs_named(&name).await.unwrap().len(), NAMED_RUNS_MAX);
    for run in &runs {
        store.write_edit(&RunEdit { display_name: Some(String::new()), ..edit(*run) }).await.unwrap();
    }
    assert_eq!(store.runs_named(&name).await.unwrap().len(), 1);
    assert!(store.runs_named(&name.to_uppercase()).await.unwrap().is_empty(), "names are compared as they are");
}
