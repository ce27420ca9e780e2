//! A private Redis, and a client that publishes as fast as a socket takes bytes.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::Error;

/// A private redis-server; killed when dropped.
pub struct Redis {
    child: Child,
    /// Where it listens on loopback.
    pub port: u16,
}

impl Redis {
    pub fn start(port: u16) -> Result<Self, Error> {
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()?;
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(Self { child, port });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("redis-server did not start".into())
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection; commands are pipelined.
pub struct Client {
    stream: TcpStream,
    replies: BufReader<TcpStream>,
    out: Vec<u8>,
    waiting: usize,
}

impl Client {
    pub fn connect(port: u16) -> Result<Self, Error> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let replies = BufReader::new(stream.try_clone()?);
        Ok(Self { stream, replies, out: Vec::with_capacity(1 << 16), waiting: 0 })
    }

    /// Queues a PUBLISH.
    pub fn publish(&mut self, channel: &str, payload: &[u8]) {
        let _ = write!(self.out, "*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${}\r\n", channel.len(), payload.len());
        self.out.extend_from_slice(payload);
        self.out.extend_from_slice(b"\r\n");
        self.waiting += 1;
    }

    /// Queues an XADD of a message.
    pub fn append(&mut self, stream: &str, payload: &[u8]) {
        let (name, size) = (stream.len(), payload.len());
        let _ = write!(self.out, "*5\r\n$4\r\nXADD\r\n${name}\r\n{stream}\r\n$1\r\n*\r\n$4\r\ndata\r\n${size}\r\n");
        self.out.extend_from_slice(payload);
        self.out.extend_from_slice(b"\r\n");
        self.waiting += 1;
    }

    /// The answer to a command, however nested, as one list of texts. Nothing may be queued.
    pub fn ask(&mut self, command: &[&str]) -> Result<Vec<String>, Error> {
        write!(self.stream, "*{}\r\n", command.len())?;
        for word in command {
            write!(self.stream, "${}\r\n{word}\r\n", word.len())?;
        }
        let (mut found, mut expected) = (Vec::new(), 1);
        while expected > 0 {
            expected -= 1;
            let line = self.line()?;
            match line.split_at_checked(1).ok_or("an empty reply")? {
                ("*", count) => expected += count.parse::<i64>()?.max(0),
                ("$", "-1") => found.push(String::new()),
                ("$", _) => found.push(self.line()?),
                ("-", error) => return Err(error.into()),
                (_, value) => found.push(value.to_owned()),
            }
        }
        Ok(found)
    }

    /// The value of a key. Nothing may be queued.
    pub fn get(&mut self, key: &str) -> Result<Option<String>, Error> {
        write!(self.stream, "*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len())?;
        let Ok(length) = self.line()?.trim_start_matches('$').parse::<usize>() else { return Ok(None) };
        let mut bytes = vec![0; length + 2];
        self.replies.read_exact(&mut bytes)?;
        bytes.truncate(length);
        Ok(Some(String::from_utf8(bytes)?))
    }

    /// How many clients have subscribed to a channel. Nothing may be queued.
    pub fn subscribers(&mut self, channel: &str) -> Result<u64, Error> {
        let length = channel.len();
        write!(self.stream, "*3\r\n$6\r\nPUBSUB\r\n$6\r\nNUMSUB\r\n${length}\r\n{channel}\r\n")?;
        for _ in 0..3 {
            self.line()?;
        }
        Ok(self.line()?.trim_start_matches(':').parse()?)
    }

    fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        self.replies.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Sends what is queued and reads the replies.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        let mut line = String::new();
        for _ in 0..std::mem::take(&mut self.waiting) {
            line.clear();
            self.replies.read_line(&mut line)?;
            if line.starts_with('$') {
                // The id of an entry.
                self.replies.read_line(&mut line)?;
            } else if !line.starts_with(':') {
                return Err(format!("unexpected reply {line:?}").into());
            }
        }
        Ok(())
    }
}

/// GET over HTTP/1.1, body only.
pub fn http_get(port: u16, path: &str) -> Result<String, Error> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(format!("{path}: {}", head.lines().next().unwrap_or_default()).into());
    }
    Ok(body.to_owned())
}
