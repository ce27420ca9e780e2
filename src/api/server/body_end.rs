//! Whether a request's body was read to its end. A connection with an unread rest cannot take the next request, so the answer must
//! say `Connection: close`; otherwise the client would send its next request into a closing connection.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    Error,
    body::{Body, Bytes, HttpBody},
    extract::Request,
};
use hyper::body::{Frame, SizeHint};

use super::connection_limit::ConnectionPermit;

/// Set once the body has ended.
#[derive(Clone, Debug, Default)]
pub struct BodyEnd {
    reached: Arc<AtomicBool>,
    /// The connection that is told so.
    permit: Option<Arc<ConnectionPermit>>,
}

impl BodyEnd {
    /// Wraps the body of a request. The returned value tells its end. A connection with this permit keeps its slot from then on until
    /// [`ConnectionPermit::has_answered`].
    pub fn watch(request: Request, permit: Option<Arc<ConnectionPermit>>) -> (Request, Self) {
        let end = Self { permit, ..Self::default() };
        end.set_if(request.body().is_end_stream());
        let watched = end.clone();
        (request.map(|inner| Body::new(WatchedBody { inner, end: watched })), end)
    }

    /// Whether the body was read to its end.
    pub fn is_reached(&self) -> bool {
        self.reached.load(Ordering::Acquire)
    }

    fn set_if(&self, ended: bool) {
        if ended && !self.reached.swap(true, Ordering::AcqRel) {
            self.permit.iter().for_each(|permit| permit.begin_answer());
        }
    }
}

struct WatchedBody {
    inner: Body,
    end: BodyEnd,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        self.end.set_if(matches!(frame, Poll::Ready(None)) || self.inner.is_end_stream());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_is_reached_once_all_was_read() {
        assert!(BodyEnd::watch(Request::new(Body::empty()), None).1.is_reached());
        let (request, end) = BodyEnd::watch(Request::new(Body::from("{}")), None);
        assert!(!end.is_reached());
        let read = axum::body::to_bytes(request.into_body(), 9).await.unwrap();
        assert_eq!((&read[..], end.is_reached()), (&b"{}"[..], true));
    }
}
