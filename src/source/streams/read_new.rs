//! Reads entries that no consumer of the group has read.

use fred::{
    error::Error as RedisError,
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Value, config::Options},
};

use super::{
    commands::{ANSWER_TIMEOUT, Commands, READ_BLOCK, StreamError},
    measure::measure,
    reply::{Entry, UnexpectedReply, read_entries},
};

/// Measures what the group has not read, and reads it in the same step, because other daemons read as well. What is wrong with the key or
/// the group is told by the read.
const READ_NEW: &str = concat!(
    "if redis.replicate_commands then redis.replicate_commands() end \
    local groups, after = redis.pcall('XINFO', 'GROUPS', KEYS[1]), false \
    if groups.err and not string.find(groups.err, 'no such key', 1, true) then return groups end \
    for _, group in ipairs(groups) do \
    local is = {} for at = 1, #group, 2 do is[group[at]] = group[at + 1] end \
    if is['name'] == ARGV[1] then after = '(' .. is['last-delivered-id'] end end \
    local count, entries_max, bytes_max = 1, tonumber(ARGV[3]), tonumber(ARGV[4]) \
    local others = 0 \
    if after then ",
    measure!(),
    "if entries == 0 then return false end count, others = entries, more end \
    local reply = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', count, 'STREAMS', KEYS[1], '>') \
    if reply and reply.err then return reply end \
    return {others, reply}"
);

/// How many entries are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NewRead {
    /// One, which is waited for: it may be large, and so may those behind it.
    Next,
    /// So many at most.
    Unmeasured(usize),
    /// So many at most, and with so many bytes; where they may not be measured, as many as the estimate says.
    Measured { entries: usize, bytes: usize, estimate: usize },
}

/// Entries that were read.
#[derive(Debug)]
pub(super) struct ReadEntries {
    pub(super) entries: Vec<Entry>,
    /// Whether more are there behind them.
    pub(super) more: bool,
}

impl Commands {
    /// Entries that no consumer of the group has read.
    pub(super) async fn read_new(&self, read: NewRead) -> Result<ReadEntries, StreamError> {
        let (entries, bytes, estimate) = match read {
            // What comes with it gathers behind it.
            NewRead::Next => return Ok(ReadEntries { more: false, ..self.read_group(1, true).await? }),
            NewRead::Unmeasured(entries) => return self.read_group(entries, false).await,
            NewRead::Measured { entries, bytes, estimate } => (entries.to_string(), bytes.to_string(), estimate),
        };
        let arguments = ["1", &self.key, &self.group, &self.consumer, &entries, &bytes].map(str::to_owned);
        match self.run_script(&self.key, READ_NEW, arguments).await? {
            Some(Value::Array(parts)) if parts.len() == 2 => {
                Ok(ReadEntries { entries: read_entries(&parts[1])?, more: parts[0].as_u64() == Some(1) })
            }
            Some(Value::Null) => Ok(ReadEntries { entries: Vec::new(), more: false }),
            Some(_) => Err(UnexpectedReply.into()),
            None => self.read_group(estimate, false).await,
        }
    }

    async fn read_group(&self, most: usize, wait: bool) -> Result<ReadEntries, StreamError> {
        let head = ["GROUP", &self.group, &self.consumer, "COUNT", &most.to_string()].map(str::to_owned);
        let entries = self.read("XREADGROUP", head.to_vec(), ">", wait).await?;
        Ok(ReadEntries { more: entries.len() >= most, entries })
    }

    /// Reads the stream from there on by this command, which begins with these words. When there are no entries, waits for one, if it is to
    /// wait.
    pub(super) async fn read(
        &self,
        name: &'static str,
        mut words: Vec<String>,
        from: &str,
        wait: bool,
    ) -> Result<Vec<Entry>, StreamError> {
        if wait {
            words.extend(["BLOCK".to_owned(), READ_BLOCK.as_millis().to_string()]);
        }
        words.extend(["STREAMS", &self.key, from].map(str::to_owned));
        let command = CustomCommand::new_static(name, ClusterHash::from(self.key.as_str()), true);
        let options = Options { timeout: Some(READ_BLOCK + ANSWER_TIMEOUT), ..Options::default() };
        let reply: Result<Value, RedisError> = self.client.with_options(&options).custom(command, words).await;
        Ok(read_entries(&reply.map_err(|error| self.classify(error))?)?)
    }
}
