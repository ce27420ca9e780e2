//! The bytes of a connection, plain or by TLS.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::write_timeout::WriteTimeoutStream;

/// The first byte of a TLS connection: a record of the handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// The answer to plain HTTP at a port that speaks TLS.
const NO_TLS: &str = "{\"detail\": \"plain HTTP was sent to a port that speaks HTTPS; use https://\"}\n";

/// A connection with a client.
pub enum ClientStream {
    /// Plain HTTP.
    Plain(WriteTimeoutStream),
    /// By TLS.
    Tls(Box<TlsStream<WriteTimeoutStream>>),
}

/// Whether the client begins with TLS.
///
/// # Errors
/// When it closes the connection or sends nothing within the limit.
pub async fn begins_with_tls(stream: &TcpStream, limit: Duration) -> io::Result<bool> {
    let mut first = [0];
    match timeout(limit, stream.peek(&mut first)).await? {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(first[0] == TLS_HANDSHAKE),
        Err(error) => Err(error),
    }
}

/// Says that the port speaks TLS.
///
/// # Errors
/// When the client does not take the answer within the limit.
pub async fn refuse_plain(mut stream: WriteTimeoutStream, limit: Duration) -> io::Result<()> {
    let length = NO_TLS.len();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{NO_TLS}"
    );
    timeout(limit, async {
        // What the client has sent is read: closing a socket with unread bytes discards the answer.
        let _ = stream.read(&mut [0; 4_096]).await?;
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    })
    .await?
}

impl ClientStream {
    /// After the handshake.
    ///
    /// # Errors
    /// When the client does not complete it within the limit.
    pub async fn accept(stream: WriteTimeoutStream, tls: TlsAcceptor, limit: Duration) -> io::Result<Self> {
        let accepted = timeout(limit, tls.accept(stream)).await??;
        Ok(Self::Tls(Box::new(accepted)))
    }

    /// Makes closing the stream discard what the kernel still buffers for the client.
    pub fn reset_on_close(&self) {
        match self {
            Self::Plain(stream) => stream.reset_on_close(),
            Self::Tls(stream) => stream.get_ref().0.reset_on_close(),
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
