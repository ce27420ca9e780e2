//! The OpenAPI 3.1 document. Tests compare it with the table of routes, and with real answers.

use axum::{http::header, response::IntoResponse};

/// The document.
pub const DOCUMENT: &str = include_str!("openapi.json");

/// `GET /api/openapi.json`
pub async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}
