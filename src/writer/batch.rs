//! Rows gathered by table and partition until a batch is due: by rows, by bytes, or by age.
//!
//! Pure: the caller brings the time.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::frontier::RecordToken;
use crate::{
    event::{Partition, Row, Table},
    store::Batch,
};

/// Partitions that may be open at once; one more closes the oldest.
const OPEN_BATCHES_MAX: usize = 4_096;

/// Which record a row comes from, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowOrigin {
    /// The record.
    pub token: RecordToken,
    /// The row of the record.
    pub row: u32,
}

/// A batch on its way to the store.
#[derive(Debug)]
pub struct PendingBatch {
    /// The rows.
    pub batch: Batch,
    /// Where each row comes from.
    pub origins: Vec<RowOrigin>,
    /// What the rows take in memory.
    pub bytes: usize,
    /// How much of a full batch it is, in parts of [`FULL`]; at least one.
    pub parts: usize,
}

/// Parts of a full batch. With many runs nearly every row is a batch of its own: if only as many of these as of full ones were written
/// at once, every 16 rows would cost a transaction.
pub const FULL: usize = 8;

/// What a row takes in memory beside its size on the wire.
const ROW_OVERHEAD: usize = size_of::<Row>() + size_of::<RowOrigin>();

/// What a row takes in memory.
pub fn row_bytes(row: &Row) -> usize {
    row.bytes() + ROW_OVERHEAD
}

/// Batches that are due, in the order in which they are written.
#[derive(Debug, Default)]
pub struct ReadyBatches {
    queue: VecDeque<PendingBatch>,
    parts: usize,
}

impl ReadyBatches {
    /// The sum of their [parts](PendingBatch::parts).
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether the first whose table is not excluded has at most so many parts.
    pub fn next_fits(&self, excluded: &[Table], parts_max: usize) -> bool {
        self.next(excluded, parts_max).is_some()
    }

    /// Takes it, if it does: those behind it never overtake it.
    pub fn take(&mut self, excluded: &[Table], parts_max: usize) -> Option<PendingBatch> {
        let batch = self.queue.remove(self.next(excluded, parts_max)?)?;
        self.parts -= batch.parts;
        Some(batch)
    }

    fn next(&self, excluded: &[Table], parts_max: usize) -> Option<usize> {
        let index = self.queue.iter().position(|next| !excluded.contains(&next.batch.table))?;
        (self.queue[index].parts <= parts_max).then_some(index)
    }

    /// To be written again, before the rest.
    pub fn put_back(&mut self, batch: PendingBatch) {
        self.parts += batch.parts;
        self.queue.push_front(batch);
    }

    fn push(&mut self, batch: PendingBatch) {
        self.parts += batch.parts;
        self.queue.push_back(batch);
    }
}

/// The batches being gathered.
#[derive(Debug)]
pub struct Batches {
    rows_max: usize,
    bytes_max: usize,
    linger: Duration,
    open: HashMap<BatchKey, OpenBatch>,
    /// When each open batch is due by age, oldest first. Batches closed by size stay in it, recognised by their number.
    due: VecDeque<Due>,
    /// How many batches were opened.
    opened: u64,
}

/// What all rows of a batch share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct BatchKey {
    table: Table,
    partition: Partition,
}

impl BatchKey {
    fn of(row: &Row) -> Self {
        let (table, partition) = row.destination();
        Self { table, partition }
    }
}

#[derive(Debug)]
struct OpenBatch {
    number: u64,
    pending: PendingBatch,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    key: BatchKey,
    number: u64,
}

impl Batches {
    /// Empty. `bytes_max` bounds the sum of [`Row::bytes`], which is the size on the wire.
    pub fn new(rows_max: usize, bytes_max: usize, linger: Duration) -> Self {
        let (rows_max, open, due) = (rows_max.max(1), HashMap::new(), VecDeque::new());
        Self { rows_max, bytes_max, linger, open, due, opened: 0 }
    }

    /// Adds a row that has waited since then; what becomes due by size goes to `ready`.
    pub fn push(&mut self, row: Row, bytes: usize, origin: RowOrigin, since: Instant, ready: &mut ReadyBatches) {
        let (key, rows_max, bytes_max) = (BatchKey::of(&row), self.rows_max, self.bytes_max);
        // A huge row travels alone rather than dragging its neighbours beyond what the store takes.
        if self.open.get(&key).is_some_and(|open| open.pending.exceeds(bytes, bytes_max)) {
            self.close(key, ready);
        }
        let pending = match self.open.get_mut(&key) {
            Some(open) => &mut open.pending,
            None => self.open(key, since, ready),
        };
        Arc::make_mut(&mut pending.batch.rows).push(row);
        pending.origins.push(origin);
        pending.bytes += bytes;
        if pending.batch.rows.len() >= rows_max || pending.exceeds(0, bytes_max) {
            self.close(key, ready);
        }
    }

    /// Moves what is due by age until then to `ready`; with `all`, everything.
    pub fn flush(&mut self, until: Instant, all: bool, ready: &mut ReadyBatches) {
        while self.due_at().is_some_and(|due| due <= until || all) {
            self.close_oldest(ready);
        }
    }

    /// When the oldest batch is due.
    pub fn due_at(&mut self) -> Option<Instant> {
        while let Some(due) = self.due.front() {
            if self.is_open(due) {
                return Some(due.at);
            }
            self.due.pop_front();
        }
        None
    }

    fn is_open(&self, due: &Due) -> bool {
        self.open.get(&due.key).is_some_and(|open| open.number == due.number)
    }

    fn open(&mut self, key: BatchKey, since: Instant, ready: &mut ReadyBatches) -> &mut PendingBatch {
        if self.open.len() >= OPEN_BATCHES_MAX && self.due_at().is_some() {
            self.close_oldest(ready);
        }
        self.opened += 1;
        self.due.push_back(Due { at: since + self.linger, key, number: self.opened });
        // Closed batches leave their entries behind; under load they pile up before the front is looked at.
        if self.due.len() > 4 * OPEN_BATCHES_MAX {
            let open = &self.open;
            self.due.retain(|due| {
                due.number == self.opened || open.get(&due.key).is_some_and(|open| open.number == due.number)
            });
        }
        let batch = Batch { table: key.table, partition: key.partition, rows: Arc::default() };
        let pending = PendingBatch { batch, origins: Vec::new(), bytes: 0, parts: FULL };
        let open = OpenBatch { number: self.opened, pending };
        &mut self.open.entry(key).insert_entry(open).into_mut().pending
    }

    fn close_oldest(&mut self, ready: &mut ReadyBatches) {
        if let Some(due) = self.due.pop_front() {
            self.close(due.key, ready);
        }
    }

    fn close(&mut self, key: BatchKey, ready: &mut ReadyBatches) {
        let Some(OpenBatch { mut pending, .. }) = self.open.remove(&key) else { return };
        let share = |size: usize, full: usize| size.saturating_mul(FULL).div_ceil(full.max(1));
        let of_rows = share(pending.batch.rows.len(), self.rows_max);
        pending.parts = of_rows.max(share(pending.wire_bytes(), self.bytes_max)).clamp(1, FULL);
        ready.push(pending);
    }
}

impl PendingBatch {
    /// The sum of [`Row::bytes`].
    fn wire_bytes(&self) -> usize {
        self.bytes.saturating_sub(ROW_OVERHEAD * self.batch.rows.len())
    }

    /// Whether that reaches `max`, with a row that takes `more` bytes in memory.
    fn exceeds(&self, more: usize, max: usize) -> bool {
        self.wire_bytes() + more.saturating_sub(ROW_OVERHEAD) >= max
    }
}
