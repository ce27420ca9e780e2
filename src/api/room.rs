//! Memory for answers made of large rows: one budget for all of them, held until the client has taken its answer.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use hyper::body::{Frame, SizeHint};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Sight,
    error::{Answer, ApiError},
    rows::PAGE_BYTES,
};
use crate::units::ByteSize;

/// One permit of the budget.
const UNIT: usize = 1 << 10;
/// What a page needs while it is made: its rows, and their text.
pub const PAGE: usize = 2 * PAGE_BYTES;
/// What is handed to the connection at once: it asks for more only when most of it is written.
const SLICE: usize = 64 << 10;

/// The budget of this size.
pub fn budget(size: ByteSize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(size.as_usize() / UNIT))
}

/// Room for one page and the answer made of it.
pub struct Room(OwnedSemaphorePermit);

impl Room {
    /// Waits until there is room; `http.request_timeout` ends the wait.
    ///
    /// # Errors
    /// When the server ends.
    pub async fn of(sight: &Sight) -> Result<Self, ApiError> {
        let units = u32::try_from(PAGE / UNIT).unwrap_or(u32::MAX);
        let permit = Arc::clone(&sight.memory).acquire_many_owned(units).await;
        permit.map(Self).map_err(|_| ApiError::unavailable("the daemon is stopping"))
    }

    /// 200 with JSON; keeps as much of the room as that takes, until it is sent.
    pub fn json(mut self, value: &impl Serialize) -> Answer {
        let rest = serde_json::to_vec(value).map_err(|error| ApiError::unavailable(error.to_string()))?;
        drop(self.0.split(self.0.num_permits().saturating_sub(rest.len() / UNIT + 1)));
        let body = Body::new(Held { rest: rest.into(), _permit: self.0 });
        let mut response: Response = body.into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }
}

struct Held {
    rest: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.rest.len().min(SLICE);
        Poll::Ready((next > 0).then(|| Ok(Frame::data(self.rest.split_to(next)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
