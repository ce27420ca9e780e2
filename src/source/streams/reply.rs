//! What Redis answers about streams. Pure.

use bytes::Bytes;
use fred::types::{Key, Value};

use super::message::message;
use crate::{event::EntryId, units::Micros};

/// An entry as it was delivered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) id: EntryId,
    /// Its message; absent: it was deleted or trimmed after it had been delivered.
    pub(super) message: Option<Bytes>,
}

/// Between these the time of an entry id is believed to be one, and the message's own time is judged by it: so that each delivery
/// comes to the same judgement.
const PLAUSIBLE_TIMES: std::ops::Range<Micros> = 946_684_800_000_000..4_102_444_800_000_000;

/// The time of an entry id; `None`: the publisher has chosen an id that is no time.
pub(super) fn plausible_time(id: EntryId) -> Option<Micros> {
    Some(id.micros()).filter(|at| PLAUSIBLE_TIMES.contains(at))
}

/// The answer is not what this program expects.
#[derive(Debug, thiserror::Error)]
#[error("Redis answers in a form that is not understood")]
pub(super) struct UnexpectedReply;

/// The entries in the answer of XREADGROUP or XREAD about one stream; none after a timeout.
pub(super) fn read_entries(reply: &Value) -> Result<Vec<Entry>, UnexpectedReply> {
    match reply {
        Value::Null => Ok(Vec::new()),
        Value::Map(streams) => streams.values().next().map_or(Ok(Vec::new()), entries),
        Value::Array(streams) => match streams.first() {
            Some(Value::Array(stream)) => stream.get(1).map_or(Err(UnexpectedReply), entries),
            Some(_) => streams.get(1).map_or(Err(UnexpectedReply), entries),
            None => Ok(Vec::new()),
        },
        _ => Err(UnexpectedReply),
    }
}

/// What XAUTOCLAIM answers.
#[derive(Debug, PartialEq)]
pub(super) struct Claimed {
    /// Where to go on; `0-0`: everything was looked at.
    pub(super) next: EntryId,
    pub(super) entries: Vec<Entry>,
    /// Pending entries that are no longer in the stream; Redis 7 has removed them from the list.
    pub(super) deleted: u64,
}

pub(super) fn read_claimed(reply: &Value) -> Result<Claimed, UnexpectedReply> {
    let Value::Array(parts) = reply else { return Err(UnexpectedReply) };
    let next = parts.first().and_then(id).ok_or(UnexpectedReply)?;
    let deleted = match parts.get(2) {
        Some(Value::Array(ids)) => ids.len() as u64,
        _ => 0,
    };
    Ok(Claimed { next, entries: entries(parts.get(1).ok_or(UnexpectedReply)?)?, deleted })
}

fn entries(list: &Value) -> Result<Vec<Entry>, UnexpectedReply> {
    match list {
        Value::Array(list) => list.iter().filter(|entry| **entry != Value::Null).map(entry).collect(),
        Value::Null => Ok(Vec::new()),
        _ => Err(UnexpectedReply),
    }
}

fn entry(entry: &Value) -> Result<Entry, UnexpectedReply> {
    let Value::Array(parts) = entry else { return Err(UnexpectedReply) };
    let id = parts.first().and_then(id).ok_or(UnexpectedReply)?;
    let Some(Value::Array(fields)) = parts.get(1) else { return Ok(Entry { id, message: None }) };
    let bytes: Option<Vec<_>> = fields.iter().map(Value::as_bytes).collect();
    let bytes = bytes.ok_or(UnexpectedReply)?;
    let fields: Vec<_> = bytes.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    Ok(Entry { id, message: Some(message(&fields)) })
}

fn id(value: &Value) -> Option<EntryId> {
    value.as_str()?.parse().ok()
}

/// The state of a stream and of our group at one moment, of `XINFO STREAM key FULL COUNT 1`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) length: u64,
    /// Entries ever added; absent before Redis 7.
    pub(super) added: Option<u64>,
    pub(super) first: Option<EntryId>,
    pub(super) last_generated: EntryId,
    /// Whether an entry was ever deleted by XDEL, as opposed to trimmed.
    pub(super) deleted_some: bool,
    /// Entries that the daemons of the group have acknowledged; absent where they are not counted.
    pub(super) acknowledged: Option<u64>,
    /// What they have reported; absent where they may not count together.
    pub(super) report_state: Option<ReportState>,
    /// Absent: there is no such group.
    pub(super) group: Option<Group>,
}

/// What the daemons of a group have reported as lost, and have still to report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ReportState {
    /// Entries that were trimmed before they were read; absent: none yet.
    pub(super) trimmed: Option<u64>,
    /// Entries that were trimmed before they were acknowledged, and are still to be reported.
    pub(super) gone: u64,
    /// The open report.
    pub(super) report: Option<String>,
}

/// The state of our group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) last_delivered: EntryId,
    /// Entries read; absent where the server does not know.
    pub(super) read: Option<u64>,
    /// Entries that are still to be read; absent where the server does not know.
    pub(super) lag: Option<u64>,
    /// Entries that were delivered and are not acknowledged, of all consumers.
    pub(super) pending: u64,
}

pub(super) fn read_snapshot(reply: &Value, group: &str) -> Result<Snapshot, UnexpectedReply> {
    let number = |of: &Value, name: &str| get(of, name).and_then(Value::as_u64);
    let first = match get(reply, "entries") {
        Some(Value::Array(entries)) => entries.first().and_then(|entry| match entry {
            Value::Array(parts) => parts.first().and_then(id),
            _ => None,
        }),
        _ => None,
    };
    let groups = match get(reply, "groups") {
        Some(Value::Array(groups)) => groups.as_slice(),
        _ => &[],
    };
    let ours = groups.iter().find(|found| get(found, "name").and_then(|name| name.as_str()).as_deref() == Some(group));
    let group = ours.map(|ours| Group {
        last_delivered: get(ours, "last-delivered-id").and_then(id).unwrap_or_default(),
        read: number(ours, "entries-read"),
        lag: number(ours, "lag"),
        pending: number(ours, "pel-count").unwrap_or(0),
    });
    let max_deleted = get(reply, "max-deleted-entry-id").and_then(id).unwrap_or_default();
    Ok(Snapshot {
        length: number(reply, "length").ok_or(UnexpectedReply)?,
        added: number(reply, "entries-added"),
        first,
        last_generated: get(reply, "last-generated-id").and_then(id).unwrap_or_default(),
        deleted_some: max_deleted != EntryId::default(),
        acknowledged: None,
        report_state: None,
        group,
    })
}

/// A consumer of the group, of `XINFO CONSUMERS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupConsumer {
    pub(super) name: String,
    pub(super) pending: u64,
    pub(super) idle_ms: u64,
}

pub(super) fn read_consumers(reply: &Value) -> Result<Vec<GroupConsumer>, UnexpectedReply> {
    let Value::Array(consumers) = reply else { return Err(UnexpectedReply) };
    let consumer = |of: &Value| {
        let number = |name| get(of, name).and_then(Value::as_u64);
        let name = get(of, "name").and_then(|name| name.as_str())?.into_owned();
        Some(GroupConsumer { name, pending: number("pending")?, idle_ms: number("idle")? })
    };
    consumers.iter().map(|of| consumer(of).ok_or(UnexpectedReply)).collect()
}

/// The number of the connection that has asked for `CLIENT INFO`.
pub(super) fn read_connection_id(info: &str) -> Option<u64> {
    info.split(' ').find_map(|part| part.strip_prefix("id="))?.parse().ok()
}

/// The value of a name in a map, which the older protocol writes as a list.
fn get<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
    match map {
        Value::Map(map) => map.get(&Key::from(name)),
        Value::Array(list) => {
            list.chunks_exact(2).find(|pair| pair[0].as_str().as_deref() == Some(name)).map(|pair| &pair[1])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::String(text.into())
    }

    fn list(values: Vec<Value>) -> Value {
        Value::Array(values)
    }

    #[test]
    fn entries_are_read_of_both_protocols_and_a_deleted_one_has_no_message() {
        let one = list(vec![text("5-1"), list(vec![text("data"), text("{}")])]);
        let gone = list(vec![text("5-2"), Value::Null]);
        let found = vec![
            Entry { id: "5-1".parse().unwrap(), message: Some("{}".into()) },
            Entry { id: "5-2".parse().unwrap(), message: None },
        ];
        let entries = list(vec![one, gone]);
        let older = list(vec![list(vec![text("s"), entries.clone()])]);
        assert_eq!(read_entries(&older).unwrap(), found);
        let newer =
            Value::Map([("s", entries)].into_iter().collect::<std::collections::HashMap<_, _>>().try_into().unwrap());
        assert_eq!(read_entries(&newer).unwrap(), found);
        assert!(read_entries(&Value::Null).unwrap().is_empty());
        assert!(read_entries(&text("OK")).is_err());
    }

    #[test]
    fn what_is_claimed_says_where_to_go_on_and_what_is_gone() {
        let reply = list(vec![text("7-0"), list(vec![Value::Null]), list(vec![text("5-1"), text("5-2")])]);
        let claimed = Claimed { next: "7-0".parse().unwrap(), entries: Vec::new(), deleted: 2 };
        assert_eq!(read_claimed(&reply).unwrap(), claimed);
    }

    #[test]
    fn a_connection_is_known_by_its_number() {
        assert_eq!(read_connection_id("id=17 addr=127.0.0.1:5 laddr=127.0.0.1:6 name= db=0\n"), Some(17));
        assert_eq!(read_connection_id("addr=127.0.0.1:5"), None);
    }

    #[test]
    fn the_state_of_the_group_is_found_among_others() {
        let group = |name: &str, read| {
            let of = [("last-delivered-id", text("5-1")), ("entries-read", read), ("lag", Value::Null)];
            let named = [text("name"), text(name), text("pel-count"), Value::Integer(3)];
            list(named.into_iter().chain(of.into_iter().flat_map(|(name, value)| [text(name), value])).collect())
        };
        let reply = list(vec![
            text("length"),
            Value::Integer(2),
            text("entries-added"),
            Value::Integer(9),
            text("max-deleted-entry-id"),
            text("0-0"),
            text("last-generated-id"),
            text("8-0"),
            text("entries"),
            list(vec![list(vec![text("6-0"), list(vec![])])]),
            text("groups"),
            list(vec![group("other", Value::Null), group("ours", Value::Integer(4))]),
        ]);
        let found = read_snapshot(&reply, "ours").unwrap();
        assert_eq!((found.length, found.added, found.deleted_some), (2, Some(9), false));
        assert_eq!((found.first, found.last_generated), ("6-0".parse().ok(), "8-0".parse().unwrap()));
        let group = Group { last_delivered: "5-1".parse().unwrap(), read: Some(4), lag: None, pending: 3 };
        assert_eq!(found.group, Some(group));
        assert_eq!(read_snapshot(&reply, "absent").unwrap().group, None);
    }
}
