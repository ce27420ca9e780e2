//! Bodies that keep their part of the budget until they are sent.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use hyper::body::{Frame, SizeHint};
use serde::Serialize;

use super::reservation::Reservation;
use crate::{
    api::error::{ApiError, ApiResult},
    memory::guarded,
};

/// Bytes handed to the connection at once; it asks for more when most of them are written.
pub const SLICE_BYTES: usize = 64 << 10;

/// Marks an answer that may hold much memory until its client has received it.
#[derive(Clone, Copy, Debug)]
pub struct HoldsMemory;

impl Reservation {
    /// 200 with JSON; keeps as much of the memory as that takes, until it is sent.
    pub fn json(self, value: &impl Serialize) -> ApiResult {
        let text = serde_json::to_vec(value).map_err(|error| ApiError::unavailable(error.to_string()))?;
        Ok(self.text(text))
    }

    /// The same with JSON text.
    pub fn text(self, text: Vec<u8>) -> Response {
        let is_large = text.len() >= SLICE_BYTES;
        json_response(Body::new(SlicedBody { rest: self.attach(text) }), is_large)
    }

    /// Ties the reservation, reduced to the size of the text, to the text until its last slice is dropped.
    pub fn attach(mut self, text: Vec<u8>) -> Bytes {
        // The text may be larger than reserved; it exists already, so it is counted if possible. Extending also frees the page pool
        // for the next page, however slow this client is.
        self.try_extend(text.len());
        self.release_excess(text.len());
        guarded(text, self)
    }
}

/// 200 with this JSON, which holds much memory until the client has received it if it `is_large`.
pub fn json_response(body: Body, is_large: bool) -> Response {
    let mut response = ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response();
    if is_large {
        response.extensions_mut().insert(HoldsMemory);
    }
    response
}

struct SlicedBody {
    rest: Bytes,
}

impl HttpBody for SlicedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.rest.len().min(SLICE_BYTES);
        Poll::Ready((next > 0).then(|| Ok(Frame::data(self.rest.split_to(next)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
