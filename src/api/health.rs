//! What probes, scrapers and operators ask: is the process alive, is it ready, what does it count, what is its status.

use std::sync::{Mutex, PoisonError};

use axum::{
    Extension, Json,
    body::Bytes,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tokio::time::Instant;

use super::{ApiState, error::ApiError};

/// When the head of a request was there, as an extension of the request.
#[derive(Clone, Copy, Debug)]
pub struct Arrived(pub Instant);

/// What is asked for often, and by anybody. Requests that came before a page was begun share it, so that many of them at once cost
/// little more than one, and none gets a page older than itself.
#[derive(Debug, Default)]
pub struct SharedPages {
    metrics: Shared<Bytes>,
    ready: Shared<(StatusCode, String)>,
}

#[derive(Debug)]
struct Shared<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Shared<T> {
    /// The last value, if it was begun since then, else a new one.
    fn since(&self, arrived: Option<Extension<Arrived>>, make: impl FnOnce() -> T) -> T {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let arrived = arrived.map_or(now, |Extension(Arrived(at))| at);
        match &*last {
            Some((begun, value)) if *begun > arrived => value.clone(),
            _ => last.insert((now, make())).1.clone(),
        }
    }
}

/// The process is alive.
pub async fn alive() -> &'static str {
    "ok\n"
}

/// Whether it does its work; what is missing.
pub async fn ready(State(state): State<ApiState>, arrived: Option<Extension<Arrived>>) -> Response {
    match state.pages.ready.since(arrived, || readiness(&state)) {
        (StatusCode::OK, text) => text.into_response(),
        (status, missing) => ApiError::new(status, missing).into_response(),
    }
}

fn readiness(state: &ApiState) -> (StatusCode, String) {
    let mut missing = (state.missing)();
    let problem = problem(&(state.status)());
    if missing.is_empty() {
        // Messages are received and kept: that the store does not take them is said, and is no reason to stop sending.
        let text = problem.map_or_else(|| "ready\n".to_owned(), |problem| format!("ready\n{problem}\n"));
        return (StatusCode::OK, text);
    }
    missing.extend(problem);
    (StatusCode::SERVICE_UNAVAILABLE, missing.join("; "))
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
pub async fn metrics(State(state): State<ApiState>, arrived: Option<Extension<Arrived>>) -> Response {
    let text = state.pages.metrics.since(arrived, || {
        (state.status)();
        state.metrics.page().into()
    });
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let mut response = text.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The status object.
pub async fn status(State(state): State<ApiState>) -> Json<Value> {
    Json((state.status)())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_page_is_shared_by_requests_that_came_before_it_and_never_older() {
        let (shared, mut made) = (Shared::default(), 0);
        let mut since = |at: Option<Instant>| {
            let arrived = at.map(|at| Extension(Arrived(at)));
            shared.since(arrived, || {
                made += 1;
                made
            })
        };
        let first = Instant::now();
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!([since(Some(first)), since(Some(first))], [1, 1], "both came before it");
        let second = Instant::now();
        assert_eq!(since(Some(second)), 2, "as it came");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(since(Some(second)), 3);
        assert_eq!([since(Some(first)), since(Some(second)), since(None)], [3, 3, 4]);
    }
}
