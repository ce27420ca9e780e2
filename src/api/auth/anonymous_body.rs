//! Bodies of requests without a token or a session: small, and read within a short time, before anything else is done for them.

use std::{future::poll_fn, pin::Pin};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::StatusCode,
};
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
    let (head, mut body) = request.into_parts();
    let late = |_| {
        let detail = "the body did not come within `http.anonymous_body_timeout`; send it faster, or send a token";
        ApiError::new(StatusCode::REQUEST_TIMEOUT, detail)
    };
    let read = timeout(config.anonymous_body_timeout, read_bounded(&mut body, config)).await.map_err(late)??;
    Ok(Request::from_parts(head, Body::from(read)))
}

async fn read_bounded(body: &mut Body, config: &Config) -> Result<Bytes, ApiError> {
    let most = config.anonymous_body.as_usize();
    let too_large = || {
        let detail = format!(
            "the body is larger than {}, the most without a token; see `http.anonymous_body`",
            config.anonymous_body
        );
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    // Nothing is read of what is too large by its own word.
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let mut read = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
        let frame = frame.map_err(|error| ApiError::bad_request(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > most {
            return Err(too_large());
        }
        read.extend_from_slice(&data);
    }
    Ok(read.into())
}
