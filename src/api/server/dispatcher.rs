//! Dispatches requests by whether they are authenticated: to a router, and to a thread.
//!
//! Slow clients hold connections, streams, exports and memory. Where requests without a token may read beside those with one
//! (`http.anonymous_read`), a part of each is reserved for authenticated requests. A connection of the reserve
//! ([`connection_limit`](super::connection_limit)) answers only authenticated requests, and short ones that an operator needs
//! first: probes, the dashboard's page, signing in.
//!
//! Answers to requests that are not authenticated are made on a thread of their own, so that their CPU time delays neither the
//! reading of requests nor authenticated answers.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, Method, header},
    response::{IntoResponse, Response},
};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::{runtime::Handle, task::JoinSet};

use super::{
    body_end::BodyEnd,
    connection_limit::{Class, ConnectionPermit},
    router::{reject_all, router},
};
use crate::{
    api::{
        auth::{AccessPolicy, Authenticator, Scope},
        certificate::Certificate,
        config::{AnonymousRead, Config},
        error::ApiError,
        memory_budget::MemoryBudget,
        routes::routes,
        state::{ApiState, Reserved},
    },
    memory::MemoryLimit,
    units::ByteSize,
};

/// A router for each kind of client.
pub struct RequestDispatcher {
    /// Limits.
    pub config: Arc<Config>,
    /// For TLS.
    pub certificate: Arc<Certificate>,
    authenticator: Authenticator,
    memory: MemoryLimit,
    anonymous: Router,
    authenticated: Router,
    /// When all connection slots are in use.
    overloaded: Router,
    /// Whether `anonymous` and `authenticated` differ.
    separates_anonymous: bool,
    open_routes: Vec<(Method, &'static str)>,
    /// The runtime for requests that are not authenticated.
    background: Handle,
}

/// Cheap routes that must be answered in time: liveness, readiness, and the session. A connection of the reserve keeps its slot
/// for them once their request has arrived as a whole.
const INLINE_ROUTES: [&str; 3] = ["/healthz", "/readyz", "/api/session"];

impl RequestDispatcher {
    /// Of the routes; `background` runs requests that are not authenticated.
    pub fn new(mut state: ApiState, background: Handle) -> Self {
        let config = Arc::clone(&state.config);
        // In every other configuration either no request has a token, or all need one.
        let separates_anonymous = config.tokens_file.is_some()
            && config.anonymous_read == AnonymousRead::Loopback
            && state.access == AccessPolicy::Loopback;
        let mut anonymous = state.clone();
        if separates_anonymous {
            let half = ByteSize::kib(config.memory.as_usize() as u64 / 2048);
            let process = state.memory.process().clone();
            (state.memory, anonymous.memory) =
                (MemoryBudget::new(half, process.clone()), MemoryBudget::new(half, process));
            anonymous.reserved = Reserved {
                exports: config.reserved_exports.min(config.exports - 1),
                streams: config.reserved_streams.min(config.streams - 1),
            };
        }
        let anonymous = router(anonymous);
        let open = |scope| scope == Scope::Open || scope == Scope::SignIn;
        let open_routes =
            routes().into_iter().filter(|route| open(route.scope)).map(|route| (route.method, route.path)).collect();
        Self {
            config,
            certificate: Arc::clone(&state.certificate),
            authenticator: state.authenticator(),
            memory: state.memory.process().clone(),
            anonymous,
            overloaded: reject_all(state.clone(), overloaded),
            authenticated: router(state),
            separates_anonymous,
            open_routes,
            background,
        }
    }

    /// The memory limit of the process.
    pub fn memory(&self) -> &MemoryLimit {
        &self.memory
    }

    /// The answer to a request that came on a connection with this permit.
    pub async fn answer(&self, request: Request<Body>, permit: &Arc<ConnectionPermit>) -> Response {
        let reserve = permit.class() == Class::Reserve;
        let is_inline = INLINE_ROUTES.contains(&request.uri().path());
        let (request, body_end) = BodyEnd::watch(request, is_inline.then(|| Arc::clone(permit)));
        // Without reserved resources, the session is checked by its route alone.
        let sessions = self.separates_anonymous || reserve;
        let authenticated = self.authenticator.is_authenticated(request.headers(), sessions).await;
        let router = match authenticated {
            // The route refuses it, and counts a wrong token.
            false if self.has_invalid_token(&request) => &self.anonymous,
            _ if reserve && !(authenticated && permit.admit()) && !self.is_open_route(&request) => &self.overloaded,
            true => &self.authenticated,
            false => &self.anonymous,
        };
        let is_prompt = authenticated || is_inline;
        let made = TowerToHyperService::new(router.clone()).call(request);
        let answer = if is_prompt {
            let Ok(answer) = made.await;
            answer
        } else {
            // Dropping the set cancels the request when the client goes away.
            let mut making = JoinSet::new();
            making.spawn_on(made, &self.background);
            match making.join_next().await {
                Some(Ok(Ok(answer))) => answer,
                _ => ApiError::unavailable("the server is stopping").into_response(),
            }
        };
        permit.has_answered();
        // The client's next connection may get a general slot.
        if reserve || !body_end.is_reached() { close_connection(answer) } else { answer }
    }

    /// Whether a request that is not authenticated carries a token, which is invalid then.
    fn has_invalid_token(&self, request: &Request<Body>) -> bool {
        self.authenticator.token_store.has_tokens() && request.headers().contains_key(header::AUTHORIZATION)
    }

    /// Whether a connection of the reserve answers this without authentication; it may be evicted meanwhile.
    fn is_open_route(&self, request: &Request<Body>) -> bool {
        let path = request.uri().path();
        let listed = self.open_routes.iter().any(|(method, route)| method == request.method() && *route == path);
        listed || path == "/" || path.starts_with("/assets/")
    }
}

async fn overloaded() -> ApiError {
    ApiError::unavailable(
        "all connections are in use (`http.connections`, `http.connections_per_address`, `http.reserved_connections`); try again, \
         or send a token, for which some connections are reserved",
    )
}

fn close_connection(mut answer: Response) -> Response {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}
