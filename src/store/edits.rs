//! What people change of a run: `run_edits`, which no writer of messages touches.

use std::collections::HashMap;

use uuid::Uuid;

use super::{BoxFuture, Store, StoreError};
use crate::event::{EditedRun, RunEdit, RunRow};

/// Maximum runs that [`EditStore::runs_named`] returns.
pub const NAMED_RUNS_MAX: usize = 20;

/// The edits of a store. They are kept beside the rows of runs: a message never changes an edit, nor an edit a row.
pub trait EditStore: Send + Sync {
    /// Applies a change as [`RunEdit::apply`] does, whole or not at all; of two at once, the last wins, column by column and tag by
    /// tag.
    fn write_edit<'a>(&'a self, change: &'a RunEdit) -> BoxFuture<'a, Result<(), StoreError>>;

    /// The edits of these runs, in any order; runs without one are left out.
    fn read_edits<'a>(&'a self, runs: &'a [Uuid]) -> BoxFuture<'a, Result<Vec<RunEdit>, StoreError>>;

    /// Runs that people gave this name, at most [`NAMED_RUNS_MAX`]. An edit of another process may be seen two seconds late.
    fn runs_named<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Uuid>, StoreError>>;
}

/// These runs as they are shown, in the same order.
///
/// # Errors
/// As the store fails.
pub async fn edited(store: &dyn Store, rows: Vec<RunRow>) -> Result<Vec<EditedRun>, StoreError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.run_id).collect();
    let edits = if ids.is_empty() { Vec::new() } else { store.read_edits(&ids).await? };
    let mut edits: HashMap<Uuid, RunEdit> = edits.into_iter().map(|edit| (edit.run_id, edit)).collect();
    Ok(rows
        .into_iter()
        .map(|row| (edits.remove(&row.run_id), row))
        .map(|(edit, row)| EditedRun::new(row, edit))
        .collect())
}

/// The run as it is shown.
///
/// # Errors
/// As the store fails.
pub async fn edited_run(store: &dyn Store, run_id: Uuid) -> Result<Option<EditedRun>, StoreError> {
    let Some(row) = store.read_run(run_id).await? else { return Ok(None) };
    Ok(edited(store, vec![row]).await?.pop())
}
