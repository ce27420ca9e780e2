//! What the daemons of a group count together: entries that they have acknowledged, and trimmed ones that they have reported.
//!
//! The count of acknowledged entries changes in one step with the acknowledgement, so that it is right whenever a daemon is killed (not
//! where scripts are refused), and it is read in one step with the state of the stream. The count of pending entries that were trimmed,
//! and are still to be reported, changes in the same way. All counts lie in the slot of the stream, because a script may not touch two.

use std::time::Duration;

use fred::types::Value;

use super::{
    commands::{Commands, StreamError},
    reply::{Claimed, ReportState, Snapshot, read_claimed, read_snapshot},
    trimmed::{Finding, Recount},
};
use crate::event::EntryId;

/// Acknowledges, and counts what that changed, where it is counted.
const ACKNOWLEDGE: &str = "local n = redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 4)) \
    if n > 0 and redis.call('HGET', KEYS[2], ARGV[2]) then redis.call('HINCRBY', KEYS[2], ARGV[2], n) end \
    return n";

/// The same of pending entries that were trimmed: they are to be reported.
const ACKNOWLEDGE_DELETED: &str = "local n = redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 4)) \
    if n > 0 then redis.call('HINCRBY', KEYS[2], ARGV[3], n) end \
    if n > 0 and redis.call('HGET', KEYS[2], ARGV[2]) then redis.call('HINCRBY', KEYS[2], ARGV[2], n) end \
    return n";

/// The state of the stream, and what is counted and reported. Where there is no count yet it is what the server says of the group. Of
/// the first entry only the id is sent: the rest may be large.
const SNAPSHOT: &str = "local state = redis.call('XINFO', 'STREAM', KEYS[1], 'FULL', 'COUNT', '1') \
    for at = 1, #state, 2 do if state[at] == 'entries' then \
    for _, entry in ipairs(state[at + 1]) do entry[2] = {} end end end \
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

/// Opens a report, if none is open, and the counts are still those that it was made of. Corrects the count of acknowledged entries.
const OPEN_REPORT: &str = "if redis.call('HGET', KEYS[1], ARGV[3]) \
    or (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[6] \
    or tonumber(redis.call('HGET', KEYS[1], ARGV[2]) or '0') ~= tonumber(ARGV[7]) then return 0 end \
    if ARGV[11] ~= '0' then \
    if redis.call('HGET', KEYS[1], ARGV[5]) ~= ARGV[10] then return 0 end \
    if ARGV[11] == 'drop' then redis.call('HDEL', KEYS[1], ARGV[5]) \
    else redis.call('HINCRBY', KEYS[1], ARGV[5], ARGV[11]) end end \
    redis.call('HSET', KEYS[1], ARGV[3], ARGV[8], ARGV[4], ARGV[9]) return 1";

/// Closes a report, if it is still open: the counts include it. A user without the right to HDEL changes nothing.
const CLOSE_REPORT: &str = "if redis.call('HGET', KEYS[1], ARGV[3]) ~= ARGV[6] then return 0 end \
    local to = redis.call('HGET', KEYS[1], ARGV[4]) \
    redis.call('HDEL', KEYS[1], ARGV[3], ARGV[4]) \
    if to then redis.call('HSET', KEYS[1], ARGV[1], to) end \
    if ARGV[7] ~= '0' then redis.call('HINCRBY', KEYS[1], ARGV[2], '-' .. ARGV[7]) end \
    return 1";

/// Makes the group, and sets what belongs to it in the same step: nothing is acknowledged yet. An open report is about the group before.
const CREATE: &str = "local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM', 'ENTRIESREAD', '0') \
    if type(made) == 'table' and made.err then return made end \
    redis.call('HSET', KEYS[2], ARGV[2], ARGV[5], ARGV[3], '0', ARGV[4], ARGV[5]) return 1";

/// Takes over what a former version has reported.
const ADOPT: &str = "return redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])";

/// The key in which former versions kept what they had reported.
pub(super) fn former_counters_key(prefix: &str, stream: &str) -> String {
    format!("{prefix}ingest:stream:{stream}")
}

/// The key in which the daemons of a stream keep their counts.
pub(super) fn counters_key(prefix: &str, stream: &str) -> String {
    let key = format!("{prefix}ingest:stream:");
    // The part between braces decides on the slot.
    if prefix.contains('{') || stream.contains('{') { key + stream } else { format!("{key}{{{stream}}}") }
}

impl Commands {
    /// The state of the stream, with the count of acknowledged entries where it may be asked for; `None`: there is no such key.
    pub(super) async fn snapshot(&self) -> Result<Option<Snapshot>, StreamError> {
        let [acknowledged, gone, trimmed, report] =
            ["acknowledged", "gone", "trimmed", "report"].map(|of| self.field(of));
        let fields = ["2", &self.key, &self.counters_key, &self.group, &acknowledged, &gone, &trimmed, &report];
        match self.run_script(&self.key, SNAPSHOT, fields.map(str::to_owned)).await {
            Ok(Some(Value::Array(parts))) if parts.len() == 5 => {
                let snapshot = read_snapshot(&parts[0], &self.group)?;
                let state = ReportState {
                    trimmed: parts[2].as_u64(),
                    gone: parts[3].as_u64().unwrap_or(0),
                    report: parts[4].as_str().map(std::borrow::Cow::into_owned),
                };
                Ok(Some(Snapshot { acknowledged: parts[1].as_u64(), report_state: Some(state), ..snapshot }))
            }
            Err(error @ (StreamError::Lost(_) | StreamError::WrongType(_))) => Err(error),
            _ => self.snapshot_without_counters().await,
        }
    }

    /// The same without the counts, which needs no script.
    pub(super) async fn snapshot_without_counters(&self) -> Result<Option<Snapshot>, StreamError> {
        let arguments = ["STREAM", &self.key, "FULL", "COUNT", "1"].map(str::to_owned).to_vec();
        match self.send("XINFO", arguments).await {
            Ok(reply) => Ok(Some(read_snapshot(&reply, &self.group)?)),
            Err(StreamError::Answer(words)) if words.contains("no such key") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Acknowledges entries.
    pub(super) async fn acknowledge(&self, ids: &[EntryId]) -> Result<(), StreamError> {
        let arguments: Vec<_> = ids.iter().map(EntryId::to_string).collect();
        if self.counted(ACKNOWLEDGE, &arguments).await?.is_none() {
            self.uncounted("XACK", arguments).await?;
        }
        Ok(())
    }

    /// Acknowledges pending entries that are no longer in the stream, and counts them as still to be reported. Returns whether that may
    /// be done.
    pub(super) async fn acknowledge_deleted(&self, ids: &[EntryId]) -> Result<bool, StreamError> {
        let arguments: Vec<_> = ids.iter().map(EntryId::to_string).collect();
        Ok(self.counted(ACKNOWLEDGE_DELETED, &arguments).await?.is_some())
    }

    /// Takes over entries that were not acknowledged for so long. Of those that are no longer there it returns the number only where
    /// they are not counted.
    pub(super) async fn claim(&self, idle: Duration, from: EntryId, count: usize) -> Result<Claimed, StreamError> {
        let (idle, from, count) = (idle.as_millis().to_string(), from.to_string(), count.to_string());
        let arguments = vec![self.consumer.clone(), idle, from, "COUNT".to_owned(), count];
        match self.counted(CLAIM, &arguments).await? {
            Some(reply) => Ok(Claimed { deleted: 0, ..read_claimed(&reply)? }),
            None => Ok(read_claimed(&self.uncounted("XAUTOCLAIM", arguments).await?)?),
        }
    }

    /// A command about the group by its script, which counts; `None`: that may not be.
    async fn counted(&self, script: &'static str, more: &[String]) -> Result<Option<Value>, StreamError> {
        let (acknowledged, gone) = (self.field("acknowledged"), self.field("gone"));
        let head = ["2", &self.key, &self.counters_key, &self.group, &acknowledged, &gone].map(str::to_owned);
        match self.run_script(&self.key, script, head.into_iter().chain(more.iter().cloned())).await {
            Err(StreamError::Answer(_)) => Ok(None),
            answer => answer,
        }
    }

    /// The same without.
    async fn uncounted(&self, command: &'static str, more: Vec<String>) -> Result<Value, StreamError> {
        // A count that lacks some would report them as trimmed: there is none until it can be made anew. Both are sent together.
        let fields = vec![self.counters_key.clone(), self.field("acknowledged")];
        let forget = self.send_about(&self.counters_key, "HDEL", fields);
        let head = [self.key.clone(), self.group.clone()];
        let (_, answer) = tokio::join!(forget, self.send(command, head.into_iter().chain(more).collect()));
        answer
    }

    /// How many trimmed entries the daemons of the group have reported, also those of a former version; `None`: the group has never been
    /// there.
    pub(super) async fn reported(&self) -> Result<Option<u64>, StreamError> {
        let trimmed = self.field("trimmed");
        let get = async |key: &str| self.send_about(key, "HGET", vec![key.to_owned(), trimmed.clone()]).await;
        if let Some(reported) = get(&self.counters_key).await?.as_u64() {
            return Ok(Some(reported));
        }
        // The key may be in another slot.
        let Some(reported) = get(&self.former_counters_key).await?.as_u64() else { return Ok(None) };
        let arguments = ["1", &self.counters_key, &trimmed, &reported.to_string()].map(str::to_owned);
        let _ = self.run_script(&self.counters_key, ADOPT, arguments).await;
        Ok(Some(reported))
    }

    /// Makes the group, and the stream, where so many entries count as reported. Returns whether it was not there.
    pub(super) async fn create(&self, reported: u64) -> Result<bool, StreamError> {
        let reported = reported.to_string();
        let [trimmed, acknowledged, report_to] = ["trimmed", "acknowledged", "report_to"].map(|of| self.field(of));
        let fields = [&*self.group, &trimmed, &acknowledged, &report_to, &reported];
        let arguments = [&["2", &*self.key, &*self.counters_key], &fields[..]].concat();
        match self.run_script(&self.key, CREATE, arguments.into_iter().map(str::to_owned)).await {
            Ok(Some(_)) => return Ok(true),
            Err(StreamError::Answer(words)) if words.contains("BUSYGROUP") => return Ok(false),
            // Without the permission, and before Redis 7, it is made alone.
            Ok(None) | Err(StreamError::Answer(_)) => {}
            Err(error) => return Err(error),
        }
        let _ = self.send_about(&self.counters_key, "HDEL", vec![self.counters_key.clone(), acknowledged]).await;
        let created = self.create_group().await?;
        if created {
            let arguments =
                [&*self.counters_key, &trimmed, &reported, &report_to, &reported].map(str::to_owned).to_vec();
            let _ = self.send_about(&self.counters_key, "HSET", arguments).await;
        }
        Ok(created)
    }

    /// Opens a report about what was found in this state. Returns whether it is open: of several daemons that find the same, one opens it.
    pub(super) async fn open_report(&self, now: &Snapshot, found: &Finding, report: &str) -> Result<bool, StreamError> {
        let text = |number: Option<u64>| number.map_or(String::new(), |number| number.to_string());
        let state = now.report_state.as_ref();
        let seen = [text(state.and_then(|state| state.trimmed)), state.map_or(0, |state| state.gone).to_string()];
        let recount = match found.recount {
            Recount::Keep => "0".to_owned(),
            Recount::By(by) => by.to_string(),
            Recount::Drop => "drop".to_owned(),
        };
        let more = [report.to_owned(), found.total.to_string(), text(now.acknowledged), recount];
        self.on_report(OPEN_REPORT, &[&seen[..], &more[..]].concat()).await
    }

    /// Closes a report, of which so many entries were pending. Returns whether it was open.
    pub(super) async fn close_report(&self, report: &str, gone: u64) -> Result<bool, StreamError> {
        self.on_report(CLOSE_REPORT, &[report.to_owned(), gone.to_string()]).await
    }

    async fn on_report(&self, script: &'static str, more: &[String]) -> Result<bool, StreamError> {
        let fields = ["trimmed", "gone", "report", "report_to", "acknowledged"].map(|what| self.field(what));
        let head = ["1", &self.counters_key].map(str::to_owned);
        let arguments = head.into_iter().chain(fields).chain(more.iter().cloned());
        Ok(self.run_script(&self.counters_key, script, arguments).await?.and_then(|done| done.as_u64()) == Some(1))
    }

    fn field(&self, what: &str) -> String {
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
            assert_eq!(counters_key(prefix, stream), key);
        }
    }
}
