//! Reads the records of one segment file, whatever has happened to its bytes.

use std::{io, ops::Range, path::PathBuf};

use bytes::Bytes;

use super::{
    chunk::Chunk,
    disk::{Disk, Mode, OpenFile},
    record::{self, Parsed},
    segment::{HEADER, Meta},
};

/// How much is read at once, unless one record is larger.
pub(crate) const CHUNK: usize = 256 << 10;
const BLOCK: usize = 4 << 10;

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

impl Scan {
    /// At the first record. Name and metadata say what the header says, too; so a damaged header costs nothing.
    pub(crate) fn open(disk: &Disk, meta: &Meta, below: u64, seed: u32) -> io::Result<Self> {
        let file = disk.open(&meta.path, Mode::Read)?;
        file.read_soon();
        let (path, limit) = (meta.path.clone(), meta.bytes);
        Ok(Self { file, path, seed, position: HEADER as u64, limit, expected: meta.first, below })
    }

    /// Where the next step begins.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next records, about `max` bytes of them; `lost` of the chunk counts from what was expected here.
    pub(crate) fn step(&mut self, max: usize) -> io::Result<Step> {
        let mut want = max;
        loop {
            let rest = self.limit.saturating_sub(self.position);
            if rest == 0 || self.expected >= self.below {
                return Ok(Step::End);
            }
            let bytes = self.read(self.position, want)?;
            if bytes.is_empty() {
                // Somebody has cut the file.
                return Ok(Step::End);
            }
            match self.run(&bytes, rest) {
                Run::Records { bytes: length, first, end } => {
                    let lost = first.saturating_sub(self.expected);
                    self.position += length as u64;
                    self.expected = end;
                    let bytes = Bytes::from(bytes).slice(..length);
                    return Ok(Step::Records(Chunk { bytes, first, end, lost }));
                }
                Run::Past(length) => self.position += length as u64,
                Run::Short(needed)
                    if needed > bytes.len() && bytes.len() == want.min(rest as usize) && needed > want =>
                {
                    want = needed;
                }
                Run::Short(_) | Run::Bad => {
                    let from = self.position;
                    self.position = self.resynchronise()?;
                    return Ok(Step::Damage(from..self.position));
                }
            }
        }
    }

    /// The offsets that a record from here on may have: each takes at least its header.
    fn offsets(&self) -> Range<u64> {
        let room = (self.limit.saturating_sub(self.position)) / record::HEAD as u64;
        self.expected..self.below.min(self.expected.saturating_add(room + 1))
    }

    fn run(&self, bytes: &[u8], rest: u64) -> Run {
        let (mut at, mut first, mut end) = (0, self.expected, self.expected);
        loop {
            let parsed =
                if at == bytes.len() { Parsed::Bad } else { record::parse(&bytes[at..], rest - at as u64, self.seed) };
            match parsed {
                Parsed::Record(record, length) if at == 0 && record.offset < self.expected => return Run::Past(length),
                Parsed::Record(record, length) if at == 0 && record.offset < self.below => {
                    (first, end) = (record.offset, record.offset + 1);
                    at += length;
                }
                Parsed::Record(record, length) if at > 0 && record.offset == end && end < self.below => {
                    end += 1;
                    at += length;
                }
                _ if at > 0 => return Run::Records { bytes: at, first, end },
                Parsed::Record(_, length) => return Run::Past(length),
                Parsed::Short(needed) => return Run::Short(needed),
                Parsed::Bad => return Run::Bad,
            }
        }
    }

    /// Where the next valid record begins; the limit when there is none.
    fn resynchronise(&self) -> io::Result<u64> {
        // When only the content is damaged, its length leads to the next record without a search.
        let head = self.read(self.position, record::PREFIX)?;
        if let Some(length) = record::length(&head) {
            let next = self.position + length as u64;
            if length >= record::HEAD && next < self.limit && self.is_record(next)? {
                return Ok(next);
            }
        }
        let offsets = self.offsets();
        let mut start = self.position + 1;
        while start < self.limit {
            let window = self.read(start, CHUNK)?;
            if window.len() < record::HEAD {
                break;
            }
            let last = window.len() - record::HEAD;
            for at in 0..=last {
                let place = start + at as u64;
                if record::is_plausible(&window[at..], self.limit - place, &offsets) && self.is_record(place)? {
                    return Ok(place);
                }
            }
            start += last as u64 + 1;
        }
        Ok(self.limit)
    }

    fn is_record(&self, place: u64) -> io::Result<bool> {
        let rest = self.limit - place;
        let head = self.read(place, record::HEAD)?;
        let offsets = self.offsets();
        if !record::is_plausible(&head, rest, &offsets) {
            return Ok(false);
        }
        let bytes = self.read(place, record::length(&head).unwrap_or_default())?;
        Ok(
            matches!(record::parse(&bytes, rest, self.seed), Parsed::Record(record, _) if offsets.contains(&record.offset)),
        )
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
                    let block = BLOCK - (place as usize + done) % BLOCK;
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
    /// So many bytes of records.
    Records {
        bytes: usize,
        first: u64,
        end: u64,
    },
    /// A valid record of another place, so long.
    Past(usize),
    /// A record may begin here, of this length.
    Short(usize),
    Bad,
}
