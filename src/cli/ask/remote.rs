//! Just enough of an HTTP client: one request a connection, answered in any framing of HTTP/1.1.

use std::{io, time::Duration};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, HeaderValue},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::{cli::CliError, secret::Secret};

/// How long a daemon may take to accept, and to go on with its answer.
const CONNECT: Duration = Duration::from_secs(3);
const READ: Duration = Duration::from_secs(60);
/// A line of a head, at most.
const LINE: u64 = 64 << 10;
/// A piece, at most.
const PIECE: usize = 64 << 10;

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    authority: String,
    address: String,
    token: Option<Secret>,
}

impl Url {
    /// Reads `http://host:port`; the port is 80 where none is given.
    ///
    /// # Errors
    /// Says what it looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("https://") {
            return Err("`--url` speaks plain HTTP only; put a tunnel or a proxy before it".into());
        }
        let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        if authority.is_empty() || authority.contains(['/', '@', '?', ' ', '\r', '\n']) {
            return Err(format!("`{text}` is no address of a daemon; write it like http://127.0.0.1:8050"));
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        Ok(Self { authority: authority.to_owned(), address, token: None })
    }

    /// The same, with a token to send.
    pub fn with_token(self, token: Option<Secret>) -> Self {
        Self { token, ..self }
    }
}

enum Framing {
    Chunked,
    Length(u64),
    ToTheEnd,
    Over,
}

/// An answer under way.
pub struct Remote {
    /// Its status.
    pub status: u16,
    /// What came behind the body.
    pub trailers: HeaderMap,
    stream: BufReader<TcpStream>,
    framing: Framing,
}

fn broken(error: impl Into<crate::store::BoxError>) -> CliError {
    CliError::failed("the daemon's answer broke off", error)
}

async fn in_time<T>(read: impl Future<Output = io::Result<T>>) -> Result<T, CliError> {
    timeout(READ, read).await.map_err(broken)?.map_err(broken)
}

impl Remote {
    /// Sends a request and reads the head of the answer.
    ///
    /// # Errors
    /// When nobody answers, or no HTTP.
    pub async fn ask(url: &Url, method: &str, path: &str, body: &str) -> Result<Self, CliError> {
        let failed =
            |error: crate::store::BoxError| CliError::failed(format!("failed to reach `{}`", url.authority), error);
        let stream = timeout(CONNECT, TcpStream::connect(&url.address)).await.map_err(|late| failed(late.into()))?;
        let mut stream = BufReader::with_capacity(PIECE, stream.map_err(|error| failed(error.into()))?);
        let token = url.token.as_ref().map(|token| format!("Authorization: Bearer {}\r\n", token.expose()));
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{}Connection: close\r\nTE: trailers\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            url.authority,
            token.unwrap_or_default(),
            body.len()
        );
        in_time(stream.write_all(head.as_bytes())).await?;
        let mut remote = Self { status: 0, trailers: HeaderMap::new(), stream, framing: Framing::ToTheEnd };
        let first = remote.line().await?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        remote.status =
            status.ok_or_else(|| failed(format!("it does not speak HTTP: `{}`", first.escape_debug()).into()))?;
        let headers = remote.headers().await?;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        remote.framing = match (text("transfer-encoding"), text("content-length")) {
            (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked,
            (_, Some(length)) => Framing::Length(length.parse().map_err(broken)?),
            _ => Framing::ToTheEnd,
        };
        Ok(remote)
    }

    async fn line(&mut self) -> Result<String, CliError> {
        let mut line = String::new();
        let mut limited = (&mut self.stream).take(LINE);
        in_time(limited.read_line(&mut line)).await?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(broken("a line has no end")),
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
            Framing::Over => Ok(None),
            Framing::Chunked => {
                let line = self.line().await?;
                let size =
                    u64::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16).map_err(broken)?;
                if size == 0 {
                    self.trailers = self.headers().await?;
                    self.framing = Framing::Over;
                    return Ok(None);
                }
                let bytes = self.exactly(size).await?;
                let _ = self.line().await?;
                Ok(Some(bytes))
            }
            Framing::Length(0) => {
                self.framing = Framing::Over;
                Ok(None)
            }
            Framing::Length(left) => {
                let piece = left.min(PIECE as u64);
                self.framing = Framing::Length(left - piece);
                self.exactly(piece).await.map(Some)
            }
            Framing::ToTheEnd => {
                let mut bytes = vec![0; PIECE];
                let read = in_time(self.stream.read(&mut bytes)).await?;
                bytes.truncate(read);
                Ok((read > 0).then(|| bytes.into()))
            }
        }
    }

    async fn exactly(&mut self, size: u64) -> Result<Bytes, CliError> {
        let mut bytes = Vec::new();
        let read = in_time((&mut self.stream).take(size).read_to_end(&mut bytes)).await?;
        if read as u64 == size { Ok(bytes.into()) } else { Err(broken("it ended within a piece")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_daemons_are_understood() {
        for (text, address) in [
            ("http://127.0.0.1:8050", Some("127.0.0.1:8050")),
            ("http://host/", Some("host:80")),
            ("[::1]:8050", Some("[::1]:8050")),
            ("https://host", None),
            ("http://host/path", None),
            ("http://", None),
        ] {
            assert_eq!(Url::parse(text).ok().map(|url| url.address), address.map(str::to_owned), "{text}");
        }
    }
}
