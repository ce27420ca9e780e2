//! Text that is written while it is sent: memory holds the rows, and one chunk of text.

use std::{fmt, io, mem};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use futures_util::stream::unfold;
use serde::Serialize;
use tokio::{sync::mpsc, task::spawn_blocking};
use xxhash_rust::xxh3::Xxh3;

use super::{
    body::{SLICE_BYTES, json_response},
    reservation::Reservation,
};

/// Sends what is written to it in chunks of [`SLICE_BYTES`]. Writing blocks while the receiver is full.
pub struct ChunkWriter<C> {
    chunks: mpsc::Sender<C>,
    buffer: Vec<u8>,
    hash: Xxh3,
    /// The receiver has gone: what is written is dropped.
    is_closed: bool,
}

impl<C: From<Bytes>> ChunkWriter<C> {
    /// A writer that has written nothing.
    pub fn new(chunks: mpsc::Sender<C>) -> Self {
        Self { chunks, buffer: Vec::new(), hash: Xxh3::new(), is_closed: false }
    }

    /// Whether the receiver has gone.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// XXH3-64 of what was sent.
    pub fn checksum(&self) -> u64 {
        self.hash.digest()
    }

    /// Sends what is left; blocks.
    pub fn flush_blocking(&mut self) {
        if let Some(chunk) = self.chunk() {
            self.is_closed = self.chunks.blocking_send(chunk).is_err();
        }
    }

    /// The same from a task, after writing this text. Returns whether the receiver still exists.
    pub async fn send(&mut self, text: &str) -> bool {
        self.buffer.extend_from_slice(text.as_bytes());
        if let Some(chunk) = self.chunk() {
            self.is_closed = self.chunks.send(chunk).await.is_err();
        }
        !self.is_closed
    }

    fn chunk(&mut self) -> Option<C> {
        if self.is_closed || self.buffer.is_empty() {
            return None;
        }
        let chunk = mem::take(&mut self.buffer);
        self.hash.update(&chunk);
        Some(C::from(Bytes::from(chunk)))
    }

    fn push(&mut self, mut bytes: &[u8]) -> bool {
        while !self.is_closed && !bytes.is_empty() {
            if self.buffer.capacity() == 0 {
                self.buffer.reserve_exact(SLICE_BYTES);
            }
            let (now, later) = bytes.split_at(bytes.len().min(SLICE_BYTES.saturating_sub(self.buffer.len())));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() >= SLICE_BYTES {
                self.flush_blocking();
            }
        }
        !self.is_closed
    }
}

impl<C: From<Bytes>> io::Write for ChunkWriter<C> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.push(bytes) { Ok(bytes.len()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<C: From<Bytes>> fmt::Write for ChunkWriter<C> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.push(text.as_bytes()) { Ok(()) } else { Err(fmt::Error) }
    }
}

/// 200 with the JSON that `write` writes on a thread of its own, which holds the reservation until the client has received it.
pub fn json(reservation: Reservation, write: impl FnOnce(&mut ChunkWriter<Bytes>) + Send + 'static) -> Response {
    let (sender, chunks) = mpsc::channel(1);
    let is_large = reservation.bytes() > SLICE_BYTES;
    spawn_blocking(move || {
        let mut out = ChunkWriter::new(sender);
        write(&mut out);
        out.flush_blocking();
        // An empty chunk marks the end.
        let _ = out.chunks.blocking_send(Bytes::new());
        drop(reservation);
    });
    json_response(Body::from_stream(unfold(Some(chunks), next_chunk)), is_large)
}

/// Writes a row as JSON. A write error is ignored: the [`ChunkWriter`] knows that its receiver has gone.
pub fn write_json(out: impl io::Write, row: &impl Serialize) {
    if let Err(error) = serde_json::to_writer(out, row) {
        assert!(error.is_io(), "rows always serialise: {error}");
    }
}

/// The next chunk, up to the empty one. Without that one the client sees a body without an end.
async fn next_chunk(
    chunks: Option<mpsc::Receiver<Bytes>>,
) -> Option<(io::Result<Bytes>, Option<mpsc::Receiver<Bytes>>)> {
    let mut chunks = chunks?;
    match chunks.recv().await {
        Some(chunk) if chunk.is_empty() => None,
        Some(chunk) => Some((Ok(chunk), Some(chunks))),
        None => Some((Err(io::ErrorKind::UnexpectedEof.into()), None)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::{api::memory_budget::MemoryBudget, memory::MemoryLimit, units::ByteSize};

    async fn body(write: impl FnOnce(&mut ChunkWriter<Bytes>) + Send + 'static) -> Option<Bytes> {
        let reservation =
            Reservation::reserve_page(&MemoryBudget::new(ByteSize::mib(16), MemoryLimit::default())).await;
        axum::body::to_bytes(json(reservation, write).into_body(), usize::MAX).await.ok()
    }

    #[tokio::test]
    async fn a_body_is_what_was_written_and_one_without_an_end_is_an_error() {
        for size in [0, 1, SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, 5 * SLICE_BYTES] {
            for piece in [7, 1_000, SLICE_BYTES, 3 * SLICE_BYTES] {
                let text: Vec<u8> = (0..size).map(|n| b'a' + (n % 23) as u8).collect();
                let sent = text.clone();
                let received = body(move |out| sent.chunks(piece).for_each(|part| out.write_all(part).unwrap())).await;
                assert_eq!(received.as_deref(), Some(text.as_slice()), "{size} bytes in pieces of {piece}");
            }
        }
        assert_eq!(body(|_| panic!("a fault of the writer")).await, None);
    }

    #[tokio::test]
    async fn a_writer_whose_receiver_has_gone_fails() {
        let (sender, chunks) = mpsc::channel::<Bytes>(1);
        drop(chunks);
        let written = spawn_blocking(|| ChunkWriter::new(sender).write_all(&vec![0; 2 * SLICE_BYTES])).await.unwrap();
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
