//! Chunks of verified records.

use bytes::Bytes;

use super::record::{self, Record};

/// Contiguous records whose checksums match. Cheap to clone; keeps its bytes alive.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    pub(crate) bytes: Bytes,
    /// Offset of the first record.
    pub first: u64,
    /// Offset after the last record.
    pub end: u64,
    /// How many records directly before this chunk cannot be read any more: damaged, or in a segment that is gone. Normally 0.
    pub lost: u64,
}

impl Chunk {
    /// Bytes of all records with their headers.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The part that begins at `offset` or behind it.
    pub(crate) fn starting_at(mut self, offset: u64) -> Self {
        let mut at = 0;
        while self.first < offset {
            at += record::length(&self.bytes[at..]).unwrap_or_default();
            self.first += 1;
        }
        self.bytes = self.bytes.slice(at..);
        self
    }

    /// The records, in order.
    pub fn records(&self) -> Records<'_> {
        Records(&self.bytes)
    }
}

/// See [`Chunk::records`].
#[derive(Clone, Debug)]
pub struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (bytes, rest) = self.0.split_at_checked(record::length(self.0)?)?;
        self.0 = rest;
        record::decode(bytes)
    }
}
