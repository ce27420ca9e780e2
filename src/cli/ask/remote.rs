//! Just enough of an HTTP client: one request a connection, plain or by TLS, answered in any framing of HTTP/1.1.

use std::{io, net::SocketAddr, time::Duration};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, HeaderValue},
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{error::Elapsed, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    credentials::{Credentials, Tokens, local_address},
    url::Url,
};
use crate::{api, cli::CliError, store::BoxError, tls};

/// How long a daemon may take to accept, and to go on with its answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// A line of a head, at most.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// A piece, at most.
const CHUNK_BYTES: usize = 64 << 10;

/// A daemon that is asked.
#[derive(Clone)]
pub struct DaemonClient {
    url: Url,
    tokens: Tokens,
    /// The configured daemon on this machine.
    local: Option<SocketAddr>,
    /// For `https`.
    tls: Option<TlsConnector>,
}

impl DaemonClient {
    /// The daemon at `url`.
    ///
    /// # Errors
    /// When the token or the authorities cannot be read, or the token would be sent in clear text to another machine.
    pub fn new(url: Url, credentials: &Credentials, http: &api::Config) -> Result<Self, CliError> {
        let tokens = credentials.token(&url, http)?;
        let failed = |error| CliError::failed("failed to set up TLS", error);
        let config = url.tls.then(|| tls::client_config(&credentials.tls())).transpose().map_err(failed)?;
        let local = local_address(&url, http);
        Ok(Self { url, tokens, local, tls: config.map(TlsConnector::from) })
    }

    /// Its host and port, as they were given.
    pub fn authority(&self) -> &str {
        &self.url.authority
    }

    async fn connect(&self) -> Result<Box<dyn Transport>, BoxError> {
        let stream = match self.local {
            Some(address) => TcpStream::connect(address).await?,
            None => TcpStream::connect((self.url.host.as_str(), self.url.port)).await?,
        };
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(self.url.host.clone())?;
        Ok(Box::new(tls.connect(name, stream).await.map_err(|error| self.handshake_failed(error))?))
    }

    /// What does not even look like TLS is a server that speaks plain HTTP.
    fn handshake_failed(&self, error: io::Error) -> BoxError {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        match cause {
            Some(rustls::Error::InvalidMessage(_)) => {
                let authority = &self.url.authority;
                format!("no TLS is spoken there; the address is probably http://{authority} ({error})").into()
            }
            _ => error.into(),
        }
    }

    /// A connection that is closed before an answer to plain HTTP begins is usually one of a server that expects TLS.
    fn no_answer(&self, error: CliError) -> CliError {
        match error {
            CliError::Failed { error, .. } if !self.url.tls && !error.is::<Elapsed>() => {
                let authority = &self.url.authority;
                CliError::failed(
                    format!("`{authority}` gave no answer of HTTP; the address is probably https://{authority}"),
                    error,
                )
            }
            error => error,
        }
    }

    /// Whether a refusal of these bytes is that of a server that expects TLS: proxies say so in plain HTTP.
    pub fn wants_tls(&self, status: u16, body: &[u8]) -> bool {
        !self.url.tls && status == 400 && body.windows(5).any(|word| word == b"HTTPS")
    }

    /// The address by TLS, where plain HTTP is led to it.
    fn redirect_to_tls(&self, status: u16, location: Option<&str>) -> Option<String> {
        let location = location.filter(|_| !self.url.tls && (300..400).contains(&status))?;
        let (scheme, rest) = location.split_once("://").filter(|(scheme, _)| scheme.eq_ignore_ascii_case("https"))?;
        Some(format!("{scheme}://{}", rest.split(['/', '?', '#']).next()?))
    }
}

/// What requests and answers travel on.
trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

enum Framing {
    Chunked,
    Length(u64),
    UntilClose,
    Done,
}

/// An answer under way.
pub struct HttpResponse {
    /// Its status.
    pub status: u16,
    /// What came behind the body.
    pub trailers: HeaderMap,
    stream: BufReader<Box<dyn Transport>>,
    framing: Framing,
}

fn truncated_response(error: impl Into<BoxError>) -> CliError {
    CliError::failed("the daemon's answer broke off", error)
}

async fn with_read_timeout<T>(read: impl Future<Output = io::Result<T>>) -> Result<T, CliError> {
    timeout(READ_TIMEOUT, read).await.map_err(truncated_response)?.map_err(truncated_response)
}

impl HttpResponse {
    /// Sends a request and reads the head of the answer.
    ///
    /// # Errors
    /// When nobody answers, or no HTTP.
    pub async fn send(daemon: &DaemonClient, method: &str, path: &str, body: &str) -> Result<Self, CliError> {
        let authority = &daemon.url.authority;
        let failed = |error: BoxError| CliError::failed(format!("failed to reach `{authority}`"), error);
        let stream =
            timeout(CONNECT_TIMEOUT, daemon.connect()).await.map_err(|late| failed(late.into()))?.map_err(failed)?;
        let mut stream = BufReader::with_capacity(CHUNK_BYTES, stream);
        let token =
            daemon.tokens.for_method(method).map(|token| format!("Authorization: Bearer {}\r\n", token.expose()));
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {authority}\r\n{}Connection: close\r\nTE: trailers\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            token.unwrap_or_default(),
            body.len()
        );
        let sent = async {
            with_read_timeout(stream.write_all(head.as_bytes())).await?;
            // TLS holds back what is not flushed.
            with_read_timeout(stream.flush()).await
        };
        sent.await.map_err(|error| daemon.no_answer(error))?;
        let mut remote = Self { status: 0, trailers: HeaderMap::new(), stream, framing: Framing::UntilClose };
        let first = remote.line().await.map_err(|error| daemon.no_answer(error))?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        remote.status =
            status.ok_or_else(|| failed(format!("it does not speak HTTP: `{}`", first.escape_debug()).into()))?;
        let headers = remote.headers().await?;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(address) = daemon.redirect_to_tls(remote.status, text("location")) {
            return Err(CliError::Usage(format!("`{authority}` leads to {address}: give that as --url")));
        }
        remote.framing = match (text("transfer-encoding"), text("content-length")) {
            (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked,
            (_, Some(length)) => Framing::Length(length.parse().map_err(truncated_response)?),
            _ => Framing::UntilClose,
        };
        Ok(remote)
    }

    async fn line(&mut self) -> Result<String, CliError> {
        let mut line = String::new();
        let mut limited = (&mut self.stream).take(LINE_BYTES_MAX);
        with_read_timeout(limited.read_line(&mut line)).await?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(truncated_response("a line has no end")),
        }
    }

    async fn headers(&mut self) -> Result<HeaderMap, CliError> {
        let mut headers = HeaderMap::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(headers);
            }
            if let Some((name, value)) = line.split_once(':')
                && let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.trim().parse::<HeaderValue>())
            {
                headers.append(name, value);
            }
        }
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// When it breaks off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CliError> {
        match self.framing {
            Framing::Done => Ok(None),
            Framing::Chunked => {
                let line = self.line().await?;
                let size = u64::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
                    .map_err(truncated_response)?;
                if size == 0 {
                    self.trailers = self.headers().await?;
                    self.framing = Framing::Done;
                    return Ok(None);
                }
                let bytes = self.read_exact_bytes(size).await?;
                let _ = self.line().await?;
                Ok(Some(bytes))
            }
            Framing::Length(0) => {
                self.framing = Framing::Done;
                Ok(None)
            }
            Framing::Length(left) => {
                let piece = left.min(CHUNK_BYTES as u64);
                self.framing = Framing::Length(left - piece);
                self.read_exact_bytes(piece).await.map(Some)
            }
            Framing::UntilClose => {
                let mut bytes = vec![0; CHUNK_BYTES];
                let read = with_read_timeout(self.stream.read(&mut bytes)).await?;
                bytes.truncate(read);
                Ok((read > 0).then(|| bytes.into()))
            }
        }
    }

    async fn read_exact_bytes(&mut self, size: u64) -> Result<Bytes, CliError> {
        let mut bytes = Vec::new();
        let read = with_read_timeout((&mut self.stream).take(size).read_to_end(&mut bytes)).await?;
        if read as u64 == size { Ok(bytes.into()) } else { Err(truncated_response("it ended within a piece")) }
    }
}
