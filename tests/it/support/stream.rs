//! A client of server-sent events.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

/// How long an event may take to come.
const LIMIT: Duration = Duration::from_secs(20);

/// An open stream.
pub struct Stream(BufReader<TcpStream>);

/// One event.
#[derive(Debug, Default)]
pub struct Event {
    /// `event`.
    pub name: String,
    /// `id`, from which to resume.
    pub id: Option<String>,
    /// `data`.
    pub data: Value,
}

impl Stream {
    /// Opens it.
    pub fn open(port: u16, query: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(stream, "GET /api/stream{query} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").unwrap();
        let mut stream = Self(BufReader::new(stream));
        assert!(stream.line().starts_with("HTTP/1.1 200"));
        while !stream.line().is_empty() {}
        stream
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next event; the sizes of chunks and the comments between are passed over.
    pub fn event(&mut self) -> Event {
        let mut event = Event::default();
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some(("event", name)) => event.name = name.to_owned(),
                Some(("id", id)) => event.id = Some(id.to_owned()),
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                _ if line.is_empty() && !event.name.is_empty() => return event,
                _ => {}
            }
        }
    }

    /// The next event of a name.
    pub fn next(&mut self, name: &str) -> Event {
        let start = Instant::now();
        loop {
            let event = self.event();
            if event.name == name {
                return event;
            }
            assert!(start.elapsed() < LIMIT, "no `{name}`");
        }
    }
}
