//! The body of an export.
//!
//! Its writer is a task of its own, so that a stalled client cannot keep a read permit. Dropping the body ends the task.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Bytes;
use hyper::body::{Body, Frame};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::JoinSet,
};

use super::{job::ExportJob, trailer::BodyChunk, write::write};
use crate::{logging::Chain, store::StoreError};

/// Chunks that wait for the client; the writer waits while the queue is full.
const QUEUED_CHUNKS: usize = 1;

/// See the module.
pub struct ExportBody {
    /// The writer is the only task; it ends when the body is dropped.
    writer: JoinSet<Result<(), StoreError>>,
    chunks: mpsc::Receiver<BodyChunk>,
    trailer_sent: bool,
    _permit: OwnedSemaphorePermit,
}

impl ExportBody {
    /// The body of this job.
    pub fn new(job: ExportJob, permit: OwnedSemaphorePermit) -> Self {
        let (sender, chunks) = mpsc::channel(QUEUED_CHUNKS);
        let mut writer = JoinSet::new();
        writer.spawn(write(job, sender));
        Self { writer, chunks, trailer_sent: false, _permit: permit }
    }
}

impl Body for ExportBody {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        if let Poll::Ready(Some(Ok(Err(error)))) = self.writer.poll_join_next(context) {
            // The client sees a body without an end.
            tracing::warn!(error = %Chain(&error), "an export ended early");
            return Poll::Ready(Some(Err(error)));
        }
        match self.chunks.poll_recv(context) {
            Poll::Ready(Some(BodyChunk::Bytes(bytes))) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Poll::Ready(Some(BodyChunk::End(trailer))) => {
                self.trailer_sent = true;
                Poll::Ready(Some(Ok(Frame::trailers(trailer.headers()))))
            }
            Poll::Ready(None) if self.trailer_sent => Poll::Ready(None),
            // Without its trailer a body must not look complete.
            Poll::Ready(None) => Poll::Ready(Some(Err(StoreError::Unavailable("the export ended early".into())))),
            Poll::Pending => Poll::Pending,
        }
    }
}
