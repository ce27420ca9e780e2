//! What the writer needs of its neighbours, as small traits; the spool and the dead letters implement them beside this file.
//!
//! All are generic parameters of [`run`](super::run): one task owns them, so calls are direct and tests bring their own.

use std::{
    fmt::{self, Write as _},
    future::Future,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    event::{Row, RunUpdate},
    frame::RejectedMessage,
    store::BoxError,
    units::Micros,
};

/// Length of the text of a refused row; the message itself is kept whole.
const ROW_TEXT_MAX: usize = 64 << 10;

/// Where records come from, in order.
pub trait RecordSource: Send {
    /// Some records in a row.
    type Chunk: RecordChunk;

    /// The records after those of the last chunk, as soon as there are any. Safe to drop and call again.
    fn next(&mut self) -> impl Future<Output = Self::Chunk> + Send;

    /// The next chunk begins at `offset`, or at the first record after it. What was handed out before is handed out again.
    fn rewind(&mut self, offset: u64);

    /// A command waits for what there is: no pause before the next chunk.
    fn skip_pause(&mut self) {}
}

/// A few records, held as bytes; at most about a megabyte, or one record.
pub trait RecordChunk: Send + Sync {
    /// How long its records may have waited to be read, unless there is a backlog.
    fn waited(&self) -> Duration {
        Duration::ZERO
    }

    /// When the source is polled again, if this chunk was all that there is; `None`: more can be read at once.
    fn next_poll(&self) -> Option<Instant> {
        Some(Instant::now())
    }

    /// What each record means. Lazy: a record is decoded when the writer has room for it.
    fn records(&self) -> impl Iterator<Item = DecodedRecord> + Send;
}

/// One record, decoded.
#[derive(Clone, Debug)]
pub struct DecodedRecord {
    /// Its position in the log; grows from record to record, with holes where a record was unreadable.
    pub offset: u64,
    /// When it was received.
    pub received_at: Micros,
    /// What it means.
    pub content: Content,
}

/// What a record means for the store.
#[derive(Clone, Debug)]
pub enum Content {
    /// Immutable rows, and what the event says about its run.
    Rows {
        /// In the order in which they shall be written.
        rows: Vec<Row>,
        /// The run, and what to merge into its row.
        run_update: Option<(Uuid, RunUpdate)>,
    },
    /// One dead letter: a message that intake rejected, or that cannot be decoded any more.
    Rejected {
        /// Where it was published.
        channel: String,
        /// Why.
        rejected: RejectedMessage,
        /// The bytes that are kept.
        preserved: Bytes,
        /// The run that was open on the channel; nil: none.
        run_id: Uuid,
    },
    /// Nothing to store.
    Nothing,
}

/// Where confirmed positions go.
pub trait Commit: Send {
    /// Every record below `next` is stored, or set aside.
    fn commit(&self, next: u64);

    /// Takes back every commit that is not yet final (because it lingers), and says where reading begins again.
    fn rollback_to_checkpoint(&self) -> u64;
}

/// Where what cannot be stored is kept.
pub trait DeadLetterSink: Send + Sync + 'static {
    /// Stores the entries. They are durable when it returns `Ok`; putting one again, by its offset and row, changes nothing.
    fn put(&self, entries: &[DeadLetterEntry]) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// What cannot be stored, and why.
#[derive(Clone, Debug)]
pub struct DeadLetterEntry {
    /// The record it comes from.
    pub offset: u64,
    /// Which part of the record: the number of a row, from 0, or [`WHOLE_RECORD`](Self::WHOLE_RECORD), or
    /// [`RUN_ROW`](Self::RUN_ROW).
    pub part: u32,
    /// When the record was received.
    pub received_at: Micros,
    /// What it is.
    pub body: DeadLetterBody,
}

/// The content of a [`DeadLetterEntry`].
#[derive(Clone, Debug)]
pub enum DeadLetterBody {
    /// A rejected message.
    Message {
        /// Where it was published.
        channel: String,
        /// Why.
        rejected: RejectedMessage,
        /// The bytes that are kept.
        bytes: Bytes,
        /// The run that was open on the channel; nil: none.
        run_id: Uuid,
    },
    /// A row (or columns of a run's row) that the store refuses; the message itself is still in the spool at the offset.
    Refused {
        /// What the store said.
        error: String,
        /// The row as text, cut.
        row: String,
        /// What the row takes in memory.
        size: usize,
    },
}

impl DeadLetterBody {
    /// A refused value as text, cut: each refused row of a message would repeat a long one.
    pub fn refused(error: String, row: &impl fmt::Debug, size: usize) -> Self {
        let mut text_start = TruncatedText(String::new());
        // Ends early, where the row is longer.
        let _ = write!(text_start, "{row:?}");
        Self::Refused { error, row: text_start.0, size }
    }
}

/// Takes the beginning of a text.
struct TruncatedText(String);

impl fmt::Write for TruncatedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = ROW_TEXT_MAX - self.0.len();
        self.0.push_str(&text[..text.floor_char_boundary(left)]);
        if text.len() > left { Err(fmt::Error) } else { Ok(()) }
    }
}

impl DeadLetterEntry {
    /// The part that stands for the whole record.
    pub const WHOLE_RECORD: u32 = u32::MAX;
    /// The part that stands for what the record says about its run.
    pub const RUN_ROW: u32 = u32::MAX - 1;

    /// Roughly how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.body {
                DeadLetterBody::Message { channel, bytes, .. } => channel.len() + bytes.len(),
                DeadLetterBody::Refused { error, row, .. } => error.len() + row.len(),
            }
    }
}
