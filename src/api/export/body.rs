//! The body of an export: what writes it ends with it.
//!
//! It is a task of its own, so that it goes on while its client takes nothing: a stalled client must not keep a read permit.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, HeaderValue},
};
use hyper::body::{Body, Frame};
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::JoinSet,
};

use super::encode::{ExportJob, write};
use crate::{event::GapRow, render::JsonRows, store::StoreError};

/// Chunks that wait for the client; the writer waits while the queue is full.
const QUEUED_CHUNKS: usize = 1;

/// What a receiver checks an export by.
#[derive(Clone, Debug, Default)]
pub struct Trailer {
    /// Rows.
    pub rows: u64,
    /// XXH3-64 of everything before.
    pub checksum: u64,
    /// Where a later export goes on; absent: there was no row.
    pub cursor: Option<String>,
    /// What was missed while the runs were recorded.
    pub gaps: Vec<GapRow>,
}

impl Trailer {
    /// The names of the fields, as the head of the answer announces them.
    pub const NAMES: &str = "x-row-count, x-checksum-xxh3, x-cursor, x-gap-count, x-gaps";
    /// Gap rows that fit a header.
    const MAX_HEADER_GAPS: usize = 20;

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "rows": self.rows,
            "checksum_xxh3": format!("{:016x}", self.checksum),
            "cursor": self.cursor,
            "gaps": JsonRows(&self.gaps),
        })
    }

    fn headers(&self) -> HeaderMap {
        let some = &self.gaps[..self.gaps.len().min(Self::MAX_HEADER_GAPS)];
        let gaps = serde_json::to_string(&JsonRows(some)).unwrap_or_default();
        let values = [
            ("x-row-count", self.rows.to_string()),
            ("x-checksum-xxh3", format!("{:016x}", self.checksum)),
            ("x-cursor", self.cursor.clone().unwrap_or_default()),
            ("x-gap-count", self.gaps.len().to_string()),
            ("x-gaps", gaps),
        ];
        let header = |(name, value): (&'static str, String)| {
            Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?))
        };
        values.into_iter().filter_map(header).collect()
    }
}

/// What the writer hands over.
pub enum BodyChunk {
    /// More of the body.
    Bytes(Bytes),
    /// Its end.
    End(Box<Trailer>),
}

impl From<Bytes> for BodyChunk {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

/// See the module.
pub struct ExportBody {
    /// The only one in it; let go with it.
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
            // The client sees a body without an end, and knows.
            tracing::warn!(error = %crate::logging::Chain(&error), "an export ended early");
            return Poll::Ready(Some(Err(error)));
        }
        match self.chunks.poll_recv(context) {
            Poll::Ready(Some(BodyChunk::Bytes(bytes))) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Poll::Ready(Some(BodyChunk::End(trailer))) => {
                self.trailer_sent = true;
                Poll::Ready(Some(Ok(Frame::trailers(trailer.headers()))))
            }
            Poll::Ready(None) if self.trailer_sent => Poll::Ready(None),
            // Whatever became of the writer: without its trailer a body must not look whole.
            Poll::Ready(None) => Poll::Ready(Some(Err(StoreError::Unavailable("the export ended early".into())))),
            Poll::Pending => Poll::Pending,
        }
    }
}
