//! What the daemons of a group count together: entries that they have acknowledged, and trimmed ones that they have reported.
//!
//! The count of acknowledged entries changes in one step with the acknowledgement, so that it is right whenever a daemon is killed, and
//! it is read in one step with the state of the stream. So does the count of pending entries that were trimmed, which are reported then.
//! All of it lies in the slot of the stream, because a script may not touch two.

use std::time::Duration;

use fred::types::Value;

use super::{
    commands::{Commands, Trouble},
    reply::{Claimed, Notes, Snapshot, read_claimed, read_snapshot},
};
use crate::event::EntryId;

/// Acknowledges, and counts what that changed, where it is counted.
const ACKNOWLEDGE: &str = "local n = redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 4)) \
    if n > 0 and redis.call('HGET', KEYS[2], ARGV[2]) then redis.call('HINCRBY', KEYS[2], ARGV[2], n) end \
    return n";

/// The same of pending entries that are no longer there: they are to be reported.
const LET_GO: &str = "local n = redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 4)) \
    if n > 0 then redis.call('HINCRBY', KEYS[2], ARGV[3], n) end \
    if n > 0 and redis.call('HGET', KEYS[2], ARGV[2]) then redis.call('HINCRBY', KEYS[2], ARGV[2], n) end \
    return n";

/// The state of the stream, and what is counted and reported. Where there is no count yet it is what the server says of the group.
const LOOK: &str = "local state = redis.call('XINFO', 'STREAM', KEYS[1], 'FULL', 'COUNT', '1') \
    local count = redis.call('HGET', KEYS[2], ARGV[2]) \
    if not count then \
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do \
    local is = {} for at = 1, #group, 2 do is[group[at]] = group[at + 1] end \
    local read = is['entries-read'] or (is['last-delivered-id'] == '0-0' and 0) \
    if is['name'] == ARGV[1] and read then \
    count = read - is['pending'] redis.call('HSET', KEYS[2], ARGV[2], count) end end end \
    return {state, count, redis.call('HGET', KEYS[2], ARGV[4]), redis.call('HGET', KEYS[2], ARGV[3]), \
    redis.call('HGET', KEYS[2], ARGV[5])}";

/// Claims, and counts the pending entries that are no longer there: they leave the list without an acknowledgement.
const CLAIM: &str = "local reply = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], unpack(ARGV, 4)) \
    local gone = #(reply[3] or {}) \
    if gone > 0 then redis.call('HINCRBY', KEYS[2], ARGV[3], gone) end \
    if gone > 0 and redis.call('HGET', KEYS[2], ARGV[2]) then redis.call('HINCRBY', KEYS[2], ARGV[2], gone) end \
    return reply";

/// Opens a report, if none is open, and the counts are still those that it was made of.
const OPEN_REPORT: &str = "if redis.call('HGET', KEYS[1], ARGV[3]) \
    or (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[5] \
    or tonumber(redis.call('HGET', KEYS[1], ARGV[2]) or '0') ~= tonumber(ARGV[6]) then return 0 end \
    redis.call('HSET', KEYS[1], ARGV[3], ARGV[7], ARGV[4], ARGV[8]) return 1";

/// Closes a report, if it is still open: the counts include it.
const CLOSE_REPORT: &str = "if redis.call('HGET', KEYS[1], ARGV[3]) ~= ARGV[5] then return 0 end \
    local to = redis.call('HGET', KEYS[1], ARGV[4]) \
    if to then redis.call('HSET', KEYS[1], ARGV[1], to) end \
    if ARGV[6] ~= '0' then redis.call('HINCRBY', KEYS[1], ARGV[2], '-' .. ARGV[6]) end \
    redis.call('HDEL', KEYS[1], ARGV[3], ARGV[4]) return 1";

/// The key in which the daemons of a stream keep their counts.
pub(super) fn counts_key(prefix: &str, stream: &str) -> String {
    let key = format!("{prefix}ingest:stream:");
    // The part between braces decides on the slot.
    if prefix.contains('{') || stream.contains('{') { key + stream } else { format!("{key}{{{stream}}}") }
}

impl Commands {
    /// The state of the stream, with the count of acknowledged entries where it may be asked for; `None`: there is no such key.
    pub(super) async fn look(&self) -> Result<Option<Snapshot>, Trouble> {
        let [acknowledged, gone, trimmed, report] =
            ["acknowledged", "gone", "trimmed", "report"].map(|of| self.note(of));
        let arguments = [LOOK, "2", &self.key, &self.notes, &self.group, &acknowledged, &gone, &trimmed, &report];
        match self.send("EVAL", arguments.map(str::to_owned).to_vec()).await {
            Ok(Value::Array(parts)) if parts.len() == 5 => {
                let snapshot = read_snapshot(&parts[0], &self.group)?;
                let notes = Notes {
                    trimmed: parts[2].as_u64(),
                    gone: parts[3].as_u64().unwrap_or(0),
                    report: parts[4].as_str().map(std::borrow::Cow::into_owned),
                };
                Ok(Some(Snapshot { acknowledged: parts[1].as_u64(), notes: Some(notes), ..snapshot }))
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
        let arguments: Vec<_> = ids.iter().map(EntryId::to_string).collect();
        if self.counted(ACKNOWLEDGE, &arguments).await?.is_none() {
            self.uncounted("XACK", arguments).await?;
        }
        Ok(())
    }

    /// Acknowledges pending entries that are no longer in the stream, and counts them as still to be reported. Returns whether that may
    /// be done.
    pub(super) async fn let_go(&self, ids: &[EntryId]) -> Result<bool, Trouble> {
        let arguments: Vec<_> = ids.iter().map(EntryId::to_string).collect();
        Ok(self.counted(LET_GO, &arguments).await?.is_some())
    }

    /// Takes over entries that were not acknowledged for so long. Of those that are no longer there it returns the number only where
    /// they are not counted.
    pub(super) async fn claim(&self, idle: Duration, from: EntryId, count: usize) -> Result<Claimed, Trouble> {
        let (idle, from, count) = (idle.as_millis().to_string(), from.to_string(), count.to_string());
        let arguments = vec![self.consumer.clone(), idle, from, "COUNT".to_owned(), count];
        match self.counted(CLAIM, &arguments).await? {
            Some(reply) => Ok(Claimed { deleted: 0, ..read_claimed(&reply)? }),
            None => Ok(read_claimed(&self.uncounted("XAUTOCLAIM", arguments).await?)?),
        }
    }

    /// A command about the group by its script, which counts; `None`: that may not be.
    async fn counted(&self, script: &'static str, more: &[String]) -> Result<Option<Value>, Trouble> {
        let (acknowledged, gone) = (self.note("acknowledged"), self.note("gone"));
        let head = [script, "2", &self.key, &self.notes, &self.group, &acknowledged, &gone].map(str::to_owned);
        match self.send("EVAL", head.into_iter().chain(more.iter().cloned()).collect()).await {
            Err(Trouble::Refused(_) | Trouble::Answer(_)) => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// The same without.
    async fn uncounted(&self, command: &'static str, more: Vec<String>) -> Result<Value, Trouble> {
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

    /// Sets that, when the group is made: nothing is acknowledged yet. A report that is open is about the group before it.
    pub(super) async fn set_reported(&self, entries: u64) -> Result<(), Trouble> {
        let entries = entries.to_string();
        let notes = [("trimmed", &*entries), ("acknowledged", "0"), ("report_to", &*entries)];
        let notes = notes.into_iter().flat_map(|(what, value)| [self.note(what), value.to_owned()]);
        let arguments = [self.notes.clone()].into_iter().chain(notes).collect();
        self.send_about(&self.notes, "HSET", arguments).await.map(|_| ())
    }

    /// Opens a report that brings the count of trimmed entries to this number. Returns whether it is open: of several daemons that find
    /// the same, one opens it.
    pub(super) async fn open_report(&self, before: &Notes, trimmed: u64, report: &str) -> Result<bool, Trouble> {
        let seen = before.trimmed.map_or(String::new(), |trimmed| trimmed.to_string());
        let more = [seen, before.gone.to_string(), report.to_owned(), trimmed.to_string()];
        self.on_report(OPEN_REPORT, &more).await
    }

    /// Closes a report, of which so many entries were pending. Returns whether it was open.
    pub(super) async fn close_report(&self, report: &str, gone: u64) -> Result<bool, Trouble> {
        self.on_report(CLOSE_REPORT, &[report.to_owned(), gone.to_string()]).await
    }

    async fn on_report(&self, script: &'static str, more: &[String]) -> Result<bool, Trouble> {
        let notes = ["trimmed", "gone", "report", "report_to"].map(|what| self.note(what));
        let head = [script, "1", &self.notes].map(str::to_owned);
        let arguments = head.into_iter().chain(notes).chain(more.iter().cloned()).collect();
        Ok(self.send_about(&self.notes, "EVAL", arguments).await?.as_u64() == Some(1))
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
