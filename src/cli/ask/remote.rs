//! A request to a daemon: one a connection, plain or by TLS.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    time::Duration,
};

use axum::http::{
    Request, Response,
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, LOCATION, TE},
};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, Connection},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{error::Elapsed, timeout},
};
use tokio_rustls::TlsConnector;

use super::credentials::{Credentials, Tokens, local_address};
use crate::{
    cli::CliError,
    config::{Settings, Url},
    reach::{Protocol, Server},
    store::BoxError,
    tls,
};

/// How long a daemon may take to accept, and to continue its answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// The head of an answer and what is read of its body at once, at most.
const BUFFER_BYTES: usize = 64 << 10;

/// An HTTP client of one daemon.
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
    pub fn new(url: Url, credentials: &Credentials, settings: &Settings) -> Result<Self, CliError> {
        let tokens = credentials.token(&url, settings)?;
        let failed = |error| CliError::failed("failed to set up TLS", error);
        let config =
            url.tls.then(|| tls::client_config(&credentials.tls(&url, settings))).transpose().map_err(failed)?;
        let local = local_address(&url, &settings.http);
        Ok(Self { url, tokens, local, tls: config.map(TlsConnector::from) })
    }

    /// Why the configured tokens are not sent, if there are some.
    pub fn tokens_problem(&self) -> Option<&str> {
        self.tokens.problem.as_deref()
    }

    /// Its host and port, as they were given.
    pub fn authority(&self) -> &str {
        &self.url.authority
    }

    /// Sends a request and reads the head of the answer.
    ///
    /// # Errors
    /// When there is no answer of HTTP, or a redirect to https.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        body: String,
    ) -> Result<(Response<Incoming>, Exchange), CliError> {
        let authority = &self.url.authority;
        let failed = |error: BoxError| CliError::failed(format!("failed to reach `{authority}`"), error);
        let mut request =
            Request::builder().method(method).uri(format!("{}{path}", self.url.prefix)).header(HOST, authority);
        if let Some(token) = self.tokens.for_request(method, path) {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        request = request.header(CONNECTION, "close").header(TE, "trailers").header(CONTENT_TYPE, "application/json");
        let request = request.body(body).map_err(|error| failed(error.into()))?;
        let stream =
            timeout(3 * CONNECT_TIMEOUT, self.connect()).await.map_err(|late| failed(late.into()))?.map_err(failed)?;
        let connection = http1::Builder::new().max_buf_size(BUFFER_BYTES).handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = connection.map_err(|error| failed(error.into()))?;
        let mut exchange = Exchange(Some(connection));
        let response = match exchange.drive(sender.send_request(request)).await {
            Ok(response) => response,
            Err(error) => return Err(self.no_answer(error).await),
        };
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        if let Some(address) = self.redirect_to_tls(response.status().as_u16(), location) {
            return Err(CliError::Usage(format!("`{authority}` leads to {address}: give that as --url")));
        }
        Ok((response, exchange))
    }

    async fn connect(&self) -> Result<Box<dyn Transport>, BoxError> {
        let server = self.server();
        let stream = match self.local {
            Some(address) => TcpStream::connect(address).await.map_err(|error| server.unreachable(&error))?,
            None => server.connect().await?,
        };
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(self.url.host.clone())?;
        Ok(Box::new(tls.connect(name, stream).await.map_err(|error| self.handshake_failed(error))?))
    }

    /// A server whose answer does not look like TLS speaks plain HTTP.
    fn handshake_failed(&self, error: io::Error) -> BoxError {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        match cause {
            Some(rustls::Error::InvalidMessage(_)) => {
                let authority = &self.url.authority;
                format!("no TLS is spoken there; the address is probably http://{authority} ({error})").into()
            }
            _ => self.server().handshake_fault(&error).into(),
        }
    }

    fn server(&self) -> Server {
        let (host, port) = (self.url.host.clone(), self.url.port);
        Server { protocol: Protocol::Http, host, port, tls: None, limit: CONNECT_TIMEOUT }
    }

    /// A server that gives no answer to plain HTTP usually expects TLS.
    async fn no_answer(&self, error: CliError) -> CliError {
        let fault = if self.url.tls { None } else { self.server().diagnose().await };
        match error {
            CliError::Failed { error, .. } if !error.is::<Elapsed>() && fault.is_some() => {
                let fault = fault.map_or(error, Into::into);
                CliError::failed(format!("failed to reach `{}`", self.url.authority), fault)
            }
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

    /// Whether a refusal comes from a proxy that expects TLS, which says so in plain HTTP.
    pub fn wants_tls(&self, status: u16, body: &[u8]) -> bool {
        !self.url.tls && status == 400 && body.windows(5).any(|word| word == b"HTTPS")
    }

    /// The https address that a redirect of plain HTTP leads to.
    fn redirect_to_tls(&self, status: u16, location: Option<&str>) -> Option<String> {
        let location = location.filter(|_| !self.url.tls && (300..400).contains(&status))?;
        let (scheme, rest) = location.split_once("://").filter(|(scheme, _)| scheme.eq_ignore_ascii_case("https"))?;
        Some(format!("{scheme}://{}", rest.split(['/', '?', '#']).next()?))
    }
}

/// A connection, plain or TLS.
trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// The connection of a request, which moves bytes only while it is driven. `None`: it has ended.
pub struct Exchange(Option<Connection<TokioIo<Box<dyn Transport>>, String>>);

impl Exchange {
    /// Waits for a step of the exchange.
    ///
    /// # Errors
    /// When it fails, or takes longer than the time-out.
    pub async fn drive<T, E>(&mut self, step: impl Future<Output = Result<T, E>>) -> Result<T, CliError>
    where
        E: Into<BoxError>,
    {
        let mut step = pin!(step);
        let driven = poll_fn(|context| {
            if self.0.as_mut().is_some_and(|connection| Pin::new(connection).poll(context).is_ready()) {
                self.0 = None;
            }
            step.as_mut().poll(context)
        });
        timeout(READ_TIMEOUT, driven).await.map_err(broke_off)?.map_err(broke_off)
    }
}

fn broke_off(error: impl Into<BoxError>) -> CliError {
    CliError::failed("the daemon's answer broke off", error)
}
