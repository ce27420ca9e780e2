//! Reads the records of one segment, damaged or not.
//!
//! Records are read in sequence as long as each is valid and has the expected offset. At the first that is not, the rest of the
//! segment is salvaged: every valid record in it is returned in the order of the offsets. So neither a false length nor a copied or
//! moved block hides an intact record.

mod checksums;
mod salvage;

use std::{io, ops::Range, path::PathBuf};

use bytes::Bytes;
use uuid::Uuid;

use self::salvage::Salvage;
use super::{
    chunk::Chunk,
    disk::{Disk, Mode, OpenFile},
    record::{self, Parsed},
    segment::{HEADER, Header, Meta},
};

/// How much is read at once, unless one record is larger.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;
const BLOCK_BYTES: usize = 4 << 10;

/// A position in a segment.
#[derive(Debug)]
pub(crate) struct Scan {
    file: OpenFile,
    pub(crate) path: PathBuf,
    seed: u32,
    position: u64,
    /// Bytes that may be read; grows while the segment is written.
    pub(crate) limit: u64,
    /// The offset of the next record, unless some are missing.
    pub(crate) expected: u64,
    /// Where the next segment takes over. What this one holds from there on is the tail of a failed write.
    pub(crate) below: u64,
    /// Where the last of the records returned so far ends. After [`Step::End`] the file holds no record behind it.
    pub(crate) valid_to: Option<u64>,
    /// What is known about everything in front of the position that was not returned yet.
    salvage: Option<Salvage>,
}

/// What was found at the position, which is now behind it.
#[derive(Debug)]
pub(crate) enum Step {
    /// Records that match their checksums.
    Records(Chunk),
    /// Bytes that are no record of this place.
    Damage(Range<u64>),
    /// Nothing more.
    End,
}

impl Meta {
    /// Whether this is a segment of the spool with this id under the name that it was given. One whose header says something else
    /// is, when it holds records of that spool, unless all of it is what the header says: then the name is wrong. One that cannot
    /// be read or is of a newer format is not judged.
    pub(crate) fn is_of(&self, disk: &Disk, id: Uuid) -> bool {
        let seed = record::seed(id);
        match Header::read(disk, &self.path) {
            Ok(Header::Good { id: other, offset }) if other == id => {
                offset == self.first || (self.has_record(disk, seed) && !self.holds_only_records(disk, seed, offset))
            }
            Ok(Header::Good { .. } | Header::Bad(_)) => self.has_record(disk, seed),
            Ok(Header::Newer(_)) | Err(_) => true,
        }
    }

    /// Whether it holds a record of the spool with this seed, with an offset that fits.
    pub(crate) fn has_record(&self, disk: &Disk, seed: u32) -> bool {
        let first = Scan::open(disk, self, u64::MAX, seed).and_then(|mut scan| scan.next_records());
        matches!(first, Ok(Some(chunk)) if chunk.lost <= self.bytes / record::HEAD as u64)
    }

    /// Whether it is nothing but records from this offset on.
    fn holds_only_records(&self, disk: &Disk, seed: u32, first: u64) -> bool {
        let Ok(mut scan) = Scan::open(disk, &Self { first, ..self.clone() }, u64::MAX, seed) else { return false };
        loop {
            match scan.step(CHUNK_BYTES) {
                Ok(Step::Records(chunk)) if chunk.lost == 0 => {}
                Ok(Step::End) => return true,
                Ok(Step::Records(_) | Step::Damage(_)) | Err(_) => return false,
            }
        }
    }
}

impl Scan {
    /// At the first record. Name and metadata say what the header says, too; so a damaged header costs nothing.
    pub(crate) fn open(disk: &Disk, meta: &Meta, below: u64, seed: u32) -> io::Result<Self> {
        let file = disk.open(&meta.path, Mode::Read)?;
        file.advise_read();
        Ok(Self {
            file,
            path: meta.path.clone(),
            seed,
            position: HEADER as u64,
            limit: meta.bytes,
            expected: meta.first,
            below,
            valid_to: None,
            salvage: None,
        })
    }

    /// The next records, about `max` bytes of them; `lost` of the chunk counts from what was expected here.
    pub(crate) fn step(&mut self, max: usize) -> io::Result<Step> {
        let mut want = max;
        loop {
            if let Some(step) = self.next_salvaged(max)? {
                return Ok(step);
            }
            let rest = self.limit.saturating_sub(self.position);
            if rest == 0 || self.expected >= self.below {
                return Ok(Step::End);
            }
            let bytes = self.read(self.position, want)?;
            if bytes.is_empty() {
                // The file was cut meanwhile.
                return Ok(Step::End);
            }
            match self.run(&bytes, rest) {
                Run::Records { bytes: length, end } => {
                    let from = self.position;
                    self.position += length as u64;
                    return Ok(self.records(from, Bytes::from(bytes).slice(..length), self.expected, end));
                }
                Run::Past(length) => self.position += length as u64,
                Run::Short(needed) if needed > bytes.len() && bytes.len() == want.min(rest as usize) => want = needed,
                Run::Short(_) | Run::Other => self.salvage = Some(self.scan_rest()?),
            }
        }
    }

    /// The next records, whatever is damaged in front of them.
    pub(crate) fn next_records(&mut self) -> io::Result<Option<Chunk>> {
        loop {
            match self.step(CHUNK_BYTES)? {
                Step::Records(chunk) => return Ok(Some(chunk)),
                Step::Damage(_) => {}
                Step::End => return Ok(None),
            }
        }
    }

    fn records(&mut self, from: u64, bytes: Bytes, first: u64, end: u64) -> Step {
        let lost = first.saturating_sub(self.expected);
        self.expected = end;
        self.valid_to = self.valid_to.max(Some(from + bytes.len() as u64));
        Step::Records(Chunk { bytes, first, end, lost })
    }

    fn run(&self, bytes: &[u8], rest: u64) -> Run {
        let (mut at, mut end) = (0, self.expected);
        while at < bytes.len() && end < self.below {
            match record::parse(&bytes[at..], rest - at as u64, self.seed) {
                Parsed::Record(record, length) if record.offset == end => {
                    end += 1;
                    at += length;
                }
                _ if at > 0 => break,
                Parsed::Record(record, length) if record.offset < end || record.offset >= self.below => {
                    return Run::Past(length);
                }
                Parsed::Record(..) | Parsed::Bad => return Run::Other,
                Parsed::Short(needed) => return Run::Short(needed),
            }
        }
        Run::Records { bytes: at, end }
    }

    /// Up to `max` bytes from `place`, never beyond the limit. Blocks that the disk cannot read any more come as zeros: their
    /// records fail their checksums, and those around them survive.
    pub(crate) fn read(&self, place: u64, max: usize) -> io::Result<Vec<u8>> {
        let rest = usize::try_from(self.limit.saturating_sub(place)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; max.min(rest)];
        let mut done = 0;
        while done < bytes.len() {
            match self.file.read_at(&mut bytes[done..], place + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                    let block = BLOCK_BYTES - (place as usize + done) % BLOCK_BYTES;
                    let until = bytes.len().min(done + block);
                    match self.file.read_at(&mut bytes[done..until], place + done as u64) {
                        Ok(0) => break,
                        Ok(n) => done += n,
                        Err(_) => done = until,
                    }
                }
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    }
}

enum Run {
    /// So many bytes of the records that are expected here.
    Records { bytes: usize, end: u64 },
    /// A valid record of another place, so long.
    Past(usize),
    /// A record may begin here, of this length.
    Short(usize),
    /// No record, or not the one that is expected.
    Other,
}
