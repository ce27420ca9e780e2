//! Answers: JSON, or `{"detail": "..."}` with the status of an error.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{logging::Chain, store::StoreError};

/// An HTTP error: a status and the reason.
#[derive(Debug)]
pub struct ApiError {
    code: StatusCode,
    detail: String,
    retry_after: Option<u64>,
    candidates: Vec<Value>,
}

/// The result of a handler.
pub type ApiResult = Result<Response, ApiError>;

impl ApiError {
    /// Any status.
    pub fn new(code: StatusCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after: None, candidates: Vec::new() }
    }

    /// 400: a parameter or a body that cannot be used; the detail names it.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 404 with the text that clients know.
    pub fn run_not_found() -> Self {
        Self::not_found("Run not found")
    }

    /// Appends to the detail.
    pub fn append_detail(mut self, more: &str) -> Self {
        self.detail.push_str(more);
        self
    }

    /// Lists the runs that an ambiguous name may mean.
    pub fn with_candidates(mut self, candidates: Vec<Value>) -> Self {
        self.candidates = candidates;
        self
    }

    /// Adds `Retry-After`, in seconds.
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.code
    }

    /// The reason.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// 503: the client may try again.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Misconfigured(_) => Self::unavailable(Chain(&error).to_string()),
            StoreError::Rejected(_) => Self::bad_request(Chain(&error).to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = json!({ "detail": self.detail });
        if !self.candidates.is_empty() {
            body["candidates"] = self.candidates.into();
        }
        let mut response = (self.code, Json(body)).into_response();
        if self.code == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// 200 with JSON.
pub fn json(value: &impl Serialize) -> ApiResult {
    Ok(Json(value).into_response())
}
