//! Reads within a reservation.

use std::time::Duration;

use tokio::time::timeout;

use super::{budget::PAGE_BYTES, reservation::Reservation};
use crate::{
    memory::LARGE_VALUE,
    store::{BoxFuture, StoreError},
};

/// Rows, and the text made of them, which is about as long.
const WITH_TEXT: usize = 2;
/// How long a read waits for the memory that it may need; see [`Reservation::expect`].
pub const EXPECT_TIMEOUT: Duration = Duration::from_secs(3);
/// And no more than so many bytes of it: a small read does not wait until nothing else is there.
const EXPECT_MAX: usize = 32 << 20;

impl Reservation {
    /// What is read, once there is memory for what it weighs, and for its text.
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

    /// What is read, once there is memory for `copies` times its size.
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
            // Not only this one: what is read next is likely to be as large.
            self.budget.process.note_row(weigh(&rows).saturating_sub(PAGE_BYTES));
            drop((rows, read_permit));
            self.reacquire(bytes).await;
        }
    }

    /// What is read next may take so many bytes: reserves them before, if they become free soon. Most of what is read is small, so
    /// it is read in any case.
    async fn expect(&mut self, bytes: usize) {
        if bytes < LARGE_VALUE || self.process_bytes.as_ref().is_some_and(|reserved| reserved.bytes() >= bytes) {
            return;
        }
        // Others wait for what this one has, so it has nothing while it waits.
        self.process_bytes = None;
        self.process_bytes = timeout(EXPECT_TIMEOUT, self.budget.process.reserve(bytes)).await.ok();
    }
}
