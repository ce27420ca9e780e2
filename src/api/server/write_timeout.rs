//! The time-out of writing to a client.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::connection_limit::{ConnectionPermit, RequestGuard};

/// A stream that fails when its peer does not read in time. While a write is pending, the connection is busy; once all that has
/// arrived at first is read, it is idle.
pub struct WriteTimeoutStream {
    stream: TcpStream,
    /// Whether there was nothing to read before.
    has_waited: bool,
    write_timeout: Duration,
    permit: Arc<ConnectionPermit>,
    timer: Option<(Pin<Box<Sleep>>, RequestGuard)>,
}

impl WriteTimeoutStream {
    /// A stream of the connection with this permit.
    pub fn new(stream: TcpStream, write_timeout: Duration, permit: Arc<ConnectionPermit>) -> Self {
        Self { stream, has_waited: false, write_timeout, permit, timer: None }
    }

    /// Makes closing the stream discard what the kernel still buffers for the client.
    pub fn reset_on_close(&self) {
        let _ = self.stream.set_zero_linger();
    }

    /// `Pending` becomes an error when it has lasted too long.
    fn with_write_timeout<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.timer = None;
            return polled;
        }
        let (write_timeout, permit) = (self.write_timeout, &self.permit);
        let (timer, _) = self.timer.get_or_insert_with(|| (Box::pin(sleep(write_timeout)), permit.begin_request()));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for WriteTimeoutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if polled.is_pending() && !self.has_waited {
            self.has_waited = true;
            self.permit.wait_for_client();
        }
        polled
    }
}

impl AsyncWrite for WriteTimeoutStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.with_write_timeout(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.with_write_timeout(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.with_write_timeout(polled, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
