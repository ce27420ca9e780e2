//! Letters with their bytes, one segment at a time: so much is in memory, however many there are.

use std::{collections::VecDeque, io, path::Path};

use super::{DeadLetterError, DeadLetterInfo, Filter, dropped::DropIndex, for_each_in_segment, identify};
use crate::{
    event::Resolved,
    spool::{
        RecordKind,
        disk::Disk,
        record,
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
        while entries.is_empty()
            && let Some(meta) = self.segments.pop_front()
        {
            let Self { drop_index, filter, .. } = &*self;
            let read = for_each_in_segment(&meta, self.seed, &mut |_, mut info, kept, record| {
                drop_index.apply(&mut info);
                if !drop_index.is_dropped(info.id) && filter.matches(&info) {
                    entries.push(DeadLetter {
                        info,
                        decided: record.decided,
                        kind: record.kind,
                        payload: kept.to_vec(),
                    });
                }
                true
            });
            match read {
                // Dropped to make room since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => _ = read.map_err(DeadLetterError::Read)?,
            }
        }
        Ok(entries)
    }
}
