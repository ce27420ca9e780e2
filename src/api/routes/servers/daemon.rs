//! This daemon.

use axum::extract::State;
use serde_json::json;

use super::head::{DOWN, UP, answer_head};
use crate::api::{
    error::{ApiResult, json as json_answer},
    state::ApiState,
};

/// `GET /api/health`
pub async fn health(State(state): State<ApiState>) -> ApiResult {
    let (missing, status_object) = ((state.missing)(), (state.status)());
    let mut answer = match missing.is_empty() {
        true => answer_head(UP, "ready"),
        false => answer_head(DOWN, &missing.join("; ")),
    };
    let details = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "instance": status_object["instance"],
        "uptime_seconds": status_object["uptime_seconds"],
        "paused": status_object["paused"],
        "missing": missing,
    });
    answer.insert("details".into(), details);
    json_answer(&answer)
}
