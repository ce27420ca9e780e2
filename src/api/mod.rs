//! The HTTP side: what is stored, what is newest, what the daemon says about itself, and the few requests that change something.
//!
//! [`Sight`] is all it sees: the store (which it only reads), the Redis link for the latest values, a queue into intake for what
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
mod cors;
mod error;
mod export;
mod fetch_site;
mod health;
mod history;
mod latest;
mod openapi;
mod page;
mod panels;
mod params;
mod range;
mod reception;
mod recheck;
mod record;
mod room;
mod rows;
mod runs;
mod seats;
mod security_headers;
mod serve;
mod servers;
mod session;
mod stream;
mod target;
mod throttle;
mod tokens;
mod walk;
mod weights;
mod whole;
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
    access::{Access, Scope},
    config::Config,
    error::{Answer, ApiError},
    export::{BOM, head as export_head},
    health::Pages,
    reception::Reserved,
    room::Memory,
    serve::run,
    session::Sessions,
    tokens::{Counts, Keyring, TokensError, is_name, read as read_tokens},
    write::{Ends, Inlet, ToIntake},
};
use crate::{
    live::Live,
    metrics::{Label, Metrics},
    redis::{LATEST_EXTRA, Link},
    store::Store,
    wire::Limits,
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
    /// The connection to Redis; absent in a process without one.
    pub redis: Option<Link>,
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
    /// Pages for probes and scrapers.
    pub pages: Arc<Pages>,
    /// What must be left of exports and streams.
    pub reserved: Reserved,
    /// For answers made of stored rows, and for exports.
    pub memory: Memory,
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
        read("/api/session", get(session::who)),
        admin("/api/control", post(write::control)),
        admin("/api/runs", post(write::create)),
        admin("/api/runs/{run_id}/complete", post(write::complete)),
        admin("/api/runs/{run_id}/notes", post(write::notes)),
    ]
}

/// All routes, each behind its check, and the dashboard, which is nothing to keep from anybody.
pub fn router(sight: Sight) -> Router {
    let router = Router::new().route("/", get(page::index)).route("/assets/{*name}", get(page::asset));
    let router = with(router, &sight, routes()).fallback(|| async { ApiError::not_found("Not Found") });
    finished(router, sight)
}

/// One answer to every request.
fn refusing<F: Future<Output = ApiError> + Send + 'static>(sight: Sight, answer: fn() -> F) -> Router {
    finished(Router::new().fallback(answer), sight)
}

fn with(router: Router<Sight>, sight: &Sight, routes: impl IntoIterator<Item = Route>) -> Router<Sight> {
    routes.into_iter().fold(router, |router, route| {
        let guard = middleware::from_fn_with_state((sight.clone(), route.scope), access::guard);
        router.route(route.path, route.handler.layer(guard))
    })
}

fn finished(router: Router<Sight>, sight: Sight) -> Router {
    router
        .method_not_allowed_fallback(|| async { ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .layer(DefaultBodyLimit::max(sight.config.body.as_usize()))
        .layer(middleware::from_fn_with_state(sight.clone(), watch))
        .layer(middleware::from_fn_with_state(Arc::clone(&sight.compressions), compress::layer))
        .layer(middleware::from_fn(security_headers::layer))
        .with_state(sight)
}

/// Ends what takes too long, refuses what names no one server and bodies that say that they are too large, and counts the answers.
async fn watch(State(sight): State<Sight>, request: Request, next: Next) -> Response {
    let reader = cors::Reader::of(&sight.config, request.headers());
    let early = target::check(&request)
        .err()
        .map(IntoResponse::into_response)
        .or_else(|| cors::preflight(&sight.config, request.method(), request.headers()))
        .or_else(|| too_large(&sight, &request).map(IntoResponse::into_response));
    let mut response = match early {
        Some(response) => response,
        None => tokio::time::timeout(sight.config.request_timeout, next.run(request)).await.unwrap_or_else(|_| {
            ApiError::unavailable("no answer within `http.request_timeout`; ask for less at once").into_response()
        }),
    };
    let class = match response.status().as_u16() {
        200..=299 => "2xx",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other",
    };
    sight.metrics.api_requests.get_or_create(&Label::of(class)).inc();
    reader.mark(response.headers_mut());
    response
}

/// Nothing is read of a body that is too large by its own word.
fn too_large(sight: &Sight, request: &Request) -> Option<ApiError> {
    let said = request.body().size_hint().exact()?;
    (said > sight.config.body.as_usize() as u64).then(|| {
        let detail = format!("the body is larger than {}; see `http.body`", sight.config.body);
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    })
}

/// 200 with JSON.
fn json(value: &impl serde::Serialize) -> Answer {
    Ok(Json(value).into_response())
}
