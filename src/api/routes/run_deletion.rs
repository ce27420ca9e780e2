//! Deletion of a run.

use axum::{
    Extension,
    extract::{Path, State},
    http::StatusCode,
};
use serde_json::json;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    api::{
        auth::Caller,
        edit_log::record_edit,
        error::{ApiError, ApiResult, json as json_answer},
        params::Params,
        run_lookup::{resolve_run, row_or_created},
        state::ApiState,
    },
    event::status,
    render::shown_status,
    units,
};

/// `DELETE /api/runs/{run_id}`
pub async fn delete(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(run): Path<String>,
    params: Params,
) -> ApiResult {
    let params = params.allow_only(&["force"], &[])?;
    let force = params.word("force", &["false", "true"])? == "true";
    let run_id = resolve_run(&state, &run).await?;
    let row = row_or_created(&state, run_id).await?.ok_or_else(ApiError::run_not_found)?;
    if !force && shown_status(&row, units::now(), state.config.stale_micros()) == Some(status::RUNNING) {
        let detail = "the run is running: what its trainer sends later would begin it anew; `force=true` deletes it all the same";
        return Err(ApiError::new(StatusCode::CONFLICT, detail));
    }
    // A task of its own: a deletion takes a while, and what belongs to it is also done when the client goes away meanwhile.
    #[expect(
        clippy::disallowed_methods,
        reason = "the request waits for its end; without its client there is no one to tell"
    )]
    let deletion = tokio::spawn(delete_recorded(state, caller, run_id).in_current_span());
    deletion.await.map_err(|error| ApiError::unavailable(error.to_string()))??;
    json_answer(&json!({ "run_id": run_id, "deleted": true }))
}

/// Deletes the run, and records its author in `control_log`.
async fn delete_recorded(state: ApiState, caller: Caller, run_id: Uuid) -> Result<(), ApiError> {
    state.store.delete_run(run_id, Some(&state.author(&caller))).await?;
    if let Some(intake) = state.submitter.targets().ok().and_then(|targets| targets.intake.as_ref()) {
        intake.forget_created(run_id);
    }
    record_edit(&state, &caller, "delete_run", run_id).await;
    Ok(())
}
