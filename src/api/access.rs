//! Who may do what. Every route has a [`Scope`]; the check is made here, once, before its handler.
//!
//! There are no tokens yet. Until there are:
//! * bound to loopback, reading is open and commands are taken, but only from a client that means this server: the `Host` header
//!   must name loopback, so that a page of somebody else cannot reach it by a name that it made resolve here, and the `Origin` of
//!   a command must be this server's own;
//! * bound to anything else, only the open routes answer.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::error::ApiError;

/// What a route is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// For probes and scrapers: always.
    Open,
    /// Looks at data.
    Read,
    /// Changes something.
    Admin,
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

    /// Whether a request may go on.
    ///
    /// # Errors
    /// 401 without a token where one is needed, 403 where none would help.
    pub fn check(self, scope: Scope, headers: &HeaderMap) -> Result<(), ApiError> {
        match (self, scope) {
            (_, Scope::Open) | (Self::Internal, _) => Ok(()),
            (Self::Network, _) => Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "a token is needed, because `http.listen` is not a loopback address",
            )),
            (Self::Loopback, scope) => {
                let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
                let host = text(header::HOST).unwrap_or_default();
                if !is_loopback(host) {
                    let detail = format!("the Host header `{host}` does not name this machine; use 127.0.0.1");
                    return Err(ApiError::new(StatusCode::FORBIDDEN, detail));
                }
                let foreign = |origin: &str| origin.split_once("://").is_none_or(|(_, origin)| origin != host);
                if scope == Scope::Admin
                    && headers.get(header::ORIGIN).is_some()
                    && text(header::ORIGIN).is_none_or(foreign)
                {
                    return Err(ApiError::new(
                        StatusCode::FORBIDDEN,
                        "commands are not taken from pages of other sites",
                    ));
                }
                Ok(())
            }
        }
    }
}

/// Whether `host:port` names loopback.
fn is_loopback(host: &str) -> bool {
    let Ok(uri) = format!("http://{host}/").parse::<Uri>() else { return false };
    let name = uri.host().unwrap_or_default();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// The check as a layer of a route.
pub async fn guard(State((access, scope)): State<(Access, Scope)>, request: Request, next: Next) -> Response {
    match access.check(scope, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_client_that_means_this_machine_gets_in() {
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
            (Access::Network, Scope::Read, Some("localhost"), None, false),
            (Access::Network, Scope::Admin, Some("localhost"), None, false),
            (Access::Network, Scope::Open, None, None, true),
        ] {
            let mut headers = HeaderMap::new();
            let pairs = [(header::HOST, host), (header::ORIGIN, origin)];
            headers.extend(pairs.into_iter().filter_map(|(name, value)| Some((name, value?.parse().unwrap()))));
            let checked = access.check(scope, &headers).is_ok();
            assert_eq!(checked, allowed, "{access:?} {scope:?} {host:?} {origin:?}");
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
