//! What becomes of a request once its head is there: who asks, and what is kept free for those who are known.
//!
//! Slow clients hold connections, streams, exports and memory for answers. Where clients without a token are answered beside those
//! with one (`http.anonymous_read`), a part of each is for the latter alone. A connection of the reserve ([`seats`](super::seats))
//! gets an answer only if its request is authenticated, or is one of the short ones by which an operator gets in: the probes, the
//! dashboard's page, signing in.
//!
//! Making an answer may take a while of a core. Those of requests that are not authenticated are made on a thread of their own, so
//! that heads are read, and others answered, however many of them there are.

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
    Access, Config, Memory, Scope, Sight, access,
    config::AnonymousRead,
    error::ApiError,
    refusing, router, routes,
    seats::{Row, Seat},
};
use crate::{memory::MemoryLimit, units::ByteSize};

/// What requests that are not authenticated leave to those that are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reserved {
    /// Of `http.exports`.
    pub exports: usize,
    /// Of `http.streams`.
    pub streams: usize,
}

/// The routes, for each kind of client.
pub struct Reception {
    /// Limits.
    pub config: Arc<Config>,
    sight: Sight,
    anonymous: Router,
    authenticated: Router,
    /// For whom there is no room.
    full: Router,
    /// Whether the first two differ.
    divided: bool,
    short: Vec<(Method, &'static str)>,
    /// The runtime on whose thread answers to requests that are not authenticated are made.
    background: Handle,
}

/// Routes that cost next to nothing, and must be answered in time: whether the process lives, and whether a token is right.
const PROMPT: [&str; 3] = ["/healthz", "/readyz", "/api/session"];

impl Reception {
    /// For these routes, and with this runtime for requests that are not authenticated.
    pub fn new(mut sight: Sight, background: Handle) -> Self {
        let config = Arc::clone(&sight.config);
        // Elsewhere clients without a token are either all there are, or are told to bring one.
        let divided = config.tokens_file.is_some()
            && config.anonymous_read == AnonymousRead::Loopback
            && sight.access == Access::Loopback;
        let mut anonymous = sight.clone();
        if divided {
            let half = ByteSize::kib(config.memory.as_usize() as u64 / 2048);
            let process = sight.memory.process().clone();
            (sight.memory, anonymous.memory) = (Memory::new(half, process.clone()), Memory::new(half, process));
            anonymous.reserved = Reserved {
                exports: config.reserved_exports.min(config.exports - 1),
                streams: config.reserved_streams.min(config.streams - 1),
            };
        }
        let anonymous = router(anonymous);
        let open = |scope| scope == Scope::Open || scope == Scope::SignIn;
        let short =
            routes().into_iter().filter(|route| open(route.scope)).map(|route| (route.method, route.path)).collect();
        let (authenticated, full) = (router(sight.clone()), refusing(sight.clone(), full));
        Self { config, sight, anonymous, authenticated, full, divided, short, background }
    }

    /// The budget of memory of the process.
    pub fn memory(&self) -> &MemoryLimit {
        self.sight.memory.process()
    }

    /// The answer to a request that came on a connection with this seat.
    pub async fn answer(&self, request: Request<Body>, seat: &Seat) -> Response {
        let reserve = seat.row() == Row::Reserve;
        // Where nothing is kept free for sessions, the check of the route is soon enough.
        let sessions = self.divided || reserve;
        let authenticated = access::is_authenticated(&self.sight, request.headers(), sessions).await;
        let router = match authenticated {
            // It is told so, and counted as a guess.
            false if self.is_wrong(&request) => &self.anonymous,
            _ if reserve && !(authenticated && seat.admit()) && !self.is_short(&request) => &self.full,
            true => &self.authenticated,
            false => &self.anonymous,
        };
        let is_prompt = authenticated || PROMPT.contains(&request.uri().path());
        let made = TowerToHyperService::new(router.clone()).call(request);
        let answer = if is_prompt {
            let Ok(answer) = made.await;
            answer
        } else {
            // The set ends it when the client goes away.
            let mut making = JoinSet::new();
            making.spawn_on(made, &self.background);
            match making.join_next().await {
                Some(Ok(Ok(answer))) => answer,
                _ => ApiError::unavailable("the server is stopping").into_response(),
            }
        };
        // The next connection may find room for everything.
        if reserve { ends(answer) } else { answer }
    }

    /// Whether a request that is not authenticated brings a token, which then is none.
    fn is_wrong(&self, request: &Request<Body>) -> bool {
        self.sight.keys.is_used() && request.headers().contains_key(header::AUTHORIZATION)
    }

    /// Whether anybody may ask this on a connection of the reserve: it is answered at once, or the seat goes to the next.
    fn is_short(&self, request: &Request<Body>) -> bool {
        let path = request.uri().path();
        let listed = self.short.iter().any(|(method, route)| method == request.method() && *route == path);
        listed || path == "/" || path.starts_with("/assets/")
    }
}

async fn full() -> ApiError {
    ApiError::unavailable(
        "as many clients as `http.connections` allows (or `http.connections_per_address`, `http.reserved_connections`) are being \
         answered; try again, or send a token, for which there are connections in reserve",
    )
}

fn ends(mut answer: Response) -> Response {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}
