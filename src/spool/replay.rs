//! Reading records beside the reader: at the start, and one record again.

use std::{io, sync::Arc};

use super::{
    chunk::Chunk,
    recovery::Recovery,
    scan::Scan,
    shared::{Shared, View},
};

/// Chunks of records, beside the reader.
#[derive(Debug)]
pub struct Replay {
    shared: Arc<Shared>,
    next: u64,
    end: u64,
    scan: Option<Scan>,
}

impl Recovery {
    /// The records from `offset` on that were there at the start, to rebuild what depends on them. Leaves the reader alone.
    pub fn records_from(&self, offset: u64) -> Replay {
        Replay { shared: Arc::clone(&self.shared), next: offset, end: self.next, scan: None }
    }
}

impl View {
    /// The records from `offset` up to now that are on disk. Does not move the reader.
    pub fn records_from(&self, offset: u64) -> Replay {
        Replay { shared: Arc::clone(&self.0), next: offset, end: self.end(), scan: None }
    }
}

impl Iterator for Replay {
    type Item = io::Result<Chunk>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.end {
            if self.scan.is_none() {
                let (meta, below) = self.shared.find(self.next)?;
                if meta.first >= self.end {
                    return None;
                }
                match Scan::open(&self.shared.disk, &meta, below, self.shared.seed) {
                    Ok(scan) => self.scan = Some(scan),
                    Err(error) => {
                        self.next = meta.end;
                        return Some(Err(error));
                    }
                }
            }
            let scan = self.scan.as_mut()?;
            match scan.next_records() {
                Ok(Some(chunk)) if chunk.end <= self.next => {}
                Ok(Some(chunk)) => {
                    let chunk = chunk.starting_at(self.next);
                    self.next = chunk.end;
                    return Some(Ok(chunk));
                }
                Ok(None) => {
                    self.next = self.next.max(scan.below.min(self.end));
                    self.scan = None;
                }
                Err(error) => {
                    self.next = scan.below;
                    self.scan = None;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
