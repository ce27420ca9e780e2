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
    let mut missing = (sight.missing)();
    let problem = problem(&(sight.status)());
    if missing.is_empty() {
        // Messages are received and kept: that the store does not take them is said, and is no reason to stop sending.
        return problem.map_or_else(|| "ready\n".to_owned(), |problem| format!("ready\n{problem}\n")).into_response();
    }
    missing.extend(problem);
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, missing.join("; ")).into_response()
}

/// What holds the rows back, since when, and what mends it.
fn problem(status: &Value) -> Option<String> {
    let problem = status["store"]["problem"].as_object()?;
    let text = |name: &str| problem.get(name).and_then(Value::as_str);
    let mut said = format!(
        "store problem, holding {} since {}: {}",
        text("holds").unwrap_or_default(),
        text("since").unwrap_or_default(),
        text("reason").unwrap_or_default()
    );
    if let Some(remedy) = text("remedy") {
        said.push_str("; to mend it: ");
        said.push_str(remedy);
    }
    Some(said)
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
