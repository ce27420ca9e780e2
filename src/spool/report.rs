//! What a person wants to know about a spool, without opening or changing it.

use std::{io, path::Path};

use serde::Serialize;
use uuid::Uuid;

use super::{
    SpoolError,
    checkpoint::{self, Checkpoint},
    disk::{Disk, Mode},
    quarantine::Quarantine,
    record,
    scan::{CHUNK, Scan, Step},
    segment::{self, Header, Meta},
};
use crate::units::Micros;

/// A spool as it lies on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Absent: nothing was ever written, or nothing can be believed.
    pub id: Option<Uuid>,
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
    /// Records that were read and match; only after `verify`.
    pub records: u64,
    /// Of these, records that are not committed; only after `verify`.
    pub pending: u64,
    /// Offsets between the first and the last record that no segment has; only after `verify`.
    pub lost: u64,
    /// Bytes behind the last record; only after `verify`. An unclean end leaves some, and the next start cuts them.
    pub torn_bytes: u64,
    /// When the first and the last record were received; only after `verify`.
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
    look(&Disk::default(), dir).map(|(report, _)| report)
}

/// Reads every record. On a spool that is in use what is being written meanwhile may look torn.
///
/// # Errors
/// When the directory or a segment cannot be read, or holds a newer format.
pub fn verify(dir: &Path) -> Result<Report, SpoolError> {
    let disk = Disk::default();
    let (mut report, list) = look(&disk, dir)?;
    let seed = record::seed(report.id.unwrap_or_default());
    let mut expected = list.first().map_or(0, |meta| meta.first);
    for (index, meta) in list.iter().enumerate() {
        let below = list.get(index + 1).map_or(u64::MAX, |next| next.first);
        let scan = Scan::open(&disk, meta, below, seed);
        let read = scan.and_then(|scan| check(scan, &mut report, index, &mut expected));
        read.map_err(|error| SpoolError::Io { operation: "read a segment", error })?;
    }
    Ok(report)
}

fn look(disk: &Disk, dir: &Path) -> Result<(Report, Vec<Meta>), SpoolError> {
    let failed = |operation| move |error| SpoolError::Io { operation, error };
    let list = segment::list(disk, dir).map_err(failed("list the segments"))?;
    let mut report =
        Report { holder: holder(disk, dir), quarantine_bytes: Quarantine::new(disk, dir).bytes(), ..Report::default() };
    for meta in &list {
        let header = match Header::read(disk, &meta.path) {
            // Committed and removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            header => header.map_err(failed("read the header of a segment"))?,
        };
        match header {
            Header::Newer(version) => return Err(newer(&meta.path, version)),
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
    match checkpoint::read(disk, dir).map_err(failed("read the checkpoint"))? {
        Checkpoint::Good { id, committed } if report.id.is_none_or(|segments| segments == id) => {
            (report.id, report.committed) = (Some(id), Some(committed));
        }
        Checkpoint::Newer(version) => return Err(newer(&checkpoint::path(dir), version)),
        Checkpoint::Good { .. } | Checkpoint::Bad => report.checkpoint_damaged = true,
        Checkpoint::Missing => {}
    }
    Ok((report, list))
}

fn newer(path: &Path, version: u32) -> SpoolError {
    SpoolError::Newer { path: path.to_owned(), version, known: segment::VERSION }
}

fn check(mut scan: Scan, report: &mut Report, index: usize, expected: &mut u64) -> io::Result<()> {
    let mut damage = 0;
    loop {
        match scan.step(CHUNK)? {
            Step::Records(chunk) => {
                report.lost += chunk.first.saturating_sub(*expected);
                *expected = chunk.end;
                let count = chunk.end - chunk.first;
                report.records += count;
                report.pending += chunk.end.saturating_sub(chunk.first.max(report.committed.unwrap_or(0)));
                if let Some(segment) = report.segments.get_mut(index) {
                    segment.records += count;
                    segment.damaged_bytes += std::mem::take(&mut damage);
                }
                let times = chunk.records().map(|record| record.decided.received_at);
                for time in times {
                    let (first, last) = report.received.unwrap_or((time, time));
                    report.received = Some((first, last.max(time)));
                }
            }
            Step::Damage(range) => damage += range.end - range.start,
            Step::End => {
                report.torn_bytes = damage;
                return Ok(());
            }
        }
    }
}

/// Who holds the lock. Taking it for an instant is the only way to ask; a starting daemon waits that long.
fn holder(disk: &Disk, dir: &Path) -> Option<String> {
    let path = dir.join("lock");
    match disk.open(&path, Mode::Read).ok()?.try_lock() {
        Err(std::fs::TryLockError::WouldBlock) => {
            let pid = disk.beginning(&path, 32).ok()?;
            Some(String::from_utf8_lossy(&pid).trim().to_owned())
        }
        _ => None,
    }
}
