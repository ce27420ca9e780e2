//! The rule for requests without a token.
//!
//! * Bound to loopback, local requests may read and change until there are tokens; from then on they may only read, and only where
//!   `http.anonymous_read` is `loopback`. A request is local if no proxy has passed it on ([`target::is_proxied`]) and its `Host`
//!   header names loopback, so that a page of another site cannot reach this server by a name that it made resolve here. The
//!   `Origin` of a change must be this server's own, or one of `http.allow_origins`.
//! * Bound to any other address, only the open routes answer.

use std::net::SocketAddr;

use axum::http::{HeaderMap, StatusCode};

use super::{
    origin::{
        cors::is_trusted,
        target::{self, is_loopback, is_proxied},
    },
    scope::Scope,
};
use crate::api::{
    config::{AnonymousRead, Config},
    error::ApiError,
};

/// What a person does where there are no tokens yet.
pub const MAKE_A_TOKEN: &str =
    "`cascor-ingest token new NAME admin` makes one, for the file that `http.tokens_file` names";

/// The rule in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessPolicy {
    /// Bound to loopback.
    Loopback,
    /// Bound to an address that other machines reach.
    Network,
    /// No network: requests come from within this process.
    Internal,
}

impl AccessPolicy {
    /// The rule for an address to listen on.
    pub fn at(listen: &str) -> Self {
        let loopback = listen.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
        if loopback { Self::Loopback } else { Self::Network }
    }

    /// Whether a request without a token is admitted; `tokens`: whether tokens are configured.
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
        let needed = |why: String| Err(ApiError::new(StatusCode::UNAUTHORIZED, why));
        let forbidden = |why: String| Err(ApiError::new(StatusCode::FORBIDDEN, why));
        let host = target::host(headers);
        match (self, scope) {
            (_, Scope::Open) | (Self::Internal, _) => return Ok(()),
            // Signing in brings a token, also through a proxy.
            (_, Scope::SignIn) if tokens => {}
            (Self::Network, scope) if scope != Scope::SignIn => {
                let why = "a token is needed, because `http.listen` is not a loopback address";
                let none = || needed(format!("{why}, and there are none yet: {MAKE_A_TOKEN}"));
                return if tokens { needed(why.into()) } else { none() };
            }
            (_, Scope::Read) if tokens && config.anonymous_read == AnonymousRead::None => {
                return needed("a token is needed; sign in, or send one as `Authorization: Bearer`".into());
            }
            (_, Scope::Publish) if tokens => {
                let why = "a token with the scope `publish` is needed; send one as `Authorization: Bearer`";
                return needed(why.into());
            }
            (_, Scope::Admin) if tokens => {
                let why = "a token with the scope `admin` is needed; sign in, or send one as `Authorization: Bearer`";
                return needed(why.into());
            }
            _ if is_proxied(headers) => {
                let why = "a request through a proxy needs a token (`http.tokens_file`)";
                return if tokens { needed(why.into()) } else { forbidden(why.into()) };
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
            return forbidden("commands from pages of other sites are refused".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use axum::{http::header, response::IntoResponse};

    use super::*;

    #[test]
    fn without_tokens_only_requests_to_loopback_are_admitted() {
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
    fn where_there_are_no_tokens_yet_the_refusal_says_how_to_make_one() {
        let refusal = |tokens| {
            let asked = AccessPolicy::Network.without_token(Scope::Read, tokens, &HeaderMap::new(), &Config::default());
            format!("{:?}", asked.unwrap_err())
        };
        assert!(refusal(false).contains("`cascor-ingest token new NAME admin`"), "{}", refusal(false));
        assert!(!refusal(true).contains("token new"), "{}", refusal(true));
    }

    #[test]
    fn with_tokens_a_change_needs_one_and_signing_in_does_not() {
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
