//! The durable log between intake and the writer: intake appends records, the writer reads and commits them.
//!
//! # Limits
//! * A record: 64 MiB with its head. A segment: 16 MiB (`spool.segment`); a larger record has a segment of its own.
//! * All segments together: `spool.capacity`. The memory segment: `spool.memory`. The cache of the newest groups: 4 MiB.
//! * `quarantine/`: 64 MiB of damaged bytes.
//! * Offsets: 64-bit sequence numbers, one per record, never used twice in one spool as far as the files tell.
//!
//! # Bytes
//! A private directory (0700; files 0600) holds:
//! ```text
//! lock                          flock, held like that on the directory by the writing process; contains its pid, for information
//! instance                      the name of the instance that owns the spool
//! checkpoint                    magic "CASCHECK" | version u32 | spool id 16 | committed offset u64 | crc32c u32
//! 00000000000000000042-000.seg  a segment, named by the offset of its first record and a generation:
//!     header                    magic "CASSPOOL" | version u32 | spool id 16 | first offset u64 | crc32c u32
//!     record...                 len u32 | crc32c u32 | offset u64 | kind u8 | flags u8 | received_at i64 | event_time i64
//!                               | run_id 16 | channel_len u32 | channel | payload
//! quarantine/                   damaged bytes, named by their segment and position; unreadable segments
//! ```
//! Integers are little-endian; times are microseconds since 1970. `len` counts the bytes behind the checksum. The checksum covers
//! `len` and everything behind itself, and is seeded with the checksum of the spool id: neither a payload that quotes a record nor
//! blocks of another spool pass for a record. Flags: 1 the event has a time of its own, 2 it opened a run, 4 its text
//! is known to be strict JSON, 8 it is an entry of a stream. The channel of an entry without a time of its own is `stream ‖ 0x00 ‖
//! entry id`, so that a version that does not know flag 8 makes the same rows of it. A record never spans segments.
//!
//! # Invariants
//! * Segments alone define what was appended, the checkpoint alone what was committed. Sizes and counts are derived.
//! * A group is written at once: a killed process loses nothing of it. Several groups share an `fdatasync`. Only then the durable
//!   offset advances, and only then the reader sees them. A segment is closed only when all of it is synced.
//! * One process appends to a segment, and never again after a failed write or sync, or after the file was renamed or removed: what
//!   is not synced goes, from memory, to a new segment. Where two segments hold the same offset, the later segment counts.
//! * Rows stored, then checkpoint durable, then segment removed: each step is durable before the next. The directory is synced
//!   after every create, rename and unlink. Segments that intake needs to rebuild its state are kept.
//! * A length is checked against the rest of the file and the maximum before memory is allocated for it.
//! * While the disk takes no writes, records stay in memory under the same offsets, visible to the reader and never reported
//!   durable. They are written in order once the disk works again, unless they were committed meanwhile.
//!
//! # Recovery
//! Opening reads the checkpoint and the last segment, whatever the number of segments. Bytes behind the last valid record are torn:
//! they are cut and kept in quarantine. Without a valid checkpoint all records are replayed.
//!
//! Damage in older segments is found when they are read. The rest of such a segment is salvaged: every record whose checksum and
//! offset fit is returned, in the order of the offsets; other bytes are kept in quarantine, and missing offsets are counted, as are
//! those of deleted segments. Files with other names are left alone. A newer format is refused before anything is changed.
//!
//! Something that is no regular file and has the name of a spool file is moved aside; missing permissions of the owner are
//! restored. A segment that still cannot be opened is moved to quarantine and counted; it can be drained from there once repaired.

mod appender;
mod checkpoint;
mod chunk;
pub(crate) mod commit;
pub(crate) mod disk;
mod group_cache;
mod lock;
mod orphans;
mod quarantine;
mod reader;
pub(crate) mod record;
pub(crate) mod recovery;
mod replay;
mod report;
pub(crate) mod scan;
pub(crate) mod segment;
mod shared;
pub(crate) mod snapshot;
#[cfg(test)]
pub(crate) mod tests;

pub use self::{
    appender::{Appender, Full, Synced},
    chunk::{Chunk, Records},
    commit::Committer,
    lock::{Held, hold},
    orphans::orphans,
    quarantine::NAME as QUARANTINE,
    reader::Reader,
    record::{NewRecord, PAYLOAD_MAX, Record, RecordKind},
    recovery::Recovery,
    replay::Replay,
    report::{Report, SegmentReport, inspect, read, set_owner, verify},
    shared::View,
};

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    metrics::Metrics,
    section::{self, require},
    units::{self, ByteSize},
};

/// The ends of an open spool.
#[derive(Debug)]
pub struct Opened {
    /// For intake.
    pub appender: Appender,
    /// For the writer, at the committed offset.
    pub reader: Reader,
    /// For the writer.
    pub committer: Committer,
    /// For reports and checks.
    pub view: View,
    /// What was found.
    pub recovery: Recovery,
}

/// Why a spool cannot be opened. Damaged contents are no reason; a newer format is.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// There is no directory, and none can be made.
    #[error("failed to create the spool directory `{}`", .dir.display())]
    CreateDir {
        /// Which.
        dir: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// There is none.
    #[error("there is no spool in `{}`: the daemon makes it when it is first started", .dir.display())]
    Absent {
        /// Where.
        dir: PathBuf,
    },
    /// Another process writes it.
    #[error("spool `{}` is in use by process {holder}", .dir.display())]
    Locked {
        /// Which spool.
        dir: PathBuf,
        /// Its pid as that process wrote it.
        holder: String,
    },
    /// The lock file cannot be used.
    #[error("failed to lock `{}`", .path.display())]
    Lock {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A newer version of the program was here; nothing was changed.
    #[error(
        "`{}` has format {version}, and this program knows {} at most; use the newer version that wrote it",
        .path.display(), segment::VERSION
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// Anything else.
    #[error("failed to {operation} of the spool")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        error: io::Error,
    },
}

/// Opens the spool in `config.dir`, created if absent, and starts the commit thread. Takes milliseconds, whatever the spool holds.
///
/// # Errors
/// When the directory cannot be used, is in use, or holds a newer format.
pub fn open(config: &Config, metrics: Arc<Metrics>) -> Result<Opened, SpoolError> {
    recovery::open(config, metrics, disk::Disk::default())
}

/// Smaller segments would be little more than their headers.
const SEGMENT_MIN: ByteSize = ByteSize::kib(4);

/// Where and how much to spool.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its private directory; empty: `<state_dir>/spool`.
    pub dir: PathBuf,
    /// Size of all segments beyond which new records go to memory, then are dropped and counted.
    pub capacity: ByteSize,
    /// Size at which a segment is closed and the next one begun.
    pub segment: ByteSize,
    /// Longest time a written message waits for its fsync.
    #[serde(with = "units::duration")]
    pub sync_interval: Duration,
    /// How long the checkpoint trails a store that may forget what it has acknowledged.
    #[serde(with = "units::duration")]
    pub checkpoint_delay: Duration,
    /// Size of the memory segment, used while the disk takes nothing.
    pub memory: ByteSize,
    /// Where `status` looks for spools that other instances have left; empty: beside the state directory.
    pub orphan_search_dirs: Vec<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        section::defaults("spool")
    }
}

impl Config {
    /// Adds what is wrong with these settings.
    pub fn problems(&self, problems: &mut Vec<String>) {
        require(problems, self.segment >= SEGMENT_MIN, format!("`spool.segment` must be at least {SEGMENT_MIN}"));
        require(
            problems,
            self.capacity.0 >= 2 * self.segment.0,
            "`spool.capacity` must hold at least two segments (`spool.segment`)",
        );
    }

    /// Adds what works, but is probably not meant.
    pub fn warnings(&self, warnings: &mut Vec<String>) {
        let least = ByteSize(2 * appender::RESERVED_BYTES);
        if self.memory < least {
            warnings.push(format!(
                "`spool.memory` is below {least}: a part of it, {}, is kept for gaps and commands, so messages are dropped while the disk \
                 takes no writes",
                ByteSize(appender::RESERVED_BYTES)
            ));
        }
    }
}
