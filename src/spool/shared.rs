//! The state that the ends of a spool share, and the view of it for reports.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::{
    disk::{Disk, OpenFile},
    group_cache::GroupCache,
    quarantine::Quarantine,
    segment::{Meta, Segments},
};
use crate::metrics::Metrics;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) id: Uuid,
    pub(crate) seed: u32,
    pub(crate) capacity: u64,
    pub(crate) disk: Disk,
    pub(crate) segments: Segments,
    pub(crate) quarantine: Quarantine,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) cache: Mutex<GroupCache>,
    /// Offset after the last record that a reader may see: durable, or in memory while the disk takes nothing.
    pub(crate) visible: watch::Sender<u64>,
    /// Told when a client waits for what is durable to be read.
    pub(crate) urgent: Notify,
    /// Offset after the last record that was appended.
    pub(crate) appended: AtomicU64,
    pub(crate) durable: AtomicU64,
    pub(crate) committed: AtomicU64,
    /// Segments with records from here on stay, committed or not.
    pub(crate) retain_from: AtomicU64,
    /// The committed offset that is on disk.
    pub(crate) checkpoint: AtomicU64,
    /// Bytes that are in memory only.
    pub(crate) memory_only_bytes: AtomicU64,
    pub(crate) healthy: AtomicBool,
    pub(crate) missing: AtomicU64,
    /// Held until the last end is dropped.
    pub(crate) _lock: [Option<OpenFile>; 2],
}

impl Shared {
    pub(crate) fn cache(&self) -> MutexGuard<'_, GroupCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Drops what memory need not keep, and shows how much is left.
    pub(crate) fn trim(&self, cache: &mut GroupCache) {
        let durable = self.durable();
        cache.trim(durable, self.committed());
        let memory_only = cache.memory_only_bytes(durable) as u64;
        self.memory_only_bytes.store(memory_only, Ordering::Release);
        self.metrics.spool_memory_bytes.set(memory_only as i64);
    }

    /// As [`Segments::find`], after foreign files are moved away: neither the segment nor the one behind it, which defines its end,
    /// belongs to another spool.
    pub(crate) fn find(&self, offset: u64) -> Option<(Meta, u64)> {
        loop {
            let (meta, next) = self.segments.find(offset)?;
            let is_impostor = |meta: &&Meta| !meta.active && !meta.is_of(&self.disk, self.id);
            let Some(impostor) = [Some(&meta), next.as_ref()].into_iter().flatten().find(is_impostor) else {
                return Some((meta, next.map_or(u64::MAX, |next| next.first)));
            };
            self.quarantine.take_foreign(&impostor.path);
            self.segments.unlink_entry(&impostor.path);
        }
    }

    pub(crate) fn update_gauges(&self) {
        self.metrics.spool_bytes.set(self.segments.bytes() as i64);
        self.metrics.spool_records.set(self.visible.borrow().saturating_sub(self.committed()) as i64);
    }

    pub(crate) fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Release);
        self.metrics.spool_healthy.set(i64::from(healthy));
    }
}

/// A read-only view of a spool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct View(pub(crate) Arc<Shared>);

impl View {
    /// Offset after the last record that is on disk (or was committed from memory).
    pub fn durable(&self) -> u64 {
        self.0.durable()
    }

    /// Every record below is stored and, where the store may forget, has been for the linger. A reader can rewind to here.
    pub fn committed(&self) -> u64 {
        self.0.committed()
    }

    /// Offset after the last record that was appended. It is durable, and readers see it, after the next sync.
    pub fn appended(&self) -> u64 {
        self.0.appended.load(Ordering::Acquire)
    }

    /// Offset after the last record that readers see.
    pub fn end(&self) -> u64 {
        *self.0.visible.borrow()
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.0.segments.bytes()
    }

    /// Bytes that the segments may take.
    pub fn capacity(&self) -> u64 {
        self.0.capacity
    }

    /// Number of segments.
    pub fn segments(&self) -> usize {
        self.0.segments.lock().len()
    }

    /// Whether records go to disk. While they do not, they are in memory and lost with the process.
    pub fn healthy(&self) -> bool {
        self.0.healthy.load(Ordering::Acquire)
    }

    /// Bytes of the records that are in memory only.
    pub fn memory_bytes(&self) -> u64 {
        self.0.memory_only_bytes.load(Ordering::Acquire)
    }

    /// Records that could not be read any more since the start.
    pub fn missing(&self) -> u64 {
        self.0.missing.load(Ordering::Acquire)
    }

    /// The id of the spool.
    pub fn id(&self) -> Uuid {
        self.0.id
    }
}
