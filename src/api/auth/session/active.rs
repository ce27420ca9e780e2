//! One session that is in force.

use axum::http::{HeaderMap, StatusCode};
use serde_json::json;

use super::ledger::Entry;
use crate::{
    api::{
        auth::{
            origin::cors::is_trusted,
            token::{Token, constant_time_eq},
        },
        config::Config,
        error::ApiError,
    },
    units::Micros,
};

/// The header in which a page proves that a request is its own.
const CSRF_HEADER: &str = "x-csrf-token";

/// A session that was opened with a token.
#[derive(Clone, Debug)]
pub struct Session {
    /// The token that opened it.
    pub token: Token,
    pub(super) entry: Entry,
    pub(super) expires: Micros,
    pub(super) csrf: String,
}

impl Session {
    /// Verifies that a request which changes something comes from a page of this server or of a listed origin.
    ///
    /// # Errors
    /// 403 when it does not prove it.
    pub fn verify_csrf(&self, headers: &HeaderMap, config: &Config) -> Result<(), ApiError> {
        let given =
            headers.get(CSRF_HEADER).is_some_and(|value| constant_time_eq(value.as_bytes(), self.csrf.as_bytes()));
        if given && is_trusted(config, headers) {
            return Ok(());
        }
        Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "the request does not prove that it comes from the dashboard (X-CSRF-Token)",
        ))
    }

    /// As `/api/session` shows it.
    pub fn json(&self) -> serde_json::Value {
        json!({ "name": self.token.name, "scope": self.token.scope.name(), "csrf": self.csrf, "sign_in": true })
    }
}
