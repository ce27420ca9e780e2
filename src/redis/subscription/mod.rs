//! A connection that subscribes, read by this program itself. The client library builds several values for each message, and
//! passes it through two channels: at 2,000 messages a second that was a sixth of the daemon's processor time. It also drops messages
//! when its buffer is full; here they wait in the socket.

mod open;
mod resp;

use std::{fmt, io, mem, ops::Range, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use fred::error::{Error as RedisError, ErrorKind};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout},
};

use self::resp::{Item, Kind, NoItem};
use super::{
    acl::{Acl, Refusal, Resource},
    pattern::is_pattern,
};
use crate::memory::LARGE_VALUE;

pub use self::open::{Opened, open_subscription};

/// Room for one read: what some thousand messages a second bring while the receive thread sleeps.
const READ_BYTES: usize = 64 << 10;
/// How long nothing may arrive while a reply is waited for, and how long room in the socket is waited for.
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);
/// Most bytes of messages that are kept while a reply is waited for.
const UNREAD_MAX: usize = 64 << 20;

/// What carries the bytes.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection that is greeted and subscribes. Dropping it closes it.
pub struct Subscription {
    stream: Box<dyn Stream>,
    input: BytesMut,
    /// Bytes of `input` that were taken.
    at: usize,
    /// Bytes that the item at the beginning lacks, where that is known.
    lacking: usize,
    /// Bytes still to arrive of a message that is passed over.
    passed_over: usize,
    /// Pings that Redis has not answered yet.
    pings: usize,
    heard_at: Instant,
    /// A large message that was taken, as long as its channel is looked at.
    taken: Bytes,
    acl: Acl,
}

/// What has arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A message: the channel that it was published on, and its payload.
    Message(&'a [u8], Bytes),
    /// Of a message of [`LARGE_VALUE`] bytes and more only the beginning: its channel and the length of its payload. Unless it is
    /// [passed over](Subscription::pass_over) it is kept until all of it has arrived.
    Beginning(&'a [u8], usize),
    /// The reply to a ping.
    Pong,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("unread", &(self.input.len() - self.at)).finish_non_exhaustive()
    }
}

impl Subscription {
    /// Reads what a test writes.
    #[cfg(test)]
    pub(crate) fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self::new(Box::new(stream), Acl::of(&super::Config::default()))
    }

    fn new(stream: Box<dyn Stream>, acl: Acl) -> Self {
        let (input, taken) = (BytesMut::new(), Bytes::new());
        Self { stream, input, at: 0, lacking: 0, passed_over: 0, pings: 0, heard_at: Instant::now(), taken, acl }
    }

    /// Subscribes to one channel or pattern, and waits until Redis confirms it. `Some`: the refusal, with the rule that would allow it.
    ///
    /// # Errors
    /// When the connection is lost, or Redis does not answer in time.
    pub async fn subscribe(&mut self, channel: &str) -> io::Result<Option<Refusal>> {
        let command = if is_pattern(channel) { "PSUBSCRIBE" } else { "SUBSCRIBE" };
        match self.ask(&[command, channel]).await? {
            Ok(_) => Ok(None),
            Err(error) => match self.acl.refusal(error.details(), Resource::Channel(channel)) {
                Some(refusal) => Ok(Some(refusal)),
                None => Err(io::Error::other(error)),
            },
        }
    }

    /// The text of INFO; empty where the ACL forbids it, which is logged.
    ///
    /// # Errors
    /// When the connection is lost, or Redis does not answer in time.
    pub async fn info(&mut self, section: &str) -> io::Result<String> {
        Ok(self.ask(&["INFO", section]).await?.unwrap_or_else(|error| {
            self.acl.warn(&error, Resource::None);
            String::new()
        }))
    }

    /// Sends a PING. Its reply is [received](Received::Pong) behind the messages that Redis sent before; an error is a reply, too.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn ping(&mut self) -> io::Result<()> {
        self.send(&["PING"]).await?;
        self.pings += 1;
        Ok(())
    }

    /// When something has arrived last, be it a part of a message.
    pub fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// Whether Redis has not answered a ping yet.
    pub fn awaits_pong(&self) -> bool {
        self.pings > 0
    }

    /// The next message with a payload of at most so many bytes: its channel and its payload. Longer ones are passed over. Dropping the
    /// future loses none.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn next_message(&mut self, max: usize) -> io::Result<(String, Bytes)> {
        loop {
            match self.take()? {
                Some(Received::Message(channel, payload)) if payload.len() <= max => {
                    return Ok((String::from_utf8_lossy(channel).into_owned(), payload));
                }
                Some(Received::Beginning(_, length)) if length > max => self.pass_over(),
                Some(Received::Message(..) | Received::Pong) => {}
                Some(Received::Beginning(..)) | None => self.arrived().await?,
            }
        }
    }

    /// Waits until more bytes have arrived, and reads them. Dropping the future loses none.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn arrived(&mut self) -> io::Result<()> {
        self.fill().await
    }

    /// What has arrived next; `None`: nothing that is whole.
    ///
    /// # Errors
    /// When it is nothing that Redis sends.
    pub fn take(&mut self) -> io::Result<Option<Received<'_>>> {
        self.taken = Bytes::new();
        loop {
            let item = match resp::item(&self.input[self.at..]) {
                Ok(item) => item,
                Err(NoItem::Incomplete) => return Ok(None),
                Err(NoItem::Malformed) => return Err(malformed()),
            };
            match item.kind {
                Kind::Message { channel, payload } => return Ok(self.message(&channel, &payload, item.end)),
                Kind::Reply { .. } => {
                    self.at += item.end;
                    self.pings = self.pings.saturating_sub(1);
                    return Ok(Some(Received::Pong));
                }
                Kind::Subscribed(_) | Kind::Other => self.at += item.end,
            }
        }
    }

    fn message(&mut self, channel: &Range<usize>, payload: &Range<usize>, end: usize) -> Option<Received<'_>> {
        let is_large = payload.len() >= LARGE_VALUE;
        self.lacking = (self.at + end).saturating_sub(self.input.len());
        if self.lacking > 0 {
            let channel = &self.input[self.at + channel.start..self.at + channel.end];
            return is_large.then(|| Received::Beginning(channel, payload.len()));
        }
        if is_large {
            // Without a copy. What is behind it is copied instead, or it would keep the large buffer.
            self.input.advance(self.at);
            self.taken = self.input.split_to(end).freeze();
            (self.input, self.at) = (BytesMut::from(&self.input[..]), 0);
            return Some(Received::Message(&self.taken[channel.clone()], self.taken.slice(payload.clone())));
        }
        let item = &self.input[self.at..self.at + end];
        self.at += end;
        Some(Received::Message(&item[channel.clone()], Bytes::copy_from_slice(&item[payload.clone()])))
    }

    /// Drops the message of which only the [beginning](Received::Beginning) has arrived: its bytes are not kept as they arrive.
    pub fn pass_over(&mut self) {
        if self.lacking > 0 {
            self.passed_over = mem::take(&mut self.lacking);
            self.at = self.input.len();
        }
    }

    /// Reads once.
    async fn fill(&mut self) -> io::Result<()> {
        self.input.advance(mem::take(&mut self.at));
        self.input.reserve(self.lacking.max(READ_BYTES));
        if self.stream.read_buf(&mut self.input).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "Redis closed the connection"));
        }
        self.heard_at = Instant::now();
        let dropped = self.passed_over.min(self.input.len());
        self.passed_over -= dropped;
        self.input.advance(dropped);
        Ok(())
    }

    async fn send(&mut self, command: &[&str]) -> io::Result<()> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for part in command {
            bytes.extend_from_slice(format!("${}\r\n{part}\r\n", part.len()).as_bytes());
        }
        let sent = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        in_time(sent).await
    }

    /// Sends a command, and takes its reply out from behind the messages that came before it, which stay. The inner error is Redis's.
    async fn ask(&mut self, command: &[&str]) -> io::Result<Result<String, RedisError>> {
        self.send(command).await?;
        self.reply().await
    }

    async fn reply(&mut self) -> io::Result<Result<String, RedisError>> {
        let (mut behind, mut pongs) = (0, self.pings);
        loop {
            let unread = &self.input[self.at..];
            match resp::item(&unread[behind..]) {
                Ok(Item { kind: Kind::Message { .. } | Kind::Other, end }) if behind + end <= unread.len() => {
                    behind += end;
                }
                Ok(Item { kind: Kind::Message { .. }, .. }) | Err(NoItem::Incomplete) if unread.len() < UNREAD_MAX => {
                    in_time(self.fill()).await?;
                }
                Ok(Item { kind: Kind::Reply { .. }, end }) if pongs > 0 => {
                    (behind, pongs) = (behind + end, pongs - 1);
                }
                Ok(Item { kind: Kind::Reply { is_error, text }, end }) => {
                    let text = String::from_utf8_lossy(&unread[behind..][text]).into_owned();
                    self.cut_out(behind, end);
                    return Ok(if is_error { Err(RedisError::new(ErrorKind::Unknown, text)) } else { Ok(text) });
                }
                Ok(Item { kind: Kind::Subscribed(_), end }) => {
                    self.cut_out(behind, end);
                    return Ok(Ok(String::new()));
                }
                Err(NoItem::Malformed) => return Err(malformed()),
                Ok(_) | Err(NoItem::Incomplete) => {
                    return Err(io::Error::other("there are too many messages in front of an answer"));
                }
            }
        }
    }

    /// Takes an item out from behind others that were not taken yet.
    fn cut_out(&mut self, behind: usize, length: usize) {
        let start = self.at + behind;
        self.input.copy_within(start + length.., start);
        self.input.truncate(self.input.len() - length);
    }
}

/// What the future gives, unless it takes longer than [`REPLY_TIMEOUT`].
async fn in_time(step: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    timeout(REPLY_TIMEOUT, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what came is nothing that Redis sends to a subscriber")
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{DuplexStream, duplex},
        task::JoinSet,
    };

    use super::*;

    fn message(channel: &str, payload: &[u8]) -> Vec<u8> {
        let head = format!(">3\r\n$7\r\nmessage\r\n${}\r\n{channel}\r\n${}\r\n", channel.len(), payload.len());
        [head.as_bytes(), payload, b"\r\n"].concat()
    }

    /// Writes, and closes the connection. The set ends the task when it is dropped.
    fn serve(mut server: DuplexStream, bytes: Vec<u8>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(server.write_all(&bytes).await) });
        tasks
    }

    #[tokio::test]
    async fn messages_of_every_size_come_whole_and_in_order_however_they_arrive() {
        let sizes = [0, 1, 300, READ_BYTES, LARGE_VALUE - 1, LARGE_VALUE, LARGE_VALUE + 1, 3, 2 * LARGE_VALUE, 5];
        let payload = |at: usize| vec![at as u8 + 1; sizes[at]];
        let bytes: Vec<_> = (0..sizes.len()).flat_map(|at| message(&format!("c{at}"), &payload(at))).collect();
        for at_once in [61, 4_096, 8 << 20] {
            let (server, stream) = duplex(at_once);
            let _serving = serve(server, bytes.clone());
            let mut subscription = Subscription::over(stream);
            for at in 0..sizes.len() {
                let (channel, received) = subscription.next_message(usize::MAX).await.unwrap();
                assert!(channel == format!("c{at}") && received == payload(at), "{at_once} {at}: {}", received.len());
            }
            let end = subscription.next_message(usize::MAX).await.unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[tokio::test]
    async fn a_message_that_is_passed_over_takes_no_memory() {
        let (server, stream) = duplex(1 << 20);
        let _serving = serve(server, [message("c", &vec![b'x'; 64 << 20]), message("c", b"next")].concat());
        let mut subscription = Subscription::over(stream);
        let (_, payload) = subscription.next_message(LARGE_VALUE).await.unwrap();
        assert_eq!(payload, "next");
        assert!(subscription.input.capacity() < 4 << 20, "{}", subscription.input.capacity());
    }

    #[tokio::test]
    async fn a_large_message_does_not_keep_the_buffer_of_those_behind_it() {
        let (server, stream) = duplex(8 << 20);
        let _serving = serve(server, [message("c", &vec![b'x'; 4 << 20]), message("c", b"next")].concat());
        let mut subscription = Subscription::over(stream);
        let (_, large) = subscription.next_message(usize::MAX).await.unwrap();
        assert_eq!(large.len(), 4 << 20);
        subscription.next_message(usize::MAX).await.unwrap();
        assert!(subscription.input.capacity() < 1 << 20, "{}", subscription.input.capacity());
    }

    #[tokio::test]
    async fn a_reply_is_found_behind_messages_and_pongs_which_stay() {
        let (mut server, stream) = duplex(1 << 20);
        let mut subscription = Subscription::over(stream);
        subscription.ping().await.unwrap();
        let answers = [
            message("c", b"1"),
            b"+PONG\r\n".to_vec(),
            message("c", b"2"),
            b">3\r\n$9\r\nsubscribe\r\n$1\r\nd\r\n:2\r\n".to_vec(),
            message("d", b"3"),
            b"-NOPERM No permissions to access a channel\r\n".to_vec(),
            message("d", b"4"),
        ];
        server.write_all(&answers.concat()).await.unwrap();
        assert!(subscription.subscribe("d").await.unwrap().is_none());
        let refusal = subscription.subscribe("e").await.unwrap().unwrap();
        assert_eq!(refusal.rule, "&e");
        let mut received = Vec::new();
        while let Some(item) = subscription.take().unwrap() {
            received.push(match item {
                Received::Message(_, payload) => String::from_utf8_lossy(&payload).into_owned(),
                other => format!("{other:?}"),
            });
        }
        assert_eq!(received, ["1", "Pong", "2", "3", "4"]);
        assert!(!subscription.awaits_pong());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_is_given_up() {
        let (_server, stream) = duplex(1 << 20);
        let error = Subscription::over(stream).subscribe("c").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn another_protocol_is_an_error() {
        let (server, stream) = duplex(1 << 20);
        let _serving = serve(server, b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
        let error = Subscription::over(stream).next_message(100).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
