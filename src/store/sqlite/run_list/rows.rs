//! Rows of runs with what people changed of them, as lists read them.

use std::sync::LazyLock;

use rusqlite::{CachedStatement, Connection, OptionalExtension, Row as Stored};
use uuid::Uuid;

use crate::{
    event::{EditedRun, RunEdit, RunRow, StoredRow, status},
    render::STALE,
    store::{
        run_list::RunsQuery,
        sqlite::read::{parse_uuid, text, to_run, to_stored},
    },
    units::Micros,
};

/// Position of a column in the statements of this file.
fn at(column: &str) -> usize {
    RunRow::COLUMNS.iter().position(|known| known.name == column).expect("a column of the row")
}

struct Positions {
    run_id: usize,
    start_time: usize,
    status: usize,
    dataset_name: usize,
    texts: [usize; 6],
    edit: usize,
    archived: usize,
    row_id: usize,
}

static AT: LazyLock<Positions> = LazyLock::new(|| {
    // The row ends with `non_finite`.
    let edit = RunRow::COLUMNS.len() + 1;
    let archived = RunEdit::names().iter().position(|name| *name == "archived").expect("a column of the edit");
    Positions {
        run_id: at("run_id"),
        start_time: at("start_time"),
        status: at("status"),
        dataset_name: at("dataset_name"),
        texts: ["run_id", "run_name", "notes", "tags", "created_by", "config_json"].map(at),
        edit,
        archived: edit + archived,
        row_id: edit + RunEdit::names().len(),
    }
});

/// The columns of the row, or NULL for those that are not needed, and the columns of the edit.
pub(super) fn columns(is_needed: impl Fn(&str) -> bool) -> String {
    let row = RunRow::names().into_iter().chain(["non_finite"]);
    let row = row.map(|name| if is_needed(name) { format!("r.{name}") } else { format!("NULL AS {name}") });
    row.chain(RunEdit::names().into_iter().map(|name| format!("e.{name}"))).collect::<Vec<_>>().join(", ")
}

const FROM: &str = "FROM training_runs r LEFT JOIN run_edits e ON e.run_id = r.run_id";

/// The statement that reads all runs of a sorted list, with the columns that it needs.
pub(super) fn all(query: &RunsQuery) -> String {
    format!("SELECT {}, r.rowid {FROM} WHERE r.start_time IS NOT NULL", columns(|column| query.needs(column)))
}

/// The row id of a run, where [`all`] has read it.
pub(super) fn row_id(row: &Stored<'_>) -> rusqlite::Result<i64> {
    row.get(AT.row_id)
}

/// Id and start of a run.
pub(super) fn key(row: &Stored<'_>) -> rusqlite::Result<Option<(Micros, Uuid)>> {
    let id = text(row, AT.run_id)?.map(parse_uuid).transpose()?;
    Ok(row.get::<_, Option<Micros>>(AT.start_time)?.zip(id))
}

static ONE: LazyLock<String> = LazyLock::new(|| format!("SELECT {} {FROM} WHERE r.run_id = ?1", columns(|_| true)));

/// The run with this id.
pub(super) fn one(connection: &Connection, run_id: Uuid) -> rusqlite::Result<Option<EditedRun>> {
    connection.prepare_cached(&ONE)?.query_row([run_id.to_string()], edited).optional()
}

static BY_ROW: LazyLock<String> = LazyLock::new(|| format!("SELECT {} {FROM} WHERE r.rowid = ?1", columns(|_| true)));

/// The statement that reads the run with a row id.
pub(super) fn by_row(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    connection.prepare_cached(&BY_ROW)
}

/// The run of a row.
pub(super) fn edited(row: &Stored<'_>) -> rusqlite::Result<EditedRun> {
    let edit = match text(row, AT.edit)? {
        Some(_) => Some(to_stored::<RunEdit>(row, AT.edit)?),
        None => None,
    };
    Ok(EditedRun::new(to_run(row)?, edit))
}

/// The run of a row, if it matches.
pub(super) fn matching(row: &Stored<'_>, query: &RunsQuery) -> rusqlite::Result<Option<EditedRun>> {
    if !may_match(row, query)? {
        return Ok(None);
    }
    Ok(Some(edited(row)?).filter(|run| query.matches(run)))
}

/// A cheap test of what is stored, before texts are copied.
fn may_match(row: &Stored<'_>, query: &RunsQuery) -> rusqlite::Result<bool> {
    if let Some(wanted) = query.status.as_deref() {
        let stored = if wanted == STALE { status::RUNNING } else { wanted };
        if text(row, AT.status)? != Some(stored) {
            return Ok(false);
        }
    }
    if query.dataset.is_some() && text(row, AT.dataset_name)? != query.dataset.as_deref() {
        return Ok(false);
    }
    if let Some(archived) = query.archived
        && row.get::<_, Option<bool>>(AT.archived)?.unwrap_or(false) != archived
    {
        return Ok(false);
    }
    if query.words.is_empty() || text(row, AT.edit)?.is_some() {
        return Ok(true);
    }
    let mut texts = [""; 7];
    for (found, column) in texts.iter_mut().zip(AT.texts.iter().chain([&AT.dataset_name])) {
        *found = text(row, *column)?.unwrap_or_default();
    }
    Ok(query.words.may_occur_in(texts.into_iter()))
}
