//! A small Redis client of the tests' own: what it sees does not depend on the code under test.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// What Redis answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `+OK`
    Simple(String),
    /// `-ERR ...`
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$3 ...`
    Bulk(Vec<u8>),
    /// No value.
    Null,
    /// `*2 ...`
    Array(Vec<Value>),
}

impl Value {
    /// Its text, if it is one.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Bulk(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Self::Simple(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// Its number, if it is one.
    pub fn integer(&self) -> Option<i64> {
        if let Self::Integer(number) = self { Some(*number) } else { None }
    }

    /// Its text read as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text().unwrap()).unwrap()
    }
}

/// One connection, RESP2, in the clear.
#[derive(Debug)]
pub struct Resp {
    stream: BufReader<TcpStream>,
}

impl Resp {
    /// Connects.
    pub fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { stream: BufReader::with_capacity(64 * 1024, stream) })
    }

    /// Sends one command of words and returns the answer.
    #[track_caller]
    pub fn command(&mut self, words: &[&str]) -> Value {
        let words: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
        self.command_bytes(&words).unwrap_or_else(|error| panic!("Redis did not answer: {error}"))
    }

    /// Sends one command and returns the answer.
    pub fn command_bytes(&mut self, words: &[&[u8]]) -> io::Result<Value> {
        let mut out = Vec::new();
        encode(words, &mut out);
        self.stream.get_mut().write_all(&out)?;
        self.read()
    }

    /// Publishes and returns how many subscribers there were.
    #[track_caller]
    pub fn publish(&mut self, channel: &str, payload: impl AsRef<[u8]>) -> i64 {
        let answer = self.command_bytes(&[b"PUBLISH", channel.as_bytes(), payload.as_ref()]).unwrap();
        answer.integer().unwrap_or_else(|| panic!("PUBLISH was answered {answer:?}"))
    }

    /// Publishes all in one write each 256 messages, the way a fast producer does; returns how many deliveries there
    /// were.
    pub fn publish_all<P: AsRef<[u8]>>(&mut self, channel: &str, payloads: &[P]) -> io::Result<i64> {
        let mut delivered = 0;
        for chunk in payloads.chunks(256) {
            self.publish_each(channel, chunk, |answer| delivered += answer.integer().unwrap_or(0))?;
        }
        Ok(delivered)
    }

    /// Publishes all in one write, and hands over each answer.
    pub fn publish_each<P: AsRef<[u8]>>(
        &mut self,
        channel: &str,
        payloads: &[P],
        mut answered: impl FnMut(Value),
    ) -> io::Result<()> {
        let mut out = Vec::new();
        for payload in payloads {
            encode(&[b"PUBLISH", channel.as_bytes(), payload.as_ref()], &mut out);
        }
        self.stream.get_mut().write_all(&out)?;
        for _ in payloads {
            answered(self.read()?);
        }
        Ok(())
    }

    /// The value of a key as JSON, if there is one.
    #[track_caller]
    pub fn get_json(&mut self, key: &str) -> Option<serde_json::Value> {
        match self.command(&["GET", key]) {
            Value::Null => None,
            value => Some(value.json()),
        }
    }

    /// The next answer or message; used directly after `SUBSCRIBE`.
    pub fn read(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        let (kind, rest) = line.split_at(1);
        let number = || rest.parse::<i64>().map_err(io::Error::other);
        Ok(match kind {
            "+" => Value::Simple(rest.to_owned()),
            "-" => Value::Error(rest.to_owned()),
            ":" => Value::Integer(number()?),
            "$" => match usize::try_from(number()?) {
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.stream.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Value::Bulk(bytes)
                }
                Err(_) => Value::Null,
            },
            "*" => match usize::try_from(number()?) {
                Ok(length) => Value::Array((0..length).map(|_| self.read()).collect::<io::Result<_>>()?),
                Err(_) => Value::Null,
            },
            _ => return Err(io::Error::other(format!("not RESP2: {line}"))),
        })
    }

    /// The next message on a subscribed channel: its channel and payload.
    pub fn message(&mut self) -> io::Result<(String, Vec<u8>)> {
        loop {
            let Value::Array(parts) = self.read()? else { continue };
            if let [Value::Bulk(kind), Value::Bulk(channel), Value::Bulk(payload)] = parts.as_slice()
                && kind == b"message"
            {
                return Ok((String::from_utf8_lossy(channel).into_owned(), payload.clone()));
            }
        }
    }

    /// How long reads wait.
    pub fn set_timeout(&self, limit: Duration) {
        self.stream.get_ref().set_read_timeout(Some(limit)).unwrap();
    }
}

fn encode(words: &[&[u8]], out: &mut Vec<u8>) {
    write!(out, "*{}\r\n", words.len()).unwrap();
    for word in words {
        write!(out, "${}\r\n", word.len()).unwrap();
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}
