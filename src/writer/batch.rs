//! Rows gathered by table and partition until a batch is due: by rows, by bytes, or by age.
//!
//! Pure: the caller brings the time.

use std::{
    collections::{HashMap, VecDeque},
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
}

/// What a row takes in memory.
pub fn row_bytes(row: &Row) -> usize {
    row.bytes() + size_of::<Row>() + size_of::<RowOrigin>()
}

/// The batches being gathered.
#[derive(Debug)]
pub struct Batches {
    rows_max: usize,
    bytes_max: usize,
    linger: Duration,
    index: HashMap<(Table, Partition), usize>,
    slots: Vec<Option<PendingBatch>>,
    free: Vec<usize>,
    /// When each open batch is due by age, oldest first. Batches closed by size stay in it, recognised by their number.
    due: VecDeque<(Instant, usize, u64)>,
    /// How often each slot was opened.
    opened: Vec<u64>,
    /// Where the last row went: neighbours in the log often share a partition.
    last: Option<((Table, Partition), usize)>,
}

impl Batches {
    /// Empty. `bytes_max` is a bound on what the rows say of themselves ([`Row::bytes`]), as the wire sees them.
    pub fn new(rows_max: usize, bytes_max: usize, linger: Duration) -> Self {
        Self {
            rows_max: rows_max.max(1),
            bytes_max,
            linger,
            index: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            due: VecDeque::new(),
            opened: Vec::new(),
            last: None,
        }
    }

    /// Adds a row; what becomes due by size goes to `ready`.
    pub fn push(
        &mut self,
        row: Row,
        bytes: usize,
        origin: RowOrigin,
        now: Instant,
        ready: &mut VecDeque<PendingBatch>,
    ) {
        let key = row.destination();
        let mut slot = self.slot(key, now, ready);
        if let Some(open) = &self.slots[slot]
            && !open.batch.rows.is_empty()
            && self.exceeds_bytes(open, bytes)
        {
            // A huge row travels alone rather than dragging its neighbours beyond what the store takes.
            self.close(slot, ready);
            slot = self.slot(key, now, ready);
        }
        if let Some(open) = &mut self.slots[slot] {
            open.batch.rows.push(row);
            open.origins.push(origin);
            open.bytes += bytes;
        }
        if self.slots[slot]
            .as_ref()
            .is_some_and(|open| open.batch.rows.len() >= self.rows_max || self.exceeds_bytes(open, 0))
        {
            self.close(slot, ready);
        }
    }

    /// Moves what is due by age to `ready`; with `all`, everything.
    pub fn flush(&mut self, now: Instant, all: bool, ready: &mut VecDeque<PendingBatch>) {
        while let Some(&(due, slot, opened)) = self.due.front() {
            let open = self.is_open(slot, opened);
            if open && due > now && !all {
                break;
            }
            self.due.pop_front();
            if open {
                self.close(slot, ready);
            }
        }
    }

    /// When the oldest batch is due.
    pub fn due_at(&mut self) -> Option<Instant> {
        while let Some(&(due, slot, opened)) = self.due.front() {
            if self.is_open(slot, opened) {
                return Some(due);
            }
            self.due.pop_front();
        }
        None
    }

    fn exceeds_bytes(&self, open: &PendingBatch, more: usize) -> bool {
        let overhead = (size_of::<Row>() + size_of::<RowOrigin>()) * (open.batch.rows.len() + usize::from(more > 0));
        (open.bytes + more).saturating_sub(overhead) >= self.bytes_max
    }

    fn is_open(&self, slot: usize, opened: u64) -> bool {
        self.slots[slot].is_some() && self.opened[slot] == opened
    }

    fn slot(&mut self, key: (Table, Partition), now: Instant, ready: &mut VecDeque<PendingBatch>) -> usize {
        if let Some((last, slot)) = self.last
            && last == key
        {
            return slot;
        }
        let slot = match self.index.get(&key) {
            Some(slot) => *slot,
            None => self.open(key, now, ready),
        };
        self.last = Some((key, slot));
        slot
    }

    fn open(&mut self, key: (Table, Partition), now: Instant, ready: &mut VecDeque<PendingBatch>) -> usize {
        if self.index.len() >= OPEN_BATCHES_MAX
            && self.due_at().is_some()
            && let Some((_, oldest, _)) = self.due.pop_front()
        {
            self.close(oldest, ready);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.opened.push(0);
            self.slots.len() - 1
        });
        let batch = Batch { table: key.0, partition: key.1, rows: Vec::new() };
        self.slots[slot] = Some(PendingBatch { batch, origins: Vec::new(), bytes: 0 });
        self.opened[slot] += 1;
        self.due.push_back((now + self.linger, slot, self.opened[slot]));
        // Closed batches leave their entries behind; under load nobody looks at the front before they pile up.
        if self.due.len() > 4 * OPEN_BATCHES_MAX {
            let (slots, opened) = (&self.slots, &self.opened);
            self.due.retain(|&(_, slot, number)| slots[slot].is_some() && opened[slot] == number);
        }
        self.index.insert(key, slot);
        slot
    }

    fn close(&mut self, slot: usize, ready: &mut VecDeque<PendingBatch>) {
        let Some(pending_batch) = self.slots[slot].take() else { return };
        let key = (pending_batch.batch.table, pending_batch.batch.partition);
        self.index.remove(&key);
        self.free.push(slot);
        if self.last.is_some_and(|(last, _)| last == key) {
            self.last = None;
        }
        ready.push_back(pending_batch);
    }
}
