//! Who may do what. Every route has a [`Scope`]; the check is made here, once, before its handler.
//!
//! * A token of `http.tokens_file` opens what its scope allows, from anywhere; so does the session of somebody who has signed in
//!   with one, and then a request that changes something must prove that it comes from the dashboard.
//! * Without either, and bound to loopback, reading is open; changing is, too, until there are tokens. But only for a client that
//!   means this server: the `Host` header must name loopback, so that a page of somebody else cannot reach it by a name that it
//!   made resolve here, and the `Origin` of a change must be this server's own, or one of `http.allow_origins`.
//! * Bound to anything else, only the open routes answer.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    Config, Sight,
    audit::Refusal,
    client::ClientAddress,
    cors::is_trusted,
    error::ApiError,
    recheck::Recheck,
    session::Session,
    tokens::{Keyring, Token},
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
pub enum Access {
    /// Bound to loopback.
    Loopback,
    /// Bound to an address that others reach.
    Network,
    /// No network between: the caller is this process.
    Internal,
}

impl Access {
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
        match (self, scope) {
            (_, Scope::Open) | (Self::Internal, _) => return Ok(()),
            (Self::Network, Scope::Read | Scope::Publish | Scope::Admin) => {
                return needed("a token is needed, because `http.listen` is not a loopback address");
            }
            // Whoever signs in brings a token; a proxy may stand between.
            (_, Scope::SignIn) if tokens => {}
            _ => {
                let host = text(headers, header::HOST).unwrap_or_default();
                if !is_loopback(host) {
                    let detail =
                        format!("the Host header `{host}` does not name this machine; use 127.0.0.1, or a token");
                    return Err(ApiError::new(StatusCode::FORBIDDEN, detail));
                }
            }
        }
        if matches!(scope, Scope::Publish | Scope::Admin) && tokens {
            let (name, sign_in) = if scope == Scope::Admin { ("admin", "sign in, or ") } else { ("publish", "") };
            let detail =
                format!("a token with the scope `{name}` is needed; {sign_in}send one as `Authorization: Bearer`");
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, detail));
        }
        if scope != Scope::Read && !is_trusted(config, headers) {
            return Err(ApiError::new(StatusCode::FORBIDDEN, "commands are not taken from pages of other sites"));
        }
        Ok(())
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether `host:port` names loopback.
pub(super) fn is_loopback(host: &str) -> bool {
    let Ok(uri) = format!("http://{host}/").parse::<Uri>() else { return false };
    let name = uri.host().unwrap_or_default();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Whether a token goes far enough.
fn allows(token: &Token, scope: Scope) -> Result<(), ApiError> {
    if token.scope == scope || token.scope == Scope::Admin {
        return Ok(());
    }
    let only = if token.scope == Scope::Publish { "publish" } else { "read" };
    let detail = format!("the token `{}` may only {only}", token.name);
    Err(ApiError::new(StatusCode::FORBIDDEN, detail))
}

/// Whom a request is from, as an extension of it.
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
    pub fn is_in_force(&self, keys: &Keyring) -> bool {
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

    /// For a token that is one, and is not enough.
    fn of(token: &Token, why: Refusal) -> impl FnOnce(ApiError) -> Self {
        let name = Some(token.name.clone());
        move |error| Self { error, why, name }
    }
}

/// Who asks, if it may. `Err` with 503: that cannot be found out now.
pub async fn check(sight: &Sight, scope: Scope, headers: &HeaderMap) -> Result<Caller, Refused> {
    if scope == Scope::Open || sight.access == Access::Internal {
        return Ok(Caller::default());
    }
    // Where there are no tokens, one that is sent is no reason to send anybody away.
    let tokens = sight.keys.is_used();
    let wrong = |error| Refused::new(Refusal::WrongToken, error);
    if tokens && let Some(token) = sight.keys.bearer(headers).map_err(wrong)? {
        if scope != Scope::SignIn {
            allows(&token, scope).map_err(Refused::of(&token, Refusal::Scope))?;
        }
        return Ok(Caller { token: Some(token), session: None });
    }
    let refused = match sight.access.without_token(scope, tokens, headers, &sight.config) {
        Ok(()) => return Ok(Caller::default()),
        Err(refused) => refused,
    };
    let why = if refused.status() == StatusCode::FORBIDDEN { Refusal::Origin } else { Refusal::Anonymous };
    // Redis is asked only where it decides.
    let unknown = |error| Refused::new(Refusal::Anonymous, error);
    if tokens
        && scope != Scope::SignIn
        && let Some(session) =
            sight.keys.sessions().map_err(unknown)?.find(headers, &sight.keys).await.map_err(unknown)?
    {
        let token = session.token.clone();
        allows(&token, scope).map_err(Refused::of(&token, Refusal::Scope))?;
        if scope != Scope::Read {
            session.prove(headers, &sight.config).map_err(Refused::of(&token, Refusal::Origin))?;
        }
        return Ok(Caller { token: Some(token), session: Some(session) });
    }
    Err(Refused::new(why, refused))
}

/// The check as a layer of a route.
pub async fn guard(State((sight, scope)): State<(Sight, Scope)>, mut request: Request, next: Next) -> Response {
    let caller = match check(&sight, scope, request.headers()).await {
        Ok(caller) => caller,
        Err(refused) => {
            let client = request.extensions().get().copied();
            return refusal(&sight, refused, client).into_response();
        }
    };
    // What is read may be a stream, and goes on only while its reader may read.
    let again = (scope == Scope::Read).then(|| Recheck::new(&sight, request.headers(), &caller));
    request.extensions_mut().insert(caller);
    let response = next.run(request).await;
    match again {
        Some(again) => again.watch(response),
        None => response,
    }
}

/// Writes a refusal down, and says what is answered.
fn refusal(sight: &Sight, refused: Refused, client: Option<ClientAddress>) -> ApiError {
    match refused.why {
        Refusal::WrongToken => sight.keys.wrong_token(client),
        // It could not be found out.
        _ if refused.error.status().is_server_error() => refused.error,
        why => {
            sight.keys.audit().refused(why, refused.name.as_deref(), client);
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
            (Access::Loopback, Scope::Read, Some("127.0.0.1:8050"), None, true),
            (Access::Loopback, Scope::Read, Some("localhost"), None, true),
            (Access::Loopback, Scope::Read, Some("[::1]:8050"), None, true),
            (Access::Loopback, Scope::Read, Some("evil.example:8050"), None, false),
            (Access::Loopback, Scope::Read, Some("127.0.0.1.evil.example"), None, false),
            (Access::Loopback, Scope::Read, None, None, false),
            (Access::Loopback, Scope::Read, Some("localhost"), Some("http://evil.example"), true),
            (Access::Loopback, Scope::Admin, Some("localhost:8050"), Some("http://evil.example"), false),
            (Access::Loopback, Scope::Admin, Some("localhost:8050"), Some("null"), false),
            (Access::Loopback, Scope::Admin, Some("localhost:8050"), Some("http://localhost:8050"), true),
            (Access::Loopback, Scope::Admin, Some("localhost:8050"), None, true),
            // A listed origin is trusted, as long as it means this machine.
            (Access::Loopback, Scope::Admin, Some("localhost:8050"), Some("http://dash.example"), true),
            (Access::Loopback, Scope::Admin, Some("dash.example"), Some("http://dash.example"), false),
            (Access::Network, Scope::Read, Some("localhost"), Some("http://dash.example"), false),
            (Access::Network, Scope::Read, Some("localhost"), None, false),
            (Access::Network, Scope::Admin, Some("localhost"), None, false),
            (Access::Network, Scope::Open, None, None, true),
            (Access::Loopback, Scope::SignIn, Some("evil.example"), None, false),
            (Access::Loopback, Scope::SignIn, Some("localhost"), None, true),
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
            (Access::Loopback, Scope::Read, "localhost", None, None),
            (Access::Loopback, Scope::Read, "dash.example", None, Some(StatusCode::FORBIDDEN)),
            (Access::Loopback, Scope::Admin, "localhost", None, Some(StatusCode::UNAUTHORIZED)),
            (Access::Network, Scope::Read, "dash.example", None, Some(StatusCode::UNAUTHORIZED)),
            (Access::Network, Scope::SignIn, "dash.example", Some("https://dash.example"), None),
            (Access::Network, Scope::SignIn, "dash.example", Some("https://evil.example"), Some(StatusCode::FORBIDDEN)),
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
    fn the_rule_follows_the_address() {
        for (listen, access) in [
            ("127.0.0.1:8050", Access::Loopback),
            ("127.9.9.9:1", Access::Loopback),
            ("[::1]:8050", Access::Loopback),
            ("0.0.0.0:8050", Access::Network),
            ("10.0.0.1:8050", Access::Network),
            ("", Access::Network),
        ] {
            assert_eq!(Access::at(listen), access, "{listen}");
        }
    }
}
