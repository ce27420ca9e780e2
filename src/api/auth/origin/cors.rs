//! Cross-origin requests. A browser shows an answer to a page of another origin only if the answer allows it. Pages of the origins
//! in `http.allow_origins` are allowed: they may read, and send commands as our own dashboard does. A browser sends the cookie of a
//! session for pages of the same host only; pages of another host send a token, without which they neither change anything nor open
//! a stream or an export ([`fetch_site`](super::fetch_site)). `"*"` in that list lets the pages of every origin read, without a
//! session. By default the list is empty.
//!
//! This does not replace the check of tokens and sessions: a request that needs a token without it needs one with it.

use axum::{
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

use crate::api::config::Config;

/// Request headers that an allowed page may send.
const HEADERS: &str =
    "authorization, content-type, x-csrf-token, last-event-id, cache-control, if-none-match, x-requested-with";
/// Methods that an allowed page may use.
const METHODS: &str = "GET, HEAD, POST, PATCH, DELETE";
/// Response headers that an allowed page may read.
const EXPOSED: &str = "x-cache-status, content-disposition, etag, retry-after, www-authenticate";
/// Seconds for which a browser may keep the answer to a preflight request.
const MAX_AGE: &str = "600";
/// Stands for every origin.
const WILDCARD: &str = "*";

/// The origin of a request as its page's browser sends it.
fn origin(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(header::ORIGIN)
}

/// Whether a request has no `Origin`, or that of this server.
pub fn same_origin(headers: &HeaderMap) -> bool {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let host = headers.get(header::HOST).and_then(text).unwrap_or_default();
    origin(headers).is_none_or(|origin| {
        text(origin).and_then(|origin| origin.split_once("://").map(|(_, name)| name == host)).unwrap_or(false)
    })
}

/// Whether the origin of a request is listed by name.
pub fn is_listed(config: &Config, headers: &HeaderMap) -> bool {
    let listed =
        |origin: &HeaderValue| config.allow_origins.iter().any(|listed| *listed == *origin && listed != WILDCARD);
    origin(headers).is_some_and(listed)
}

/// Whether the origin of a request allows a change: it has none, that of this server, or a listed one.
pub fn is_trusted(config: &Config, headers: &HeaderMap) -> bool {
    same_origin(headers) || is_listed(config, headers)
}

/// The answer to a preflight request of an allowed origin; `None` for every other request.
pub fn preflight(config: &Config, method: &Method, headers: &HeaderMap) -> Option<Response> {
    let asks = *method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if !asks || origin(headers).is_none() || !(is_listed(config, headers) || allows_any(config)) {
        return None;
    }
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
    ];
    Some((StatusCode::NO_CONTENT, allowed).into_response())
}

/// Which page may use the answer to a request.
#[derive(Debug)]
pub enum CorsDecision {
    /// Pages of this server; no other origin is configured.
    SameOriginOnly,
    /// Pages of this server; the answer varies by origin.
    SameOrigin,
    /// Pages of any origin, without a session.
    AnyOrigin,
    /// Pages of this origin, with a session.
    Listed(HeaderValue),
}

impl CorsDecision {
    /// Of a request with these headers.
    pub fn of(config: &Config, headers: &HeaderMap) -> Self {
        match origin(headers) {
            _ if config.allow_origins.is_empty() => Self::SameOriginOnly,
            Some(origin) if is_listed(config, headers) => Self::Listed(origin.clone()),
            Some(_) if allows_any(config) => Self::AnyOrigin,
            _ => Self::SameOrigin,
        }
    }

    /// Sets the headers of the answer.
    pub fn apply(self, answer: &mut HeaderMap) {
        if matches!(self, Self::SameOriginOnly) {
            return;
        }
        // Caches must not give one origin's answer to another, nor to a request without one.
        answer.append(header::VARY, HeaderValue::from_static("origin"));
        let origin = match self {
            Self::SameOriginOnly | Self::SameOrigin => return,
            Self::AnyOrigin => HeaderValue::from_static(WILDCARD),
            Self::Listed(origin) => {
                answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
                origin
            }
        };
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}

fn allows_any(config: &Config) -> bool {
    config.allow_origins.iter().any(|origin| origin == WILDCARD)
}

/// Adds problems of the list. Origins are compared byte by byte, so they must be written as browsers send them.
pub fn problems(origins: &[String], problems: &mut Vec<String>) {
    for given in origins.iter().filter(|given| *given != WILDCARD) {
        let given = given.as_str();
        match normal(given) {
            Some(normal) if normal == given => {}
            Some(normal) => problems.push(format!("`http.allow_origins`: write `{given}` as `{normal}`")),
            None => problems.push(format!(
                "`http.allow_origins`: `{}` is not an origin such as https://dash.example:8443, nor *",
                given.escape_debug()
            )),
        }
    }
}

/// The origin of an address: scheme, host, and the port unless it is the default of the scheme.
fn normal(text: &str) -> Option<String> {
    let uri = text.parse::<Uri>().ok()?;
    let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme))?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() || authority.host().is_empty() || text.contains('*') {
        return None;
    }
    let host = authority.host().to_ascii_lowercase();
    let usual = if scheme == "https" { 443 } else { 80 };
    Some(match authority.port_u16() {
        Some(port) if port != usual => format!("{scheme}://{host}:{port}"),
        // The text after the colon is no port.
        None if authority.as_str().len() > host.len() => return None,
        _ => format!("{scheme}://{host}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(origins: &[&str]) -> Config {
        Config { allow_origins: origins.iter().map(ToString::to_string).collect(), ..Config::default() }
    }

    fn headers(origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost:8050"));
        headers.extend(origin.map(|origin| (header::ORIGIN, origin.parse().unwrap())));
        headers
    }

    #[test]
    fn only_what_is_listed_is_trusted_and_gets_credentials() {
        let dash = "https://dash.example";
        for (listed, origin, trusted, allowed, credentials) in [
            (&[][..], Some(dash), false, None, false),
            (&[dash], Some(dash), true, Some(dash), true),
            (&[dash], Some("https://dash.example.evil"), false, None, false),
            (&[dash], Some("http://dash.example"), false, None, false),
            (&[dash], Some("https://dash.example:8443"), false, None, false),
            (&[dash], Some("null"), false, None, false),
            (&[dash], None, true, None, false),
            (&["*"], Some(dash), false, Some("*"), false),
            (&["*"], Some("*"), false, Some("*"), false),
            (&["*", dash], Some(dash), true, Some(dash), true),
            (&["*", dash], Some("https://evil.example"), false, Some("*"), false),
            (&[], Some("http://localhost:8050"), true, None, false),
        ] {
            let (config, asked) = (config(listed), headers(origin));
            let mut answer = HeaderMap::new();
            CorsDecision::of(&config, &asked).apply(&mut answer);
            let text = |name| answer.get(name).map(|value: &HeaderValue| value.to_str().unwrap());
            let case = format!("{listed:?} {origin:?}");
            assert_eq!(is_trusted(&config, &asked), trusted, "{case}");
            assert_eq!(text(header::ACCESS_CONTROL_ALLOW_ORIGIN), allowed, "{case}");
            assert_eq!(text(header::ACCESS_CONTROL_ALLOW_CREDENTIALS).is_some(), credentials, "{case}");
            assert_eq!(text(header::VARY), (!listed.is_empty()).then_some("origin"), "{case}");
            let mut preflight_asked = asked.clone();
            preflight_asked.insert(header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST"));
            let answered = preflight(&config, &Method::OPTIONS, &preflight_asked).is_some();
            assert_eq!(answered, allowed.is_some(), "{case}");
            assert!(preflight(&config, &Method::GET, &preflight_asked).is_none(), "{case}");
            assert!(preflight(&config, &Method::OPTIONS, &asked).is_none(), "{case}");
        }
    }

    #[test]
    fn an_origin_is_written_as_browsers_send_it() {
        for (given, problem) in [
            ("https://dash.example", None),
            ("http://127.0.0.1:3000", None),
            ("http://[::1]:3000", None),
            ("*", None),
            ("https://Dash.example/", Some("write `https://Dash.example/` as `https://dash.example`")),
            ("https://dash.example:443", Some("as `https://dash.example`")),
            ("dash.example", Some("is not an origin")),
            ("https://dash.example/app", Some("is not an origin")),
            ("https://ann@dash.example", Some("is not an origin")),
            ("https://*.example", Some("is not an origin")),
            ("file://", Some("is not an origin")),
            ("null", Some("is not an origin")),
            ("", Some("is not an origin")),
        ] {
            let mut found = Vec::new();
            problems(&[given.to_owned()], &mut found);
            match problem {
                None => assert_eq!(found, Vec::<String>::new(), "{given}"),
                Some(text) => assert!(found.len() == 1 && found[0].contains(text), "{given}: {found:?}"),
            }
        }
    }
}
