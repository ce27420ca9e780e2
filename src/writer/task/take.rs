//! How a record enters the task: its rows into batches, what it says of its run into the table of runs.

use tokio::time::Instant;

use super::{PENDING_MAX, Writer};
use crate::writer::{
    Hold,
    batch::{Origin, bytes_of},
    parts::{Aside, Commit, Content, Decoded, Kept, Letter},
    runs::Says,
};

impl<C: Commit, A: Aside> Writer<C, A> {
    /// Whether there is room for the record at this offset.
    pub(super) fn may_take(&self, offset: u64) -> bool {
        let held = matches!(*self.ends.hold.borrow(), Hold::After(end) if offset >= end);
        !held
            && self.bytes < self.config.memory.as_usize()
            && self.ready.len() < 2 * self.limit.get() + 8
            && self.frontier.len() < PENDING_MAX
            && self.runs.has_room()
    }

    /// Gathers its rows and merges what it says of its run.
    pub(super) fn take(&mut self, record: Decoded, now: Instant) {
        let Decoded { offset, received_at, content } = record;
        match content {
            Content::Nothing => {
                self.frontier.take(offset, received_at, 0);
            }
            Content::Aside { channel, aside, kept, run_id } => {
                let ticket = self.frontier.take(offset, received_at, 1);
                let kept = Kept::Message { channel, aside, bytes: kept, run_id };
                self.set_aside(Letter { offset, part: Letter::WHOLE, received_at, kept }, ticket);
            }
            Content::Rows { rows, touch } => {
                let parts = rows.len() as u32 + u32::from(touch.is_some());
                let ticket = self.frontier.take(offset, received_at, parts);
                if let Some((run_id, touch)) = touch
                    && !self.runs.touch(run_id, Says { touch, rows: &rows, ticket }, now)
                {
                    self.frontier.release(ticket);
                }
                for (number, row) in rows.into_iter().enumerate() {
                    let bytes = bytes_of(&row);
                    self.bytes += bytes;
                    let origin = Origin { ticket, row: number as u32 };
                    self.batches.push(row, bytes, origin, now, &mut self.ready);
                }
            }
        }
    }
}
