//! The reading end of the spool: from memory where possible, else from the segments.

use std::{io, sync::Arc, sync::atomic::Ordering};

use tokio::sync::watch;
use tracing::{error, warn};

use super::{
    chunk::Chunk,
    commit::CommitQueue,
    scan::{CHUNK_BYTES, Scan, Step},
    shared::Shared,
};
use crate::{backoff, logging::Chain};

/// How often an unreadable segment is tried, unless the error is transient.
const READ_TRIES: u32 = 25;

/// Reads every record once, in order, from the committed offset on.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    commits: Arc<CommitQueue>,
    visible: watch::Receiver<u64>,
    next: u64,
    scan: Option<Scan>,
    /// Whether damage was met since the last chunk.
    damaged: bool,
    /// Records that could not be read since the last chunk.
    lost: u64,
    failures: u32,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, commits: Arc<CommitQueue>, next: u64) -> Self {
        let visible = shared.visible.subscribe();
        Self { shared, commits, visible, next, scan: None, damaged: false, lost: 0, failures: 0 }
    }

    /// Waits until [`next`](Self::next) has something to read. May be dropped at any time.
    pub async fn readable(&mut self) {
        let next = self.next;
        if self.visible.wait_for(|visible| next < *visible).await.is_err() {
            // Cannot happen while `shared` holds the sender.
            std::future::pending::<()>().await;
        }
    }

    /// Returns once a client waits for what is durable; see [`Appender::request_read`](super::Appender::request_read).
    pub async fn requested(&self) {
        self.shared.urgent.notified().await;
    }

    /// The next records: durable ones, and while the disk takes nothing those in memory. Waits until there are some. May be
    /// dropped at any time without losing its place.
    pub async fn next(&mut self) -> Chunk {
        loop {
            let visible = *self.visible.borrow_and_update();
            if self.next < visible {
                match self.read(visible) {
                    Ok(Some(chunk)) => return chunk,
                    Ok(None) => {}
                    Err(error) => {
                        self.note_failure(&error);
                        tokio::time::sleep(backoff::SEGMENT_READ).await;
                        continue;
                    }
                }
                if self.next < visible {
                    continue;
                }
            }
            if self.visible.changed().await.is_err() {
                // Cannot happen while `shared` holds the sender.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The offset that `next` continues at.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Continues at `offset`, or at the committed offset if that is higher. Lingering confirmations beyond it are forgotten.
    pub fn rewind(&mut self, offset: u64) {
        let offset = self.commits.rewind(&self.shared, offset);
        self.next = offset.min(*self.visible.borrow());
        self.scan = None;
        self.damaged = false;
        self.lost = 0;
        self.visible.mark_changed();
    }

    /// `None`: look again, the position has moved or nothing is there yet.
    fn read(&mut self, visible: u64) -> io::Result<Option<Chunk>> {
        let (cached, memory) = {
            let cache = self.shared.cache();
            (cache.chunk(self.next), cache.first())
        };
        if let Some(chunk) = cached {
            self.scan = None;
            return Ok(Some(self.accept(chunk)));
        }
        if let Some(chunk) = self.read_file()? {
            return Ok(Some(self.accept(chunk)));
        }
        // No segment has anything from here on. Unless the groups in memory have just changed, the records are gone.
        let to = memory.filter(|first| *first > self.next).unwrap_or(visible);
        if self.shared.cache().first() == memory {
            self.count_lost(to - self.next);
            self.next = to;
        }
        Ok(None)
    }

    fn read_file(&mut self) -> io::Result<Option<Chunk>> {
        loop {
            if !self.position_scan()? {
                return Ok(None);
            }
            let Some(scan) = &mut self.scan else { return Ok(None) };
            match scan.step(CHUNK_BYTES)? {
                Step::Records(chunk) if chunk.end <= self.next => {}
                Step::Records(chunk) => return Ok(Some(chunk.starting_at(self.next))),
                Step::Damage(range) => {
                    self.damaged = true;
                    self.shared.quarantine.keep(scan, range.start, range.end);
                    warn!(segment = %scan.path.display(), from = range.start, to = range.end, "damaged bytes skipped");
                }
                Step::End => {
                    let path = scan.path.clone();
                    self.scan = None;
                    if !self.skip_segment(&path) {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Continues behind a segment that is read to its end; false when no segment follows.
    fn skip_segment(&mut self, path: &std::path::Path) -> bool {
        let Some((meta, below)) = self.shared.segments.get(path) else { return true };
        // Without this the segment would be found again for the offsets that it lost.
        let end = meta.end.min(below);
        self.count_lost(end.saturating_sub(self.next));
        self.next = self.next.max(end);
        self.shared.segments.find(self.next).is_some()
    }

    /// Opens the segment that holds the next record, unless it is open; false when there is none.
    fn position_scan(&mut self) -> io::Result<bool> {
        if let Some(scan) = &mut self.scan
            && let Some((meta, below)) = self.shared.segments.get(&scan.path)
            && scan.expected <= self.next
        {
            (scan.limit, scan.below) = (meta.bytes, below);
            return Ok(true);
        }
        loop {
            let Some((meta, below)) = self.shared.find(self.next) else { return Ok(false) };
            match Scan::open(&self.shared.disk, &meta, below, self.shared.seed) {
                Ok(scan) => {
                    self.scan = Some(scan);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    error!(segment = %meta.path.display(), "segment was deleted by another process");
                    self.shared.segments.forget(&meta.path);
                }
                Err(error)
                    if self.failures >= READ_TRIES
                        && !is_transient(&error)
                        && self.quarantine_unreadable(&meta.path, &error) =>
                {
                    self.shared.segments.forget(&meta.path);
                    self.failures = 0;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Moves an unreadable segment to quarantine: committed with the rest, it would be removed unread. False when permissions of the
    /// directory forbid that too: once they are repaired, the segment can be read again.
    fn quarantine_unreadable(&self, path: &std::path::Path, error: &io::Error) -> bool {
        let kept = self.shared.quarantine.take(path);
        if kept.as_ref().is_err_and(|kept| kept.kind() == io::ErrorKind::PermissionDenied) {
            return false;
        }
        let kept = kept.is_ok();
        error!(segment = %path.display(), error = %Chain(error), kept, "segment cannot be read; set aside");
        true
    }

    fn accept(&mut self, mut chunk: Chunk) -> Chunk {
        self.count_lost(chunk.first.saturating_sub(self.next));
        chunk.lost = std::mem::take(&mut self.lost);
        self.next = chunk.end;
        self.damaged = false;
        self.failures = 0;
        chunk
    }

    fn count_lost(&mut self, lost: u64) {
        if lost == 0 {
            return;
        }
        self.lost += lost;
        self.shared.missing.fetch_add(lost, Ordering::AcqRel);
        if self.damaged {
            self.shared.metrics.spool_corrupt_records.inc_by(lost);
        } else {
            self.shared.metrics.spool_missing_records.inc_by(lost);
        }
        error!(lost, offset = self.next, damaged = self.damaged, "records cannot be read any more");
    }

    fn note_failure(&mut self, error: &io::Error) {
        self.failures += 1;
        if self.failures == 1 {
            warn!(error = %Chain(error), "spool cannot be read; trying again");
        }
        self.scan = None;
    }
}

/// Whether waiting helps: out of descriptors or memory.
fn is_transient(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
