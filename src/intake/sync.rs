//! Writes groups and makes them durable; housekeeping: gaps, open runs, health.

use std::{thread, time::Duration};

use tokio::{sync::oneshot, time::Instant};
use tracing::{error, warn};

use super::{
    group::{HOUSEKEEPING_INTERVAL, IDLE_AFTER, IDLE_HOUSEKEEPING_INTERVAL},
    stage::Intake,
};
use crate::{
    frame::{Ack, BatchAck, DeliveryTag},
    gaps::Gap,
    lifecycle::next_tick,
    spool::RecordKind,
    units::{self, Micros},
};

/// How long before it is due a sync is made together with the write of a group, at most. Groups come every 8 ms while messages flow.
const EARLY_SYNC_MAX: Duration = Duration::from_millis(4);

/// The same where groups become durable at this interval: a sync that is early by a large part of it would cost as much as a shorter
/// interval.
fn early_sync(interval: Duration) -> Duration {
    EARLY_SYNC_MAX.min(interval / 4)
}

impl Intake {
    /// Counts a gap that intake has found; sources count their own.
    pub(super) fn count_gap(&self, gap: &Gap) {
        self.deps.metrics.gaps.of(gap.reason.as_str()).inc();
        self.deps.metrics.gap_lost.of(gap.reason.as_str()).inc_by(gap.lost.unwrap_or(0));
    }

    /// Appends a gap; without room for it, it waits.
    pub(super) fn append_gap(&mut self, gap: Gap) {
        self.deps.last_gap.send_replace(Some(gap.clone()));
        self.log_gap(gap);
    }

    /// Appends a gap that its source keeps until it is durable; without room for it, it is refused.
    pub(super) fn append_kept_gap(&mut self, gap: Gap, answer: oneshot::Sender<Ack>) {
        if !self.deps.appender.healthy() || !self.try_log_gap(&gap) {
            // The source may have ended.
            let _ = answer.send(Ack::NotDurable);
            return;
        }
        self.deps.last_gap.send_replace(Some(gap));
        self.pending_acks.push(answer);
    }

    fn log_gap(&mut self, gap: Gap) {
        if !self.try_log_gap(&gap) {
            self.drop_counter.defer(gap);
        }
    }

    /// Returns whether there was room for it.
    fn try_log_gap(&mut self, gap: &Gap) -> bool {
        let payload = serde_json::to_vec(gap).expect("strings and numbers always serialise");
        let channel = gap.channel.as_deref().unwrap_or("");
        self.append_plain(RecordKind::Gap, gap.started_at, channel, &payload).is_some()
    }

    /// Whether a command or a request waits for the next sync.
    fn is_awaited(&self) -> bool {
        !self.pending_commands.is_empty() || !self.pending_acks.is_empty() || !self.pending_batches.is_empty()
    }

    /// How long to wait for messages: until a sync is due.
    pub(super) fn longest_wait(&self) -> Duration {
        let due =
            self.deps.appender.sync_due(self.is_awaited()).map(|due| due.saturating_duration_since(Instant::now()));
        let now = Instant::now();
        let idle = self.last_message.is_none_or(|at| now.duration_since(at) > IDLE_AFTER);
        let housekeeping = next_tick(now, if idle { IDLE_HOUSEKEEPING_INTERVAL } else { HOUSEKEEPING_INTERVAL }) - now;
        due.map_or(housekeeping, |due| due.min(housekeeping))
    }

    /// Makes the group durable when that is due, else writes it.
    pub(super) fn write_or_sync(&mut self) {
        let (now, awaited) = (Instant::now(), self.is_awaited());
        let early = early_sync(self.deps.appender.sync_interval());
        match self.deps.appender.sync_due(awaited) {
            Some(due) if due <= now => self.sync(),
            // Waking up for a sync alone costs more than syncing a little early.
            Some(due) if self.unwritten && due <= now + early => self.sync(),
            // More requests arrive meanwhile; woken by each, intake would write them one by one. Sources gather messages themselves.
            Some(due) if awaited => thread::sleep((due - now).min(HOUSEKEEPING_INTERVAL)),
            Some(_) if self.unwritten => {
                self.deps.appender.write();
                self.note_written();
            }
            _ => {}
        }
    }

    /// The group is in the file.
    fn note_written(&mut self) {
        self.unwritten = false;
        let now = Instant::now();
        for since in &self.pending_since[self.written_frames..] {
            self.deps.metrics.intake_written_seconds.observe((now - *since).as_secs_f64());
        }
        self.written_frames = self.pending_since.len();
    }

    /// The group becomes durable; only then are its commands passed on.
    pub(super) fn sync(&mut self) {
        self.deps.appender.sync();
        self.unsynced = false;
        self.note_written();
        let now = Instant::now();
        for since in self.pending_since.drain(..) {
            self.deps.metrics.intake_durable_seconds.observe((now - since).as_secs_f64());
        }
        self.written_frames = 0;
        for command in self.pending_commands.drain(..) {
            if let Err(error) = self.deps.commands.try_send(command) {
                warn!(%error, "command is recorded but not executed: too many at once");
            }
        }
        self.note_health();
        if !self.pending_acks.is_empty() || !self.pending_batches.is_empty() {
            // What clients send is soon asked for by them.
            self.deps.appender.request_read();
        }
        for answer in self.pending_acks.drain(..) {
            let _ = answer.send(if self.healthy { Ack::Durable } else { Ack::NotDurable });
        }
        for (answer, ack) in self.pending_batches.drain(..) {
            // The request may have been cancelled.
            let _ = answer.send(BatchAck { durable: self.healthy, ..ack });
        }
        DeliveryTag::settle_all(self.pending_tags.drain(..), self.healthy);
    }

    pub(super) fn note_health(&mut self) {
        let healthy = self.deps.appender.healthy();
        if healthy != self.healthy {
            self.healthy = healthy;
            self.deps.readiness.set_spool_writable(healthy);
        }
    }

    pub(super) fn housekeeping(&mut self, watermark: Option<Micros>, last: bool) {
        let tick = Instant::now();
        if self.deps.readiness.is_subscribed() {
            self.subscribed += tick - self.last_tick;
        }
        self.last_tick = tick;
        let now = units::now();
        if let Some(until) = watermark {
            self.state.set_watermark(until);
        }
        self.emit_gaps(now, last);
        if self.rejected > 0 && self.state.save_is_due() {
            warn!(count = self.rejected, "messages were rejected; see `cascor-ingest deadletter list`");
            self.rejected = 0;
        }
        if last || self.state.save_is_due() {
            // Records of the group are not durable yet; the state must not be ahead of the log.
            if self.unsynced {
                self.sync();
            }
            if !self.deps.appender.healthy() || self.drop_counter.has_deferred() {
                // Records in memory only are lost with the process; a state that included them would hide that loss. Nor is the log kept
                // for it: that would keep a full disk full.
                self.deps.appender.retain_from(u64::MAX);
                return self.state.defer_save();
            }
            if !last && !self.changed && self.state.save_watermark() {
                return;
            }
            self.changed = false;
            let (runs, end) = (self.resolver.state(self.subscribed), self.deps.appender.end());
            let saved = self.state.save(runs, &self.seqs, end);
            self.deps.appender.retain_from(if saved { end } else { u64::MAX });
        }
    }

    /// Appends the gaps that waited for room, then those whose windows are over.
    fn emit_gaps(&mut self, now: Micros, last: bool) {
        for gap in self.drop_counter.take_deferred() {
            self.log_gap(gap);
        }
        let mut found = self.seqs.drain(now, last);
        found.extend(self.drop_counter.due(now, last));
        for gap in found {
            self.count_gap(&gap);
            self.append_gap(gap);
        }
        if last {
            for gap in self.drop_counter.take_deferred() {
                error!(?gap, "gap is not recorded: there is no room for it");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_is_early_by_a_quarter_of_its_interval_at_most() {
        for (interval, early) in [(25_000, 4_000), (16_000, 4_000), (8_000, 2_000), (1_000, 250), (0, 0)] {
            assert_eq!(early_sync(Duration::from_micros(interval)), Duration::from_micros(early), "{interval} µs");
        }
    }
}
