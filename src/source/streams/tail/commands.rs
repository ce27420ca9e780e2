//! The commands of a reader without a group.

use fred::types::Value;

use crate::{
    event::EntryId,
    source::streams::{
        commands::{Commands, StreamError},
        measure::measure,
        reply::{Entry, Snapshot, UnexpectedReply, read_snapshot},
    },
};

/// The state of the stream, without the fields of its first entry, which may be large.
const STATE: &str = "local state = redis.call('XINFO', 'STREAM', KEYS[1], 'FULL', 'COUNT', '1') \
    for at = 1, #state, 2 do if state[at] == 'entries' then \
    for _, entry in ipairs(state[at + 1]) do entry[2] = {} end end end \
    return state";

/// Measures the entries behind an id.
const MEASURE: &str = concat!(
    "local after, entries_max, bytes_max = '(' .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]) ",
    measure!(),
    "return {entries, bytes, last or ARGV[1], more}"
);

/// The entries that are read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ahead {
    pub(super) entries: usize,
    pub(super) bytes: usize,
    pub(super) last: EntryId,
    /// Whether there are more behind them.
    pub(super) more: bool,
}

impl Commands {
    /// The state of the stream, without counts; `None`: there is no such key.
    pub(super) async fn state(&self) -> Result<Option<Snapshot>, StreamError> {
        match self.run_script(&self.key, STATE, ["1", &self.key].map(str::to_owned)).await {
            Ok(Some(state)) => Ok(Some(read_snapshot(&state, &self.group)?)),
            // Without the permission, and where the key is missing or no stream.
            Ok(None) | Err(StreamError::Answer(_)) => self.snapshot_without_counters().await,
            Err(error) => Err(error),
        }
    }

    /// How many entries behind this one are read together: so many at most, and with so many bytes. `None`: that may not be asked.
    pub(super) async fn measure(
        &self,
        after: EntryId,
        entries: usize,
        bytes: usize,
    ) -> Result<Option<Ahead>, StreamError> {
        let arguments = ["1", &self.key, &after.to_string(), &entries.to_string(), &bytes.to_string()];
        match self.run_script(&self.key, MEASURE, arguments.map(str::to_owned)).await {
            Ok(Some(Value::Array(parts))) if parts.len() == 4 => {
                let number = |at: usize| parts[at].as_usize().ok_or(UnexpectedReply);
                let last = parts[2].as_str().and_then(|id| id.parse().ok()).ok_or(UnexpectedReply)?;
                Ok(Some(Ahead { entries: number(0)?, bytes: number(1)?, last, more: number(3)? > 0 }))
            }
            Ok(Some(_)) => Err(UnexpectedReply.into()),
            // What is wrong with the key is told by the next command.
            Ok(None) | Err(StreamError::Answer(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// So many entries behind this one at most. When there are none, waits for one, if it is to wait.
    pub(super) async fn read_behind(
        &self,
        after: EntryId,
        count: usize,
        waits: bool,
    ) -> Result<Vec<Entry>, StreamError> {
        let head = vec!["COUNT".to_owned(), count.to_string()];
        self.read("XREAD", head, &after.to_string(), waits).await
    }
}
