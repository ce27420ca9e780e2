//! Who may do what. Every route has a [`Scope`]; the check is made here, once, before its handler.
//!
//! * A token of `http.tokens_file` opens what its scope allows, from anywhere; so does the session of somebody who has signed in
//!   with one, and then a request that changes something must prove that it comes from the dashboard.
//! * Without either, and bound to loopback, local requests may read and change until there are tokens; from then on they may do
//!   neither, but for reading where `http.anonymous_read` is `loopback`. A request is local if no proxy has passed it on
//!   ([`target::is_proxied`]) and its `Host` header names loopback, so that a page of somebody else cannot reach this server by a
//!   name that it made resolve here. The `Origin` of a change must be this server's own, or one of `http.allow_origins`.
//! * Bound to anything else, only the open routes answer.
//! * Pages of other sites are kept from changing and holding anything by [`fetch_site`], whatever they send along.

use std::net::SocketAddr;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    ApiState, Config, anonymous_body,
    audit::Refusal,
    client::ClientAddress,
    config::AnonymousRead,
    cors::is_trusted,
    error::ApiError,
    fetch_site,
    recheck::Recheck,
    session::Session,
    target::{self, is_loopback, is_proxied},
    tokens::{Token, TokenStore},
};
use crate::frame::SOURCE_HTTP;

/// What a route is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// For probes and scrapers: always.
    Open,
    /// Where people sign in and out: needs no token yet.
    SignIn,
    /// Looks at data.
    Read,
    /// Hands over messages of training processes, and nothing else.
    Publish,
    /// Changes something.
    Admin,
}

impl Scope {
    /// As tokens name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::SignIn => "sign_in",
            Self::Read => "read",
            Self::Publish => "publish",
            Self::Admin => "admin",
        }
    }
}

/// The rule in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessPolicy {
    /// Bound to loopback.
    Loopback,
    /// Bound to an address that others reach.
    Network,
    /// No network between: the caller is this process.
    Internal,
}

impl AccessPolicy {
    /// The rule for an address to listen on.
    pub fn at(listen: &str) -> Self {
        let loopback = listen.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
        if loopback { Self::Loopback } else { Self::Network }
    }

    /// Whether a request without a token may go on; `tokens`: there are some.
    ///
    /// # Errors
    /// 401 where a token is needed, 403 where none would help.
    pub fn without_token(
        self,
        scope: Scope,
        tokens: bool,
        headers: &HeaderMap,
        config: &Config,
    ) -> Result<(), ApiError> {
        let needed = |why| Err(ApiError::new(StatusCode::UNAUTHORIZED, why));
        let forbidden = |why: String| Err(ApiError::new(StatusCode::FORBIDDEN, why));
        let host = target::host(headers);
        match (self, scope) {
            (_, Scope::Open) | (Self::Internal, _) => return Ok(()),
            // Whoever signs in brings a token; a proxy may stand between.
            (_, Scope::SignIn) if tokens => {}
            (Self::Network, scope) if scope != Scope::SignIn => {
                return needed("a token is needed, because `http.listen` is not a loopback address");
            }
            (_, Scope::Read) if tokens && config.anonymous_read == AnonymousRead::None => {
                return needed("a token is needed; sign in, or send one as `Authorization: Bearer`");
            }
            (_, Scope::Publish) if tokens => {
                return needed("a token with the scope `publish` is needed; send one as `Authorization: Bearer`");
            }
            (_, Scope::Admin) if tokens => {
                return needed(
                    "a token with the scope `admin` is needed; sign in, or send one as `Authorization: Bearer`",
                );
            }
            _ if is_proxied(headers) => {
                let why = "the request came through a proxy, and then a token is needed (`http.tokens_file`)";
                return if tokens { needed(why) } else { forbidden(why.into()) };
            }
            _ if !is_loopback(host) => {
                let host = host.escape_debug();
                return forbidden(format!(
                    "the Host header `{host}` does not name this machine; use 127.0.0.1, or a token"
                ));
            }
            _ => {}
        }
        if scope != Scope::Read && !is_trusted(config, headers) {
            return forbidden("commands are not taken from pages of other sites".into());
        }
        Ok(())
    }
}

/// Whether a token goes far enough.
fn require_scope(token: &Token, scope: Scope) -> Result<(), ApiError> {
    if token.scope == scope || token.scope == Scope::Admin {
        return Ok(());
    }
    let only = if token.scope == Scope::Publish { "publish" } else { "read" };
    let detail = format!("the token `{}` may only {only}", token.name);
    Err(ApiError::new(StatusCode::FORBIDDEN, detail))
}

/// The token or session of a request, as an extension of it.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The token that it brings, or that its session is of; absent: it was let in without.
    pub token: Option<Token>,
    /// Its session.
    pub session: Option<Session>,
}

impl Caller {
    /// As `control_log` names it. Nothing that comes by Redis has such a name.
    pub fn source(&self) -> String {
        self.token.as_ref().map_or_else(|| SOURCE_HTTP.to_owned(), |token| format!("{SOURCE_HTTP}:{}", token.name))
    }

    /// The name of its token.
    pub fn name(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.name.as_str())
    }

    /// Whether the token, and the session, that let it in still would, as far as is known without asking Redis.
    pub fn is_in_force(&self, keys: &TokenStore) -> bool {
        let session = |session| keys.sessions().is_ok_and(|sessions| sessions.is_in_force(session));
        self.token.as_ref().is_none_or(|token| keys.has(token)) && self.session.as_ref().is_none_or(session)
    }
}

/// A request that goes no further.
pub struct Refused {
    /// What it is answered.
    pub error: ApiError,
    why: Refusal,
    name: Option<String>,
}

impl Refused {
    fn new(why: Refusal, error: ApiError) -> Self {
        Self { error, why, name: None }
    }

    /// For a page of another site.
    pub fn cross_site(caller: &Caller, error: ApiError) -> Self {
        Self { error, why: Refusal::Origin, name: caller.name().map(str::to_owned) }
    }

    /// For a token that is one, and is not enough.
    fn for_token(token: &Token, why: Refusal) -> impl FnOnce(ApiError) -> Self {
        let name = Some(token.name.clone());
        move |error| Self { error, why, name }
    }
}

/// Who asks, if it may. `Err` with 503: that cannot be found out now.
pub async fn check(state: &ApiState, scope: Scope, headers: &HeaderMap) -> Result<Caller, Refused> {
    if scope == Scope::Open || state.access == AccessPolicy::Internal {
        return Ok(Caller::default());
    }
    target::check_trusted(&state.config, headers).map_err(|error| Refused::new(Refusal::Origin, error))?;
    // Where there are no tokens, one that is sent is no reason to send anybody away.
    let tokens = state.token_store.has_tokens();
    let wrong = |error| Refused::new(Refusal::WrongToken, error);
    if tokens && let Some(token) = state.token_store.bearer(headers).map_err(wrong)? {
        if scope != Scope::SignIn {
            require_scope(&token, scope).map_err(Refused::for_token(&token, Refusal::Scope))?;
        }
        return Ok(Caller { token: Some(token), session: None });
    }
    let refused = match state.access.without_token(scope, tokens, headers, &state.config) {
        Ok(()) => return Ok(Caller::default()),
        Err(refused) => refused,
    };
    let why = if refused.status() == StatusCode::FORBIDDEN { Refusal::Origin } else { Refusal::Anonymous };
    // Redis is asked only where it decides.
    let unknown = |error| Refused::new(Refusal::Anonymous, error);
    if tokens
        && scope != Scope::SignIn
        && let Some(session) =
            state.token_store.sessions().map_err(unknown)?.find(headers, &state.token_store).await.map_err(unknown)?
    {
        let token = session.token.clone();
        require_scope(&token, scope).map_err(Refused::for_token(&token, Refusal::Scope))?;
        if scope != Scope::Read {
            session.verify_csrf(headers, &state.config).map_err(Refused::for_token(&token, Refusal::Origin))?;
        }
        return Ok(Caller { token: Some(token), session: Some(session) });
    }
    Err(Refused::new(why, refused))
}

/// Whether a request carries a token that is in force; with `sessions` (which asks Redis) or a session.
pub async fn is_authenticated(state: &ApiState, headers: &HeaderMap, sessions: bool) -> bool {
    if !state.token_store.has_tokens() {
        return false;
    }
    if headers.contains_key(header::AUTHORIZATION) {
        return state.token_store.bearer(headers).is_ok_and(|token| token.is_some());
    }
    match state.token_store.sessions() {
        Ok(found) if sessions => found.find(headers, &state.token_store).await.is_ok_and(|session| session.is_some()),
        _ => false,
    }
}

/// The check as a layer of a route.
pub async fn guard(State((state, scope)): State<(ApiState, Scope)>, request: Request, next: Next) -> Response {
    let client = request.extensions().get().copied();
    let checked = check(&state, scope, request.headers()).await;
    let checked = checked.and_then(|caller| fetch_site::check(&state, &request, &caller).map(|()| caller));
    let caller = match checked {
        Ok(caller) => caller,
        Err(refused) => return refusal(&state, refused, client).into_response(),
    };
    let mut request = match bound_body(&state, scope, &caller, request).await {
        Ok(request) => request,
        Err(refused) => return refused.into_response(),
    };
    // What is read may be a stream, and goes on only while its reader may read.
    let recheck = (scope == Scope::Read).then(|| Recheck::new(&state, request.headers(), &caller));
    request.extensions_mut().insert(caller);
    let response = next.run(request).await;
    match recheck {
        Some(recheck) => recheck.attach(response),
        None => response,
    }
}

/// The request, with its body read within the limits for clients without a token.
async fn bound_body(state: &ApiState, scope: Scope, caller: &Caller, request: Request) -> Result<Request, ApiError> {
    let has_none = matches!(scope, Scope::Open | Scope::Read);
    if has_none || caller.token.is_some() || state.access == AccessPolicy::Internal {
        return Ok(request);
    }
    anonymous_body::read(&state.config, request).await
}

/// Writes a refusal down, and says what is answered.
fn refusal(state: &ApiState, refused: Refused, client: Option<ClientAddress>) -> ApiError {
    match refused.why {
        Refusal::WrongToken => state.token_store.wrong_token(client),
        // It could not be found out.
        _ if refused.error.status().is_server_error() => refused.error,
        why => {
            state.token_store.audit().refused(why, refused.name.as_deref(), client);
            refused.error
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_client_that_means_this_machine_gets_in() {
        let config = Config { allow_origins: vec!["*".into(), "http://dash.example".into()], ..Config::default() };
        for (access, scope, host, origin, allowed) in [
            (AccessPolicy::Loopback, Scope::Read, Some("127.0.0.1:8050"), None, true),
            (AccessPolicy::Loopback, Scope::Read, Some("localhost"), None, true),
            (AccessPolicy::Loopback, Scope::Read, Some("[::1]:8050"), None, true),
            (AccessPolicy::Loopback, Scope::Read, Some("evil.example:8050"), None, false),
            (AccessPolicy::Loopback, Scope::Read, Some("127.0.0.1.evil.example"), None, false),
            (AccessPolicy::Loopback, Scope::Read, None, None, false),
            (AccessPolicy::Loopback, Scope::Read, Some("localhost"), Some("http://evil.example"), true),
            (AccessPolicy::Loopback, Scope::Admin, Some("localhost:8050"), Some("http://evil.example"), false),
            (AccessPolicy::Loopback, Scope::Admin, Some("localhost:8050"), Some("null"), false),
            (AccessPolicy::Loopback, Scope::Admin, Some("localhost:8050"), Some("http://localhost:8050"), true),
            (AccessPolicy::Loopback, Scope::Admin, Some("localhost:8050"), None, true),
            // A listed origin is trusted, as long as it means this machine.
            (AccessPolicy::Loopback, Scope::Admin, Some("localhost:8050"), Some("http://dash.example"), true),
            (AccessPolicy::Loopback, Scope::Admin, Some("dash.example"), Some("http://dash.example"), false),
            (AccessPolicy::Network, Scope::Read, Some("localhost"), Some("http://dash.example"), false),
            (AccessPolicy::Network, Scope::Read, Some("localhost"), None, false),
            (AccessPolicy::Network, Scope::Admin, Some("localhost"), None, false),
            (AccessPolicy::Network, Scope::Open, None, None, true),
            (AccessPolicy::Loopback, Scope::SignIn, Some("evil.example"), None, false),
            (AccessPolicy::Loopback, Scope::SignIn, Some("localhost"), None, true),
        ] {
            let mut headers = HeaderMap::new();
            let pairs = [(header::HOST, host), (header::ORIGIN, origin)];
            headers.extend(pairs.into_iter().filter_map(|(name, value)| Some((name, value?.parse().unwrap()))));
            let checked = access.without_token(scope, false, &headers, &config).is_ok();
            assert_eq!(checked, allowed, "{access:?} {scope:?} {host:?} {origin:?}");
        }
    }

    #[test]
    fn with_tokens_changing_needs_one_and_signing_in_does_not() {
        for (access, scope, host, origin, status) in [
            (AccessPolicy::Loopback, Scope::Read, "localhost", None, Some(StatusCode::UNAUTHORIZED)),
            (AccessPolicy::Loopback, Scope::Read, "dash.example", None, Some(StatusCode::UNAUTHORIZED)),
            (AccessPolicy::Loopback, Scope::Admin, "localhost", None, Some(StatusCode::UNAUTHORIZED)),
            (AccessPolicy::Network, Scope::Read, "dash.example", None, Some(StatusCode::UNAUTHORIZED)),
            (AccessPolicy::Network, Scope::SignIn, "dash.example", Some("https://dash.example"), None),
            (AccessPolicy::Network, Scope::SignIn, "dash.example", Some("https://evil"), Some(StatusCode::FORBIDDEN)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            headers.extend(origin.map(|origin: &str| (header::ORIGIN, origin.parse().unwrap())));
            let checked = access.without_token(scope, true, &headers, &Config::default()).err();
            let answered = checked.map(|refused| refused.into_response().status());
            assert_eq!(answered, status, "{access:?} {scope:?} {host} {origin:?}");
        }
    }

    #[test]
    fn behind_a_proxy_nothing_is_local() {
        let loopback = Config { anonymous_read: AnonymousRead::Loopback, ..Config::default() };
        for header in ["x-forwarded-for", "x-forwarded-host", "forwarded", "via", "x-real-ip"] {
            for (config, scope, tokens, status) in [
                (Config::default(), Scope::Read, false, Some(StatusCode::FORBIDDEN)),
                (Config::default(), Scope::Admin, false, Some(StatusCode::FORBIDDEN)),
                (Config::default(), Scope::SignIn, false, Some(StatusCode::FORBIDDEN)),
                (Config::default(), Scope::Open, false, None),
                (Config::default(), Scope::Read, true, Some(StatusCode::UNAUTHORIZED)),
                (Config::default(), Scope::SignIn, true, None),
                (loopback.clone(), Scope::Read, true, Some(StatusCode::UNAUTHORIZED)),
            ] {
                let mut headers = HeaderMap::new();
                headers.insert(header::HOST, "127.0.0.1:8050".parse().unwrap());
                headers.insert(header, "10.0.0.1".parse().unwrap());
                let checked = AccessPolicy::Loopback.without_token(scope, tokens, &headers, &config).err();
                let answered = checked.map(|refused| refused.into_response().status());
                assert_eq!(answered, status, "{header} {scope:?} {tokens}");
            }
        }
    }

    #[test]
    fn with_tokens_reading_stays_open_only_where_that_is_configured() {
        let config = Config { anonymous_read: AnonymousRead::Loopback, ..Config::default() };
        for (access, scope, host, status) in [
            (AccessPolicy::Loopback, Scope::Read, "localhost", None),
            (AccessPolicy::Loopback, Scope::Read, "dash.example", Some(StatusCode::FORBIDDEN)),
            (AccessPolicy::Loopback, Scope::Admin, "localhost", Some(StatusCode::UNAUTHORIZED)),
            (AccessPolicy::Network, Scope::Read, "localhost", Some(StatusCode::UNAUTHORIZED)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            let checked = access.without_token(scope, true, &headers, &config).err();
            assert_eq!(checked.map(|refused| refused.into_response().status()), status, "{access:?} {scope:?} {host}");
        }
    }

    #[test]
    fn the_rule_follows_the_address() {
        for (listen, access) in [
            ("127.0.0.1:8050", AccessPolicy::Loopback),
            ("127.9.9.9:1", AccessPolicy::Loopback),
            ("[::1]:8050", AccessPolicy::Loopback),
            ("0.0.0.0:8050", AccessPolicy::Network),
            ("10.0.0.1:8050", AccessPolicy::Network),
            ("", AccessPolicy::Network),
        ] {
            assert_eq!(AccessPolicy::at(listen), access, "{listen}");
        }
    }
}
