//! The newest groups in memory: a cache of what is on disk, and the only copy of what the disk did not take.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{chunk::Chunk, record, scan::CHUNK_BYTES};

/// Durable bytes that are kept, so that a reader that keeps up never reads a file.
const CACHE_BYTES: usize = 4 << 20;
/// Groups up to this size are copied, so that their buffer can be reused.
const COPY_MAX_BYTES: usize = 1 << 20;

#[derive(Debug)]
struct Group {
    first: u64,
    end: u64,
    bytes: Bytes,
}

/// Groups in order. Committed ones that were dropped, and large records, which are only in their segment, leave gaps.
#[derive(Debug, Default)]
pub(crate) struct GroupCache {
    groups: VecDeque<Group>,
    bytes: usize,
}

impl GroupCache {
    /// Takes over a group and leaves the buffer empty.
    pub(crate) fn push(&mut self, first: u64, end: u64, buffer: &mut Vec<u8>) {
        let bytes = if buffer.len() <= COPY_MAX_BYTES {
            let bytes = Bytes::copy_from_slice(buffer);
            buffer.clear();
            bytes
        } else {
            Bytes::from(std::mem::take(buffer))
        };
        self.bytes += bytes.len();
        self.groups.push_back(Group { first, end, bytes });
    }

    /// Drops committed groups, to which no reader returns, and durable groups beyond the size of the cache.
    pub(crate) fn trim(&mut self, durable: u64, committed: u64) {
        while let Some(group) = self.groups.front() {
            let cached_enough = group.end <= durable && self.bytes > CACHE_BYTES;
            if group.end > committed && !cached_enough {
                break;
            }
            self.bytes -= group.bytes.len();
            self.groups.pop_front();
        }
    }

    /// Bytes of the groups that are not durable.
    pub(crate) fn memory_only_bytes(&self, durable: u64) -> usize {
        self.groups.iter().rev().take_while(|group| group.end > durable).map(|group| group.bytes.len()).sum()
    }

    /// Offset of the first record in memory.
    pub(crate) fn first(&self) -> Option<u64> {
        self.groups.front().map(|group| group.first)
    }

    /// Records from `offset` on, if they are here.
    pub(crate) fn chunk(&self, offset: u64) -> Option<Chunk> {
        let group = self.groups.get(self.groups.partition_point(|group| group.end <= offset))?;
        if group.first > offset {
            return None;
        }
        let from = skip(&group.bytes, 0, |index, _| group.first + index < offset);
        let length = skip(&group.bytes[from.1..], 0, |_, bytes| bytes < CHUNK_BYTES);
        let bytes = group.bytes.slice(from.1..from.1 + length.1);
        Some(Chunk { bytes, first: offset, end: offset + length.0, lost: 0 })
    }

    /// The groups that are not durable, about `max` bytes of them, as one piece to write.
    pub(crate) fn unwritten(&self, durable: u64, max: usize) -> Option<(u64, u64, Vec<u8>)> {
        let start = self.groups.partition_point(|group| group.end <= durable);
        let first = self.groups.get(start)?.first;
        let (mut end, mut bytes) = (first, Vec::new());
        for group in self.groups.range(start..) {
            let adjoins = group.first == end || bytes.is_empty();
            if !adjoins || (!bytes.is_empty() && bytes.len() + group.bytes.len() > max) {
                break;
            }
            bytes.extend_from_slice(&group.bytes);
            end = group.end;
        }
        Some((first, end, bytes))
    }
}

/// Goes over records while `more(records, bytes so far)` holds: how many, and how many bytes.
fn skip(bytes: &[u8], from: usize, more: impl Fn(u64, usize) -> bool) -> (u64, usize) {
    let (mut index, mut at) = (0, from);
    while at < bytes.len() && more(index, at) {
        at += record::length(&bytes[at..]).unwrap_or(bytes.len() - at);
        index += 1;
    }
    (index, at)
}
