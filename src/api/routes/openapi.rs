//! The description of all of this, for programs: OpenAPI 3.1. Tests hold it against the table of routes and the real answers.

use axum::{http::header, response::IntoResponse};

/// The document.
pub const DOCUMENT: &str = include_str!("openapi.json");

/// `GET /api/openapi.json`
pub async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}
