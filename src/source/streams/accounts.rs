//! What the daemons of a group count together: entries that they have acknowledged, and trimmed ones that they have reported.
//!
//! The count of acknowledged entries changes in one step with the acknowledgement, so that it is right whenever a daemon is killed (not
//! where scripts are refused), and it is read in one step with the state of the stream. So does the count of pending entries that were trimmed, which are reported then.
//! All of it lies in the slot of the stream, because a script may not touch two.

use std::time::Duration;

use fred::types::Value;

use super::{
    commands::{Commands, Trouble},
    reply::{Claimed, Notes, Snapshot, read_claimed, read_snapshot},
    trimmed::{Finding, Recount},
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

/// Opens a report, if none is open, and the counts are still those that it was made of. Corrects the count of acknowledged entries.
const OPEN_REPORT: &str = "if redis.call('HGET', KEYS[1], ARGV[3]) \
    or (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[6] \
    or tonumber(redis.call('HGET', KEYS[1], ARGV[2]) or '0') ~= tonumber(ARGV[7]) then return 0 end \
    if ARGV[11] ~= '0' then \
    if redis.call('HGET', KEYS[1], ARGV[5]) ~= ARGV[10] then return 0 end \
    if ARGV[11] == 'drop' then redis.call('HDEL', KEYS[1], ARGV[5]) \
    else redis.call('HINCRBY', KEYS[1], ARGV[5], ARGV[11]) end end \
    redis.call('HSET', KEYS[1], ARGV[3], ARGV[8], ARGV[4], ARGV[9]) return 1";

/// Closes a report, if it is still open: the counts include it.
const CLOSE_REPORT: &str = "if redis.call('HGET', KEYS[1], ARGV[3]) ~= ARGV[6] then return 0 end \
    local to = redis.call('HGET', KEYS[1], ARGV[4]) \
    if to then redis.call('HSET', KEYS[1], ARGV[1], to) end \
    if ARGV[7] ~= '0' then redis.call('HINCRBY', KEYS[1], ARGV[2], '-' .. ARGV[7]) end \
    redis.call('HDEL', KEYS[1], ARGV[3], ARGV[4]) return 1";

/// Makes the group, and sets what belongs to it in the same step: nothing is acknowledged yet. An open report is about the group before.
const CREATE: &str = "local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM', 'ENTRIESREAD', '0') \
    if type(made) == 'table' and made.err then return made end \
    redis.call('HSET', KEYS[2], ARGV[2], ARGV[5], ARGV[3], '0', ARGV[4], ARGV[5]) return 1";

/// Takes over what a former version has reported.
const ADOPT: &str = "return redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])";

/// The key in which former versions kept what they had reported.
pub(super) fn former_counts_key(prefix: &str, stream: &str) -> String {
    format!("{prefix}ingest:stream:{stream}")
}

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

    /// The same without the counts, which needs no script.
    pub(super) async fn look_alone(&self) -> Result<Option<Snapshot>, Trouble> {
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
        // A count that lacks some would report them as trimmed: there is none until it can be made anew.
        let _ = self.send_about(&self.notes, "HDEL", vec![self.notes.clone(), self.note("acknowledged")]).await;
        let head = [self.key.clone(), self.group.clone()];
        self.send(command, head.into_iter().chain(more).collect()).await
    }

    /// How many trimmed entries the daemons of the group have reported, also those of a former version; `None`: the group has never been
    /// there.
    pub(super) async fn reported(&self) -> Result<Option<u64>, Trouble> {
        let trimmed = self.note("trimmed");
        let get = async |key: &str| self.send_about(key, "HGET", vec![key.to_owned(), trimmed.clone()]).await;
        if let Some(reported) = get(&self.notes).await?.as_u64() {
            return Ok(Some(reported));
        }
        // The key may be in another slot.
        let Some(reported) = get(&self.former_notes).await?.as_u64() else { return Ok(None) };
        let arguments = [ADOPT, "1", &self.notes, &trimmed, &reported.to_string()].map(str::to_owned);
        let _ = self.send_about(&self.notes, "EVAL", arguments.to_vec()).await;
        Ok(Some(reported))
    }

    /// Makes the group, and the stream, where so many entries count as reported. Returns whether it was not there.
    pub(super) async fn create(&self, reported: u64) -> Result<bool, Trouble> {
        let reported = reported.to_string();
        let [trimmed, acknowledged, report_to] = ["trimmed", "acknowledged", "report_to"].map(|of| self.note(of));
        let fields = [&*self.group, &trimmed, &acknowledged, &report_to, &reported];
        let arguments = [&[CREATE, "2", &*self.key, &*self.notes], &fields[..]].concat();
        match self.send("EVAL", arguments.into_iter().map(str::to_owned).collect()).await {
            Ok(_) => return Ok(true),
            Err(Trouble::Answer(words)) if words.contains("BUSYGROUP") => return Ok(false),
            // Without the permission, and before Redis 7, it is made alone.
            Err(Trouble::Refused(_) | Trouble::Answer(_)) => {}
            Err(trouble) => return Err(trouble),
        }
        let _ = self.send_about(&self.notes, "HDEL", vec![self.notes.clone(), acknowledged]).await;
        let created = self.create_group().await?;
        if created {
            let arguments = [&*self.notes, &trimmed, &reported, &report_to, &reported].map(str::to_owned).to_vec();
            let _ = self.send_about(&self.notes, "HSET", arguments).await;
        }
        Ok(created)
    }

    /// Opens a report about what was found in this state. Returns whether it is open: of several daemons that find the same, one opens it.
    pub(super) async fn open_report(&self, now: &Snapshot, found: &Finding, report: &str) -> Result<bool, Trouble> {
        let text = |number: Option<u64>| number.map_or(String::new(), |number| number.to_string());
        let notes = now.notes.as_ref();
        let seen = [text(notes.and_then(|notes| notes.trimmed)), notes.map_or(0, |notes| notes.gone).to_string()];
        let recount = match found.recount {
            Recount::Keep => "0".to_owned(),
            Recount::By(by) => by.to_string(),
            Recount::Drop => "drop".to_owned(),
        };
        let more = [report.to_owned(), found.total.to_string(), text(now.acknowledged), recount];
        self.on_report(OPEN_REPORT, &[&seen[..], &more[..]].concat()).await
    }

    /// Closes a report, of which so many entries were pending. Returns whether it was open.
    pub(super) async fn close_report(&self, report: &str, gone: u64) -> Result<bool, Trouble> {
        self.on_report(CLOSE_REPORT, &[report.to_owned(), gone.to_string()]).await
    }

    async fn on_report(&self, script: &'static str, more: &[String]) -> Result<bool, Trouble> {
        let notes = ["trimmed", "gone", "report", "report_to", "acknowledged"].map(|what| self.note(what));
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
