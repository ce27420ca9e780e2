//! Liveness, readiness, metrics and status.

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;

use crate::api::{error::ApiError, shared_pages::Arrived, state::ApiState};

/// `GET /healthz`: the process is alive.
pub async fn alive() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: ready, or what is missing.
pub async fn ready(State(state): State<ApiState>, arrived: Option<Extension<Arrived>>) -> Response {
    match state.pages.ready.since(arrived, || readiness(&state)) {
        (StatusCode::OK, text) => text.into_response(),
        (status, missing) => ApiError::new(status, missing).into_response(),
    }
}

fn readiness(state: &ApiState) -> (StatusCode, String) {
    let mut missing = (state.missing)();
    let status = (state.status)();
    let problem = problem(&status);
    if missing.is_empty() {
        // A store problem is reported, but messages are still received and kept, so the daemon is ready.
        let text = problem.map_or_else(|| "ready\n".to_owned(), |problem| format!("ready\n{problem}\n"));
        return (StatusCode::OK, text);
    }
    missing.extend(redis_problem(&status));
    missing.extend(problem);
    (StatusCode::SERVICE_UNAVAILABLE, missing.join("; "))
}

/// Why a connection to Redis is missing.
fn redis_problem(status: &Value) -> Option<String> {
    let mut connections = status["redis"]["connections"].as_array()?.iter();
    connections.find_map(|connection| connection["error"].as_str()).map(|error| format!("Redis: {error}"))
}

/// The store problem: what it holds back, since when, and the remedy.
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

/// `GET /metrics`, as OpenMetrics.
pub async fn metrics(State(state): State<ApiState>, arrived: Option<Extension<Arrived>>) -> Response {
    let text = state.pages.metrics.since(arrived, || {
        (state.status)();
        state.metrics.ready.set(i64::from((state.missing)().is_empty()));
        state.metrics.page().into()
    });
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let mut response = text.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// `GET /api/status`
pub async fn status(State(state): State<ApiState>) -> Json<Value> {
    Json((state.status)())
}
