//! The writing end of the spool: groups of records are written at once and synced together, or in memory while the disk takes no
//! writes.

mod outage;

use std::{io, sync::Arc, sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;
use tracing::error;
use uuid::Uuid;

use self::outage::{Degraded, RECOVERY_BATCH_BYTES};
use super::{
    Config,
    record::{self, NewRecord},
    segment::{self, SegmentWriter},
    shared::Shared,
};
use crate::logging::Chain;

/// A group is synced early when it would grow beyond this.
const GROUP_BYTES: usize = 8 << 20;
/// A record of so many bytes is a group of its own, written from where its payload is: a copy of it would take as much again.
const LARGE_RECORD: usize = 1 << 20;
/// The part of the memory segment that only gaps, commands and receipts may use.
pub(super) const RESERVED_BYTES: u64 = 1 << 20;
/// Syncs that may follow each other at once, so that a group delayed by scheduling does not delay the next. On average they are still
/// an interval apart.
const SYNC_BURST: u32 = 4;
/// The shortest time between two syncs that something waits for, unless they are a burst.
const AWAITED_INTERVAL: Duration = Duration::from_millis(5);

/// There is no room for the record, neither on disk nor in memory (or it is longer than any record may be): count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spool is full")]
pub struct Full;

/// Where things stand after [`Appender::sync`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synced {
    /// Every record below is on disk (or was committed from memory).
    pub durable: u64,
    /// Every record below can be read.
    pub end: u64,
    /// Whether the disk takes records. When it does, `durable` equals `end`.
    pub healthy: bool,
}

/// Appends records. Synchronous: owned by a thread that may wait for a disk.
#[derive(Debug)]
pub struct Appender {
    shared: Arc<Shared>,
    writer: SegmentWriter,
    /// The records `first..next`, which are not synced.
    buffer: Vec<u8>,
    first: u64,
    next: u64,
    /// How much of the buffer is written to the segment.
    written: usize,
    /// Offset after the last record that is written.
    written_end: u64,
    /// What `next` was at the last [`sync`](Self::sync).
    synced: u64,
    interval: Duration,
    memory: u64,
    batch: usize,
    /// When the pace allows the next sync; `None` before the first.
    next_sync_at: Option<Instant>,
    last_sync_at: Option<Instant>,
    degraded: Option<Degraded>,
    /// Whether a valid checkpoint was found at open.
    had_checkpoint: bool,
}

impl Appender {
    pub(crate) fn new(shared: Arc<Shared>, config: &Config, next: u64, had_checkpoint: bool) -> Self {
        let writer = SegmentWriter::new(shared.dir.clone(), shared.id, config.segment.0, shared.disk.clone());
        Self {
            shared,
            writer,
            buffer: Vec::with_capacity(64 << 10),
            first: next,
            next,
            written: 0,
            written_end: next,
            synced: next,
            interval: config.sync_interval,
            memory: config.memory.0,
            batch: config.segment.0.min(RECOVERY_BATCH_BYTES) as usize,
            next_sync_at: None,
            last_sync_at: None,
            degraded: None,
            had_checkpoint,
        }
    }

    /// A client waits for what is durable now: the reader need not wait for more.
    pub fn request_read(&self) {
        self.shared.urgent.notify_one();
    }

    /// The id of the spool.
    pub fn spool_id(&self) -> Uuid {
        self.shared.id
    }

    /// Continues at `offset` where the end of the log is gone: offsets below it were used before, and are not used again. The reader
    /// counts them as lost. To be called before the first append.
    pub fn skip_to(&mut self, offset: u64) {
        if !self.had_checkpoint || !self.buffer.is_empty() || offset <= self.next {
            return;
        }
        error!(lost = offset - self.next, "the end of the spool is gone; what of it was not stored is lost");
        (self.first, self.next, self.written_end, self.synced) = (offset, offset, offset, offset);
        self.shared.appended.store(offset, Ordering::Release);
        self.shared.durable.store(offset, Ordering::Release);
        self.shared.visible.send_replace(offset);
    }

    /// Adds a record to the group and returns its offset. It is in the file, where a killed process does not lose it, after the next
    /// [`write`](Self::write); durable, and visible to the reader, after the next [`sync`](Self::sync). A large one is durable when
    /// this returns, as far as the disk takes it.
    ///
    /// # Errors
    /// [`Full`]: the record is not kept and takes no offset.
    pub fn append(&mut self, record: &NewRecord<'_>) -> Result<u64, Full> {
        let size = record::size(record);
        if size > record::MAX {
            return Err(Full);
        }
        if !self.buffer.is_empty() && (self.buffer.len() + size > GROUP_BYTES || size >= LARGE_RECORD) {
            self.sync();
        }
        if self.degraded.is_some() {
            let reserved = if record.kind.uses_reserved_memory() { 0 } else { RESERVED_BYTES };
            let memory_only = self.shared.memory_only_bytes.load(Ordering::Acquire) + (self.buffer.len() + size) as u64;
            if memory_only > self.memory.saturating_sub(reserved) {
                return Err(Full);
            }
        }
        let offset = self.next;
        self.next += 1;
        let written = size >= LARGE_RECORD && self.degraded.is_none() && self.write_large(offset, record);
        if !written {
            record::encode(&mut self.buffer, self.shared.seed, offset, record);
        }
        self.shared.appended.store(self.next, Ordering::Release);
        Ok(offset)
    }

    /// Makes the record durable at once; otherwise the group in memory takes it.
    fn write_large(&mut self, offset: u64, record: &NewRecord<'_>) -> bool {
        let started = Instant::now();
        let head = record::head(self.shared.seed, offset, record);
        let [channel, preamble, payload] = record.parts();
        match self.write_and_sync(&[&head, channel, preamble, payload], offset, self.next) {
            Ok(()) => {
                self.shared.durable.store(self.next, Ordering::Release);
                self.publish(self.next);
                true
            }
            Err(error) => {
                self.fail(&error, started);
                false
            }
        }
    }

    /// When [`sync`](Self::sync) is due: at once (a moment that has passed) while the last ones were an interval apart on average,
    /// or soon after the last where something waits for it (`awaited`); `None` when there is nothing to do. While the disk takes
    /// nothing it says when to try it again, even without new records.
    pub fn sync_due(&self, awaited: bool) -> Option<Instant> {
        let group = (self.next > self.synced).then(|| match (self.next_sync_at, self.last_sync_at) {
            // A large record is durable already; its sender is told with the next sync.
            _ if self.buffer.is_empty() || self.buffer.len() >= GROUP_BYTES / 2 => Instant::now(),
            (Some(paced), Some(last)) if awaited => paced.min(last + AWAITED_INTERVAL),
            (Some(paced), _) => paced,
            (None, _) => Instant::now(),
        });
        let retry = self.degraded.map(|degraded| degraded.retry_at);
        group.into_iter().chain(retry).min()
    }

    /// Writes the group to the file. A process that is killed loses nothing of it, a machine that loses its power does.
    pub fn write(&mut self) {
        let started = Instant::now();
        if self.degraded.is_none()
            && let Err(error) = self.write_rest()
        {
            self.try_new_segment(&error, started);
        }
    }

    /// Makes the group durable and shows it to the reader. When the disk does not take it, the group stays in memory and is
    /// shown nevertheless; records reach the disk, in order, once it takes them again.
    pub fn sync(&mut self) -> Synced {
        let started = Instant::now();
        if self.degraded.is_none()
            && !self.buffer.is_empty()
            && let Err(error) = self.write_rest().and_then(|()| self.sync_written())
        {
            self.try_new_segment(&error, started);
        }
        if self.degraded.is_some() {
            self.publish(self.next);
        }
        if self.degraded.is_some_and(|degraded| degraded.retry_at <= started) {
            self.recover(started);
        }
        self.synced = self.next;
        self.shared.update_gauges();
        let behind = started.checked_sub(self.interval * (SYNC_BURST - 1)).unwrap_or(started);
        self.next_sync_at =
            Some(self.next_sync_at.map_or(behind, |paced| paced.clamp(behind, started)) + self.interval);
        self.last_sync_at = Some(started);
        Synced { durable: self.shared.durable(), end: self.next, healthy: self.degraded.is_none() }
    }

    /// Keeps committed segments with records from `offset` on: intake rebuilds its state from them after a crash. `u64::MAX`, as at
    /// first, keeps none.
    pub fn retain_from(&self, offset: u64) {
        self.shared.retain_from.store(offset, Ordering::Release);
    }

    /// Whether the disk takes records.
    pub fn healthy(&self) -> bool {
        self.degraded.is_none()
    }

    /// How often groups become durable.
    pub fn sync_interval(&self) -> Duration {
        self.interval
    }

    /// Offset that the next record will have.
    pub fn end(&self) -> u64 {
        self.next
    }

    /// Writes what of the group is not written yet.
    fn write_rest(&mut self) -> io::Result<()> {
        let bytes = (self.buffer.len() - self.written) as u64;
        if bytes == 0 {
            return Ok(());
        }
        let at_capacity = self.check_capacity(self.buffer.len() as u64);
        if at_capacity.is_err() || !self.writer.has_room(bytes) {
            // A segment is closed only when all of it is synced.
            self.sync_written()?;
        }
        if let Err(error) = at_capacity {
            self.writer.finish(&self.shared.segments);
            return Err(error);
        }
        let parts = [&self.buffer[self.written..]];
        self.writer.append(&self.shared.segments, &parts, self.written_end, self.next)?;
        (self.written, self.written_end) = (self.buffer.len(), self.next);
        Ok(())
    }

    /// Makes durable what of the group is written, and shows it to the reader.
    fn sync_written(&mut self) -> io::Result<()> {
        if self.written == 0 {
            return Ok(());
        }
        self.writer.sync(&self.shared.segments)?;
        self.shared.metrics.spool_syncs.inc();
        self.shared.durable.store(self.written_end, Ordering::Release);
        let rest = if self.written < self.buffer.len() { self.buffer.split_off(self.written) } else { Vec::new() };
        self.publish(self.written_end);
        self.buffer.extend_from_slice(&rest);
        Ok(())
    }

    /// Makes records durable that are not in the group. After a failure tries once more in a new segment; an outage is logged once,
    /// not with each try.
    fn write_and_sync(&mut self, parts: &[&[u8]], first: u64, end: u64) -> io::Result<()> {
        if let Err(error) = self.check_capacity(segment::length(parts)) {
            self.writer.finish(&self.shared.segments);
            return Err(error);
        }
        let Self { writer, shared, .. } = self;
        let mut write = || writer.write(&shared.segments, parts, first, end);
        let already_degraded = self.degraded.is_some();
        let written = write().or_else(|error| {
            shared.metrics.spool_sync_failures.inc();
            if already_degraded {
                return Err(error);
            }
            error!(error = %Chain(&error), "segment failed; writing its unsynced records to a new one");
            write()
        });
        match &written {
            Ok(()) => shared.metrics.spool_syncs.inc(),
            Err(_) => shared.metrics.spool_sync_failures.inc(),
        };
        written
    }

    /// Shows the buffered records, which end at `end`, to the reader.
    fn publish(&mut self, end: u64) {
        let mut cache = self.shared.cache();
        if !self.buffer.is_empty() {
            cache.push(self.first, end, &mut self.buffer);
        }
        (self.first, self.written, self.written_end) = (end, 0, end);
        self.shared.trim(&mut cache);
        drop(cache);
        if *self.shared.visible.borrow() != end {
            self.shared.visible.send_replace(end);
        }
    }

    /// Whether the segments may grow by so many bytes that are not synced. Where they may not, the current segment is to be closed,
    /// all of it being synced: only then it is removed once it is committed. Whether the disk works shows with the next group.
    fn check_capacity(&self, more: u64) -> io::Result<()> {
        if self.shared.segments.bytes() + more > self.shared.capacity {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the spool has reached its capacity"));
        }
        Ok(())
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        if !self.buffer.is_empty() {
            self.sync();
        }
        self.writer.finish(&self.shared.segments);
    }
}
