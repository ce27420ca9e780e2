//! Every counter and gauge, declared in one place: `cascor_<stage>_<thing>_<unit>`, in OpenMetrics.
//!
//! Stages hold an `Arc<Metrics>` and count; nothing is computed here but the text of the page.

use std::sync::{Arc, atomic::AtomicU64};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Metric, Registry, Unit},
};

use crate::{frame::Reason, gaps::GapReason};

/// A gauge of a fraction or of seconds.
pub type FloatGauge = Gauge<f64, AtomicU64>;

/// One label: the name of a reason, a table, a server or a kind of query.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Label {
    /// What is counted apart.
    pub name: &'static str,
}

impl Label {
    /// The label of this name.
    pub fn of(name: &'static str) -> Self {
        Self { name }
    }
}

/// Counters by one label.
pub type Counters = Family<Label, Counter>;

/// Declares every metric that is registered under one name: its field, its type, its name and its help text.
macro_rules! define_metrics {
    ($($field:ident: $type:ty, $name:literal, $help:literal;)+) => {
        /// Everything that is counted.
        #[derive(Debug)]
        #[allow(missing_docs, reason = "the help texts say it")]
        pub struct Metrics {
            registry: Registry,
            pub intake_durable_seconds: Histogram,
            pub store_latency_seconds: Family<Label, Histogram>,
            $(pub $field: $type,)+
        }

        impl Metrics {
            fn register(mut registry: Registry) -> Self {
                Self {
                    $($field: register(&mut registry, $name, $help),)+
                    intake_durable_seconds: Histogram::new(exponential_buckets(0.000_1, 1.5, 24)),
                    store_latency_seconds: Family::new_with_constructor(|| {
                        Histogram::new(exponential_buckets(0.000_25, 2.0, 16))
                    }),
                    registry,
                }
            }
        }
    };
}

define_metrics! {
    source_messages: Counter, "source_messages", "Messages received from Redis";
    source_bytes: Counter, "source_payload_bytes", "Bytes of the messages received from Redis";
    source_connects: Counters, "source_connects", "Connections made to Redis, by use";
    source_connected: Family<Label, Gauge>, "source_connected", "1 while the connection of this use is up";
    source_queue_depth: Gauge, "source_queue_frames", "Frames waiting for intake";
    gaps: Counters, "source_gaps", "Gaps in the received messages, by reason";
    gap_lost: Counters, "source_lost_messages", "Messages known to be missed, by reason of the gap";
    intake_events: Counter, "intake_events", "Messages accepted";
    intake_rejected: Counters, "intake_rejected", "Messages rejected, by reason";
    intake_invalid_timestamps: Counter, "intake_invalid_timestamps", "Events whose own time was absent or implausible";
    intake_invalid_fields: Counter, "intake_invalid_fields",
        "Fields whose value their column cannot take; the rest of the message became its row";
    intake_unknown_outcomes: Counter, "intake_unknown_outcomes", "Ends of runs whose status is no known word; stored as stopped";
    spool_bytes: Gauge, "spool_used_bytes", "Bytes of all segments";
    spool_records: Gauge, "spool_pending_records", "Durable records the store has not confirmed";
    spool_syncs: Counter, "spool_syncs", "Group commits (fdatasync)";
    spool_sync_failures: Counter, "spool_sync_failures", "Group commits that failed";
    spool_memory_bytes: Gauge, "spool_memory_bytes", "Bytes held in the memory segment";
    spool_corrupt_records: Counter, "spool_corrupt_records", "Records skipped because they did not match their checksum";
    spool_missing_records: Counter, "spool_missing_records",
        "Records lost because their segment was deleted or cut";
    spool_healthy: Gauge, "spool_healthy", "1 while the spool takes records on disk";
    writer_rows: Counters, "writer_rows", "Rows confirmed by the store, by table";
    writer_batches: Counter, "writer_batches", "Batches confirmed by the store";
    writer_retries: Counter, "writer_retries", "Batches tried again";
    writer_run_writes: Counter, "writer_run_writes", "Writes of run rows";
    writer_in_flight: Gauge, "writer_in_flight_batches", "Batches being written";
    writer_in_flight_limit: Gauge, "writer_in_flight_limit_batches", "Batches that may be written at once";
    writer_lag_seconds: FloatGauge, "writer_lag_seconds", "Age of the oldest event that the store has not confirmed";
    writer_paused: Gauge, "writer_paused", "1 while paused";
    store_connected: Gauge, "store_connected", "1 while the store answers";
    store_needs_attention: Gauge, "store_needs_attention",
        "1 while rows are held until an operator repairs the store; see /readyz and the status";
    store_errors: Counters, "store_errors", "Failed calls, by kind of error";
    dead_letters: Counters, "deadletter_messages", "Messages and rows set aside, by reason";
    dead_letters_dropped: Counter, "deadletter_dropped", "Oldest dead letters dropped to stay within capacity";
    dead_letters_stored: Gauge, "deadletter_stored", "Dead letters on disk that have not been dropped";
    dead_letters_bytes: Gauge, "deadletter_used_bytes", "Bytes of the segments of dead letters";
    redis_unusable_values: Counters, "redis_unusable_values",
        "Values of own Redis keys that were not read: too large, of another type, or no text";
    latest_writes: Counter, "latest_writes", "Latest-state keys set";
    latest_errors: Counter, "latest_errors", "Latest-state keys that could not be set";
    latest_skipped: Counter, "latest_coalesced", "Latest-state values replaced before they were written";
    control_commands: Counters, "control_commands", "Commands received, by outcome";
    api_requests: Counters, "api_requests", "Requests answered, by class of status";
    api_refusals: Counters, "api_refusals", "Requests refused for what they carry or lack, by reason";
    api_sessions: Counters, "api_sessions", "Sessions begun and signed out";
    api_tokens: Family<Label, Gauge>, "api_tokens", "Tokens in force, by scope";
    api_tokens_outdated: Gauge, "api_tokens_outdated",
        "1 while `http.tokens_file` cannot be used and the previous tokens stay in force";
    api_bodies_cut: Counter, "api_bodies_cut", "Streams and exports ended because their token or session was";
    api_latest_hits: Counter, "api_latest_hits", "Latest values answered from Redis";
    api_latest_misses: Counter, "api_latest_misses", "Latest values that Redis did not have";
}

fn register<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

impl Metrics {
    /// All at zero; the labels that are known beforehand are there from the first scrape on.
    pub fn new() -> Arc<Self> {
        let mut metrics = Self::register(Registry::with_prefix("cascor"));
        let registry = &mut metrics.registry;
        let durable = metrics.intake_durable_seconds.clone();
        registry.register_with_unit("intake_durable", "Received until durable", Unit::Seconds, durable);
        let latency = metrics.store_latency_seconds.clone();
        registry.register_with_unit("store_latency", "Latency of the store, by kind of call", Unit::Seconds, latency);
        // Former names, for one release.
        registry.register(
            "intake_unusable_times",
            "Former name of cascor_intake_invalid_timestamps_total",
            metrics.intake_invalid_timestamps.clone(),
        );
        registry.register(
            "deadletter_kept_letters",
            "Former name of cascor_deadletter_stored",
            metrics.dead_letters_stored.clone(),
        );
        for reason in GapReason::ALL {
            let _ = metrics.gaps.get_or_create(&Label::of(reason.as_str()));
            let _ = metrics.gap_lost.get_or_create(&Label::of(reason.as_str()));
        }
        for reason in Reason::ALL {
            let _ = metrics.intake_rejected.get_or_create(&Label::of(reason.as_str()));
        }
        Arc::new(metrics)
    }

    /// The page at `/metrics`.
    pub fn page(&self) -> String {
        let mut page = String::new();
        encode(&mut page, &self.registry).expect("writing to a String cannot fail");
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_every_reason_from_the_start() {
        let metrics = Metrics::new();
        metrics.gaps.get_or_create(&Label::of(GapReason::QueueFull.as_str())).inc();
        let page = metrics.page();
        assert!(page.contains("cascor_source_gaps_total{name=\"queue_full\"} 1"), "{page}");
        assert!(page.contains("cascor_source_gaps_total{name=\"spool_full\"} 0"), "{page}");
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn a_renamed_metric_has_both_names() {
        let metrics = Metrics::new();
        metrics.intake_invalid_timestamps.inc_by(3);
        metrics.dead_letters_stored.set(2);
        let page = metrics.page();
        for line in [
            "cascor_intake_invalid_timestamps_total 3",
            "cascor_intake_unusable_times_total 3",
            "cascor_deadletter_stored 2",
            "cascor_deadletter_kept_letters 2",
        ] {
            assert!(page.lines().any(|shown| shown == line), "{line}: {page}");
        }
    }
}
