//! Takes in what the maintenance of the group has found.

use tracing::{info, warn};

use super::{
    consumer::Consumer,
    maintenance::{ClaimSchedule, MaintenanceResult},
    reply::Snapshot,
    report::Trimmed,
    session::End,
    trimmed::{bound_since, removed},
};

impl Consumer {
    /// Takes in what one round of maintenance has found.
    pub(super) async fn on_maintenance(
        &mut self,
        found: MaintenanceResult,
        claims: &mut ClaimSchedule,
    ) -> Result<(), End> {
        claims.go_on(found.next);
        let refused = found.refused;
        self.stream.status.change(|status| status.error = refused);
        for name in &found.removed {
            info!(stream = &*self.stream.name, consumer = name, "a consumer that is gone was removed from the group");
        }
        match found.snapshot {
            Some(snapshot) if snapshot.group.is_some() => self.on_snapshot(snapshot, found.trimmed),
            // The next read says so, too.
            _ => {}
        }
        self.count_acknowledged(found.acknowledged);
        found.unreported.into_iter().for_each(|id| self.deleted.insert(id));
        if found.gone > 0 {
            // They may be on disk: a process may have been killed between the disk and the acknowledgement.
            self.record_trimmed(found.gone, false);
        }
        let claimed = found.claimed.iter().filter(|entry| self.acks.is_new(entry.id)).count() as u64;
        if claimed > 0 {
            warn!(stream = &*self.stream.name, claimed, "entries of a dead consumer were claimed");
            self.stream.metrics.stream_claimed.of(self.stream.label).inc_by(claimed);
            self.stream.status.change(|status| status.claimed += claimed);
        }
        Ok(self.deliver(found.claimed).await?)
    }

    /// Takes in the state of the stream.
    pub(super) fn on_snapshot(&mut self, now: Snapshot, trimmed: Trimmed) {
        if let Some(group) = &now.group {
            // The server's count is wrong after trimming, and after it has loaded an append-only file.
            let lag = if group.last_delivered >= now.last_generated { Some(0) } else { group.lag };
            let pending = group.pending;
            self.stream.status.change(|status| (status.lag, status.pending) = (lag, pending));
            let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            self.stream.metrics.stream_lag.of(self.stream.label).set(lag.map_or(-1, gauge));
            self.stream.metrics.stream_pending.of(self.stream.label).set(gauge(pending));
        }
        match trimmed {
            Trimmed::Open => {}
            Trimmed::Shared => self.removed_before = removed(&now),
            Trimmed::Alone(entries) => {
                self.record_trimmed(entries.saturating_sub(self.trimmed_before), false);
                self.trimmed_before = entries;
            }
            Trimmed::Unknown => {
                let counts = now.acknowledged.is_some() || now.group.as_ref().is_some_and(|group| group.read.is_some());
                let bound = self.last_snapshot.as_ref().and_then(|(_, before)| bound_since(before, &now));
                self.record_trimmed(bound.filter(|_| !counts).unwrap_or(0), false);
            }
        }
        self.other_report.seen(now.report_state.as_ref().and_then(|state| state.report.as_deref()));
        let at = self.clock.now();
        self.last_snapshot = Some((at, now));
    }
}
