//! While the disk takes no records: they stay in memory, and are written, in order, once it takes them again.

use std::{io, sync::atomic::Ordering};

use tokio::time::Instant;
use tracing::{error, info};

use super::{Appender, segment};
use crate::{backoff, logging::Chain};

/// How much of what is in memory is written at once when the disk is back: less than a disk that has a little room can take.
pub(super) const RECOVERY_BATCH_BYTES: u64 = 1 << 20;

/// Why records are in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Degraded {
    since: Instant,
    pub(super) retry_at: Instant,
}

impl Appender {
    /// After a failure writes and syncs the group in a new segment, because the file may be at fault; the failed one is never
    /// written again, and nothing counts that was not synced in it.
    pub(super) fn try_new_segment(&mut self, error: &io::Error, started: Instant) {
        (self.written, self.written_end) = (0, self.first);
        if is_capacity(error) {
            return self.fail(error, started);
        }
        self.shared.metrics.spool_sync_failures.inc();
        error!(error = %Chain(error), "segment failed; writing its unsynced records to a new one");
        if let Err(error) = self.write_rest().and_then(|()| self.sync_written()) {
            (self.written, self.written_end) = (0, self.first);
            self.shared.metrics.spool_sync_failures.inc();
            self.fail(&error, started);
        }
    }

    pub(super) fn fail(&mut self, error: &io::Error, now: Instant) {
        let retry_at = now + if is_capacity(error) { backoff::DISK_FULL } else { backoff::DISK };
        let first = self.degraded.is_none();
        let since = self.degraded.map_or(now, |degraded| degraded.since);
        self.degraded = Some(Degraded { since, retry_at });
        if first {
            self.shared.set_healthy(false);
            error!(error = %Chain(error), "disk takes no records; they stay in memory and are lost if the process ends");
        }
    }

    /// Writes what is in memory only, oldest first, as far as the disk takes it.
    pub(super) fn recover(&mut self, now: Instant) {
        loop {
            let unwritten = self.shared.cache().unwritten(self.shared.durable(), self.batch);
            // What was committed from memory leaves a gap in the segments, which only a checkpoint behind it explains.
            let first_unwritten = unwritten.as_ref().map_or(self.next, |(first, ..)| *first);
            if first_unwritten > self.shared.durable()
                && first_unwritten > self.shared.checkpoint.load(Ordering::Acquire)
            {
                let error = io::Error::other("the checkpoint of what was committed from memory is not written yet");
                self.fail(&error, now);
                return;
            }
            let Some((first, end, bytes)) = unwritten else { break };
            if let Err(error) = self.write_and_sync(&[&bytes], first, end) {
                self.fail(&error, now);
                return;
            }
            self.shared.durable.store(end, Ordering::Release);
            self.shared.trim(&mut self.shared.cache());
        }
        // Nothing is left in memory: all of it was written, or stored and committed. Now there must be room for one more segment.
        if let Err(error) = self.check_capacity(segment::HEADER as u64 + 1) {
            self.writer.finish(&self.shared.segments);
            self.fail(&error, now);
            return;
        }
        self.shared.durable.store(self.next, Ordering::Release);
        self.shared.set_healthy(true);
        if let Some(degraded) = self.degraded.take() {
            let seconds = now.saturating_duration_since(degraded.since).as_secs();
            info!(seconds, "disk takes records again");
        }
    }
}

fn is_capacity(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::QuotaExceeded && error.raw_os_error().is_none()
}
