//! The record in `control_log` of a change that was made straight in the store.

use serde_json::json;
use tracing::{error, info};
use uuid::Uuid;

use super::{auth::Caller, state::ApiState, submit::change_row};
use crate::{event::Row, frame::SOURCE_CLI, logging::Chain, store::Batch};

/// Records a change of a run, which has been made, and its author: by intake of this process, else in the store.
pub async fn record_edit(state: &ApiState, caller: &Caller, what: &'static str, run_id: Uuid) {
    let run = json!(run_id);
    if let Ok(targets) = state.submitter.targets()
        && targets.intake.is_some()
    {
        return targets.record_change(caller, what, &run);
    }
    let author = state.author(caller);
    // A command of a user says itself what it has changed.
    if state.process.user.is_none() {
        info!(what, %run, author, "a run is changed");
    }
    let mut row = change_row(caller, &state.process.instance, what, &run);
    if let Some(user) = &state.process.user {
        row.source = format!("{SOURCE_CLI}:{user}");
    }
    let row = Row::Control(row);
    let (table, partition) = row.destination();
    if let Err(error) = state.store.write(&Batch { table, partition, rows: vec![row].into() }).await {
        error!(error = %Chain(&error), what, %run, author, "the author of a change to a run is recorded in this log alone");
    }
}
