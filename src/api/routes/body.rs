//! Bodies of requests that change something.

use axum::{body::Bytes, extract::rejection::BytesRejection};
use serde_json::{Map, Value};

use crate::api::error::ApiError;

/// A body, or why it could not be read.
pub type Body = Result<Bytes, BytesRejection>;

/// The body as an object; nothing is an empty one.
pub fn object(body: &Bytes) -> Result<Map<String, Value>, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ApiError::bad_request("the body must be a JSON object")),
        Err(error) => Err(ApiError::bad_request(format!("the body is not JSON: {error}"))),
    }
}

/// Refuses a field that is none of `known`.
///
/// # Errors
/// 400 with its name.
pub fn allow_only(object: &Map<String, Value>, known: &[&str]) -> Result<(), ApiError> {
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        Some(other) => {
            Err(ApiError::bad_request(format!("unknown field `{}`; known: {}", other.escape_debug(), known.join(", "))))
        }
        None => Ok(()),
    }
}

/// The body.
///
/// # Errors
/// As reading it failed.
pub fn bytes(read: Body) -> Result<Bytes, ApiError> {
    read.map_err(|error| ApiError::new(error.status(), format!("{error}; see `http.max_body`")))
}
