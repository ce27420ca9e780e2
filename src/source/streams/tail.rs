//! Reads what is appended to streams from now on, as a reader without a group: no consumer notices it, and nothing is acknowledged.
//!
//! After a lost connection it reads on where it was, so that nothing is missed as long as the streams keep it. What was removed before it
//! was read is noticed by the number of entries that were ever added.

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use fred::{
    clients::Client,
    error::{Error as RedisError, ErrorKind},
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Value, config::Options},
};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::{
    commands::{ANSWER_TIMEOUT, Commands, READ_BLOCK, RefusedScripts, StreamError},
    pace::Pace,
    read_size::ReadSize,
    reply::{Entry, Snapshot, plausible_time, read_streams},
};
use crate::{
    backoff::{self, Backoff},
    event::EntryId,
    frame::Frame,
    redis::{Acl, Config, Connected, connect},
    source::receive_clock::ReceiveClock,
};

/// How often the state of the streams is asked for.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Entries and bytes of one answer, of all streams together.
const ANSWER_ENTRIES: usize = 512;
const ANSWER_BYTES: usize = 2 << 20;
/// After a turn without entries, where the streams are read in turn.
const EMPTY_TURN_PAUSE: Duration = Duration::from_millis(25);

/// A reader of some streams over one connection.
pub struct Tail {
    redis: Config,
    acl: Acl,
    streams: Vec<TailedStream>,
    connection: Option<Connected>,
    clock: ReceiveClock,
    size: ReadSize,
    pace: Pace,
    retry: Backoff,
    check_at: Instant,
    /// Where reading goes on, when an answer may not have an entry of each stream.
    turn: usize,
    /// Why nothing is read over this connection.
    error: Option<String>,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Tailed {
    /// The entries; those of one stream are in its order.
    pub frames: Vec<Frame>,
    /// Whether entries before them were missed.
    pub missed: bool,
}

/// One stream.
struct TailedStream {
    name: Arc<str>,
    /// Absent: it is not being read.
    position: Option<Position>,
    /// Why not.
    error: Option<String>,
}

/// Where the reading of a stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Position {
    /// The last entry that was read.
    after: EntryId,
    /// Entries that were ever added when there was none behind `after`; absent where the server does not tell.
    added: Option<u64>,
    /// Entries that were read since then.
    read: u64,
    /// The newest entry at the last check.
    newest: EntryId,
}

impl Position {
    /// Behind the newest entry; without a stream behind none.
    fn at_end(now: Option<&Snapshot>) -> Self {
        let newest = now.map_or_else(EntryId::default, |now| now.last_generated);
        let added = now.map_or(Some(0), |now| now.added);
        Self { after: newest, added, read: 0, newest }
    }

    fn advance(&mut self, entries: &[Entry]) {
        self.read += entries.len() as u64;
        self.after = entries.last().map_or(self.after, |last| self.after.max(last.id));
    }

    /// Takes in the state of the stream. Returns whether entries were removed before they were read.
    fn observe(&mut self, now: Option<&Snapshot>) -> bool {
        let newest = now.map_or_else(EntryId::default, |now| now.last_generated);
        if newest < self.after {
            // The stream was deleted, or the server is a replica that was behind.
            *self = Self::at_end(now);
            return true;
        }
        let Some(now) = now else { return false };
        let is_at_end = newest == self.after;
        let missed = match (self.added, now.added) {
            (Some(before), Some(added)) => match added.checked_sub(before + self.read) {
                Some(unread) => unread > if is_at_end { 0 } else { now.length },
                // It was replaced.
                None => true,
            },
            // What was there at the last check and was not read is gone.
            _ => self.after < self.newest && now.first.is_none_or(|first| first > self.newest),
        };
        self.newest = newest;
        if is_at_end || now.first.is_none() {
            // There is none behind it.
            *self = Self::at_end(Some(now));
        } else if missed {
            self.added = None;
        }
        missed
    }
}

impl Tail {
    /// The readers of all streams that are configured: one, or in a cluster one for each stream, because a command may not name keys of
    /// two slots.
    pub fn all(config: &Config) -> Vec<Self> {
        let together = if config.uses_cluster() { 1 } else { config.streams.len().max(1) };
        config.streams.chunks(together).map(|names| Self::of(config, names)).collect()
    }

    fn of(config: &Config, names: &[String]) -> Self {
        let stream = |name: &String| TailedStream { name: name.as_str().into(), position: None, error: None };
        Self {
            redis: config.clone(),
            acl: Acl::of(config),
            streams: names.iter().map(stream).collect(),
            connection: None,
            clock: ReceiveClock::default(),
            size: ReadSize::default(),
            pace: Pace::default(),
            retry: Backoff::new(backoff::REDIS, 0),
            check_at: Instant::now(),
            turn: 0,
            error: None,
        }
    }

    /// Whether some stream is not being read.
    pub fn has_error(&self) -> bool {
        self.error.is_some() || self.streams.iter().any(|stream| stream.error.is_some())
    }

    /// Disconnects, and forgets where it was: it begins anew with what is appended then.
    pub fn close(&mut self) {
        (self.connection, self.error, self.check_at) = (None, None, Instant::now());
        (self.pace, self.size) = (Pace::default(), ReadSize::default());
        self.streams.iter_mut().for_each(|stream| (stream.position, stream.error) = (None, None));
    }

    /// Waits for the next entries, about a second where Redis answers, longer where it does not. Whatever Redis does, it keeps trying. What it begins with is missed: what was
    /// appended before the first answer.
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
                    self.connection = None;
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
        let client = self.connected().await?;
        if Instant::now() >= self.check_at {
            self.check(&client, &mut tailed.missed).await?;
            self.check_at = Instant::now() + CHECK_INTERVAL;
        }
        let mut read: Vec<_> =
            self.streams.iter().filter_map(|s| Some((Arc::clone(&s.name), s.position.as_ref()?.after))).collect();
        if read.is_empty() {
            sleep_until(self.check_at).await;
            return Ok(());
        }
        // Large entries: of some streams at a time.
        let fitting = self.size.fitting(ANSWER_BYTES);
        let in_turn = fitting < read.len();
        if in_turn {
            self.turn = (self.turn + fitting) % read.len();
            read.rotate_left(self.turn);
            read.truncate(fitting);
        }
        let count = (self.size.next(ANSWER_ENTRIES, ANSWER_BYTES) / read.len()).max(1);
        let waits = self.pace.waits() && !tailed.missed && !in_turn;
        let commands = self.commands(&client, &read[0].0);
        let answered = tokio::select! {
            biased;
            () = lost(self.connection.as_mut()) => Err(StreamError::Lost(RedisError::new(ErrorKind::IO, "it was closed"))),
            answered = commands.read_behind(&read, count, waits) => answered,
        }?;
        self.retry.reset();
        let sizes = answered.iter().flat_map(|(_, entries)| entries);
        self.size.answered(sizes.map(|entry| entry.message.as_ref().map_or(0, bytes::Bytes::len)));
        let longest = answered.iter().map(|(_, entries)| entries.len()).max().unwrap_or(0);
        self.pace.answered(longest, count, Instant::now());
        if in_turn && longest == 0 {
            sleep(EMPTY_TURN_PAUSE).await;
        }
        for (name, entries) in answered {
            self.take(&name, entries, &mut tailed.frames);
        }
        Ok(())
    }

    /// A connection of its own, because a read that waits blocks it.
    async fn connected(&mut self) -> Result<Client, StreamError> {
        if let Some(connection) = &self.connection {
            return Ok(connection.client.clone());
        }
        let connection = connect(&self.redis).await?;
        let client = connection.client.clone();
        self.connection = Some(connection);
        Ok(client)
    }

    /// Asks for the state of each stream, and notes whether entries were missed.
    async fn check(&mut self, client: &Client, missed: &mut bool) -> Result<(), StreamError> {
        for at in 0..self.streams.len() {
            let found = self.commands(client, &self.streams[at].name).snapshot_without_counters().await;
            let stream = &mut self.streams[at];
            let error = match found {
                Ok(now) => {
                    *missed |= match &mut stream.position {
                        Some(position) => position.observe(now.as_ref()),
                        None => true,
                    };
                    stream.position.get_or_insert_with(|| Position::at_end(now.as_ref()));
                    None
                }
                Err(error @ (StreamError::Lost(_) | StreamError::Connect(_))) => return Err(error),
                // It does not keep the others from being read.
                Err(error) => {
                    stream.position = None;
                    Some(error.text())
                }
            };
            if error != stream.error
                && let Some(error) = &error
            {
                warn!(stream = &*stream.name, error, "live events lack a stream; trying again");
            }
            stream.error = error;
        }
        Ok(())
    }

    fn take(&mut self, name: &str, entries: Vec<Entry>, frames: &mut Vec<Frame>) {
        let Some(stream) = self.streams.iter_mut().find(|stream| *stream.name == *name) else { return };
        let Some(position) = &mut stream.position else { return };
        position.advance(&entries);
        let received = Instant::now();
        for Entry { id, message } in entries {
            let Some(payload) = message else { continue };
            frames.push(Frame {
                channel: Arc::clone(&stream.name),
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
            Some(error) => warn!(error, "live events lack the streams; trying again"),
            None => info!("live events have the streams again"),
        }
        self.error = error;
    }

    fn commands(&self, client: &Client, stream: &str) -> Commands {
        Commands {
            client: client.clone(),
            acl: self.acl.clone(),
            key: stream.to_owned(),
            group: self.redis.group.clone(),
            consumer: String::new(),
            counters_key: String::new(),
            former_counters_key: String::new(),
            refused_scripts: RefusedScripts::default(),
        }
    }
}

/// Returns when the connection is gone.
async fn lost(connection: Option<&mut Connected>) {
    if let Some(connection) = connection {
        connection.lost().await;
    }
}

impl Commands {
    /// The entries behind the given ones, of each stream so many at most. When there are none, waits for one, if it is to wait.
    async fn read_behind(
        &self,
        read: &[(Arc<str>, EntryId)],
        count: usize,
        waits: bool,
    ) -> Result<Vec<(String, Vec<Entry>)>, StreamError> {
        let mut words = vec!["COUNT".to_owned(), count.to_string()];
        if waits {
            words.extend(["BLOCK".to_owned(), READ_BLOCK.as_millis().to_string()]);
        }
        words.push("STREAMS".to_owned());
        words.extend(read.iter().map(|(name, _)| name.to_string()));
        words.extend(read.iter().map(|(_, after)| after.to_string()));
        let command = CustomCommand::new_static("XREAD", ClusterHash::from(self.key.as_str()), true);
        let options = Options { timeout: Some(READ_BLOCK + ANSWER_TIMEOUT), ..Options::default() };
        let reply: Result<Value, RedisError> = self.client.with_options(&options).custom(command, words).await;
        Ok(read_streams(&reply.map_err(|error| self.classify(error))?)?)
    }
}
