//! How a record enters the task: its rows go to batches, its run update to the table of runs.

use tokio::time::Instant;
use uuid::Uuid;

use super::{PENDING_RECORDS_MAX, Writer};
use crate::{
    event::{Row, RunUpdate},
    writer::{
        PauseBarrier,
        batch::{FULL, RowOrigin, row_bytes},
        ports::{Commit, Content, DeadLetterBody, DeadLetterEntry, DeadLetterSink, DecodedRecord},
        runs::RecordUpdate,
    },
};

impl<C: Commit, A: DeadLetterSink> Writer<C, A> {
    /// Whether there is room for the record at this offset.
    pub(super) fn has_capacity(&self, offset: u64) -> bool {
        let held = matches!(*self.ports.pause_barrier.borrow(), PauseBarrier::At(end) if offset >= end);
        !held
            && self.deletions.is_known()
            && self.bytes < self.config.memory.as_usize()
            && self.ready.parts() < 2 * self.parts_max() + 8 * FULL
            && self.frontier.len() < PENDING_RECORDS_MAX
            && self.runs.has_room()
    }

    /// Adds its rows to batches and merges its run update.
    pub(super) fn accept(&mut self, record: DecodedRecord, now: Instant) {
        let DecodedRecord { offset, received_at, content } = record;
        let since = now.checked_sub(self.waited).unwrap_or(now);
        match content {
            Content::Nothing => {
                self.frontier.register(offset, received_at, 0);
            }
            Content::Rejected { channel, rejected, preserved, run_id } => {
                let token = self.frontier.register(offset, received_at, 1);
                let body = DeadLetterBody::Message { channel, rejected, bytes: preserved, run_id };
                self.add_dead_letter(token, DeadLetterEntry::WHOLE_RECORD, body);
            }
            Content::Rows { rows, run_update }
                if run_of(&rows, run_update.as_ref())
                    .is_some_and(|run_id| self.deletions.forbid(run_id, received_at)) =>
            {
                self.frontier.register(offset, received_at, 0);
                self.ports.metrics.writer_skipped_records.inc();
            }
            Content::Rows { rows, run_update: update } => {
                let parts = rows.len() as u32 + u32::from(update.is_some());
                let token = self.frontier.register(offset, received_at, parts);
                if let Some((run_id, update)) = update
                    && !self.runs.update(run_id, RecordUpdate { update, rows: &rows, token }, now)
                {
                    self.frontier.confirm_part(token);
                }
                for (number, row) in rows.into_iter().enumerate() {
                    let bytes = row_bytes(&row);
                    self.bytes += bytes;
                    let origin = RowOrigin { token, row: number as u32 };
                    self.batches.push(row, bytes, origin, since, &mut self.ready);
                }
            }
        }
    }
}

/// The run that a record belongs to: of an event its own, of a gap the one that it is in.
fn run_of(rows: &[Row], run_update: Option<&(Uuid, RunUpdate)>) -> Option<Uuid> {
    let gap = || rows.iter().find_map(|row| if let Row::Gap(gap) = row { gap.run_id } else { None });
    run_update.map(|(run_id, _)| *run_id).or_else(gap)
}
