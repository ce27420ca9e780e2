//! Memory for answers made of stored rows: one budget of bytes, which pages, values and exports all draw from until their clients
//! have taken what was made.
//!
//! How large a row is shows only when it is there, and one may be as large as a message. So only a few read at a time
//! ([`READS`]), and whoever has read more than it has room for lets it go, waits for as much room as that takes, and reads again:
//! what no room was taken for is never more than those few have just read. What needs more than there is takes all of it, and is
//! alone with it.

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
    error::{Answer, ApiError},
    rows::{self, PAGE_BYTES, Paged},
};
use crate::{
    event::total_bytes,
    memory::{LARGE, MemoryLimit, Reserved, guarded},
    store::{BoxFuture, RangeQuery, Store, StoreError},
    units::ByteSize,
};

/// One permit of the budget.
const UNIT: usize = 1 << 10;
/// What a page needs while it is made: its rows, and their text.
pub const PAGE: usize = 2 * PAGE_BYTES;
/// What is handed to the connection at once: it asks for more only when most of it is written.
pub const SLICE: usize = 64 << 10;
/// A value that is there needs no more, as a rule: the history's limit. Larger ones are as large rows.
const VALUE: usize = 1 << 20;
/// How long a read waits for the memory that it may need; see [`Room::expect`].
const EXPECT_TIMEOUT: Duration = Duration::from_secs(3);
/// And no more than so many bytes of it: a small read does not wait until nothing else is there.
const EXPECT_MAX: usize = 32 << 20;
/// Who reads rows at once, not knowing how large they are.
const READS: usize = 2;

/// What all answers share.
#[derive(Clone, Debug)]
pub struct Memory {
    budget: Arc<Semaphore>,
    units: usize,
    /// The part for what needs no more than a page: it does not queue behind those who wait for more, nor behind exports, whose
    /// clients may take their time.
    pages: Arc<Semaphore>,
    page_units: usize,
    /// The part for values that are there, so that they need not wait for those who wait for the store.
    values: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    /// What the whole process may take for large values; what is drawn from the budget counts there, too.
    process: MemoryLimit,
}

impl Memory {
    /// A budget of this size, within that of the process.
    pub fn new(size: ByteSize, process: MemoryLimit) -> Self {
        let all = size.as_usize() / UNIT;
        let page_units = (PAGE / UNIT + 1).min((all - all / 8) / 2);
        let units = all - all / 8 - page_units;
        let part = |units| Arc::new(Semaphore::new(units));
        Self {
            budget: part(units),
            units,
            pages: part(page_units),
            page_units,
            values: part(all / 8),
            reads: part(READS),
            process,
        }
    }

    /// The budget of the process.
    pub fn process(&self) -> &MemoryLimit {
        &self.process
    }

    /// Waits for one's turn to read rows of which nobody knows how large they are; held until they are gone.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // Nobody closes it.
        Arc::clone(&self.reads).acquire_owned().await.ok()
    }
}

/// Marks an answer that may take much memory until its client has it.
#[derive(Clone, Copy, Debug)]
pub struct HoldsMemory;

/// Room for rows, and for the text made of them.
#[derive(Debug)]
pub struct Room {
    /// Of the budget, or of a part of it.
    held: Option<OwnedSemaphorePermit>,
    /// The same bytes of the process.
    counted: Option<Reserved>,
    memory: Memory,
}

impl Room {
    /// Waits until there is room for a page; `http.request_timeout` ends the wait.
    pub async fn of(memory: &Memory) -> Self {
        tokio::select! {
            biased;
            // Where that is less than a page takes, more of it waits for the rest as other large ones do.
            Ok(permit) = Arc::clone(&memory.pages).acquire_many_owned(units(PAGE, memory.page_units)) => {
                Self { held: Some(permit), counted: None, memory: memory.clone() }
            }
            room = Self::for_bytes(memory, PAGE) => room,
        }
    }

    /// The same for so many bytes; for all there is, where that is less.
    pub async fn for_bytes(memory: &Memory, bytes: usize) -> Self {
        // Nobody closes it.
        let held = Arc::clone(&memory.budget).acquire_many_owned(units(bytes, memory.units)).await.ok();
        let counted = Some(memory.process.reserve(bytes.min(memory.units * UNIT)).await);
        Self { held, counted, memory: memory.clone() }
    }

    /// The same for a value of so many bytes that is got next and sent as it is.
    pub async fn for_value(memory: &Memory, bytes: usize) -> Self {
        if bytes > VALUE {
            // It is there twice for a moment: as it came, and as it is sent.
            return Self::for_bytes(memory, 2 * bytes).await;
        }
        match Arc::clone(&memory.values).try_acquire_many_owned(units(bytes, usize::MAX)) {
            Ok(permit) => Self { held: Some(permit), counted: None, memory: memory.clone() },
            Err(_) => Self::for_bytes(memory, bytes).await,
        }
    }

    /// How much may be kept: everything, when there is no more room to be had.
    pub fn bytes(&self) -> usize {
        if self.of_budget() == self.memory.units { usize::MAX } else { self.units() * UNIT }
    }

    /// What it has of the budget itself, in units: nothing, while it has room in a part of it.
    fn of_budget(&self) -> usize {
        let held = self.held.as_ref().filter(|held| Arc::ptr_eq(held.semaphore(), &self.memory.budget));
        held.map_or(0, OwnedSemaphorePermit::num_permits)
    }

    fn units(&self) -> usize {
        self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
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
        self.keep(|| Box::pin(rows::page::<T>(store, query.clone())), |(rows, _)| total_bytes(rows)).await
    }

    /// Rows as they are read; see [`keep_rows`](Self::keep_rows).
    ///
    /// # Errors
    /// As the store fails.
    pub async fn rows<T: Paged>(&mut self, store: &dyn Store, query: &RangeQuery) -> Result<Vec<T>, StoreError> {
        self.keep_rows(|| T::read(store, query), |rows| total_bytes(rows)).await
    }

    /// What is read, once there is room for what it weighs, and for its text.
    ///
    /// # Errors
    /// As the store fails.
    pub async fn keep<'r, V>(
        &mut self,
        read: impl Fn() -> BoxFuture<'r, Result<V, StoreError>>,
        weigh: impl Fn(&V) -> usize,
    ) -> Result<V, StoreError> {
        self.read_within(read, |read| with_text(weigh(read)), with_text(self.memory.process.longest())).await
    }

    /// The same for rows whose text is written while it is sent; keeps no more room than they need.
    ///
    /// # Errors
    /// As the store fails.
    pub async fn keep_rows<'r, V>(
        &mut self,
        read: impl Fn() -> BoxFuture<'r, Result<V, StoreError>>,
        weigh: impl Fn(&V) -> usize,
    ) -> Result<V, StoreError> {
        let rows = self.read_within(read, &weigh, self.memory.process.longest()).await?;
        self.shrink(weigh(&rows));
        Ok(rows)
    }

    async fn read_within<'r, V>(
        &mut self,
        read: impl Fn() -> BoxFuture<'r, Result<V, StoreError>>,
        needed: impl Fn(&V) -> usize,
        expected: usize,
    ) -> Result<V, StoreError> {
        loop {
            self.expect(expected.min(EXPECT_MAX)).await;
            let turn = self.memory.turn().await;
            let rows = read().await?;
            let bytes = needed(&rows);
            if bytes <= self.bytes() || self.grow(bytes) {
                return Ok(rows);
            }
            // Not only this one: what is read next is likely to be as large.
            self.memory.process.note(bytes.saturating_sub(PAGE_BYTES));
            drop((rows, turn));
            self.wait(bytes).await;
        }
    }

    /// What is read next may take so many bytes: counts them before, if others let go of them soon. Most of what is read is small, so
    /// it is read in any case.
    async fn expect(&mut self, bytes: usize) {
        if bytes < LARGE || self.counted.as_ref().is_some_and(|counted| counted.bytes() >= bytes) {
            return;
        }
        // Others wait for what this one has, so it has nothing while it waits.
        self.counted = None;
        self.counted = timeout(EXPECT_TIMEOUT, self.memory.process.reserve(bytes)).await.ok();
    }

    /// Takes more, for so many bytes in all, if that is there at once.
    fn grow(&mut self, bytes: usize) -> bool {
        let had = self.of_budget();
        let more = units(bytes, self.memory.units).saturating_sub(u32::try_from(had).unwrap_or(u32::MAX));
        let Ok(taken) = Arc::clone(&self.memory.budget).try_acquire_many_owned(more) else { return false };
        let counted = self.counted.as_ref().map_or(0, Reserved::bytes);
        if counted < bytes {
            let Some(more) = self.memory.process.try_reserve(bytes - counted) else { return false };
            match &mut self.counted {
                Some(counted) => counted.merge(more),
                counted => *counted = Some(more),
            }
        }
        match &mut self.held {
            Some(held) if had > 0 => held.merge(taken),
            held => *held = Some(taken),
        }
        true
    }

    /// Waits for room for so many bytes. Meanwhile what it had is others': nobody waits with room for more of it.
    async fn wait(&mut self, bytes: usize) {
        (self.held, self.counted) = (None, None);
        *self = Self::for_bytes(&self.memory, bytes).await;
    }

    /// Keeps room for no more than so many bytes.
    fn shrink(&mut self, bytes: usize) {
        if let Some(held) = &mut self.held {
            drop(held.split(held.num_permits().saturating_sub(bytes / UNIT + 1)));
        }
        if let Some(counted) = &mut self.counted {
            counted.shrink(bytes);
        }
    }

    /// 200 with JSON; keeps as much of the room as that takes, until it is sent.
    pub fn json(self, value: &impl Serialize) -> Answer {
        let text = serde_json::to_vec(value).map_err(|error| ApiError::unavailable(error.to_string()))?;
        Ok(self.text(text))
    }

    /// The same with JSON that is there.
    pub fn text(self, text: Vec<u8>) -> Response {
        let is_large = text.len() >= SLICE;
        let mut response: Response = Body::new(Held { rest: self.hold(text) }).into_response();
        if is_large {
            response.extensions_mut().insert(HoldsMemory);
        }
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    /// This text, which keeps as much of the room as it takes until the last of it is dropped.
    pub fn hold(mut self, text: Vec<u8>) -> Bytes {
        // There may be more of it than was thought; then it is there, and counts if it can. And the part for pages is for the
        // next one, however long this one's client takes.
        self.grow(text.len());
        self.shrink(text.len());
        guarded(text, self)
    }
}

/// Permits for so many bytes.
fn units(bytes: usize, most: usize) -> u32 {
    u32::try_from((bytes / UNIT + 1).min(most)).unwrap_or(u32::MAX)
}

/// What rows of so many bytes need while text is made of them: as much again.
fn with_text(bytes: usize) -> usize {
    2 * bytes
}

struct Held {
    rest: Bytes,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.rest.len().min(SLICE);
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
    async fn kept(mut room: Room, bytes: usize) -> Room {
        room.keep(|| Box::pin(async { Ok(()) }), |()| bytes).await.unwrap();
        room
    }

    fn free(memory: &Memory) -> [usize; 4] {
        [&memory.budget, &memory.pages, &memory.values, &memory.reads].map(|part| part.available_permits())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_counted_until_it_is_sent() {
        let memory = Memory::new(ByteSize::mib(72), MemoryLimit::default());
        let (all, patience) = (free(&memory), Duration::from_secs(1));
        let large = kept(Room::of(&memory).await, 20 << 20).await;
        assert_eq!(large.units(), (40 << 10) + 1, "its text, too");
        let second = Room::for_bytes(&memory, 2 << 20).await;
        assert!(timeout(patience, kept(second, 20 << 20)).await.is_err(), "no room for another");
        let text = large.hold(vec![0; 24 << 20]);
        assert_eq!(all[0] - free(&memory)[0], (24 << 10) + 1, "no more than the text takes");
        let slice = text.slice(..9);
        drop(text);
        assert_ne!(free(&memory), all, "a part of it is still to be sent");
        drop(slice);
        assert_eq!(free(&memory), all);
        // More than there is: all of it.
        let room = kept(Room::of(&memory).await, 1 << 30).await;
        assert_eq!((free(&memory)[0], room.bytes()), (0, usize::MAX));
        drop(room.hold(vec![0; 80 << 20]));
        assert_eq!(free(&memory), all);
    }

    #[tokio::test(start_paused = true)]
    async fn exports_leave_room_for_a_page_and_values_need_none_of_it() {
        for size in [16, 64] {
            let memory = Memory::new(ByteSize::mib(size), MemoryLimit::default());
            let all = free(&memory);
            let patience = Duration::from_secs(1);
            let export = kept(Room::for_bytes(&memory, 1 << 20).await, 1 << 30).await;
            assert_eq!(free(&memory)[0], 0, "an export may have all of the budget");
            let other = timeout(patience, Room::for_bytes(&memory, 1)).await;
            assert!(other.is_err(), "another waits");
            let page = timeout(patience, Room::of(&memory)).await.unwrap();
            let page = timeout(EXPECT_TIMEOUT * 2, kept(page, PAGE / 8)).await.unwrap();
            let value = timeout(Duration::from_secs(1), Room::for_value(&memory, VALUE)).await.unwrap();
            assert_eq!(value.bytes(), VALUE + UNIT);
            drop((export, page, value));
            assert_eq!(free(&memory), all, "{size} MiB");
        }
    }
}
