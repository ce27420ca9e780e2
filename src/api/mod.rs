//! The HTTP side: is the process alive, is it ready, what does it count, what is its status.
//!
//! It sees readiness, counters and a status closure; it cannot reach the pipeline. A port in use is tried again, never fatal:
//! receiving matters more than being asked about it.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::{
    backoff::Backoff,
    lifecycle::{Readiness, Signal},
    metrics::{Label, Metrics},
};

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port; empty: no HTTP.
    pub listen: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8050".into() }
    }
}

impl Config {
    /// Adds what is wrong with these settings.
    pub fn problems(&self, problems: &mut Vec<String>) {
        if !self.listen.is_empty() && self.listen.parse::<SocketAddr>().is_err() {
            problems
                .push(format!("`http.listen` = \"{}\" is not an address and port such as 127.0.0.1:8050", self.listen));
        }
    }
}

/// Makes the status object.
pub type StatusFn = Arc<dyn Fn() -> Value + Send + Sync>;

/// What the routes may look at.
#[derive(Clone)]
pub struct Sight {
    /// For `/readyz`.
    pub readiness: Readiness,
    /// For `/metrics`, and to count the requests.
    pub metrics: Arc<Metrics>,
    /// For `/api/status`, and run before a scrape to refresh the gauges.
    pub status: StatusFn,
}

/// Serves until stopped.
///
/// # Errors
/// Never: without a port it goes on trying.
pub async fn run(config: Config, sight: Sight, mut stop: Signal) -> Result<(), Infallible> {
    if config.listen.is_empty() {
        stop.stopped().await;
        return Ok(());
    }
    let Some(listener) = bind(&config.listen, stop.clone()).await else { return Ok(()) };
    info!(address = config.listen, "HTTP is listening");
    let serving = axum::serve(listener, router(sight)).with_graceful_shutdown({
        let mut stop = stop.clone();
        async move { stop.stopped().await }
    });
    // A client that keeps its connection open must not keep the daemon: a second after the signal it is dropped.
    tokio::select! {
        result = async { serving.await } => {
            if let Err(error) = result {
                warn!(%error, "HTTP stopped");
            }
        }
        () = async { stop.stopped().await; tokio::time::sleep(Duration::from_secs(1)).await } => {}
    }
    Ok(())
}

async fn bind(address: &str, mut stop: Signal) -> Option<TcpListener> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5), u64::from(std::process::id()));
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Some(listener),
            Err(error) if backoff.tries() == 0 => {
                warn!(%error, address, "`http.listen` cannot be bound; trying again, the pipeline runs without it");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.stopped() => return None,
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}

/// All routes.
pub fn router(sight: Sight) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(page))
        .route("/api/status", get(status))
        .fallback(|| async { detail(StatusCode::NOT_FOUND, "Not Found") })
        .layer(middleware::from_fn_with_state(sight.clone(), count))
        .with_state(sight)
}

async fn ready(State(sight): State<Sight>) -> Response {
    let missing = sight.readiness.missing();
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    detail(StatusCode::SERVICE_UNAVAILABLE, &missing.join("; "))
}

async fn page(State(sight): State<Sight>) -> Response {
    (sight.status)();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], sight.metrics.page()).into_response()
}

async fn status(State(sight): State<Sight>) -> Json<Value> {
    Json((sight.status)())
}

fn detail(code: StatusCode, text: &str) -> Response {
    (code, Json(json!({ "detail": text }))).into_response()
}

async fn count(State(sight): State<Sight>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let class = match response.status().as_u16() {
        200..=299 => "2xx",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other",
    };
    sight.metrics.api_requests.get_or_create(&Label::of(class)).inc();
    response
}
