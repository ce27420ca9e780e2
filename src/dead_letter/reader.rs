//! Letters with their bytes, one segment at a time: so much is in memory, however many there are.

use std::{collections::VecDeque, io, path::Path};

use super::{DeadLetterError, DeadLetterInfo, Filter, dropped::DropIndex, for_each_in_segment, identify};
use crate::{
    event::Resolved,
    spool::{
        RecordKind,
        disk::Disk,
        record::{self, Record},
        segment::{self, Meta},
    },
};

/// A letter, as it was put.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// What it is.
    pub info: DeadLetterInfo,
    /// What was decided about the message; of a rejected one only when it was received, and the run that was open.
    pub decided: Resolved,
    /// What the payload is.
    pub kind: RecordKind,
    /// The bytes that are kept.
    pub payload: Vec<u8>,
}

/// Goes over letters, oldest first. Reads only; a daemon may be running.
#[derive(Debug)]
pub struct Reader {
    segments: VecDeque<Meta>,
    seed: u32,
    drop_index: DropIndex,
    filter: Filter,
}

impl Reader {
    /// The letters in `dir` that the filter takes; its limit is not looked at.
    ///
    /// # Errors
    /// When the directory cannot be read. One that is missing holds no letters.
    pub fn open(dir: &Path, filter: Filter) -> Result<Self, DeadLetterError> {
        let list = match segment::list(&Disk::default(), dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            list => list.map_err(DeadLetterError::Read)?,
        };
        let seed = record::seed(identify(&list)?);
        Ok(Self { segments: list.into(), seed, drop_index: DropIndex::read(dir)?, filter })
    }

    /// The letters of the next segment that has some; empty at the end.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn next_entries(&mut self) -> Result<Vec<DeadLetter>, DeadLetterError> {
        let mut entries = Vec::new();
        let mut push = |info, payload: &[u8], record: &Record<'_>| {
            let payload = payload.to_vec();
            entries.push(DeadLetter { info, decided: record.decided, kind: record.kind, payload });
        };
        while self.next_segment(&mut push)? == Some(0) {}
        Ok(entries)
    }

    /// Visits the letters of the next segment; returns how many there were, `None` at the end.
    pub(super) fn next_segment(
        &mut self,
        visit: &mut impl FnMut(DeadLetterInfo, &[u8], &Record<'_>),
    ) -> Result<Option<u64>, DeadLetterError> {
        let Some(meta) = self.segments.pop_front() else { return Ok(None) };
        let mut count = 0;
        let read = for_each_in_segment(&meta, self.seed, &mut |_, mut info, kept, record| {
            self.drop_index.apply(&mut info);
            if !self.drop_index.is_dropped(info.id) && self.filter.matches(&info) {
                count += 1;
                visit(info, kept, record);
            }
        });
        match read {
            // Dropped to make room since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            read => read.map_err(DeadLetterError::Read)?,
        }
        Ok(Some(count))
    }
}
