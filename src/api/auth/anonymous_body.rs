//! Bodies of requests without a token or a session: limited in size and time, and read before the handler runs.

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::StatusCode,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use crate::api::{config::Config, error::ApiError};

/// The request with all of its body.
///
/// # Errors
/// 413 when the body is larger than `http.anonymous_body`, 408 when it takes longer than `http.anonymous_body_timeout`, 400 when it
/// breaks off.
pub async fn read(config: &Config, request: Request) -> Result<Request, ApiError> {
    if request.body().is_end_stream() {
        return Ok(request);
    }
    let (head, body) = request.into_parts();
    let late = |_| {
        let detail = "the body did not arrive within `http.anonymous_body_timeout`; send it faster, or send a token";
        ApiError::new(StatusCode::REQUEST_TIMEOUT, detail)
    };
    let read = timeout(config.anonymous_body_timeout, read_bounded(body, config)).await.map_err(late)??;
    Ok(Request::from_parts(head, Body::from(read)))
}

async fn read_bounded(body: Body, config: &Config) -> Result<Bytes, ApiError> {
    let most = config.anonymous_body.as_usize();
    let too_large = || {
        let detail = format!(
            "the body is larger than {}, the most without a token; see `http.anonymous_body`",
            config.anonymous_body
        );
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    // A body is refused by its declared length, before any of it is read.
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    match Limited::new(body, most).collect().await {
        Ok(read) => Ok(read.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => Err(ApiError::bad_request(format!("the body broke off: {error}"))),
    }
}
