//! Memory for answers made of large rows: one budget for all of them, held until the client has taken its answer.
//!
//! How large a row is shows only when it is there, and one may be as large as a message. So whoever has read more than its share
//! needs the turn ([`Turns`]) to keep it: while that is somebody else's, what was read is let go, and read again. However many
//! ask at once, one of them holds such rows and what is made of them.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use hyper::body::{Frame, SizeHint};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Sight,
    error::{Answer, ApiError},
    rows::{self, PAGE_BYTES, Paged},
};
use crate::{store::RangeQuery, units::ByteSize};

/// One permit of the budget.
const UNIT: usize = 1 << 10;
/// What a page needs while it is made: its rows, and their text.
pub const PAGE: usize = 2 * PAGE_BYTES;
/// What is handed to the connection at once: it asks for more only when most of it is written.
const SLICE: usize = 64 << 10;
/// A value that is there needs no more, as a rule: the history's limit. Larger ones are as large rows.
const VALUE: usize = 1 << 20;

/// What all answers share.
#[derive(Clone, Debug)]
pub struct Memory {
    budget: Arc<Semaphore>,
    units: usize,
    /// The part of the budget for values that are there, so that they need not wait for those who wait for the store.
    values: Arc<Semaphore>,
    pages: Turns,
    /// For exports: a client that takes its time over one holds up no pages.
    pub exports: Turns,
}

impl Memory {
    /// A budget of this size.
    pub fn new(size: ByteSize) -> Self {
        let all = size.as_usize() / UNIT;
        let (units, values) = (all - all / 8, Arc::new(Semaphore::new(all / 8)));
        let looks = Arc::new(Semaphore::new(1));
        let turns = || Turns { turn: Arc::new(Semaphore::new(1)), looks: Arc::clone(&looks) };
        Self { budget: Arc::new(Semaphore::new(units)), units, values, pages: turns(), exports: turns() }
    }
}

/// Whose turn it is to hold large rows: one at a time, in the order of asking.
#[derive(Clone, Debug)]
pub struct Turns {
    turn: Arc<Semaphore>,
    /// Of all turns together.
    looks: Arc<Semaphore>,
}

/// Held, it is one's turn.
pub type Turn = OwnedSemaphorePermit;

impl Turns {
    /// Before rows are read by somebody whose turn it is not, and held until they are kept or dropped: while somebody else
    /// holds large ones, one at a time looks how large others are.
    pub async fn look(&self) -> Option<OwnedSemaphorePermit> {
        match self.turn.available_permits() {
            0 => Arc::clone(&self.looks).acquire_owned().await.ok(),
            _ => None,
        }
    }

    /// The turn, if nobody has it.
    pub fn now(&self) -> Option<Turn> {
        Arc::clone(&self.turn).try_acquire_owned().ok()
    }

    /// Waits for the turn; `None` never comes, because nobody closes it.
    pub async fn wait(&self) -> Option<Turn> {
        Arc::clone(&self.turn).acquire_owned().await.ok()
    }
}

/// Room for one page and the answer made of it.
pub struct Room {
    permit: OwnedSemaphorePermit,
    turns: Turns,
    turn: Option<Turn>,
}

impl Room {
    /// Waits until there is room for a page; `http.request_timeout` ends the wait.
    ///
    /// # Errors
    /// When the server ends.
    pub async fn of(sight: &Sight) -> Result<Self, ApiError> {
        Self::for_bytes(sight, PAGE).await
    }

    /// The same for so many bytes; for all there is, where that is less.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub async fn for_bytes(sight: &Sight, bytes: usize) -> Result<Self, ApiError> {
        let units = u32::try_from((bytes / UNIT + 1).min(sight.memory.units)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&sight.memory.budget).acquire_many_owned(units).await;
        let permit = permit.map_err(|_| ApiError::unavailable("the daemon is stopping"))?;
        Ok(Self { permit, turns: sight.memory.pages.clone(), turn: None })
    }

    /// The same for a value of so many bytes that is got next and sent as it is; for a large one it is this one's turn.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub async fn for_value(sight: &Sight, bytes: usize) -> Result<Self, ApiError> {
        if bytes <= VALUE {
            let units = u32::try_from(bytes / UNIT + 1).unwrap_or(u32::MAX);
            if let Ok(permit) = Arc::clone(&sight.memory.values).try_acquire_many_owned(units) {
                return Ok(Self { permit, turns: sight.memory.pages.clone(), turn: None });
            }
        }
        let mut room = Self::for_bytes(sight, bytes.min(2 * VALUE)).await?;
        if bytes > room.bytes() {
            room.wait().await;
        }
        Ok(room)
    }

    /// How much may be kept: when it is this one's turn, everything.
    pub fn bytes(&self) -> usize {
        if self.turn.is_some() { usize::MAX } else { self.permit.num_permits() * UNIT }
    }

    /// A page of rows, and the cursor of the next; one of large rows when it is its turn.
    ///
    /// # Errors
    /// As the store fails.
    pub async fn page<T: Paged>(
        &mut self,
        sight: &Sight,
        query: RangeQuery,
    ) -> Result<(Vec<T>, Option<String>), ApiError> {
        loop {
            let look = if self.turn.is_none() { self.turns.look().await } else { None };
            let (rows, next) = rows::page::<T>(&*sight.store, query.clone()).await?;
            if self.may_keep(rows.iter().map(T::bytes).sum()) {
                return Ok((rows, next));
            }
            drop((rows, look));
            self.wait().await;
        }
    }

    /// Whether so many bytes may be kept until an answer is made of them. If not, they are dropped, and got again after
    /// [`wait`](Self::wait).
    pub fn may_keep(&mut self, bytes: usize) -> bool {
        // As much again for the text.
        if 2 * bytes <= self.permit.num_permits() * UNIT || self.turn.is_some() {
            return true;
        }
        self.turn = self.turns.now();
        self.turn.is_some()
    }

    /// Waits until it is this one's turn; then everything may be kept. Meanwhile the room is others'.
    ///
    /// Whoever waits for room with the turn is not waited for by those who have room: they wait for the turn without.
    pub async fn wait(&mut self) {
        let (units, budget) = (self.permit.num_permits(), Arc::clone(self.permit.semaphore()));
        drop(self.permit.split(units));
        self.turn = self.turns.wait().await;
        // Nobody closes it; and it is no more than there was.
        if let Ok(permit) = budget.acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX)).await {
            self.permit = permit;
        }
    }

    /// 200 with JSON; keeps as much of the room as that takes, until it is sent.
    pub fn json(self, value: &impl Serialize) -> Answer {
        let text = serde_json::to_vec(value).map_err(|error| ApiError::unavailable(error.to_string()))?;
        Ok(self.text(text))
    }

    /// The same with JSON that is there.
    pub fn text(mut self, text: Vec<u8>) -> Response {
        // A client that takes its time has the turn only for what does not fit without.
        if text.len() <= self.permit.num_permits() * UNIT {
            self.turn = None;
        }
        drop(self.permit.split(self.permit.num_permits().saturating_sub(text.len() / UNIT + 1)));
        let body = Body::new(Held { rest: text.into(), _room: self });
        let mut response: Response = body.into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

struct Held {
    rest: Bytes,
    _room: Room,
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
