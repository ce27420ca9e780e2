//! Reads what is appended to a stream from now on, as a reader without a group: no consumer notices it, and nothing is acknowledged.
//!
//! After a lost connection it reads on where it was, so that nothing is missed as long as the stream keeps it. What was removed before it
//! was read is noticed by the number of entries that were ever added.
//!
//! Before entries are read, the server is asked how many of them fit into an answer: Redis sends an answer whole, so its size has to be
//! known first. A large one waits for memory; entries for which there is none in time are skipped, and count as missed.

mod commands;
mod position;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use fred::error::{Error as RedisError, ErrorKind};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use self::{commands::Ahead, position::Position};
use super::{
    commands::{Commands, RefusedScripts, StreamError},
    pace::Pace,
    read_size::ReadSize,
    reply::{Entry, plausible_time},
};
use crate::{
    backoff::{self, Backoff},
    frame::Frame,
    memory::{LARGE_VALUE, MemoryLimit, Reserved},
    redis::{Acl, Config, Connected, connect},
    source::receive_clock::ReceiveClock,
};

/// How often the state of the stream is asked for.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Entries and bytes of one answer.
const ANSWER_ENTRIES: usize = 512;
const ANSWER_BYTES: usize = 2 << 20;
/// How long a large answer waits for memory.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(1);
/// Larger entries are not read where memory is counted. The daemons reject them, too: `limits.message` is at most as large.
const ENTRY_BYTES_MAX: usize = 32 << 20;
/// While entries are large, how often they are looked for: a read that waits for one would be answered before there is memory for it.
const LARGE_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A reader of a stream, over a connection of its own.
pub struct Tail {
    redis: Config,
    stream: Arc<str>,
    /// Where large answers are counted; absent: nowhere.
    memory: Option<MemoryLimit>,
    session: Option<TailSession>,
    /// Absent: the stream is not being read.
    position: Option<Position>,
    clock: ReceiveClock,
    size: ReadSize,
    pace: Pace,
    retry: Backoff,
    check_at: Instant,
    /// Why nothing is read.
    error: Option<String>,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Tailed {
    /// The entries, in order.
    pub frames: Vec<Frame>,
    /// Whether entries before them were missed.
    pub missed: bool,
    /// The memory of large ones; released with the frames.
    memory: Option<Reserved>,
}

struct TailSession {
    connection: Connected,
    commands: Commands,
}

/// What is asked for next.
enum Request {
    /// There is nothing to be read now.
    Nothing,
    /// So many entries; it may be more than there are.
    Read { entries: usize, more: bool, waits: bool },
}

impl Tail {
    /// The readers of all streams that are configured. Each has its own: one that is held up delays no other.
    pub fn all(config: &Config) -> Vec<Self> {
        config.streams.iter().map(|stream| Self::of(config, stream)).collect()
    }

    fn of(config: &Config, stream: &str) -> Self {
        Self {
            redis: config.clone(),
            stream: stream.into(),
            memory: None,
            session: None,
            position: None,
            clock: ReceiveClock::default(),
            size: ReadSize::default(),
            pace: Pace::default(),
            retry: Backoff::new(backoff::REDIS, 0),
            check_at: Instant::now(),
            error: None,
        }
    }

    /// Counts large entries in this budget.
    pub fn charging(self, memory: MemoryLimit) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// The name of the stream.
    pub fn stream(&self) -> &Arc<str> {
        &self.stream
    }

    /// Whether the stream is not being read.
    pub fn has_error(&self) -> bool {
        self.error.is_some()
    }

    /// Disconnects, and forgets where it was: it begins anew with what is appended then.
    pub fn close(&mut self) {
        (self.session, self.position, self.error, self.check_at) = (None, None, None, Instant::now());
        (self.pace, self.size) = (Pace::default(), ReadSize::default());
    }

    /// Waits for the next entries, about a second where Redis answers, longer where it does not. Whatever Redis does, it keeps trying.
    /// What it begins with is missed: what was appended before the first answer.
    pub async fn next(&mut self) -> Tailed {
        let mut tailed = Tailed::default();
        match self.read(&mut tailed).await {
            Ok(()) => self.note_error(None),
            Err(error) => {
                self.check_at = Instant::now();
                let delay = match &error {
                    StreamError::Connect(error) => error.retry_delay(&mut self.retry),
                    StreamError::Lost(_) => self.retry.next_delay(),
                    _ => backoff::OPERATOR,
                };
                if matches!(error, StreamError::Connect(_) | StreamError::Lost(_)) {
                    self.session = None;
                }
                self.note_error(Some(error.text()));
                sleep(delay).await;
            }
        }
        tailed
    }

    async fn read(&mut self, tailed: &mut Tailed) -> Result<(), StreamError> {
        if let Some(until) = self.pace.gathers_until() {
            sleep_until(until).await;
            self.pace.end();
        }
        let commands = self.connected().await?;
        if Instant::now() >= self.check_at {
            tailed.missed |= self.check(&commands).await?;
            self.check_at = Instant::now() + CHECK_INTERVAL;
        }
        let Request::Read { entries, more, waits } = self.request(&commands, tailed).await? else { return Ok(()) };
        let Some(after) = self.position.as_ref().map(|position| position.after) else { return Ok(()) };
        let connection = self.session.as_mut().map(|session| &mut session.connection);
        let answered = tokio::select! {
            biased;
            () = lost(connection) => Err(StreamError::Lost(RedisError::new(ErrorKind::IO, "it was closed"))),
            answered = commands.read_behind(after, entries, waits) => answered,
        }?;
        self.retry.reset();
        self.pace.answered(answered.len(), more && answered.len() >= entries, Instant::now());
        self.take(answered, tailed);
        Ok(())
    }

    /// A connection of its own, because a read that waits blocks it.
    async fn connected(&mut self) -> Result<Commands, StreamError> {
        if let Some(session) = &self.session {
            return Ok(session.commands.clone());
        }
        let connection = connect(&self.redis).await?;
        let commands = Commands {
            client: connection.client.clone(),
            acl: Acl::of(&self.redis),
            key: self.stream.to_string(),
            group: self.redis.group.clone(),
            consumer: String::new(),
            counters_key: String::new(),
            former_counters_key: String::new(),
            refused_scripts: RefusedScripts::default(),
        };
        self.session = Some(TailSession { connection, commands: commands.clone() });
        Ok(commands)
    }

    /// Asks for the state of the stream. Returns whether entries were missed.
    async fn check(&mut self, commands: &Commands) -> Result<bool, StreamError> {
        let now = match commands.state().await {
            Ok(now) => now,
            Err(error) => {
                if !matches!(error, StreamError::Lost(_) | StreamError::Connect(_)) {
                    self.position = None;
                }
                return Err(error);
            }
        };
        Ok(match &mut self.position {
            Some(position) => position.observe(now.as_ref()),
            None => {
                self.position = Some(Position::at_end(now.as_ref()));
                true
            }
        })
    }

    /// Decides what to ask for, and reserves the memory for it. Entries for which there is none are skipped.
    async fn request(&mut self, commands: &Commands, tailed: &mut Tailed) -> Result<Request, StreamError> {
        let Some(position) = &mut self.position else { return Ok(Request::Nothing) };
        let waits = self.pace.waits() && !tailed.missed;
        let Some(ahead) = commands.measure(position.after, ANSWER_ENTRIES, ANSWER_BYTES).await? else {
            // As many as fit where they are as large as those before.
            let entries = self.size.next(ANSWER_ENTRIES, ANSWER_BYTES);
            return Ok(Request::Read { entries, more: true, waits });
        };
        if ahead.entries == 0 {
            let is_large = self.memory.is_some() && self.size.largest() >= LARGE_VALUE;
            if waits && !is_large {
                return Ok(Request::Read { entries: 1, more: false, waits });
            }
            self.retry.reset();
            self.pace.answered(0, false, Instant::now());
            if is_large {
                sleep(LARGE_POLL_INTERVAL).await;
            }
            return Ok(Request::Nothing);
        }
        if let Some(memory) = self.memory.as_ref().filter(|_| ahead.bytes >= LARGE_VALUE) {
            tailed.memory = reserve(memory, &ahead).await;
            if tailed.memory.is_none() {
                position.advance(ahead.entries as u64, ahead.last);
                tailed.missed = true;
                return Ok(Request::Nothing);
            }
        }
        Ok(Request::Read { entries: ahead.entries, more: ahead.more, waits: false })
    }

    fn take(&mut self, entries: Vec<Entry>, tailed: &mut Tailed) {
        let Some(position) = &mut self.position else { return };
        let bytes = || entries.iter().map(|entry| entry.message.as_ref().map_or(0, bytes::Bytes::len));
        self.size.answered(bytes());
        let total: usize = bytes().sum();
        match (&mut tailed.memory, &self.memory) {
            // The answer itself is gone.
            (Some(reserved), _) => reserved.shrink(total),
            (None, Some(memory)) if total >= LARGE_VALUE => tailed.memory = Some(memory.charge(total)),
            _ => {}
        }
        if let Some(last) = entries.last() {
            position.advance(entries.len() as u64, last.id);
        }
        let received = Instant::now();
        for Entry { id, message } in entries {
            let Some(payload) = message else { continue };
            tailed.frames.push(Frame {
                channel: Arc::clone(&self.stream),
                payload,
                received_at: plausible_time(id).unwrap_or_else(|| self.clock.now()),
                received,
                control: false,
                entry: Some(id),
            });
        }
    }

    fn note_error(&mut self, error: Option<String>) {
        if error == self.error {
            return;
        }
        match &error {
            Some(error) => warn!(stream = &*self.stream, error, "live events lack a stream; trying again"),
            None => info!(stream = &*self.stream, "live events have a stream again"),
        }
        self.error = error;
    }
}

/// Memory for the answer and for the messages made of it; `None`: there was none in time, or no amount is enough.
async fn reserve(memory: &MemoryLimit, ahead: &Ahead) -> Option<Reserved> {
    if ahead.bytes > ENTRY_BYTES_MAX {
        return None;
    }
    timeout(MEMORY_TIMEOUT, memory.reserve(2 * ahead.bytes)).await.ok()
}

/// Returns when the connection is gone.
async fn lost(connection: Option<&mut Connected>) {
    if let Some(connection) = connection {
        connection.lost().await;
    }
}
