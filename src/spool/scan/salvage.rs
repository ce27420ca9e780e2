//! Salvage: the search for intact records in the damaged rest of a segment.

use std::{collections::VecDeque, io, ops::Range};

use bytes::Bytes;

use super::{CHUNK_BYTES, Scan, Step, checksums::PrefixChecksums};
use crate::spool::record::{self, Candidate, Parsed};

/// Offsets may jump where records were committed from memory and never written. This many are believed in front of a record that
/// is searched for: enough for every outage that a memory segment can bridge, and few enough to tell a record from noise.
const OFFSET_JUMP_MAX: u64 = 1 << 24;

/// Bytes that one salvage may hash for nothing. Ordinary damage costs a few records; what costs more than this is made to.
const HASH_BUDGET: usize = 4 << 20;

/// Not returned yet.
#[derive(Debug, Default)]
pub(super) struct Salvage {
    /// Bytes that belong to no valid record.
    damage: VecDeque<Range<u64>>,
    /// Valid records, by offset; of two with the same the first.
    found: VecDeque<SalvagedRecord>,
}

#[derive(Clone, Copy, Debug)]
struct SalvagedRecord {
    offset: u64,
    place: u64,
    length: usize,
}

impl Salvage {
    /// Bytes that do not begin a record.
    fn mark_damaged(&mut self, place: u64) {
        match self.damage.back_mut() {
            Some(last) if last.end == place => last.end += 1,
            _ => self.damage.push_back(place..place + 1),
        }
    }

    /// The next records that follow each other in the file as well, about `max` bytes: the first, how many, and their bytes.
    fn next_run(&mut self, max: usize) -> Option<(SalvagedRecord, u64, usize)> {
        let first = self.found.pop_front()?;
        let (mut count, mut bytes) = (1, first.length);
        while let Some(next) = self.found.front()
            && next.offset == first.offset + count
            && next.place == first.place + bytes as u64
            && bytes + next.length <= max
        {
            bytes += next.length;
            count += 1;
            self.found.pop_front();
        }
        Some((first, count, bytes))
    }
}

impl Scan {
    /// The next step of the salvage; `None` when there is none, or none any more.
    pub(super) fn next_salvaged(&mut self, max: usize) -> io::Result<Option<Step>> {
        let Some(salvage) = &mut self.salvage else { return Ok(None) };
        if let Some(range) = salvage.damage.pop_front() {
            return Ok(Some(Step::Damage(range)));
        }
        let Some((first, count, length)) = salvage.next_run(max) else {
            self.salvage = None;
            return Ok(None);
        };
        let bytes = self.read(first.place, length)?;
        // A disk that gives other bytes the second time.
        let mut at = 0;
        while let Parsed::Record(_, length) = record::parse(bytes.get(at..).unwrap_or_default(), u64::MAX, self.seed) {
            at += length;
        }
        if at != length {
            return Ok(Some(Step::Damage(first.place..first.place + length as u64)));
        }
        Ok(Some(self.records(first.place, Bytes::from(bytes), first.offset, first.offset + count)))
    }

    /// Goes over the rest of the segment, record by record where there are some, else byte by byte. The position is behind it then.
    pub(super) fn scan_rest(&mut self) -> io::Result<Salvage> {
        let room = self.limit.saturating_sub(self.position) / record::HEAD as u64;
        let offsets = self.expected..self.below.min(self.expected.saturating_add(room + 1 + OFFSET_JUMP_MAX));
        let mut salvage = Salvage::default();
        let mut found = Vec::new();
        let mut budget = HashBudget { from: self.position, wasted: 0, checksums: None };
        let (mut start, mut window) = (self.position, Vec::new());
        let mut place = self.position;
        while place < self.limit {
            let rest = self.limit - place;
            let mut bytes = window.get((place - start) as usize..).unwrap_or_default();
            if bytes.len() < record::HEAD && bytes.len() < rest as usize {
                (start, window) = (place, self.read(place, CHUNK_BYTES)?);
                bytes = &window;
                if bytes.is_empty() {
                    // The file was cut meanwhile.
                    break;
                }
            }
            let mut parsed = Parsed::Bad;
            if let Some(candidate) = record::candidate(bytes, rest, self.seed)
                && budget.allows(self, place, &candidate, &offsets)?
            {
                if bytes.len() < candidate.total {
                    (start, window) = (place, self.read(place, candidate.total.max(CHUNK_BYTES))?);
                    bytes = &window;
                }
                parsed = record::parse(bytes, rest, self.seed);
                if !matches!(parsed, Parsed::Record(..)) {
                    budget.wasted += candidate.total;
                }
            }
            match parsed {
                Parsed::Record(record, length) => {
                    if offsets.contains(&record.offset) {
                        found.push(SalvagedRecord { offset: record.offset, place, length });
                    }
                    place += length as u64;
                }
                _ => {
                    salvage.mark_damaged(place);
                    place += 1;
                }
            }
        }
        self.position = place.max(self.position + 1);
        found.sort_by_key(|found| found.offset);
        found.dedup_by_key(|found| found.offset);
        salvage.found = found.into();
        Ok(salvage)
    }
}

/// How much a salvage has hashed for nothing, and what it does about it: the time it takes stays in proportion to the segment.
#[derive(Debug)]
struct HashBudget {
    from: u64,
    wasted: usize,
    checksums: Option<PrefixChecksums>,
}

impl HashBudget {
    /// Whether what may be a record is worth hashing. At first everything is; then only what is known to have the right checksum.
    fn allows(&mut self, scan: &Scan, place: u64, candidate: &Candidate, offsets: &Range<u64>) -> io::Result<bool> {
        if self.wasted < HASH_BUDGET {
            return Ok(true);
        }
        if !offsets.contains(&candidate.offset) {
            return Ok(false);
        }
        let checksums = match &mut self.checksums {
            Some(checksums) => checksums,
            none => none.insert(PrefixChecksums::new(scan, self.from)?),
        };
        let (from, to) = (place + record::PREFIX as u64, place + candidate.total as u64);
        Ok(checksums.between(scan, candidate.crc_state, from, to)? == Some(candidate.expected_crc))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::time::{ClockId, clock_gettime};
    use uuid::Uuid;

    use super::*;
    use crate::{
        event::Resolved,
        spool::{
            NewRecord, RecordKind,
            disk::Disk,
            segment::{HEADER, Meta},
        },
    };

    const SEED: u32 = 7;

    fn scan(bytes: &[u8]) -> (tempfile::TempDir, Scan) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("it.seg");
        fs::write(&path, bytes).unwrap();
        let meta = Meta { first: 0, generation: 0, end: u64::MAX, bytes: bytes.len() as u64, active: false, path };
        let scan = Scan::open(&Disk::default(), &meta, u64::MAX, SEED).unwrap();
        (dir, scan)
    }

    fn append(bytes: &mut Vec<u8>, offset: u64, payload: &[u8]) {
        let decided =
            Resolved { run_id: Uuid::nil(), event_time: 1, received_at: 2, has_event_time: true, opened_run: false };
        let record = NewRecord {
            kind: RecordKind::Event,
            decided,
            strict_json: false,
            from_stream: false,
            channel: "c",
            preamble: b"",
            payload,
        };
        record::encode(bytes, SEED, offset, &record);
    }

    #[test]
    fn the_sum_of_any_stretch_is_that_of_its_bytes() {
        let bytes: Vec<u8> = (0..40_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let (_dir, scan) = scan(&bytes);
        let checksums = PrefixChecksums::new(&scan, 100).unwrap();
        for n in 0..2_000usize {
            let from = 100 + n * 7_919 % 39_900;
            let to = from + n * 104_729 % (40_001 - from);
            let expected = crc32c::crc32c_append(n as u32, &bytes[from..to]);
            assert_eq!(
                checksums.between(&scan, n as u32, from as u64, to as u64).unwrap(),
                Some(expected),
                "{from}..{to}"
            );
        }
        assert_eq!(checksums.between(&scan, 0, 200, 40_001).unwrap(), None, "behind the end");
    }

    /// Whole seconds of processor time of this thread.
    fn seconds() -> i64 {
        clock_gettime(ClockId::ThreadCPUTime).tv_sec
    }

    /// 8 MiB of heads that all claim to reach to the end: 650 GB to hash, one after the other.
    #[test]
    fn made_up_heads_cost_no_record_and_little_time() {
        let mut bytes = vec![0; HEADER];
        append(&mut bytes, 0, b"before");
        let torn = bytes.len();
        append(&mut bytes, 1, &[b'x'; 100]);
        bytes[torn + 70] ^= 1;
        let (size, mut real) = (8 << 20, 2);
        while bytes.len() < size {
            let mut head = [0; record::HEAD];
            head[..4].copy_from_slice(&((size - bytes.len() - record::PREFIX) as u32).to_le_bytes());
            head[8] = real as u8;
            head[16] = 1;
            bytes.extend_from_slice(&head);
            if bytes.len() / (1 << 20) as usize >= real - 1 {
                append(&mut bytes, real as u64, &vec![b'y'; 3_000]);
                real += 1;
            }
        }
        let (_dir, mut scan) = scan(&bytes);
        let (start, mut offsets) = (seconds(), Vec::new());
        loop {
            match scan.step(CHUNK_BYTES).unwrap() {
                Step::Records(chunk) => offsets.extend(chunk.first..chunk.end),
                Step::Damage(_) => {}
                Step::End => break,
            }
        }
        let took = seconds() - start;
        assert_eq!(offsets, [0].into_iter().chain(2..real as u64).collect::<Vec<_>>());
        assert!(real >= 9 && took < 10, "{real} records in {took} s");
    }
}
