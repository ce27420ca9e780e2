//! Reads within a reservation.

use std::time::Duration;

use tokio::time::timeout;

use super::{budget::PAGE_BYTES, reservation::Reservation};
use crate::{
    memory::LARGE_VALUE,
    store::{BoxFuture, StoreError},
};

/// Copies in memory: the rows, and their text, which is about as long.
const WITH_TEXT: usize = 2;
/// How long a read waits for the memory that it may need; see [`Reservation::expect`].
pub const EXPECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum that a read waits for in advance, since most reads are small.
const EXPECT_MAX: usize = 32 << 20;

impl Reservation {
    /// Reads within the reservation, which is extended to what was read and its text. `weigh` gives the size.
    ///
    /// # Errors
    /// As the store fails.
    pub async fn read_within<'r, V>(
        &mut self,
        read: impl Fn() -> BoxFuture<'r, Result<V, StoreError>>,
        weigh: impl Fn(&V) -> usize,
    ) -> Result<V, StoreError> {
        self.read_counted(read, weigh, WITH_TEXT).await
    }

    /// The same for rows whose text is written while it is sent; keeps no more memory than they need.
    ///
    /// # Errors
    /// As the store fails.
    pub async fn read_rows_within<'r, V>(
        &mut self,
        read: impl Fn() -> BoxFuture<'r, Result<V, StoreError>>,
        weigh: impl Fn(&V) -> usize,
    ) -> Result<V, StoreError> {
        let rows = self.read_counted(read, &weigh, 1).await?;
        self.release_excess(weigh(&rows));
        Ok(rows)
    }

    /// Reads, with memory for `copies` times the size.
    async fn read_counted<'r, V>(
        &mut self,
        read: impl Fn() -> BoxFuture<'r, Result<V, StoreError>>,
        weigh: impl Fn(&V) -> usize,
        copies: usize,
    ) -> Result<V, StoreError> {
        loop {
            self.expect((copies * self.budget.process.max_row()).min(EXPECT_MAX)).await;
            let read_permit = self.budget.read_permit().await;
            let rows = read().await?;
            let bytes = copies * weigh(&rows);
            if bytes <= self.bytes() || self.try_extend(bytes) {
                return Ok(rows);
            }
            // The next read is likely to be as large.
            self.budget.process.note_row(weigh(&rows).saturating_sub(PAGE_BYTES));
            drop((rows, read_permit));
            self.reacquire(bytes).await;
        }
    }

    /// Reserves what the next read may need, if it becomes free soon. Most reads need less, so they run in any case.
    async fn expect(&mut self, bytes: usize) {
        if bytes < LARGE_VALUE || self.process_bytes.as_ref().is_some_and(|reserved| reserved.bytes() >= bytes) {
            return;
        }
        // Holds nothing while it waits, so that no two reads wait for each other.
        self.process_bytes = None;
        self.process_bytes = timeout(EXPECT_TIMEOUT, self.budget.process.reserve(bytes)).await.ok();
    }
}
