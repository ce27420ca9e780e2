//! HTTP over a plain socket: a client that shares no code with the server.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// 200 when all is well.
    pub status: u16,
    /// The head, as sent.
    pub head: String,
    /// The body, without the framing of chunks and not compressed.
    pub body: String,
    /// What came after the last chunk.
    pub trailers: String,
}

impl Response {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// A header, or a trailer.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().chain(self.trailers.lines());
        lines.filter_map(|line| line.split_once(": ")).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }
}

/// Asks for a path.
pub fn get(port: u16, path: &str) -> io::Result<Response> {
    send(port, "GET", path, &[], "")
}

/// Sends a body to a path.
pub fn post(port: u16, path: &str, body: &str) -> io::Result<Response> {
    send(port, "POST", path, &[("Content-Type", "application/json")], body)
}

/// Sends any request. A header given here replaces the one that is sent otherwise.
pub fn send(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> io::Result<Response> {
    let body = body.as_ref();
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    let length = body.len().to_string();
    let usual = [("Host", "localhost"), ("Connection", "close"), ("Content-Length", length.as_str())];
    let given = |name: &str| headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
    for (name, value) in usual.iter().filter(|(name, _)| !given(name)).chain(headers) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(&[format!("{text}\r\n").as_bytes(), body].concat())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer)
}

/// Takes an answer apart.
pub fn parse(answer: &[u8]) -> io::Result<Response> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let (head, mut rest) = (String::from_utf8_lossy(&answer[..end]).into_owned(), &answer[end + 4..]);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let lower = head.to_ascii_lowercase();
    let plain = |body: Vec<u8>| {
        let mut text = Vec::new();
        if lower.contains("content-encoding: gzip") {
            flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut text)?;
        } else {
            text = body;
        }
        Ok::<_, io::Error>(String::from_utf8_lossy(&text).into_owned())
    };
    if !lower.contains("transfer-encoding: chunked") {
        let body = plain(rest.to_vec())?;
        return Ok(Response { status, head, body, trailers: String::new() });
    }
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = std::str::from_utf8(&rest[..line]).ok().and_then(|hex| usize::from_str_radix(hex.trim(), 16).ok());
        let size = size.ok_or(io::ErrorKind::InvalidData)?;
        rest = &rest[line + 2..];
        if size == 0 {
            break;
        }
        body.extend_from_slice(rest.get(..size).ok_or(io::ErrorKind::UnexpectedEof)?);
        rest = rest.get(size + 2..).ok_or(io::ErrorKind::UnexpectedEof)?;
    }
    let trailers = String::from_utf8_lossy(rest).into_owned();
    let body = plain(body)?;
    Ok(Response { status, head, body, trailers })
}
