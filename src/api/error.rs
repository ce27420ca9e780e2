//! Answers: JSON, or `{"detail": "..."}` with the status of an error.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{logging::Chain, store::StoreError};

/// A status and why.
#[derive(Debug)]
pub struct ApiError {
    code: StatusCode,
    detail: String,
    retry_after: Option<u64>,
}

/// What every handler returns.
pub type ApiResult = Result<Response, ApiError>;

impl ApiError {
    /// Any status.
    pub fn new(code: StatusCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after: None }
    }

    /// 400: a parameter or a body that cannot be used; the detail names it.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 404 in the contract's words.
    pub fn run_not_found() -> Self {
        Self::not_found("Run not found")
    }

    /// The same with more to say.
    pub fn append_detail(mut self, more: &str) -> Self {
        self.detail.push_str(more);
        self
    }

    /// The same, saying after how many seconds it is worth trying again.
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.code
    }

    /// 503: worth trying again.
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
        let mut response = (self.code, Json(serde_json::json!({ "detail": self.detail }))).into_response();
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
