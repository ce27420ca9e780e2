//! The status of the daemon: at `/api/status`, in its Redis key, for the command `status`.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{channels::StatusChannels, http, lag::Lag, receive_rate::ReceiveRate, storage::Storage};
use crate::{
    api::Listening,
    dead_letter::Usage,
    event::Table,
    frame::Reason,
    gaps::{Gap, GapReason},
    latest::LatestState,
    lifecycle::{PauseBarrier, Readiness},
    metrics::Metrics,
    render,
    source::{SourceStatus, StreamsStatus},
    store::Problem,
    units::{self, Micros},
};

/// The inputs of the status.
pub(super) struct StatusInputs {
    /// Name of this daemon.
    pub(super) instance: String,
    /// Host and process id: distinguishes two daemons with the same name.
    pub(super) process: String,
    /// `sqlite` or `cassandra`.
    pub(super) store: &'static str,
    /// When the process started.
    pub(super) started_at: Micros,
    /// The same, for the uptime.
    pub(super) started: Instant,
    /// Whether it is ready.
    pub(super) readiness: Readiness,
    /// Connections to Redis.
    pub(super) redis: SourceStatus,
    /// Streams of Redis.
    pub(super) streams: StreamsStatus,
    /// How long its key in Redis lives.
    pub(super) latest_state: Arc<LatestState>,
    /// Spool and dead letters.
    pub(super) storage: Storage,
    /// What the stages report.
    pub(super) channels: StatusChannels,
    /// Tokens and sessions.
    pub(super) access: http::Access,
    /// Counters.
    pub(super) metrics: Arc<Metrics>,
    /// Messages received a second.
    pub(super) receive_rate: Arc<ReceiveRate>,
    /// Whether HTTP listens.
    pub(super) http: Listening,
    /// How far the store is behind.
    pub(super) lag: Lag,
}

impl StatusInputs {
    /// The status object. Also updates the gauges that mirror other parts.
    pub fn status(&self) -> Value {
        let missing = self.readiness.missing();
        let stored = *self.channels.progress.borrow();
        // With what is not synced yet: the live stream has it already.
        let end = self.storage.spool.appended();
        let pending = end.saturating_sub(stored);
        let paused = *self.channels.pause_barrier.borrow() != PauseBarrier::None;
        let kept = self.storage.dead_letters.usage();
        let lag_seconds = self.lag.seconds(*self.channels.oldest_unstored.borrow(), pending, units::now());
        self.metrics.writer_lag_seconds.set(lag_seconds);
        self.update_gauges(pending, paused, kept);
        let problem = self.channels.problem.borrow().clone();
        let m = &self.metrics;
        json!({
            "instance": self.instance,
            "process": self.process,
            "version": env!("CARGO_PKG_VERSION"),
            "phase": self.phase(&missing),
            "ready": missing.is_empty(),
            "missing": missing,
            "paused": paused,
            "started_at": render::time(self.started_at),
            "at": render::time(units::now()),
            "status_ttl_seconds": self.latest_state.status_ttl().as_secs_f64(),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "redis": self.redis(),
            "spool": {
                "id": self.storage.spool.id(),
                "healthy": self.storage.spool.healthy(),
                "used_bytes": self.storage.spool.bytes(),
                "capacity_bytes": self.storage.spool.capacity(),
                "memory_bytes": self.storage.spool.memory_bytes(),
                "segments": self.storage.spool.segments(),
                "end": end,
                "durable": self.storage.spool.durable(),
                "stored": stored,
                "committed": self.storage.spool.committed(),
                "pending_records": pending,
            },
            "store": { "kind": self.store, "connected": m.store_connected.get() == 1, "problem": problem.as_ref().map(problem_json) },
            "lag_seconds": lag_seconds,
            "received_per_second": self.receive_rate.per_second(m.source_messages.get(), Instant::now()),
            "counters": {
                "received": m.source_messages.get(),
                "events": m.intake_events.get(),
                "rows": Table::ALL.iter().map(|table| m.writer_rows.of(table.name()).get()).sum::<u64>(),
                "rejected": Reason::of_intake().map(|reason| m.intake_rejected.of(reason.as_str()).get()).sum::<u64>(),
                "dead_letters": kept.entries,
            },
            "deadletter": {
                "letters": kept.entries,
                "used_bytes": kept.bytes,
                "capacity_bytes": kept.capacity,
                "dropped_for_room": m.dead_letters_dropped.get(),
            },
            "latest": { "problem": self.latest_state.problem() },
            "http": self.http.to_json(),
            "access": http::access_status(&self.access),
            "gaps": self.gaps(),
            "last_gap": self.channels.last_gap.borrow().as_ref().map(gap_json),
        })
    }

    /// One line for the service manager.
    pub fn line(&self) -> String {
        let missing = self.readiness.missing();
        let problem = self.channels.problem.borrow().clone();
        format!(
            "{}; {} events, {} records wait for the store{}",
            self.phase(&missing),
            self.metrics.intake_events.get(),
            self.storage.spool.appended().saturating_sub(*self.channels.progress.borrow()),
            problem.map_or_else(String::new, |problem| format!(": {}", problem.reason))
        )
    }

    fn phase(&self, missing: &[&str]) -> &'static str {
        match () {
            () if missing.contains(&"stopping") => "stopping",
            () if !missing.is_empty() => "degraded",
            () if *self.channels.pause_barrier.borrow() != PauseBarrier::None => "paused",
            () => "running",
        }
    }

    fn redis(&self) -> Value {
        let mut redis = json!({ "connections": self.redis.connections(), "unproven": self.redis.unconfirmed() });
        let streams = self.streams.streams();
        if !streams.is_empty() {
            redis["streams"] = json!(streams);
        }
        redis
    }

    fn gaps(&self) -> Value {
        let m = &self.metrics;
        GapReason::ALL
            .iter()
            .map(|reason| {
                let (gaps, lost) = (m.gaps.of(reason.as_str()).get(), m.gap_lost.of(reason.as_str()).get());
                (reason.as_str().to_owned(), json!({ "gaps": gaps, "lost": lost }))
            })
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    fn update_gauges(&self, pending: u64, paused: bool, kept: Usage) {
        let m = &self.metrics;
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        m.source_unconfirmed.set(gauge(self.redis.unconfirmed().len() as u64));
        m.spool_bytes.set(gauge(self.storage.spool.bytes()));
        m.spool_capacity_bytes.set(gauge(self.storage.spool.capacity()));
        m.spool_records.set(gauge(pending));
        m.spool_memory_bytes.set(gauge(self.storage.spool.memory_bytes()));
        m.spool_healthy.set(i64::from(self.storage.spool.healthy()));
        m.dead_letters_stored.set(gauge(kept.entries));
        m.dead_letters_bytes.set(gauge(kept.bytes));
        m.dead_letters_capacity_bytes.set(gauge(kept.capacity));
        m.writer_paused.set(i64::from(paused));
    }
}

/// The problem of the store, as a part of a status.
pub fn problem_json(problem: &Problem) -> Value {
    // What is held while the deletions cannot be read is rows.
    let holds = if problem.holds == "deletions" { "rows" } else { problem.holds };
    json!({
        "holds": holds,
        "since": render::time(problem.since),
        "needs_attention": problem.needs_attention,
        "reason": problem.reason,
        "remedy": problem.remedy,
    })
}

fn gap_json(gap: &Gap) -> Value {
    json!({
        "reason": gap.reason,
        "source": gap.source,
        "channel": gap.channel,
        "run_id": gap.run_id,
        "started_at": render::time(gap.started_at),
        "ended_at": render::time(gap.ended_at),
        "lost": gap.lost,
    })
}
