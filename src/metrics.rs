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
    registry::{Registry, Unit},
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

/// Everything that is counted.
#[derive(Debug)]
#[allow(missing_docs, reason = "the help text beside each registration says it")]
pub struct Metrics {
    registry: Registry,
    pub source_messages: Counter,
    pub source_bytes: Counter,
    pub source_connects: Counters,
    pub source_connected: Family<Label, Gauge>,
    pub source_queue_depth: Gauge,
    pub gaps: Counters,
    pub gap_lost: Counters,
    pub intake_events: Counter,
    pub intake_rejected: Counters,
    pub intake_invalid_timestamps: Counter,
    /// Fields whose value their column cannot take; the rest of their message became its row.
    pub intake_invalid_fields: Counter,
    /// Ends of runs whose status is no known word; counted as stopped.
    pub intake_unknown_outcomes: Counter,
    pub intake_durable_seconds: Histogram,
    pub spool_bytes: Gauge,
    pub spool_records: Gauge,
    pub spool_syncs: Counter,
    pub spool_sync_failures: Counter,
    pub spool_memory_bytes: Gauge,
    pub spool_corrupt_records: Counter,
    pub spool_missing_records: Counter,
    pub spool_healthy: Gauge,
    pub writer_rows: Counters,
    pub writer_batches: Counter,
    pub writer_retries: Counter,
    pub writer_run_writes: Counter,
    pub writer_in_flight: Gauge,
    pub writer_in_flight_limit: Gauge,
    pub writer_lag_seconds: FloatGauge,
    pub writer_paused: Gauge,
    pub store_connected: Gauge,
    pub store_needs_attention: Gauge,
    pub store_latency_seconds: Family<Label, Histogram>,
    pub store_errors: Counters,
    pub dead_letters: Counters,
    pub dead_letters_dropped: Counter,
    pub dead_letters_stored: Gauge,
    pub dead_letters_bytes: Gauge,
    pub redis_unusable_values: Counters,
    pub latest_writes: Counter,
    pub latest_errors: Counter,
    pub latest_skipped: Counter,
    pub control_commands: Counters,
    pub api_requests: Counters,
    pub api_refusals: Counters,
    pub api_sessions: Counters,
    pub api_tokens: Family<Label, Gauge>,
    pub api_tokens_outdated: Gauge,
    pub api_bodies_cut: Counter,
    pub api_latest_hits: Counter,
    pub api_latest_misses: Counter,
}

fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 16))
}

impl Metrics {
    /// All at zero; the labels that are known beforehand are there from the first scrape on.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("cascor");
        let r = &mut registry;
        let metrics = Self {
            source_messages: counter(r, "source_messages", "Messages received from Redis"),
            source_bytes: counter(r, "source_payload_bytes", "Bytes of the messages received from Redis"),
            source_connects: family(r, "source_connects", "Connections made to Redis, by use"),
            source_connected: family(r, "source_connected", "1 while the connection of this use is up"),
            source_queue_depth: gauge(r, "source_queue_frames", "Frames waiting for intake"),
            gaps: family(r, "source_gaps", "Holes in what was received, by reason"),
            gap_lost: family(r, "source_lost_messages", "Messages known to be missed, by reason of the gap"),
            intake_events: counter(r, "intake_events", "Messages accepted"),
            intake_rejected: family(r, "intake_rejected", "Messages rejected, by reason"),
            intake_invalid_timestamps: counter(
                r,
                "intake_invalid_timestamps",
                "Events whose own time was absent or implausible",
            ),
            intake_invalid_fields: counter(
                r,
                "intake_invalid_fields",
                "Fields whose value their column cannot take; the rest of the message became its row",
            ),
            intake_unknown_outcomes: counter(
                r,
                "intake_unknown_outcomes",
                "Ends of runs whose status is no known word; stored as stopped",
            ),
            intake_durable_seconds: Histogram::new(exponential_buckets(0.000_1, 1.5, 24)),
            spool_bytes: gauge(r, "spool_used_bytes", "Bytes of all segments"),
            spool_records: gauge(r, "spool_pending_records", "Durable records the store has not confirmed"),
            spool_syncs: counter(r, "spool_syncs", "Group commits (fdatasync)"),
            spool_sync_failures: counter(r, "spool_sync_failures", "Group commits that failed"),
            spool_memory_bytes: gauge(r, "spool_memory_bytes", "Bytes held in the memory segment"),
            spool_corrupt_records: counter(
                r,
                "spool_corrupt_records",
                "Records skipped because they did not match their checksum",
            ),
            spool_missing_records: counter(
                r,
                "spool_missing_records",
                "Records that were gone because somebody else deleted or cut their segment",
            ),
            spool_healthy: gauge(r, "spool_healthy", "1 while the spool takes records on disk"),
            writer_rows: family(r, "writer_rows", "Rows confirmed by the store, by table"),
            writer_batches: counter(r, "writer_batches", "Batches confirmed by the store"),
            writer_retries: counter(r, "writer_retries", "Batches tried again"),
            writer_run_writes: counter(r, "writer_run_writes", "Writes of run rows"),
            writer_in_flight: gauge(r, "writer_in_flight_batches", "Batches being written"),
            writer_in_flight_limit: gauge(r, "writer_in_flight_limit_batches", "Batches that may be written at once"),
            writer_lag_seconds: gauge(
                r,
                "writer_lag_seconds",
                "Age of the oldest event that the store has not confirmed",
            ),
            writer_paused: gauge(r, "writer_paused", "1 while paused"),
            store_connected: gauge(r, "store_connected", "1 while the store answers"),
            store_needs_attention: gauge(
                r,
                "store_needs_attention",
                "1 while rows are held until a person mends the store; /readyz and the status say what and how",
            ),
            store_latency_seconds: Family::new_with_constructor(latency),
            store_errors: family(r, "store_errors", "Failed calls, by kind of error"),
            dead_letters: family(r, "deadletter_messages", "Messages and rows set aside, by reason"),
            dead_letters_dropped: counter(
                r,
                "deadletter_dropped",
                "Oldest dead letters dropped to stay within capacity",
            ),
            dead_letters_stored: gauge(r, "deadletter_stored", "Dead letters on disk that have not been dropped"),
            dead_letters_bytes: gauge(r, "deadletter_used_bytes", "Bytes of the segments of dead letters"),
            redis_unusable_values: family(
                r,
                "redis_unusable_values",
                "Values of our own keys that were not read: larger than any of ours, of another type, or no text",
            ),
            latest_writes: counter(r, "latest_writes", "Latest-state keys set"),
            latest_errors: counter(r, "latest_errors", "Latest-state keys that could not be set"),
            latest_skipped: counter(r, "latest_coalesced", "Latest-state values replaced before they were written"),
            control_commands: family(r, "control_commands", "Commands received, by outcome"),
            api_requests: family(r, "api_requests", "Requests answered, by class of status"),
            api_refusals: family(r, "api_refusals", "Requests refused for what they carry or lack, by reason"),
            api_sessions: family(r, "api_sessions", "Sessions begun and signed out"),
            api_tokens: family(r, "api_tokens", "Tokens in force, by scope"),
            api_tokens_outdated: gauge(
                r,
                "api_tokens_outdated",
                "1 while `http.tokens_file` cannot be used and the tokens of before stay in force",
            ),
            api_bodies_cut: counter(
                r,
                "api_bodies_cut",
                "Streams and exports ended because their token or session was",
            ),
            api_latest_hits: counter(r, "api_latest_hits", "Latest values answered from Redis"),
            api_latest_misses: counter(r, "api_latest_misses", "Latest values that Redis did not have"),
            registry: Registry::default(),
        };
        r.register_with_unit(
            "intake_durable",
            "Received until durable",
            Unit::Seconds,
            metrics.intake_durable_seconds.clone(),
        );
        let store_latency = metrics.store_latency_seconds.clone();
        r.register_with_unit("store_latency", "Latency of the store, by kind of call", Unit::Seconds, store_latency);
        // Former names, for one release.
        r.register(
            "intake_unusable_times",
            "Former name of cascor_intake_invalid_timestamps_total",
            metrics.intake_invalid_timestamps.clone(),
        );
        r.register(
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
        Arc::new(Self { registry, ..metrics })
    }

    /// The page at `/metrics`.
    pub fn page(&self) -> String {
        let mut page = String::new();
        encode(&mut page, &self.registry).expect("writing to a String cannot fail");
        page
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn gauge<N, A>(registry: &mut Registry, name: &str, help: &str) -> Gauge<N, A>
where
    Gauge<N, A>: Default + Clone + prometheus_client::registry::Metric,
{
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn family<M>(registry: &mut Registry, name: &str, help: &str) -> Family<Label, M>
where
    M: Default,
    Family<Label, M>: prometheus_client::registry::Metric + Clone,
{
    let family = Family::<Label, M>::default();
    registry.register(name, help, family.clone());
    family
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
