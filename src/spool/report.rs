//! Reports about a spool, without opening or changing it.

use std::{io, path::Path};

use serde::Serialize;
use tracing::warn;
use uuid::Uuid;

use super::{
    SpoolError,
    checkpoint::{self, Checkpoint},
    disk::{Disk, Mode, OpenFile},
    quarantine::Quarantine,
    record::{self, Record},
    scan::{CHUNK_BYTES, Scan, Step},
    segment::{self, Header, Meta},
};
use crate::{
    logging::Chain,
    units::{self, Micros},
};

/// The file that names the instance.
pub(super) const OWNER_FILE: &str = "instance";
/// The longest name that is believed.
const OWNER_MAX_BYTES: usize = 4_096;

/// A spool as it lies on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Absent: nothing was ever written, or nothing can be believed.
    pub id: Option<Uuid>,
    /// The instance that used it last, whose name its rows carry.
    pub owner: Option<String>,
    /// The process that has it open.
    pub holder: Option<String>,
    /// The committed offset; absent: everything would be replayed.
    pub committed: Option<u64>,
    /// Whether there is a checkpoint that cannot be believed.
    pub checkpoint_damaged: bool,
    /// In order.
    pub segments: Vec<SegmentReport>,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Bytes in `quarantine/`.
    pub quarantine_bytes: u64,
    /// Offset after the last record that can be read.
    pub end: u64,
    /// Records that wait for the store, as far as the last segment and the checkpoint tell.
    pub pending: u64,
    /// Records that were read and match; only after `verify`.
    pub records: u64,
    /// Offsets between the first and the last record that no segment has; only after `verify`.
    pub lost: u64,
    /// Bytes behind the last record; only after `verify`. An unclean end leaves some, and the next start cuts them.
    pub torn_bytes: u64,
    /// When the first record was received, and the latest time of any; only after `verify`.
    #[serde(serialize_with = "units::serialize_span")]
    pub received: Option<(Micros, Micros)>,
}

/// One segment of a [`Report`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SegmentReport {
    /// File name.
    pub name: String,
    /// Offset of its first record, by its name.
    pub first: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Records that match; only after `verify`.
    pub records: u64,
    /// Bytes in front of its last record that are no record; only after `verify`.
    pub damaged_bytes: u64,
    /// Whether its header matches its checksum.
    pub header_valid: bool,
}

impl Report {
    /// Whether nothing that was ever durable is missing or damaged.
    pub fn is_sound(&self) -> bool {
        self.lost == 0
            && !self.checkpoint_damaged
            && self.segments.iter().all(|segment| segment.damaged_bytes == 0 && segment.header_valid)
    }
}

/// Looks at names, sizes, headers and the checkpoint. Works on a spool that is in use.
///
/// # Errors
/// When the directory cannot be read, or holds a newer format.
pub fn inspect(dir: &Path) -> Result<Report, SpoolError> {
    let disk = Disk::read_only();
    let (mut report, list) = read_headers(&disk, dir)?;
    let seed = record::seed(report.id.unwrap_or_default());
    report.end = list.iter().map(|meta| meta.first).max().unwrap_or(0).max(report.committed.unwrap_or(0));
    if let Some(last) = list.last() {
        // Removed since it was listed: then all of it is committed.
        let end = Scan::open(&disk, last, u64::MAX, seed).and_then(end_of);
        report.end = report.end.max(end.unwrap_or(0));
    }
    report.pending = report.end - report.committed.unwrap_or(list.first().map_or(0, |meta| meta.first)).min(report.end);
    Ok(report)
}

fn end_of(mut scan: Scan) -> io::Result<u64> {
    let mut end = 0;
    while let Some(chunk) = scan.next_records()? {
        end = chunk.end;
    }
    Ok(end)
}

/// Reads every record. On a spool that is in use what is being written meanwhile may look torn.
///
/// # Errors
/// When the directory or a segment cannot be read, or holds a newer format.
pub fn verify(dir: &Path) -> Result<Report, SpoolError> {
    read(dir, &mut |_| true)
}

/// The same, and shows every record until `visit` returns false.
///
/// # Errors
/// As [`verify`].
pub fn read(dir: &Path, visit: &mut dyn FnMut(&Record<'_>) -> bool) -> Result<Report, SpoolError> {
    let disk = Disk::read_only();
    let (mut report, list) = read_headers(&disk, dir)?;
    let seed = record::seed(report.id.unwrap_or_default());
    let mut expected = list.first().map_or(0, |meta| meta.first);
    for (index, meta) in list.iter().enumerate() {
        let below = list.get(index + 1).map_or(u64::MAX, |next| next.first);
        let scan = Scan::open(&disk, meta, below, seed);
        let read = scan.and_then(|scan| check_segment(scan, &mut report, index, &mut expected, visit));
        if !read.map_err(|error| SpoolError::Io { operation: "read a segment", error })? {
            break;
        }
    }
    Ok(report)
}

fn read_headers(disk: &Disk, dir: &Path) -> Result<(Report, Vec<Meta>), SpoolError> {
    let failed = |operation| move |error| SpoolError::Io { operation, error };
    let list = match segment::list(disk, dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SpoolError::Absent { dir: dir.to_owned() });
        }
        list => list.map_err(failed("list the segments"))?,
    };
    let mut report = Report {
        owner: owner(dir),
        holder: holder(disk, dir),
        quarantine_bytes: Quarantine::new(disk, dir).bytes(),
        ..Report::default()
    };
    if list.is_empty() && report.owner.is_none() && matches!(checkpoint::read(disk, dir), Checkpoint::Missing) {
        return Err(SpoolError::Absent { dir: dir.to_owned() });
    }
    for meta in &list {
        let header = match Header::read(disk, &meta.path) {
            // Committed and removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            header => header.map_err(failed("read the header of a segment"))?,
        };
        match header {
            Header::Newer(version) => return Err(SpoolError::Newer { path: meta.path.clone(), version }),
            Header::Good { id, .. } => report.id = Some(id),
            Header::Bad(_) => {}
        }
        report.bytes += meta.bytes;
        report.segments.push(SegmentReport {
            name: meta.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            first: meta.first,
            bytes: meta.bytes,
            records: 0,
            damaged_bytes: 0,
            header_valid: matches!(header, Header::Good { offset, .. } if offset == meta.first),
        });
    }
    match checkpoint::read(disk, dir) {
        Checkpoint::Good { id, committed } if report.id.is_none_or(|segments| segments == id) => {
            (report.id, report.committed) = (Some(id), Some(committed));
        }
        Checkpoint::Newer(version) => return Err(SpoolError::Newer { path: checkpoint::path(dir), version }),
        Checkpoint::Good { .. } | Checkpoint::Bad => report.checkpoint_damaged = true,
        Checkpoint::Missing => {}
    }
    Ok((report, list))
}

fn check_segment(
    mut scan: Scan,
    report: &mut Report,
    index: usize,
    expected: &mut u64,
    visit: &mut dyn FnMut(&Record<'_>) -> bool,
) -> io::Result<bool> {
    let mut damage = 0;
    loop {
        match scan.step(CHUNK_BYTES)? {
            Step::Records(chunk) => {
                report.lost += chunk.first.saturating_sub(*expected);
                *expected = chunk.end;
                report.end = report.end.max(chunk.end);
                let count = chunk.end - chunk.first;
                report.records += count;
                report.pending += chunk.end.saturating_sub(chunk.first.max(report.committed.unwrap_or(0)));
                if let Some(segment) = report.segments.get_mut(index) {
                    segment.records += count;
                    segment.damaged_bytes += std::mem::take(&mut damage);
                }
                for record in chunk.records() {
                    let time = record.decided.received_at;
                    let (first, last) = report.received.unwrap_or((time, time));
                    report.received = Some((first, last.max(time)));
                    if !visit(&record) {
                        return Ok(false);
                    }
                }
            }
            Step::Damage(range) => damage += range.end - range.start,
            Step::End => {
                report.torn_bytes = damage;
                return Ok(true);
            }
        }
    }
}

fn owner(dir: &Path) -> Option<String> {
    let name = Disk::read_only().read_prefix(&dir.join(OWNER_FILE), OWNER_MAX_BYTES).ok()?;
    Some(String::from_utf8(name).ok()?.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Writes the name of the owning instance, for the time when the spool is an orphan. A failure is logged only.
pub fn set_owner(dir: &Path, instance: &str) {
    if owner(dir).as_deref() == Some(instance) {
        return;
    }
    if let Err(error) = Disk::default().replace(&dir.join(OWNER_FILE), format!("{instance}\n").as_bytes()) {
        warn!(error = %Chain(&error), "the name of the spool's owner could not be written");
    }
}

/// Who holds the lock, on the file or, where that was deleted or replaced, on the directory. Taking it for an instant is the only
/// way to ask; a starting daemon waits that long.
fn holder(disk: &Disk, dir: &Path) -> Option<String> {
    let path = dir.join("lock");
    let is_locked = |file: io::Result<OpenFile>| {
        file.is_ok_and(|file| matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
    };
    if !is_locked(disk.open(&path, Mode::Read)) && !is_locked(disk.open_dir(dir)) {
        return None;
    }
    let pid = disk.read_prefix(&path, 32).unwrap_or_default();
    let pid = String::from_utf8_lossy(&pid).trim().to_owned();
    Some(if pid.is_empty() { "unknown".to_owned() } else { pid })
}
