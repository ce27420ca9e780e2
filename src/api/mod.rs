//! The HTTP side: what is stored, what is newest, what the daemon says about itself, and the few requests that change something.
//!
//! [`Sight`] is all it sees: the store (which it only reads), the Redis link for the latest values, a queue into intake for what
//! is to be recorded. It cannot reach the pipeline, and runs on a thread of its own ([`serve`]). The routes are one table
//! ([`routes`]), which the test of the OpenAPI document reads, too. The command line asks the same router from within.

mod access;
mod compare;
mod config;
mod error;
mod export;
mod health;
mod latest;
mod openapi;
mod page;
mod params;
mod range;
mod room;
mod rows;
mod runs;
mod serve;
mod session;
mod stream;
mod tokens;
mod walk;
mod whole;
mod write;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{Method, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, post},
};
use serde_json::Value;
use tokio::sync::Semaphore;

pub use self::{
    access::{Access, Scope},
    config::Config,
    error::{Answer, ApiError},
    room::Memory,
    serve::run,
    session::Sessions,
    tokens::{Keyring, TokensError},
    write::{Ends, Inlet, ToIntake},
};
use crate::{
    live::Live,
    metrics::{Label, Metrics},
    redis::Link,
    store::Store,
};

/// Makes the status object.
pub type StatusFn = Arc<dyn Fn() -> Value + Send + Sync>;

/// Says what is missing for being ready.
pub type MissingFn = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// What the routes may look at.
#[derive(Clone)]
pub struct Sight {
    /// Limits.
    pub config: Arc<Config>,
    /// Who may do what.
    pub access: Access,
    /// For `/readyz`.
    pub missing: MissingFn,
    /// For `/metrics`, and to count the requests.
    pub metrics: Arc<Metrics>,
    /// For `/api/status`, and run before a scrape to refresh the gauges.
    pub status: StatusFn,
    /// The archive.
    pub store: Arc<dyn Store>,
    /// Where the latest values are; absent: they come from the store.
    pub latest: Option<Latest>,
    /// Where requests that change something go.
    pub inlet: Inlet,
    /// What happens now.
    pub live: Live,
    /// Tokens and sessions.
    pub keys: Arc<Keyring>,
    /// Exports that may still begin.
    pub exports: Arc<Semaphore>,
    /// For answers made of large rows.
    pub memory: Memory,
}

/// The latest-state keys.
#[derive(Clone, Debug)]
pub struct Latest {
    /// The connection.
    pub link: Link,
    /// Prefix of the keys.
    pub prefix: String,
}

/// One route. Everything that the server answers is one of these.
pub struct Route {
    /// GET, POST or DELETE.
    pub method: Method,
    /// As axum writes it: `/api/runs/{run_id}`.
    pub path: &'static str,
    /// Who may.
    pub scope: Scope,
    handler: MethodRouter<Sight>,
}

/// The table of routes.
pub fn routes() -> Vec<Route> {
    let read = |path, handler| Route { method: Method::GET, path, scope: Scope::Read, handler };
    let open = |path, handler| Route { scope: Scope::Open, ..read(path, handler) };
    let admin = |path, handler| Route { method: Method::POST, path, scope: Scope::Admin, handler };
    let sign_in = |method, handler| Route { method, path: "/api/session", scope: Scope::SignIn, handler };
    vec![
        open("/healthz", get(health::alive)),
        open("/readyz", get(health::ready)),
        open("/metrics", get(health::page)),
        read("/api/openapi.json", get(openapi::document)),
        read("/api/status", get(health::status)),
        read("/api/runs", get(runs::list)),
        read("/api/runs/{run_id}", get(runs::one)),
        read("/api/runs/{run_id}/topology", get(rows::topology)),
        read("/api/runs/{run_id}/events", get(rows::events)),
        read("/api/runs/{run_id}/aggregates", get(whole::aggregates)),
        read("/api/runs/{run_id}/growth", get(whole::growth)),
        read("/api/runs/{run_id}/gaps", get(whole::gaps)),
        read("/api/compare", get(compare::compare)),
        read("/api/export", get(export::export)),
        read("/api/metrics/range", get(range::range)),
        read("/api/metrics", get(latest::metrics)),
        read("/api/topology", get(latest::topology)),
        read("/api/network/topology", get(latest::topology)),
        read("/api/history", get(latest::history)),
        read("/api/stream", get(stream::stream)),
        sign_in(Method::POST, post(session::sign_in)),
        sign_in(Method::DELETE, delete(session::sign_out)),
        read("/api/session", get(session::who)),
        admin("/api/control", post(write::control)),
        admin("/api/runs", post(write::create)),
        admin("/api/runs/{run_id}/complete", post(write::complete)),
        admin("/api/runs/{run_id}/notes", post(write::notes)),
    ]
}

/// All routes, each behind its check, and the dashboard, which is nothing to keep from anybody.
pub fn router(sight: Sight) -> Router {
    let mut router = Router::new().route("/", get(page::index)).route("/assets/{*name}", get(page::asset));
    for route in routes() {
        let guard = middleware::from_fn_with_state((sight.clone(), route.scope), access::guard);
        router = router.route(route.path, route.handler.layer(guard));
    }
    router
        .fallback(|| async { ApiError::not_found("Not Found") })
        .method_not_allowed_fallback(|| async { ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .layer(DefaultBodyLimit::max(sight.config.body.as_usize()))
        .layer(middleware::from_fn_with_state(sight.clone(), watch))
        .with_state(sight)
}

/// Ends what takes too long, and counts the answers.
async fn watch(State(sight): State<Sight>, request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(sight.config.request_timeout, next.run(request)).await;
    let response = answer.unwrap_or_else(|_| {
        ApiError::unavailable("no answer within `http.request_timeout`; ask for less at once").into_response()
    });
    let class = match response.status().as_u16() {
        200..=299 => "2xx",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other",
    };
    sight.metrics.api_requests.get_or_create(&Label::of(class)).inc();
    response
}

/// 200 with JSON.
fn json(value: &impl serde::Serialize) -> Answer {
    Ok(Json(value).into_response())
}
