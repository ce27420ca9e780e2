//! What probes, scrapers and operators ask: is the process alive, is it ready, what does it count, what is its status.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;

use super::{Sight, error::ApiError};

/// The process is alive.
pub async fn alive() -> &'static str {
    "ok\n"
}

/// Whether it does its work; what is missing.
pub async fn ready(State(sight): State<Sight>) -> Response {
    let missing = (sight.missing)();
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, missing.join("; ")).into_response()
}

/// OpenMetrics.
pub async fn page(State(sight): State<Sight>) -> Response {
    (sight.status)();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], sight.metrics.page()).into_response()
}

/// The status object.
pub async fn status(State(sight): State<Sight>) -> Json<Value> {
    Json((sight.status)())
}
