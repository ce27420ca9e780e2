//! What a segment holds from some place on, when it is not what it should be.

use std::{collections::VecDeque, io, ops::Range};

use bytes::Bytes;

use super::{CHUNK, Scan, Step};
use crate::spool::record::{self, Parsed};

/// Offsets may jump where records were committed from memory and never written. This many are believed in front of a record that
/// is searched for: enough for every outage that a memory segment can bridge, and few enough to tell a record from noise.
const JUMP: u64 = 1 << 24;

/// Not returned yet.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Bytes that belong to no valid record.
    damage: VecDeque<Range<u64>>,
    /// Valid records, by offset; of two with the same the first.
    found: VecDeque<Found>,
}

#[derive(Clone, Copy, Debug)]
struct Found {
    offset: u64,
    place: u64,
    length: usize,
}

impl Survey {
    /// Bytes that do not begin a record.
    fn skip(&mut self, place: u64) {
        match self.damage.back_mut() {
            Some(last) if last.end == place => last.end += 1,
            _ => self.damage.push_back(place..place + 1),
        }
    }

    /// The next records that follow each other in the file as well, about `max` bytes: the first, how many, and their bytes.
    fn run(&mut self, max: usize) -> Option<(Found, u64, usize)> {
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
    /// The next step of the survey; `None` when there is none, or none any more.
    pub(super) fn surveyed(&mut self, max: usize) -> io::Result<Option<Step>> {
        let Some(survey) = &mut self.survey else { return Ok(None) };
        if let Some(range) = survey.damage.pop_front() {
            return Ok(Some(Step::Damage(range)));
        }
        let Some((first, count, length)) = survey.run(max) else {
            self.survey = None;
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
    pub(super) fn look_around(&mut self) -> io::Result<Survey> {
        let room = self.limit.saturating_sub(self.position) / record::HEAD as u64;
        let offsets = self.expected..self.below.min(self.expected.saturating_add(room + 1 + JUMP));
        let mut survey = Survey::default();
        let mut found = Vec::new();
        let (mut start, mut window) = (self.position, Vec::new());
        let mut place = self.position;
        while place < self.limit {
            let rest = self.limit - place;
            let mut bytes = window.get((place - start) as usize..).unwrap_or_default();
            if bytes.len() < record::HEAD && bytes.len() < rest as usize {
                (start, window) = (place, self.read(place, CHUNK)?);
                bytes = &window;
                if bytes.is_empty() {
                    // Somebody has cut the file.
                    break;
                }
            }
            let mut parsed = record::parse(bytes, rest, self.seed);
            if let Parsed::Short(needed) = parsed
                && record::is_plausible(bytes, rest, &offsets)
            {
                (start, window) = (place, self.read(place, needed.max(CHUNK))?);
                parsed = record::parse(&window, rest, self.seed);
            }
            match parsed {
                Parsed::Record(record, length) => {
                    if offsets.contains(&record.offset) {
                        found.push(Found { offset: record.offset, place, length });
                    }
                    place += length as u64;
                }
                _ => {
                    survey.skip(place);
                    place += 1;
                }
            }
        }
        self.position = place.max(self.position + 1);
        found.sort_by_key(|found| found.offset);
        found.dedup_by_key(|found| found.offset);
        survey.found = found.into();
        Ok(survey)
    }
}
