//! Changes that people make to a run: its name, notes and tags, and whether it is archived.
//!
//! They go straight into the store, beside the run's row ([`RunEdit`]): at once, also while the daemon is paused, and no message
//! undoes them.

use axum::{
    Extension,
    extract::{Path, State},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    body::{Body, bytes, object},
    edit_fields::EditFields,
};
use crate::{
    api::{
        auth::Caller,
        edit_log::record_edit,
        error::{ApiError, ApiResult, json as json_answer},
        memory_budget::Reservation,
        run_lookup,
        state::ApiState,
    },
    event::{EditedRun, RunEdit},
    render::RunJson,
    units,
    wire::{TAGS_BYTES_MAX, TAGS_MAX},
};

/// Time of an edit is kept in milliseconds, as every store keeps it.
const MILLISECOND: i64 = 1_000;

#[derive(Serialize)]
struct Changed<'a> {
    run: RunJson<'a>,
}

/// `PATCH /api/runs/{run_id}`
pub async fn patch(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(run): Path<String>,
    read: Body,
) -> ApiResult {
    let fields = EditFields::of_patch(object(&bytes(read)?)?)?;
    let reservation = Reservation::reserve_page(&state.memory).await;
    let run = edit(&state, &caller, &run, fields).await?;
    reservation
        .json(&Changed { run: RunJson { run: &run, now: units::now(), stale_after: state.config.stale_micros() } })
}

/// `POST /api/runs/{run_id}/notes`
pub async fn notes(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(run): Path<String>,
    read: Body,
) -> ApiResult {
    let body: Map<String, Value> = object(&bytes(read)?)?;
    let (notes, tags) = (body.get("notes").cloned(), body.get("tags").cloned());
    let run = edit(&state, &caller, &run, EditFields::of_notes(body)?).await?;
    json_answer(&json!({ "run_id": run.row.run_id, "notes": notes, "tags": tags }))
}

/// Changes the run that a path names, and returns it as it is shown then.
async fn edit(state: &ApiState, caller: &Caller, run: &str, fields: EditFields) -> Result<EditedRun, ApiError> {
    let run_id = run_lookup::resolve_run(state, run).await?;
    let row = run_lookup::row_or_created(state, run_id).await?.ok_or_else(ApiError::run_not_found)?;
    let stored = state.store.read_edits(&[run_id]).await?.pop();
    let shown = EditedRun::new(row.clone(), stored.clone());
    let change = RunEdit {
        run_id,
        edited_at: Some(units::now() / MILLISECOND * MILLISECOND),
        edited_by: Some(state.author(caller)),
        ..fields.change(&shown)
    };
    let mut edit = stored.unwrap_or_else(|| RunEdit { run_id, ..RunEdit::default() });
    edit.apply(&change);
    check_tags(&edit)?;
    state.store.write_edit(&change).await?;
    record_edit(state, caller, "update_run", run_id).await;
    Ok(EditedRun::new(row, Some(edit)))
}

/// Refuses more tags than a store keeps well in one row.
fn check_tags(edit: &RunEdit) -> Result<(), ApiError> {
    let tags = || edit.add_tags.iter().chain(&edit.remove_tags);
    if tags().count() <= TAGS_MAX && tags().map(String::len).sum::<usize>() <= TAGS_BYTES_MAX {
        return Ok(());
    }
    let kib = TAGS_BYTES_MAX >> 10;
    Err(ApiError::bad_request(format!("people may add and remove {TAGS_MAX} tags of a run, {kib} KiB in all, at most")))
}
