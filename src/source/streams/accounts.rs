//! What the daemons of a group count together: entries that they have acknowledged, and trimmed ones that they have reported.
//!
//! The count of acknowledged entries changes in one step with the acknowledgement, so that it is right whenever a daemon is killed, and
//! it is read in one step with the state of the stream. It lies in the slot of the stream, because a script may not touch two.

use std::time::Duration;

use fred::types::Value;

use super::{
    commands::{Commands, Trouble},
    reply::{Claimed, Snapshot, read_claimed, read_snapshot},
};
use crate::event::EntryId;

/// Acknowledges, and counts what that changed, where it is counted.
const ACKNOWLEDGE: &str = "local n = redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 3)) \
    if n > 0 and redis.call('HGET', KEYS[2], ARGV[2]) then redis.call('HINCRBY', KEYS[2], ARGV[2], n) end \
    return n";

/// The state of the stream, and the count. Where there is none yet it is what the server says of the group.
const LOOK: &str = "local state = redis.call('XINFO', 'STREAM', KEYS[1], 'FULL', 'COUNT', '1') \
    local count = redis.call('HGET', KEYS[2], ARGV[2]) \
    if not count then \
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do \
    local is = {} for at = 1, #group, 2 do is[group[at]] = group[at + 1] end \
    local read = is['entries-read'] or (is['last-delivered-id'] == '0-0' and 0) \
    if is['name'] == ARGV[1] and read then \
    count = read - is['pending'] redis.call('HSET', KEYS[2], ARGV[2], count) end end end \
    return {state, count}";

/// Claims, and counts the pending entries that are no longer there: they leave the list without an acknowledgement.
const CLAIM: &str = "local reply = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], unpack(ARGV, 3)) \
    local gone = #(reply[3] or {}) \
    if gone > 0 and redis.call('HGET', KEYS[2], ARGV[2]) then redis.call('HINCRBY', KEYS[2], ARGV[2], gone) end \
    return reply";

/// The key in which the daemons of a stream keep their counts.
pub(super) fn counts_key(prefix: &str, stream: &str) -> String {
    let key = format!("{prefix}ingest:stream:");
    // The part between braces decides on the slot.
    if prefix.contains('{') || stream.contains('{') { key + stream } else { format!("{key}{{{stream}}}") }
}

impl Commands {
    /// The state of the stream, with the count of acknowledged entries where it may be asked for; `None`: there is no such key.
    pub(super) async fn look(&self) -> Result<Option<Snapshot>, Trouble> {
        let arguments = [LOOK, "2", &self.key, &self.notes, &self.group, &self.note("acknowledged")];
        match self.send("EVAL", arguments.map(str::to_owned).to_vec()).await {
            Ok(Value::Array(parts)) if parts.len() == 2 => {
                let snapshot = read_snapshot(&parts[0], &self.group)?;
                Ok(Some(Snapshot { acknowledged: parts[1].as_u64(), ..snapshot }))
            }
            Err(trouble @ (Trouble::Lost(_) | Trouble::WrongType(_))) => Err(trouble),
            _ => self.look_alone().await,
        }
    }

    async fn look_alone(&self) -> Result<Option<Snapshot>, Trouble> {
        let arguments = ["STREAM", &self.key, "FULL", "COUNT", "1"].map(str::to_owned).to_vec();
        match self.send("XINFO", arguments).await {
            Ok(reply) => Ok(Some(read_snapshot(&reply, &self.group)?)),
            Err(Trouble::Answer(words)) if words.contains("no such key") => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Acknowledges entries.
    pub(super) async fn acknowledge(&self, ids: &[EntryId]) -> Result<(), Trouble> {
        self.counted(ACKNOWLEDGE, "XACK", ids.iter().map(EntryId::to_string).collect()).await.map(|_| ())
    }

    /// Takes over entries that were not acknowledged for so long.
    pub(super) async fn claim(&self, idle: Duration, from: EntryId, count: usize) -> Result<Claimed, Trouble> {
        let (idle, from, count) = (idle.as_millis().to_string(), from.to_string(), count.to_string());
        let arguments = vec![self.consumer.clone(), idle, from, "COUNT".to_owned(), count];
        Ok(read_claimed(&self.counted(CLAIM, "XAUTOCLAIM", arguments).await?)?)
    }

    /// A command about the group by its script, which counts; where that may not be, without.
    async fn counted(&self, script: &'static str, command: &'static str, more: Vec<String>) -> Result<Value, Trouble> {
        let head = [script, "2", &self.key, &self.notes, &self.group, &self.note("acknowledged")].map(str::to_owned);
        match self.send("EVAL", head.into_iter().chain(more.iter().cloned()).collect()).await {
            Err(Trouble::Refused(_) | Trouble::Answer(_)) => {}
            answer => return answer,
        }
        let head = [self.key.clone(), self.group.clone()];
        let answer = self.send(command, head.into_iter().chain(more).collect()).await?;
        // A count that lacks some would report them as trimmed: there is none until it can be made anew.
        let _ = self.send_about(&self.notes, "HDEL", vec![self.notes.clone(), self.note("acknowledged")]).await;
        Ok(answer)
    }

    /// How many trimmed entries the daemons of the group have reported; `None`: the group has never been there.
    pub(super) async fn reported(&self) -> Result<Option<u64>, Trouble> {
        let arguments = vec![self.notes.clone(), self.note("trimmed")];
        Ok(self.send_about(&self.notes, "HGET", arguments).await?.as_u64())
    }

    /// Sets that, when the group is made: nothing is acknowledged yet.
    pub(super) async fn set_reported(&self, entries: u64) -> Result<(), Trouble> {
        let (trimmed, acknowledged) = (self.note("trimmed"), self.note("acknowledged"));
        let arguments = vec![self.notes.clone(), trimmed, entries.to_string(), acknowledged, "0".to_owned()];
        self.send_about(&self.notes, "HSET", arguments).await.map(|_| ())
    }

    /// Brings it to this number. Returns how many this daemon has to report: of several that find the same, one does.
    pub(super) async fn report(&self, entries: u64) -> Result<u64, Trouble> {
        let before = self.reported().await?.unwrap_or(0);
        if before == entries {
            return Ok(0);
        }
        let more = i64::try_from(entries).unwrap_or(i64::MAX).saturating_sub_unsigned(before);
        let add = async |more: i64| {
            let arguments = vec![self.notes.clone(), self.note("trimmed"), more.to_string()];
            self.send_about(&self.notes, "HINCRBY", arguments).await
        };
        if add(more).await?.as_u64() == Some(entries) {
            return Ok(u64::try_from(more).unwrap_or(0));
        }
        // Another daemon was faster.
        add(-more).await?;
        Ok(0)
    }

    fn note(&self, what: &str) -> String {
        format!("{what}:{}", self.group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_in_the_slot_of_their_stream() {
        for (prefix, stream, key) in [
            ("cascor:", "a:b", "cascor:ingest:stream:{a:b}"),
            ("cascor:", "{lab}:b", "cascor:ingest:stream:{lab}:b"),
            ("{lab}:", "{lab}:b", "{lab}:ingest:stream:{lab}:b"),
        ] {
            assert_eq!(counts_key(prefix, stream), key);
        }
    }
}
