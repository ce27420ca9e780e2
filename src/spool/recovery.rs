//! Opening a spool: a torn end is cut, and no damage prevents the start.

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64},
    },
};

use tokio::sync::{Notify, watch};
use tracing::{error, warn};
use uuid::Uuid;

use super::{
    Config, Opened, SpoolError,
    appender::Appender,
    checkpoint::{self, Checkpoint},
    commit::{CommitQueue, Committer},
    disk::{Disk, Mode},
    lock::lock,
    quarantine::Quarantine,
    reader::Reader,
    record,
    scan::Scan,
    segment::{self, HEADER, Header, Meta, Segments},
    shared::{Shared, View},
};
use crate::{logging::Chain, metrics::Metrics, units::Micros};

/// How much is read at most to find the end of the log. More than one segment is read only when the last ones hold no record.
const SCAN_MAX_BYTES: u64 = 64 << 20;
/// Segments at each end whose headers decide which spool this is.
const PROBED_SEGMENTS: usize = 4;

/// What was found when the spool was opened.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// Offset of the first record that is not committed.
    pub first_uncommitted: u64,
    /// Offset that the next record gets.
    pub next: u64,
    /// Records to replay, by their offsets.
    pub pending: u64,
    /// Bytes that were cut from the end because they are no record.
    pub torn_bytes: u64,
    /// Whether there was a checkpoint that can be believed; without one everything is replayed.
    pub checkpoint: bool,
    /// When the last record that is still there was received.
    pub last_received_at: Option<Micros>,
    /// The last time at which this spool was certainly in use: of its last record, or of the last write of a file.
    pub last_alive_at: Option<Micros>,
    pub(super) shared: Arc<Shared>,
}

pub(crate) fn open(config: &Config, metrics: Arc<Metrics>, disk: Disk) -> Result<Opened, SpoolError> {
    let Prepared { shared, commits, appender, reader, recovery } = prepare(config, metrics, disk)?;
    let committer = Committer::start(Arc::clone(&shared), commits)
        .map_err(|error| SpoolError::Io { operation: "start the thread of commits", error })?;
    Ok(Opened { appender, reader, committer, view: View(shared), recovery })
}

/// An open spool whose thread does not run yet.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) shared: Arc<Shared>,
    pub(crate) commits: Arc<CommitQueue>,
    pub(crate) appender: Appender,
    pub(crate) reader: Reader,
    pub(crate) recovery: Recovery,
}

/// Everything of [`open`] but the thread.
pub(crate) fn prepare(config: &Config, metrics: Arc<Metrics>, disk: Disk) -> Result<Prepared, SpoolError> {
    let dir = config.dir.clone();
    let failed = |operation| move |error| SpoolError::Io { operation, error };
    disk.create_dir(&dir).map_err(|error| SpoolError::CreateDir { dir: dir.clone(), error })?;
    let lock = lock(&disk, &dir)?;
    let checkpoint = checkpoint::read(&disk, &dir);
    let mut list = segment::list(&disk, &dir).map_err(failed("list the segments"))?;
    refuse_newer(&disk, &dir, checkpoint, &list)?;
    // Temporary files of an interrupted checkpoint.
    disk.remove_leftovers(&checkpoint::path(&dir));

    let (id, committed) = identify(&disk, checkpoint, &list);
    let last_write = last_write(&disk, &dir, &list);
    let end = find_end(&disk, &dir, &mut list, id);
    // Offsets are never used twice, not even those of records that were committed from memory, or cut.
    let next = end.offset.max(committed.unwrap_or(0));
    if let Some(last) = list.last_mut() {
        last.end = end.offset;
    }
    sync_last_segment(&disk, &dir, list.last());
    let first = list.first().map_or(next, |meta| meta.first);
    let first_uncommitted = committed.unwrap_or(first);
    metrics.spool_healthy.set(1);
    let shared = Arc::new(Shared {
        quarantine: Quarantine::new(&disk, &dir),
        seed: record::seed(id),
        cache: Mutex::default(),
        visible: watch::Sender::new(next),
        urgent: Notify::new(),
        appended: AtomicU64::new(next),
        durable: AtomicU64::new(next),
        committed: AtomicU64::new(first_uncommitted),
        retain_from: AtomicU64::new(u64::MAX),
        checkpoint: AtomicU64::new(first_uncommitted),
        memory_only_bytes: AtomicU64::new(0),
        healthy: AtomicBool::new(true),
        missing: AtomicU64::new(0),
        _lock: lock,
        dir,
        id,
        capacity: config.capacity.0,
        disk,
        segments: Segments::new(list),
        metrics,
    });
    // Also one that is there: it may be in the page cache only, left by a sync that has failed.
    if let Err(error) = checkpoint::write(&shared.disk, &shared.dir, id, first_uncommitted) {
        // The spool still works; the committer will try again.
        warn!(error = %Chain(&error), "checkpoint could not be written");
    }
    shared.update_gauges();
    let recovery = Recovery {
        first_uncommitted,
        next,
        pending: end.offset.saturating_sub(first_uncommitted),
        torn_bytes: end.torn,
        checkpoint: committed.is_some(),
        last_received_at: end.received_at,
        last_alive_at: last_write.max(end.received_at),
        shared: Arc::clone(&shared),
    };
    let commits = Arc::new(CommitQueue::default());
    Ok(Prepared {
        appender: Appender::new(Arc::clone(&shared), config, next, committed.is_some()),
        reader: Reader::new(Arc::clone(&shared), Arc::clone(&commits), first_uncommitted),
        shared,
        commits,
        recovery,
    })
}

/// Only the checkpoint, the first and the last segment are looked at: a newer program would have written one of them.
fn refuse_newer(disk: &Disk, dir: &Path, checkpoint: Checkpoint, list: &[Meta]) -> Result<(), SpoolError> {
    if let Checkpoint::Newer(version) = checkpoint {
        return Err(SpoolError::Newer { path: checkpoint::path(dir), version });
    }
    for meta in list.first().into_iter().chain(list.last()) {
        if let Ok(Header::Newer(version)) = Header::read(disk, &meta.path) {
            return Err(SpoolError::Newer { path: meta.path.clone(), version });
        }
    }
    Ok(())
}

/// The id of the spool and, where the checkpoint can be believed, the committed offset. A checkpoint of another spool commits
/// nothing here, and a segment of another spool changes nothing: where the files disagree, the records decide whose they are.
fn identify(disk: &Disk, checkpoint: Checkpoint, list: &[Meta]) -> (Uuid, Option<u64>) {
    let ends = list
        .iter()
        .rev()
        .take(PROBED_SEGMENTS)
        .chain(list.iter().take(list.len().saturating_sub(PROBED_SEGMENTS).min(PROBED_SEGMENTS)));
    let headers: Vec<_> =
        ends.map(|meta| (meta, Header::read(disk, &meta.path).unwrap_or(Header::Bad(None)))).collect();
    let good =
        headers.iter().filter_map(|(_, header)| if let Header::Good { id, .. } = header { Some(*id) } else { None });
    let ours = if let Checkpoint::Good { id, .. } = checkpoint { Some(id) } else { None };
    let mut ids: Vec<Uuid> = ours.into_iter().chain(good).collect();
    // The first of equals: the checkpoint, then the newest segment.
    let mut seen = HashSet::new();
    ids.retain(|id| seen.insert(*id));
    if ids.len() > 1 {
        warn!("the directory holds files of several spools; only those of one are read");
        let holds = |id: &Uuid| headers.iter().filter(|(meta, _)| meta.has_record(disk, record::seed(*id))).count();
        ids.sort_by_cached_key(|id| std::cmp::Reverse(holds(id)));
    }
    let claimed = || headers.iter().find_map(|(_, header)| if let Header::Bad(id) = header { *id } else { None });
    let id = ids.first().copied().or_else(claimed).unwrap_or_else(Uuid::new_v4);
    match checkpoint {
        Checkpoint::Good { id: ours, committed } if ours == id => (id, Some(committed)),
        _ => {
            if !list.is_empty() || checkpoint != Checkpoint::Missing {
                warn!("checkpoint is missing or cannot be believed; everything in the spool is replayed");
            }
            (id, None)
        }
    }
}

fn last_write(disk: &Disk, dir: &Path, list: &[Meta]) -> Option<Micros> {
    let files = [Some(checkpoint::path(dir)), list.last().map(|meta| meta.path.clone())];
    files.into_iter().flatten().filter_map(|path| disk.stat(&path).ok()).map(|stat| stat.modified).max()
}

#[derive(Default)]
struct LogEnd {
    offset: u64,
    torn: u64,
    received_at: Option<Micros>,
}

/// Finds the last valid record, cuts what is torn behind it, and removes last segments that hold no record.
fn find_end(disk: &Disk, dir: &Path, list: &mut Vec<Meta>, id: Uuid) -> LogEnd {
    let (quarantine, seed) = (Quarantine::new(disk, dir), record::seed(id));
    while let [first, _, ..] = &list[..]
        && !first.is_of(disk, id)
    {
        quarantine.take_foreign(&first.path);
        list.remove(0);
    }
    let (mut end, mut scanned) = (LogEnd::default(), 0);
    while let Some(last) = list.last_mut() {
        if !last.is_of(disk, id) {
            // A foreign file, or torn before its first record; then its offsets are those behind the segment in front of it.
            if last.bytes > HEADER as u64 {
                end.torn += last.bytes - HEADER as u64;
                quarantine.take_foreign(&last.path);
            } else {
                let _ = disk.discard(&last.path);
            }
            list.pop();
            continue;
        }
        end.offset = end.offset.max(last.first);
        scanned += last.bytes;
        let scan = match Scan::open(disk, last, u64::MAX, seed) {
            Ok(scan) if scanned <= SCAN_MAX_BYTES || scanned == last.bytes => scan,
            Ok(_) => break,
            Err(error) => {
                error!(segment = %last.path.display(), error = %Chain(&error), "segment cannot be read");
                // Its offsets are taken, however many there are.
                end.offset = end.offset.max(last.first + last.bytes / record::HEAD as u64);
                break;
            }
        };
        let valid_to = last_record(scan, &mut end);
        let torn = last.bytes.saturating_sub(valid_to.unwrap_or(HEADER as u64));
        if torn > 0 {
            end.torn += torn;
            warn!(segment = %last.path.display(), bytes = torn, "torn end is cut; its bytes go to quarantine");
        }
        if let Some(valid_to) = valid_to {
            cut(disk, last, valid_to, &quarantine, seed);
            break;
        }
        let removed = if torn > 0 { quarantine.take(&last.path) } else { disk.discard(&last.path) };
        if let Err(error) = removed {
            warn!(segment = %last.path.display(), error = %Chain(&error), "segment without records could not be removed");
        }
        list.pop();
    }
    end
}

/// Where the last valid record of the segment ends, if there is one.
fn last_record(mut scan: Scan, end: &mut LogEnd) -> Option<u64> {
    loop {
        match scan.next_records() {
            Ok(Some(chunk)) => {
                end.offset = end.offset.max(chunk.end);
                end.received_at = chunk.records().last().map(|record| record.decided.received_at);
            }
            Ok(None) => return scan.valid_to,
            Err(error) => {
                warn!(segment = %scan.path.display(), error = %Chain(&error), "segment cannot be read to its end");
                return scan.valid_to;
            }
        }
    }
}

/// A killed process may have left records and changed names that are in the page cache only; from now on they are called durable.
fn sync_last_segment(disk: &Disk, dir: &Path, last: Option<&Meta>) {
    let synced = last.map_or(Ok(()), |last| disk.open(&last.path, Mode::Read)?.sync());
    if let Err(error) = synced.and_then(|()| disk.sync_dir(dir)) {
        warn!(error = %Chain(&error), "last segment could not be synced; a power cut may cost its end");
    }
}

fn cut(disk: &Disk, last: &mut Meta, valid_to: u64, quarantine: &Quarantine, seed: u32) {
    if last.bytes <= valid_to {
        return;
    }
    if let Ok(scan) = Scan::open(disk, last, u64::MAX, seed) {
        quarantine.keep(&scan, valid_to, last.bytes);
    }
    let file = disk.open(&last.path, Mode::ReadWrite);
    if let Err(error) = file.and_then(|file| file.set_len(valid_to).and_then(|()| file.sync())) {
        // It is not read, and nothing is appended to it.
        warn!(segment = %last.path.display(), error = %Chain(&error), "torn end could not be cut");
    }
    last.bytes = valid_to;
}
