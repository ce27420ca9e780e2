//! Rejected messages and rows, with the reason: segments like those of the spool, in a directory of their own.
//!
//! Each letter is a record whose payload is `spool id 16 | offset u64 | row u32 | description | kept bytes`; the record's
//! own offset is the letter's printable id. A letter that is put again because the spool was replayed is recognised by where it
//! came from and by its time and hash, a rejected entry of a stream that is delivered again by its id and hash; it adds nothing.
//! Nothing is ever committed here: the oldest segment makes room.
//! The kind of the record tells what the kept bytes are: a message that intake rejected, or the payload of a record of which the
//! store refused a row, with what was decided about it. [`dropped`] is the index of dropped letters.

pub mod dropped;
mod log;
mod reader;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

pub use self::{
    log::{DeadLetterLog, Usage},
    reader::{DeadLetter, Reader},
};
use crate::{
    event::{EntryId, Resolved, entry_source, split_source},
    frame::{Reason, RejectedMessage},
    section,
    spool::{
        RecordKind,
        disk::Disk,
        record::Record,
        scan::Scan,
        segment::{Header, Meta},
    },
    units::{ByteSize, Micros},
};

/// Where and how many.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its private directory; empty: `<state_dir>/deadletter`.
    pub dir: PathBuf,
    /// Size beyond which the oldest are dropped, and counted.
    pub capacity: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        section::defaults("deadletter")
    }
}

/// A dead letter to be written.
#[derive(Clone, Debug)]
pub struct NewDeadLetter<'a> {
    /// Why, and what the message was.
    pub rejected: RejectedMessage,
    /// Where it came from.
    pub channel: &'a str,
    /// What was decided about it; of a rejected message only when it was received, and the run that was open.
    pub decided: Resolved,
    /// What the payload is: the kind of the record in the spool.
    pub kind: RecordKind,
    /// The spool that held the message.
    pub spool_id: Uuid,
    /// Its offset there.
    pub offset: u64,
    /// Which of the message's rows; 0 for the message itself.
    pub row: u32,
    /// What is kept of its bytes.
    pub payload: &'a [u8],
}

/// A letter without its bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeadLetterInfo {
    /// Stable; counts up from 0.
    pub id: u64,
    /// Why.
    pub reason: Reason,
    /// What exactly.
    pub detail: String,
    /// Where it came from.
    pub channel: String,
    /// Of an entry of a stream: its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// When.
    pub received_at: Micros,
    /// Length of the message as received.
    pub length: u64,
    /// Bytes of it that are kept.
    pub kept: u64,
    /// XXH3-64 of the whole message, in hexadecimal.
    pub hash: String,
    /// Offset in the spool.
    pub offset: u64,
    /// Which of the message's rows.
    pub row: u32,
}

impl DeadLetterInfo {
    /// The id of its entry, where it is one of a stream.
    pub fn entry_id(&self) -> Option<EntryId> {
        self.entry.as_ref().and_then(|id| id.parse().ok())
    }

    /// The channel as the record in the spool had it; see [`entry_source`].
    pub fn source(&self) -> String {
        self.entry_id().map_or_else(|| self.channel.clone(), |id| entry_source(&self.channel, id))
    }
}

/// Which letters to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only of this reason.
    pub reason: Option<Reason>,
    /// Only of this channel.
    pub channel: Option<String>,
    /// Only received at or after.
    pub since: Option<Micros>,
    /// Only received at or before.
    pub until: Option<Micros>,
    /// Only these; empty: all.
    pub ids: BTreeSet<u64>,
    /// Only the newest so many; `None`: all.
    pub limit: Option<usize>,
}

impl Filter {
    fn matches(&self, info: &DeadLetterInfo) -> bool {
        self.reason.is_none_or(|reason| reason == info.reason)
            && self.channel.as_ref().is_none_or(|channel| *channel == info.channel)
            && self.since.is_none_or(|since| info.received_at >= since)
            && self.until.is_none_or(|until| info.received_at <= until)
            && (self.ids.is_empty() || self.ids.contains(&info.id))
    }
}

/// Why a dead letter cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// The directory cannot be used.
    #[error("failed to open the dead letters in `{}`", .dir.display())]
    Open {
        /// Which.
        dir: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Another process writes it.
    #[error("dead letters in `{}` are in use by another process", .dir.display())]
    Locked {
        /// Which.
        dir: PathBuf,
    },
    /// A newer version of the program was here; nothing was changed.
    #[error("`{}` has format {version}, which this program does not know; use the newer version that wrote it", .path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// The disk did not take it. Try again: nothing may go on without it.
    #[error("failed to write a dead letter")]
    Write(#[source] io::Error),
    /// Longer than any record may be, with its description.
    #[error("dead letter is too large")]
    TooLarge,
    /// A segment cannot be read.
    #[error("failed to read the dead letters")]
    Read(#[source] io::Error),
    /// What was dropped cannot be written down; nothing was dropped.
    #[error("failed to mark dead letters in `{}`", .dir.display())]
    Mark {
        /// Which directory.
        dir: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// The letters in `dir`, oldest first. Reads only; the daemon may be running.
///
/// # Errors
/// When the directory cannot be read. One that is missing holds no letters.
pub fn list(dir: &Path, filter: &Filter) -> Result<Vec<DeadLetterInfo>, DeadLetterError> {
    let mut found = VecDeque::new();
    let mut reader = Reader::open(dir, filter.clone())?;
    let mut push = |info, _: &[u8], _: &Record<'_>| {
        found.push_back(info);
        if filter.limit.is_some_and(|limit| found.len() > limit) {
            found.pop_front();
        }
    };
    while reader.next_segment(&mut push)?.is_some() {}
    Ok(found.into())
}

/// One letter and its kept bytes.
///
/// # Errors
/// When the directory cannot be read.
pub fn get(dir: &Path, id: u64) -> Result<Option<(DeadLetterInfo, Vec<u8>)>, DeadLetterError> {
    let filter = Filter { ids: BTreeSet::from([id]), ..Filter::default() };
    let found = Reader::open(dir, filter)?.next_entries()?.into_iter().next();
    Ok(found.map(|letter| (letter.info, letter.payload)))
}

/// Where a letter came from, and what tells it from another message that got the same offset after a loss; see [`Origin::key`].
type Key = (Uuid, u64, u32, Micros, u64);

/// Visits the letters of a segment, dropped ones too.
fn for_each_in_segment(
    meta: &Meta,
    seed: u32,
    visit: &mut impl FnMut(Key, DeadLetterInfo, &[u8], &Record<'_>),
) -> io::Result<()> {
    let mut scan = Scan::open(&Disk::default(), meta, meta.end, seed)?;
    while let Some(chunk) = scan.next_records()? {
        for record in chunk.records() {
            if let Some((key, info, kept)) = decode(&record) {
                visit(key, info, kept, &record);
            }
        }
    }
    Ok(())
}

/// The id that the checksums of these letters start from; a new one where there are none.
fn identify(list: &[Meta]) -> Result<Uuid, DeadLetterError> {
    let mut claimed = None;
    for meta in list.iter().rev() {
        match Header::read(&Disk::default(), &meta.path) {
            Ok(Header::Good { id, .. }) => return Ok(id),
            Ok(Header::Newer(version)) => return Err(DeadLetterError::Newer { path: meta.path.clone(), version }),
            Ok(Header::Bad(id)) => claimed = claimed.or(id),
            Err(_) => {}
        }
    }
    Ok(claimed.unwrap_or_else(Uuid::new_v4))
}

fn decode<'a>(record: &Record<'a>) -> Option<(Key, DeadLetterInfo, &'a [u8])> {
    let (spool_id, rest) = record.payload.split_first_chunk::<16>()?;
    let (offset, rest) = rest.split_first_chunk::<8>()?;
    let (row, rest) = rest.split_first_chunk::<4>()?;
    let (rejected, kept) = RejectedMessage::decode(rest)?;
    let (channel, entry) = split_source(record.channel);
    let info = DeadLetterInfo {
        id: record.offset,
        reason: rejected.rejection.reason,
        detail: rejected.rejection.detail,
        channel: channel.to_owned(),
        entry: entry.map(|id| id.to_string()),
        received_at: record.decided.received_at,
        length: rejected.length,
        kept: kept.len() as u64,
        hash: rejected.hash,
        offset: u64::from_le_bytes(*offset),
        row: u32::from_le_bytes(*row),
    };
    let origin = Origin { spool_id: Uuid::from_bytes(*spool_id), offset: info.offset, received_at: info.received_at };
    let key = origin.key(record.channel, info.reason, info.row, &info.hash);
    Some((key, info, kept))
}

/// Where a letter came from.
struct Origin {
    spool_id: Uuid,
    offset: u64,
    received_at: Micros,
}

impl Origin {
    /// The key of a letter. An entry of a stream that intake rejected is known by its id: it is delivered again when a process was killed
    /// before it could acknowledge it, and is then another record of the spool. One that the store refused may be refused once more
    /// after a replay, and is then another letter.
    fn key(&self, source: &str, reason: Reason, row: u32, hash: &str) -> Key {
        let hash = xxh3_64(hash.as_bytes());
        match split_source(source).1.filter(|_| reason != Reason::RejectedByStore) {
            Some(_) => (Uuid::nil(), xxh3_64(source.as_bytes()), row, 0, hash),
            None => (self.spool_id, self.offset, row, self.received_at, hash),
        }
    }
}
