//! The durable log between intake and the writer.
//!
//! # Limits
//! A record is at most 64 MiB with its header, a segment 16 MiB (`spool.segment`; a larger record has one for itself), all segments
//! together `spool.capacity`, the memory segment `spool.memory`, `quarantine/` 64 MiB of damaged bytes, the cache of the newest
//! groups 4 MiB. Offsets are 64-bit sequence numbers, one per record, never used twice in one spool as far as anything on disk tells.
//!
//! # Bytes
//! A private directory (0700; files 0600) holds:
//! ```text
//! lock                          held with flock, like the directory itself, by the process that writes; its pid, for people
//! instance                      whose spool it is, for who finds it without its daemon
//! checkpoint                    magic "CASCHECK" | version u32 | spool id 16 | committed offset u64 | crc32c u32
//! 00000000000000000042-000.seg  named by the offset of its first record, and a generation:
//!     header                    magic "CASSPOOL" | version u32 | spool id 16 | first offset u64 | crc32c u32
//!     record...                 len u32 | crc32c u32 | offset u64 | kind u8 | flags u8 | received_at i64 | event_time i64
//!                               | run_id 16 | channel_len u32 | channel | payload
//! quarantine/                   bytes that are no records any more, named by where they were; segments that cannot be read
//! ```
//! Integers are little-endian. `len` counts what follows the checksum, which covers `len` and everything behind itself, and starts from the checksum of
//! the spool id: neither a payload that quotes a record nor blocks of another spool can pass for a record. Flags: 1 the event's
//! time is its own, 2 it opened a run, 4 its text is known to be strict JSON. `received_at`, `event_time`: microseconds since 1970. Records never span segments.
//!
//! # Invariants
//! * Segments alone say what was appended, the checkpoint alone what was committed. Sizes and counts are derived.
//! * A group is one write and one `fdatasync`; only then the durable offset moves, and only then the reader sees the group.
//! * A file is appended to by one process only, and never again after one of its writes or syncs has failed, or when it is not
//!   under its name any more: the rest goes, from memory, to a new segment. Where two segments hold the same offset, the later one counts.
//! * Stored by the writer, then checkpoint durable, then segment removed; each step is on disk before the next. The directory is
//!   synced after every create, rename and unlink. Intake keeps the segments that its own state does not cover yet.
//! * A length is compared with the rest of the file and the maximum before anything is allocated for it.
//! * While the disk takes nothing, records stay in memory under the same offsets, visible to the reader and never reported durable;
//!   they are written, in order, when the disk takes them again, unless they were committed meanwhile.
//!
//! # Recovery
//! Opening reads the checkpoint and the last segment, however many there are. Behind the last valid record everything is torn: it
//! is cut and kept in quarantine. Without a believable checkpoint everything is replayed. Damage elsewhere is met when it is read:
//! the rest of the segment is searched, byte by byte where it must be, and every record whose checksum and offset fit comes in the
//! order of the offsets, wherever in the segment it lies; what belongs to none is kept in quarantine, and the offsets that are
//! missing are counted. The same holds for segments that
//! somebody has deleted. A name that is no segment is left alone. A newer format is refused before anything is changed.
//!
//! What is no regular file in the place of one of ours is moved aside, and permissions that were taken from us are taken back. A
//! segment that can nevertheless not be opened is set aside in quarantine, counted, and can be drained from there once it is mended.

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
mod report;
pub(crate) mod scan;
pub(crate) mod segment;
mod shared;
#[cfg(test)]
pub(crate) mod tests;

pub use self::{
    appender::{Appender, Full, Synced},
    chunk::{Chunk, Records},
    commit::Committer,
    orphans::orphans,
    quarantine::NAME as QUARANTINE,
    reader::Reader,
    record::{NewRecord, PAYLOAD_MAX, Record, RecordKind},
    recovery::{Recovery, Replay},
    report::{Report, SegmentReport, inspect, read, set_owner, verify},
    shared::View,
};

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    metrics::Metrics,
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
    /// For everyone.
    pub view: View,
    /// What was found.
    pub recovery: Recovery,
}

/// Why a spool cannot be opened. What it holds never is a reason, unless a newer program wrote it.
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

/// Opens the spool in `config.dir`, made if it is not there. Starts the thread behind the committer. Takes milliseconds, however
/// much is stored.
///
/// # Errors
/// When the directory cannot be used, is in use, or holds a newer format.
pub fn open(config: &Config, metrics: Arc<Metrics>) -> Result<Opened, SpoolError> {
    recovery::open(config, metrics, disk::Disk::default())
}

/// Segments below this size would be little more than their headers, and a spool of two of them would take nothing.
const SEGMENT_MIN: ByteSize = ByteSize::kib(4);

/// Where and how much to spool.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Its private directory; empty: `<state_dir>/spool`.
    pub dir: PathBuf,
    /// Size of all segments beyond which new records go to memory, then are dropped and counted.
    pub capacity: ByteSize,
    /// Size at which a segment is closed and the next one begun.
    pub segment: ByteSize,
    /// Longest time a received message waits for its fsync.
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
        Self {
            dir: PathBuf::new(),
            capacity: ByteSize::gib(10),
            segment: ByteSize::mib(16),
            sync_interval: Duration::from_millis(5),
            checkpoint_delay: Duration::from_secs(15),
            memory: ByteSize::mib(32),
            orphan_search_dirs: Vec::new(),
        }
    }
}

impl Config {
    /// Adds what is wrong with these settings.
    pub fn problems(&self, problems: &mut Vec<String>) {
        if self.segment < SEGMENT_MIN {
            problems.push(format!("`spool.segment` must be at least {SEGMENT_MIN}"));
        }
        if self.capacity.0 < 2 * self.segment.0 {
            problems.push("`spool.capacity` must hold at least two segments (`spool.segment`)".into());
        }
    }
}
