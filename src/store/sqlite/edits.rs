//! `run_edits`: what people changed of a run.

use std::sync::LazyLock;

use rusqlite::{Connection, params, params_from_iter};
use uuid::Uuid;

use super::{read, rows};
use crate::{
    event::{RunEdit, StoredRow},
    store::NAMED_RUNS_MAX,
};

static READ: LazyLock<String> = LazyLock::new(|| {
    let columns = RunEdit::names().join(", ");
    format!("SELECT {columns} FROM run_edits WHERE run_id IN (SELECT value FROM json_each(?1))")
});

static WRITE: LazyLock<String> = LazyLock::new(|| rows::insert("INSERT OR REPLACE", "run_edits", &[&RunEdit::names()]));

/// Applies a change within the caller's transaction, so that reading the edit first is safe.
pub(super) fn write(connection: &Connection, change: &RunEdit) -> rusqlite::Result<()> {
    let stored = read(connection, &[change.run_id])?.pop();
    let mut edit = stored.unwrap_or_else(|| RunEdit { run_id: change.run_id, ..RunEdit::default() });
    edit.apply(change);
    connection.prepare_cached(&WRITE)?.execute(params_from_iter(edit.values())).map(drop)
}

/// The edits of these runs.
pub(super) fn read(connection: &Connection, runs: &[Uuid]) -> rusqlite::Result<Vec<RunEdit>> {
    let runs = serde_json::to_string(runs).expect("ids always serialise");
    connection.prepare_cached(&READ)?.query_map([runs], |row| read::to_stored(row, 0))?.collect()
}

/// The runs with this name.
pub(super) fn named(connection: &Connection, name: &str) -> rusqlite::Result<Vec<Uuid>> {
    let sql = "SELECT run_id FROM run_edits WHERE display_name = ?1 ORDER BY run_id LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(params![name, NAMED_RUNS_MAX as i64])?;
    let mut runs = Vec::new();
    while let Some(row) = found.next()? {
        runs.extend(read::text(row, 0)?.map(read::parse_uuid).transpose()?);
    }
    Ok(runs)
}
