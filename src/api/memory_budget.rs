//! Memory for answers made of stored rows: one budget of bytes, which pages, values and exports all draw from until their clients
//! have taken what was made.
//!
//! How large a row is shows only when it is there, and one may be as large as a message. So only a few read at a time
//! ([`MAX_CONCURRENT_READS`]). A read that exceeds its reservation is discarded, a larger reservation is awaited, and the read is
//! repeated, so only those few reads exceed their reservations at any time. A need above the budget takes the whole budget.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use hyper::body::{Frame, SizeHint};
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    error::{ApiError, ApiResult},
    rows::{self, PAGE_BYTES, Paged},
};
use crate::{
    event::total_bytes,
    memory::{LARGE_VALUE, MemoryLimit, Reserved, guarded},
    store::{BoxFuture, RangeQuery, Store, StoreError},
    units::ByteSize,
};

/// One permit of the budget.
const PERMIT_BYTES: usize = 1 << 10;
/// What a page needs while it is made: its rows, and their text.
pub const PAGE_RESERVATION: usize = 2 * PAGE_BYTES;
/// What is handed to the connection at once: it asks for more only when most of it is written.
pub const SLICE_BYTES: usize = 64 << 10;
/// A value that is there needs no more, as a rule: the history's limit. Larger ones are as large rows.
const SMALL_VALUE_BYTES: usize = 1 << 20;
/// Rows, and the text made of them, which is about as long.
const WITH_TEXT: usize = 2;
/// How long a read waits for the memory that it may need; see [`Reservation::expect`].
const EXPECT_TIMEOUT: Duration = Duration::from_secs(3);
/// And no more than so many bytes of it: a small read does not wait until nothing else is there.
const EXPECT_MAX: usize = 32 << 20;
/// Reads of rows of unknown size that may run at once.
const MAX_CONCURRENT_READS: usize = 2;

/// The budget that all answers share.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    general: Arc<Semaphore>,
    general_permits: usize,
    /// The part for what needs no more than a page: it does not queue behind those who wait for more, nor behind exports, whose
    /// clients may take their time.
    page_pool: Arc<Semaphore>,
    page_permits: usize,
    /// The part for values that are there, so that they need not wait for those who wait for the store.
    value_pool: Arc<Semaphore>,
    read_slots: Arc<Semaphore>,
    /// What the whole process may take for large values; what is drawn from the budget counts there, too.
    process: MemoryLimit,
}

impl MemoryBudget {
    /// A budget of this size, within that of the process.
    pub fn new(size: ByteSize, process: MemoryLimit) -> Self {
        let all = size.as_usize() / PERMIT_BYTES;
        let page_permits = (PAGE_RESERVATION / PERMIT_BYTES + 1).min((all - all / 8) / 2);
        let general_permits = all - all / 8 - page_permits;
        let part = |units| Arc::new(Semaphore::new(units));
        Self {
            general: part(general_permits),
            general_permits,
            page_pool: part(page_permits),
            page_permits,
            value_pool: part(all / 8),
            read_slots: part(MAX_CONCURRENT_READS),
            process,
        }
    }

    /// The budget of the process.
    pub fn process(&self) -> &MemoryLimit {
        &self.process
    }

    /// Waits for a permit to read rows of unknown size; held until they are dropped.
    pub async fn read_permit(&self) -> Option<OwnedSemaphorePermit> {
        // Nobody closes it.
        Arc::clone(&self.read_slots).acquire_owned().await.ok()
    }
}

/// Marks an answer that may take much memory until its client has it.
#[derive(Clone, Copy, Debug)]
pub struct HoldsMemory;

/// Reserved memory for rows, and for the text made of them.
#[derive(Debug)]
pub struct Reservation {
    /// Of the budget, or of a part of it.
    permits: Option<OwnedSemaphorePermit>,
    /// The same bytes of the process.
    process_bytes: Option<Reserved>,
    budget: MemoryBudget,
}

impl Reservation {
    /// Waits until there is memory for a page; `http.request_timeout` ends the wait.
    pub async fn reserve_page(budget: &MemoryBudget) -> Self {
        let permits = permits_for(PAGE_RESERVATION, budget.page_permits);
        tokio::select! {
            biased;
            // Where that is less than a page takes, more of it waits for the rest as other large ones do.
            Ok(permit) = Arc::clone(&budget.page_pool).acquire_many_owned(permits) => {
                Self { permits: Some(permit), process_bytes: None, budget: budget.clone() }
            }
            reservation = Self::reserve(budget, PAGE_RESERVATION) => reservation,
        }
    }

    /// The same for so many bytes; for all there is, where that is less.
    pub async fn reserve(budget: &MemoryBudget, bytes: usize) -> Self {
        // Nobody closes it.
        let permits =
            Arc::clone(&budget.general).acquire_many_owned(permits_for(bytes, budget.general_permits)).await.ok();
        let process_bytes = Some(budget.process.reserve(bytes.min(budget.general_permits * PERMIT_BYTES)).await);
        Self { permits, process_bytes, budget: budget.clone() }
    }

    /// The same for a value of so many bytes that is got next and sent as it is.
    pub async fn reserve_value(budget: &MemoryBudget, bytes: usize) -> Self {
        if bytes > SMALL_VALUE_BYTES {
            // It is there twice for a moment: as it came, and as it is sent.
            return Self::reserve(budget, 2 * bytes).await;
        }
        match Arc::clone(&budget.value_pool).try_acquire_many_owned(permits_for(bytes, usize::MAX)) {
            Ok(permit) => Self { permits: Some(permit), process_bytes: None, budget: budget.clone() },
            Err(_) => Self::reserve(budget, bytes).await,
        }
    }

    /// How much may be kept: everything, when it has the whole budget.
    pub fn bytes(&self) -> usize {
        if self.held_general_permits() == self.budget.general_permits {
            usize::MAX
        } else {
            self.held_permits() * PERMIT_BYTES
        }
    }

    /// What it has of the budget itself, in permits: nothing, while it has memory in a part of it.
    fn held_general_permits(&self) -> usize {
        let permits = self.permits.as_ref().filter(|permits| Arc::ptr_eq(permits.semaphore(), &self.budget.general));
        permits.map_or(0, OwnedSemaphorePermit::num_permits)
    }

    fn held_permits(&self) -> usize {
        self.permits.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// A page of rows, and the cursor of the next.
    ///
    /// # Errors
    /// As the store fails.
    pub async fn page<T: Paged>(
        &mut self,
        store: &dyn Store,
        query: &RangeQuery,
    ) -> Result<(Vec<T>, Option<String>), StoreError> {
        self.read_within(|| Box::pin(rows::page::<T>(store, query.clone())), |(rows, _)| total_bytes(rows)).await
    }

    /// Rows as they are read; see [`read_rows_within`](Self::read_rows_within).
    ///
    /// # Errors
    /// As the store fails.
    pub async fn rows<T: Paged>(&mut self, store: &dyn Store, query: &RangeQuery) -> Result<Vec<T>, StoreError> {
        self.read_rows_within(|| T::read(store, query), |rows| total_bytes(rows)).await
    }

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

    /// Takes more, for so many bytes in all, if that is there at once.
    fn try_extend(&mut self, bytes: usize) -> bool {
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

    /// Waits for a reservation of so many bytes. What it had is released first, so that no two wait for each other.
    async fn reacquire(&mut self, bytes: usize) {
        (self.permits, self.process_bytes) = (None, None);
        *self = Self::reserve(&self.budget, bytes).await;
    }

    /// Keeps memory for no more than so many bytes.
    fn release_excess(&mut self, bytes: usize) {
        if let Some(permits) = &mut self.permits {
            drop(permits.split(permits.num_permits().saturating_sub(bytes / PERMIT_BYTES + 1)));
        }
        if let Some(process_bytes) = &mut self.process_bytes {
            process_bytes.shrink(bytes);
        }
    }

    /// 200 with JSON; keeps as much of the memory as that takes, until it is sent.
    pub fn json(self, value: &impl Serialize) -> ApiResult {
        let text = serde_json::to_vec(value).map_err(|error| ApiError::unavailable(error.to_string()))?;
        Ok(self.text(text))
    }

    /// The same with JSON that is there.
    pub fn text(self, text: Vec<u8>) -> Response {
        let is_large = text.len() >= SLICE_BYTES;
        json_response(Body::new(SlicedBody { rest: self.attach(text) }), is_large)
    }

    /// This text, which keeps as much of the memory as it takes until the last of it is dropped.
    pub fn attach(mut self, text: Vec<u8>) -> Bytes {
        // There may be more of it than was thought; then it is there, and counts if it can. And the part for pages is for the
        // next one, however long this one's client takes.
        self.try_extend(text.len());
        self.release_excess(text.len());
        guarded(text, self)
    }
}

/// 200 with this JSON, which may hold much memory until the client has it if it `is_large`.
pub fn json_response(body: Body, is_large: bool) -> Response {
    let mut response = ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response();
    if is_large {
        response.extensions_mut().insert(HoldsMemory);
    }
    response
}

/// Permits for so many bytes.
fn permits_for(bytes: usize, most: usize) -> u32 {
    u32::try_from((bytes / PERMIT_BYTES + 1).min(most)).unwrap_or(u32::MAX)
}

struct SlicedBody {
    rest: Bytes,
}

impl HttpBody for SlicedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.rest.len().min(SLICE_BYTES);
        Poll::Ready((next > 0).then(|| Ok(Frame::data(self.rest.split_to(next)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store's answer of so many bytes, of which nothing else matters.
    async fn read_bytes(mut reservation: Reservation, bytes: usize) -> Reservation {
        reservation.read_within(|| Box::pin(async { Ok(()) }), |()| bytes).await.unwrap();
        reservation
    }

    fn free(budget: &MemoryBudget) -> [usize; 4] {
        [&budget.general, &budget.page_pool, &budget.value_pool, &budget.read_slots]
            .map(|part| part.available_permits())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_counted_until_it_is_sent() {
        let budget = MemoryBudget::new(ByteSize::mib(72), MemoryLimit::default());
        let (all, max_wait) = (free(&budget), Duration::from_secs(1));
        let large = read_bytes(Reservation::reserve_page(&budget).await, 20 << 20).await;
        assert_eq!(large.held_permits(), (40 << 10) + 1, "its text, too");
        let second = Reservation::reserve(&budget, 2 << 20).await;
        assert!(timeout(max_wait, read_bytes(second, 20 << 20)).await.is_err(), "no memory for another");
        let text = large.attach(vec![0; 24 << 20]);
        assert_eq!(all[0] - free(&budget)[0], (24 << 10) + 1, "no more than the text takes");
        let slice = text.slice(..9);
        drop(text);
        assert_ne!(free(&budget), all, "a part of it is still to be sent");
        drop(slice);
        assert_eq!(free(&budget), all);
        // More than there is: all of it.
        let reservation = read_bytes(Reservation::reserve_page(&budget).await, 1 << 30).await;
        assert_eq!((free(&budget)[0], reservation.bytes()), (0, usize::MAX));
        drop(reservation.attach(vec![0; 80 << 20]));
        assert_eq!(free(&budget), all);
    }

    #[tokio::test(start_paused = true)]
    async fn exports_leave_room_for_a_page_and_values_need_none_of_it() {
        for size in [16, 64] {
            let budget = MemoryBudget::new(ByteSize::mib(size), MemoryLimit::default());
            let all = free(&budget);
            let max_wait = Duration::from_secs(1);
            let export = read_bytes(Reservation::reserve(&budget, 1 << 20).await, 1 << 30).await;
            assert_eq!(free(&budget)[0], 0, "an export may have all of the budget");
            let other = timeout(max_wait, Reservation::reserve(&budget, 1)).await;
            assert!(other.is_err(), "another waits");
            let page = timeout(max_wait, Reservation::reserve_page(&budget)).await.unwrap();
            let page = timeout(EXPECT_TIMEOUT * 2, read_bytes(page, PAGE_RESERVATION / 8)).await.unwrap();
            let value =
                timeout(Duration::from_secs(1), Reservation::reserve_value(&budget, SMALL_VALUE_BYTES)).await.unwrap();
            assert_eq!(value.bytes(), SMALL_VALUE_BYTES + PERMIT_BYTES);
            drop((export, page, value));
            assert_eq!(free(&budget), all, "{size} MiB");
        }
    }
}
