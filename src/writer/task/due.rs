//! What is due, and when the task wakes up next.

use tokio::time::{Duration, Instant};

use super::{PENDING_RECORDS_MAX, RESTART_POLL_INTERVAL, RUN_CALLS_MAX, Writer};
use crate::{
    lifecycle::next_tick,
    writer::{
        PauseBarrier,
        batch::FULL,
        ports::{Commit, DeadLetterSink},
    },
};

impl<C: Commit, A: DeadLetterSink> Writer<C, A> {
    /// Batches that are due until then are written now. Once the log was read to its end it is the next poll, for which the writer is
    /// woken anyway. While there is more to read, the time that records have waited in the log does not count: batches of a backlog would be
    /// due at once, and small.
    pub(super) fn flush_until(&self, now: Instant) -> Instant {
        self.next_poll.map_or_else(|| now.checked_sub(self.waited).unwrap_or(now), |poll| poll.max(now))
    }

    /// The offset up to which records are waited for.
    pub(super) fn flush_target(&self) -> u64 {
        let pause = match *self.ports.pause_barrier.borrow() {
            PauseBarrier::None => 0,
            PauseBarrier::At(end) => end,
        };
        pause.max(*self.ports.flush_to.borrow())
    }

    /// Whether a flush was requested of the records taken so far.
    pub(super) fn flush_requested(&self) -> bool {
        let target = self.flush_target();
        self.stopping || self.frontier.next_offset >= target && self.committed < target
    }

    /// Whether only writing open batches makes room.
    pub(super) fn blocked_by_open_batches(&self) -> bool {
        self.ready.is_empty()
            && (self.bytes >= self.config.memory.as_usize() || self.frontier.len() >= PENDING_RECORDS_MAX)
    }

    /// Whether batches that are due by age join the queue now: one that would wait there goes on growing instead.
    pub(super) fn may_flush_aged(&self) -> bool {
        self.ready.parts() < self.parts_max() && !self.rows_breaker.is_open()
    }

    /// How much may be in flight, in parts of a full batch.
    pub(super) fn parts_max(&self) -> usize {
        self.limit.get() * FULL
    }

    /// How much more may be.
    pub(super) fn parts_left(&self) -> usize {
        self.parts_max().saturating_sub(self.parts_in_flight)
    }

    pub(super) fn wake_at(&mut self, now: Instant) -> Instant {
        let more = if self.next_poll.is_none() { self.waited } else { Duration::ZERO };
        let aged = if self.may_flush_aged() { self.batches.due_at().map(|due| due + more) } else { None };
        let rows = if self.ready.is_empty() { None } else { self.rows_breaker.next_probe_at() };
        let runs = if self.run_calls_in_flight >= RUN_CALLS_MAX {
            None
        } else {
            self.runs.due_at(now).map(|due| self.runs_breaker.next_probe_at().map_or(due, |until| until.max(due)))
        };
        // While a probe is in flight the circuit breaker allows no call, whatever is due.
        let runs = runs.filter(|_| !self.runs_breaker.is_open() || self.runs_breaker.next_probe_at().is_some());
        let dead_letters = self.dead_letters.retry_at.filter(|_| !self.dead_letters.in_flight);
        let wake = [aged, rows, runs, dead_letters, self.deletions.due_at()]
            .into_iter()
            .flatten()
            .fold(next_tick(now, RESTART_POLL_INTERVAL), Instant::min);
        // Work that waits for a call in flight is started when that completes: never spin for it.
        wake.max(now + Duration::from_millis(1))
    }
}
