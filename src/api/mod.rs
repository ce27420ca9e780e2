//! The HTTP side: what is stored, what is newest, what the daemon says about itself, and the few requests that change something.
//!
//! [`ApiState`] is all it has: the store (which it only reads), the Redis link for the latest values, a queue into intake for what
//! is to be recorded. It cannot reach the pipeline, and runs on a thread of its own ([`serve`]). The routes are one table
//! ([`routes`]), which the test of the OpenAPI document reads, too. The command line asks the same router from within.

mod access;
mod anonymous_body;
mod audit;
mod chunked;
mod client;
mod compare;
mod compress;
mod config;
mod connection_limit;
mod cors;
mod error;
mod export;
mod fetch_site;
mod health;
mod history;
mod latest;
mod memory_budget;
mod openapi;
mod page;
mod panels;
mod params;
mod range;
mod reception;
mod recheck;
mod record;
mod request_body;
mod rows;
mod run_stats;
mod runs;
mod scan;
mod security_headers;
mod serve;
mod servers;
mod session;
mod stream;
mod target;
mod throttle;
mod tokens;
mod weights;
mod write;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::HttpBody,
    extract::{DefaultBodyLimit, Request, State},
    http::{Method, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, post},
};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};

pub use self::{
    access::{AccessPolicy, Scope},
    config::Config,
    error::{ApiError, ApiResult},
    export::{BOM, head as export_head},
    health::SharedPages,
    memory_budget::MemoryBudget,
    reception::Reserved,
    serve::run,
    session::Sessions,
    tokens::{Counts, TokenStore, TokensError, is_name, read as read_tokens},
    write::{IntakeHandle, SubmitTargets, Submitter},
};
use crate::{
    live::LiveFeed,
    metrics::{Label, Metrics},
    redis::{LATEST_EXTRA, Link},
    store::Store,
    wire::Limits,
};

/// Makes the status object.
pub type StatusFn = Arc<dyn Fn() -> Value + Send + Sync>;

/// Says what is missing for being ready.
pub type MissingFn = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// The state that handlers share.
#[derive(Clone)]
pub struct ApiState {
    /// Limits.
    pub config: Arc<Config>,
    /// Who may do what.
    pub access: AccessPolicy,
    /// For `/readyz`.
    pub missing: MissingFn,
    /// For `/metrics`, and to count the requests.
    pub metrics: Arc<Metrics>,
    /// For `/api/status`, and run before a scrape to refresh the gauges.
    pub status: StatusFn,
    /// The archive.
    pub store: Arc<dyn Store>,
    /// The connection to Redis; absent in a process without one.
    pub redis: Option<Link>,
    /// Where the latest values are; absent: they come from the store.
    pub latest: Option<Latest>,
    /// Where requests that change something go.
    pub submitter: Submitter,
    /// What happens now.
    pub live: LiveFeed,
    /// Tokens and sessions.
    pub token_store: Arc<TokenStore>,
    /// Exports that may still begin.
    pub exports: Arc<Semaphore>,
    /// Pages for probes and scrapers.
    pub pages: Arc<SharedPages>,
    /// What must be left of exports and streams.
    pub reserved: Reserved,
    /// For answers made of stored rows, and for exports.
    pub memory: MemoryBudget,
    /// Answers that may still be compressed.
    pub compressions: Arc<Semaphore>,
}

/// The latest-state keys.
#[derive(Clone, Debug)]
pub struct Latest {
    /// The connection.
    pub link: Link,
    /// Prefix of the keys.
    pub prefix: String,
    /// Most bytes of the history.
    pub history_bytes: usize,
    /// Limits of a message, which is what the other values hold.
    pub limits: watch::Receiver<Limits>,
}

impl Latest {
    /// The most that a value of ours has.
    fn value_max(&self, subject: &str) -> usize {
        match subject {
            "history" => self.history_bytes,
            _ => self.limits.borrow().message.as_usize() + LATEST_EXTRA,
        }
    }
}

/// One route. Everything that the server answers is one of these.
pub struct Route {
    /// GET, POST or DELETE.
    pub method: Method,
    /// As axum writes it: `/api/runs/{run_id}`.
    pub path: &'static str,
    /// Who may.
    pub scope: Scope,
    handler: MethodRouter<ApiState>,
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
        open("/metrics", get(health::metrics)),
        read("/api/openapi.json", get(openapi::document)),
        read("/api/status", get(health::status)),
        read("/api/runs", get(runs::list)),
        read("/api/runs/{run_id}", get(runs::detail)),
        read("/api/runs/{run_id}/topology", get(rows::topology)),
        read("/api/runs/{run_id}/events", get(rows::events)),
        read("/api/runs/{run_id}/aggregates", get(run_stats::aggregates)),
        read("/api/runs/{run_id}/growth", get(run_stats::growth)),
        read("/api/runs/{run_id}/gaps", get(run_stats::gaps)),
        read("/api/compare", get(compare::compare)),
        read("/api/export", get(export::export)),
        read("/api/metrics/range", get(range::range)),
        read("/api/metrics", get(latest::metrics)),
        read("/api/topology", get(latest::topology)),
        read("/api/network/topology", get(latest::topology)),
        read("/api/history", get(latest::history)),
        read("/api/state", get(latest::state)),
        read("/api/metrics/history", get(history::history)),
        read("/api/dataset", get(panels::dataset)),
        read("/api/network/stats", get(panels::network_stats)),
        read("/api/health", get(servers::health)),
        read("/api/v1/redis/status", get(servers::redis_status)),
        read("/api/v1/redis/metrics", get(servers::redis_metrics)),
        read("/api/v1/cassandra/status", get(servers::cassandra_status)),
        read("/api/v1/cassandra/metrics", get(servers::cassandra_metrics)),
        read("/api/stream", get(stream::stream)),
        sign_in(Method::POST, post(session::sign_in)),
        sign_in(Method::DELETE, delete(session::sign_out)),
        read("/api/session", get(session::current)),
        admin("/api/control", post(write::control)),
        admin("/api/runs", post(write::create)),
        admin("/api/runs/{run_id}/complete", post(write::complete)),
        admin("/api/runs/{run_id}/notes", post(write::notes)),
    ]
}

/// All routes, each behind its check, and the dashboard, which is nothing to keep from anybody.
pub fn router(state: ApiState) -> Router {
    let router = Router::new().route("/", get(page::index)).route("/assets/{*name}", get(page::asset));
    let router = add_routes(router, &state, routes()).fallback(|| async { ApiError::not_found("Not Found") });
    add_layers(router, state)
}

/// One answer to every request.
fn reject_all<F: Future<Output = ApiError> + Send + 'static>(state: ApiState, answer: fn() -> F) -> Router {
    add_layers(Router::new().fallback(answer), state)
}

fn add_routes(router: Router<ApiState>, state: &ApiState, routes: impl IntoIterator<Item = Route>) -> Router<ApiState> {
    routes.into_iter().fold(router, |router, route| {
        let guard = middleware::from_fn_with_state((state.clone(), route.scope), access::guard);
        router.route(route.path, route.handler.layer(guard))
    })
}

fn add_layers(router: Router<ApiState>, state: ApiState) -> Router {
    router
        .method_not_allowed_fallback(|| async { ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .layer(DefaultBodyLimit::max(state.config.max_body.as_usize()))
        .layer(middleware::from_fn_with_state(state.clone(), limit_and_count))
        .layer(middleware::from_fn_with_state(Arc::clone(&state.compressions), compress::layer))
        .layer(middleware::from_fn(security_headers::layer))
        .with_state(state)
}

/// Ends what takes too long, refuses what names no one server and bodies that say that they are too large, and counts the answers.
async fn limit_and_count(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let cors_decision = cors::CorsDecision::of(&state.config, request.headers());
    let early = target::check(&request)
        .err()
        .map(IntoResponse::into_response)
        .or_else(|| cors::preflight(&state.config, request.method(), request.headers()))
        .or_else(|| too_large(&state, &request).map(IntoResponse::into_response));
    let mut response = match early {
        Some(response) => response,
        None => tokio::time::timeout(state.config.request_timeout, next.run(request)).await.unwrap_or_else(|_| {
            ApiError::unavailable("no answer within `http.request_timeout`; ask for less at once").into_response()
        }),
    };
    let class = match response.status().as_u16() {
        200..=299 => "2xx",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other",
    };
    state.metrics.api_requests.get_or_create(&Label::of(class)).inc();
    cors_decision.apply(response.headers_mut());
    response
}

/// Nothing is read of a body that is too large by its own word.
fn too_large(state: &ApiState, request: &Request) -> Option<ApiError> {
    let declared = request.body().size_hint().exact()?;
    (declared > state.config.max_body.as_usize() as u64).then(|| {
        let detail = format!("the body is larger than {}; see `http.max_body`", state.config.max_body);
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    })
}

/// 200 with JSON.
fn json(value: &impl serde::Serialize) -> ApiResult {
    Ok(Json(value).into_response())
}
