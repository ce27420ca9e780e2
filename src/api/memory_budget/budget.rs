//! The budget, and its parts.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{memory::MemoryLimit, units::ByteSize};

/// Maximum size of a page: it ends before the row that would exceed it, but has at least one.
pub const PAGE_BYTES: usize = 8 << 20;
/// Reservation of a page: its rows, and their text.
pub const PAGE_RESERVATION: usize = 2 * PAGE_BYTES;
/// Reservation of a latest value or of a list of runs, with its text: most need far less.
pub const SMALL_RESERVATION: usize = 2 << 20;
/// Usual maximum of a value in Redis: the history's limit. Larger values, and larger bodies of requests, are reserved like large rows.
pub const SMALL_VALUE_BYTES: usize = 1 << 20;
/// One permit of the budget.
pub const PERMIT_BYTES: usize = 1 << 10;
/// Reads of rows of unknown size that may run at once.
const MAX_CONCURRENT_READS: usize = 2;

/// The budget that all answers share.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    pub(super) general: Arc<Semaphore>,
    pub(super) general_permits: usize,
    /// For answers of at most a page: they do not queue behind larger ones, nor behind exports, whose clients may be slow.
    pub(super) page_pool: Arc<Semaphore>,
    pub(super) page_permits: usize,
    /// For values in Redis, so that they do not wait behind reads from the store.
    pub(super) value_pool: Arc<Semaphore>,
    /// For bodies of requests, so that messages do not wait behind answers.
    pub(super) body_pool: Arc<Semaphore>,
    pub(super) read_slots: Arc<Semaphore>,
    /// The limit of the process for large values; the general part counts towards it.
    pub(super) process: MemoryLimit,
}

impl MemoryBudget {
    /// A budget of this size, within the limit of the process.
    pub fn new(size: ByteSize, process: MemoryLimit) -> Self {
        let all = size.as_usize() / PERMIT_BYTES;
        let page_permits = (PAGE_RESERVATION / PERMIT_BYTES + 1).min((all - all / 8) / 2);
        let body_permits = (all / 16).max(SMALL_VALUE_BYTES / PERMIT_BYTES + 1);
        let general_permits = all - all / 8 - page_permits - body_permits;
        let part = |units| Arc::new(Semaphore::new(units));
        Self {
            general: part(general_permits),
            general_permits,
            page_pool: part(page_permits),
            page_permits,
            value_pool: part(all / 8),
            body_pool: part(body_permits),
            read_slots: part(MAX_CONCURRENT_READS),
            process,
        }
    }

    /// The limit of the process.
    pub fn process(&self) -> &MemoryLimit {
        &self.process
    }

    /// Waits for a permit to read rows of unknown size; held until they are dropped.
    pub async fn read_permit(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.read_slots).acquire_owned().await.ok()
    }
}
