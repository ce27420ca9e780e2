//! Headers that every answer carries, so that a browser neither guesses its type, nor lets pages of other origins embed it, nor
//! keeps what is personal.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};

/// Pages of other origins use answers by CORS or not at all, never as an image or a script.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The layer.
pub async fn layer(request: Request, next: Next) -> Response {
    // The page and its parts are the same for everybody, and say themselves how they are kept.
    let personal = request.uri().path() != "/" && !request.uri().path().starts_with("/assets/");
    let mut answer = next.run(request).await;
    let headers = answer.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    if personal {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    answer
}
