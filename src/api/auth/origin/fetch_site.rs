//! Requests that a browser makes for pages of other sites, by `Sec-Fetch-Site`: no page can change that header, and other clients
//! do not send it.
//!
//! A page of another site must not change anything, nor open a stream or an export, of which there are few. An image or a form
//! suffices for such a request: older browsers send no `Origin` with it, and the page need not read the answer.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode},
};

use super::cors::is_listed;
use crate::api::{config::Config, error::ApiError};

/// Relation of the requesting page to this site.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Routes whose answers hold one of a limited number of slots while they are sent.
const LIMITED_ROUTES: [&str; 2] = ["/api/stream", "/api/export"];

/// Refuses a request that changes something, or holds a slot, and that a browser makes for a page of another site. `bearer`: the
/// request has a valid token of its own, not that of a session.
///
/// # Errors
/// 403 where the page's origin is not in `http.allow_origins`, or where it is of another site and sends no token.
pub fn check(config: &Config, request: &Request, bearer: bool) -> Result<(), ApiError> {
    if !is_guarded(request.method(), request.uri().path()) || allows(config, request.headers(), bearer) {
        return Ok(());
    }
    let detail = "pages of other sites may not do this; list the origin in `http.allow_origins` and send a token as \
        `Authorization: Bearer`";
    Err(ApiError::new(StatusCode::FORBIDDEN, detail))
}

fn is_guarded(method: &Method, path: &str) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) || LIMITED_ROUTES.contains(&path)
}

fn allows(config: &Config, headers: &HeaderMap, bearer: bool) -> bool {
    match headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes) {
        None | Some(b"same-origin" | b"none") => true,
        // Another port or name of this site: its pages send the session cookie, which authenticates them.
        Some(b"same-site") => is_listed(config, headers),
        Some(_) => is_listed(config, headers) && bearer,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header;

    use super::*;

    #[test]
    fn pages_of_other_sites_change_nothing_and_hold_no_slot() {
        let config = Config { allow_origins: vec!["*".into(), "https://dash.example".into()], ..Config::default() };
        let (dash, evil) = (Some("https://dash.example"), Some("https://evil.example"));
        for (site, origin, bearer, allowed) in [
            (None, None, false, true),
            (Some("same-origin"), None, false, true),
            (Some("none"), None, false, true),
            (Some("cross-site"), None, false, false),
            (Some("cross-site"), evil, true, false),
            (Some("cross-site"), dash, false, false),
            (Some("cross-site"), dash, true, true),
            (Some("same-site"), None, false, false),
            (Some("same-site"), evil, false, false),
            (Some("same-site"), dash, false, true),
            (Some("nonsense"), dash, false, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(site.map(|site: &str| (SEC_FETCH_SITE, site.parse().unwrap())));
            headers.extend(origin.map(|origin: &str| (header::ORIGIN, origin.parse().unwrap())));
            assert_eq!(allows(&config, &headers, bearer), allowed, "{site:?} {origin:?} {bearer}");
        }
        for (method, path, guarded) in [
            (Method::GET, "/api/runs", false),
            (Method::GET, "/api/stream", true),
            (Method::HEAD, "/api/stream", true),
            (Method::GET, "/api/export", true),
            (Method::POST, "/api/control", true),
            (Method::DELETE, "/api/session", true),
            (Method::PATCH, "/api/runs/x", true),
            (Method::OPTIONS, "/api/control", false),
        ] {
            assert_eq!(is_guarded(&method, path), guarded, "{method} {path}");
        }
    }
}
