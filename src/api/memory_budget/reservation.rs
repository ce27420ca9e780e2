//! Reserved memory for one answer: taken, extended and released.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::budget::{MemoryBudget, PAGE_RESERVATION, PERMIT_BYTES, SMALL_VALUE_BYTES};
use crate::memory::Reserved;

/// Reserved memory for rows, and for the text made of them.
#[derive(Debug)]
pub struct Reservation {
    /// Of one part of the budget.
    permits: Option<OwnedSemaphorePermit>,
    /// The same bytes, of the limit of the process.
    pub(super) process_bytes: Option<Reserved>,
    pub(super) budget: MemoryBudget,
}

impl Reservation {
    /// Waits until there is memory for a page; `http.request_timeout` ends the wait.
    pub async fn reserve_page(budget: &MemoryBudget) -> Self {
        let permits = permits_for(PAGE_RESERVATION, budget.page_permits);
        tokio::select! {
            biased;
            // If the pool is smaller than a page, a larger page waits for the general part.
            Ok(permit) = Arc::clone(&budget.page_pool).acquire_many_owned(permits) => {
                Self { permits: Some(permit), process_bytes: None, budget: budget.clone() }
            }
            reservation = Self::reserve(budget, PAGE_RESERVATION) => reservation,
        }
    }

    /// The same for `bytes`, at most the whole budget.
    pub async fn reserve(budget: &MemoryBudget, bytes: usize) -> Self {
        // The semaphore is never closed.
        let permits =
            Arc::clone(&budget.general).acquire_many_owned(permits_for(bytes, budget.general_permits)).await.ok();
        let process_bytes = Some(budget.process.reserve(bytes.min(budget.general_permits * PERMIT_BYTES)).await);
        Self { permits, process_bytes, budget: budget.clone() }
    }

    /// The same for a value of `bytes`, which is read next and sent unchanged.
    pub async fn reserve_value(budget: &MemoryBudget, bytes: usize) -> Self {
        if bytes > SMALL_VALUE_BYTES {
            // The value exists twice for a moment: as received, and as sent.
            return Self::reserve(budget, 2 * bytes).await;
        }
        match Arc::clone(&budget.value_pool).try_acquire_many_owned(permits_for(bytes, usize::MAX)) {
            Ok(permit) => Self { permits: Some(permit), process_bytes: None, budget: budget.clone() },
            Err(_) => Self::reserve(budget, bytes).await,
        }
    }

    /// The same for the body of a request. Small ones do not wait behind answers.
    pub async fn reserve_body(budget: &MemoryBudget, bytes: usize) -> Self {
        if bytes > SMALL_VALUE_BYTES {
            return Self::reserve(budget, bytes).await;
        }
        // The semaphore is never closed.
        let permits = Arc::clone(&budget.body_pool).acquire_many_owned(permits_for(bytes, usize::MAX)).await.ok();
        Self { permits, process_bytes: None, budget: budget.clone() }
    }

    /// Bytes that it covers: any number when it is the whole budget.
    pub fn bytes(&self) -> usize {
        if self.held_general_permits() == self.budget.general_permits {
            usize::MAX
        } else {
            self.held_permits() * PERMIT_BYTES
        }
    }

    /// Permits of the general part; none while it holds those of another part.
    fn held_general_permits(&self) -> usize {
        let permits = self.permits.as_ref().filter(|permits| Arc::ptr_eq(permits.semaphore(), &self.budget.general));
        permits.map_or(0, OwnedSemaphorePermit::num_permits)
    }

    pub(super) fn held_permits(&self) -> usize {
        self.permits.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Extends it to `bytes` in all, if they are free now.
    pub(super) fn try_extend(&mut self, bytes: usize) -> bool {
        let had = self.held_general_permits();
        let more =
            permits_for(bytes, self.budget.general_permits).saturating_sub(u32::try_from(had).unwrap_or(u32::MAX));
        let Ok(taken) = Arc::clone(&self.budget.general).try_acquire_many_owned(more) else { return false };
        let process_bytes = self.process_bytes.as_ref().map_or(0, Reserved::bytes);
        if process_bytes < bytes {
            let Some(more) = self.budget.process.try_reserve(bytes - process_bytes) else { return false };
            match &mut self.process_bytes {
                Some(process_bytes) => process_bytes.merge(more),
                process_bytes => *process_bytes = Some(more),
            }
        }
        match &mut self.permits {
            Some(permits) if had > 0 => permits.merge(taken),
            permits => *permits = Some(taken),
        }
        true
    }

    /// Waits for a reservation of `bytes`. The old one is released first, so that no two wait for each other.
    pub(super) async fn reacquire(&mut self, bytes: usize) {
        (self.permits, self.process_bytes) = (None, None);
        *self = Self::reserve(&self.budget, bytes).await;
    }

    /// Releases all but `bytes`.
    pub(super) fn release_excess(&mut self, bytes: usize) {
        if let Some(permits) = &mut self.permits {
            drop(permits.split(permits.num_permits().saturating_sub(bytes / PERMIT_BYTES + 1)));
        }
        if let Some(process_bytes) = &mut self.process_bytes {
            process_bytes.shrink(bytes);
        }
    }
}

/// Permits for `bytes`, at most `most`.
fn permits_for(bytes: usize, most: usize) -> u32 {
    u32::try_from((bytes / PERMIT_BYTES + 1).min(most)).unwrap_or(u32::MAX)
}
