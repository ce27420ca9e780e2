//! Every counter and gauge, declared in one place: `cascor_<stage>_<thing>_<unit>`, in OpenMetrics.
//!
//! Stages hold an `Arc<Metrics>` and count; nothing is computed here but the text of the page, with what it says of the
//! [process](process) itself. `deploy/monitoring/README.md` has the table of them.

mod labelled;
mod process;

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

pub use self::labelled::{Counters, Labelled};
use self::process::ProcessCollector;
use crate::{frame::Reason, gaps::GapReason};

/// The commit that the program was built from, where its build names one. A fixed input of the build, so that a build stays
/// reproducible.
const COMMIT: Option<&str> = option_env!("CASCOR_INGEST_COMMIT");

/// A gauge of a fraction or of seconds.
pub type FloatGauge = Gauge<f64, AtomicU64>;

/// What `cascor_build_info` says, as labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BuildInfo {
    version: &'static str,
    commit: &'static str,
    store: &'static str,
}

/// Makes a metric: with a label, one for each of its values.
macro_rules! make {
    ($former_label:expr) => {
        Default::default()
    };
    ($former_label:expr, $label:literal) => {
        Labelled::by($label, $former_label)
    };
}

/// Declares every metric that is registered under one name: its field, its type, its name, its label if it has one, and its help
/// text.
macro_rules! define_metrics {
    ($($field:ident: $type:ty, $name:literal $(by $label:literal)?, $help:literal;)+) => {
        /// Everything that is counted.
        #[derive(Debug)]
        #[allow(missing_docs, reason = "the help texts say it")]
        pub struct Metrics {
            registry: Registry,
            pub intake_written_seconds: Histogram,
            pub intake_durable_seconds: Histogram,
            pub store_latency_seconds: Labelled<Histogram>,
            $(pub $field: $type,)+
        }

        impl Metrics {
            fn register(mut registry: Registry, former_label: bool) -> Self {
                let own = registry.sub_registry_with_prefix("cascor");
                Self {
                    $($field: register(own, $name, $help, make!(former_label $(, $label)?)),)+
                    intake_written_seconds: Histogram::new(exponential_buckets(0.000_1, 1.5, 24)),
                    intake_durable_seconds: Histogram::new(exponential_buckets(0.000_1, 1.5, 24)),
                    store_latency_seconds: Labelled::made_by(latency_histogram, "call", former_label),
                    registry,
                }
            }
        }
    };
}

define_metrics! {
    build_info: Family<BuildInfo, Gauge>, "build_info", "Always 1; its labels describe the program and its store";
    ready: Gauge, "ready", "1 while ready, as /readyz says";
    source_unconfirmed: Gauge, "source_unconfirmed_channels", "Channels whose subscription Redis has not confirmed";
    source_messages: Counter, "source_messages", "Messages received from Redis";
    source_bytes: Counter, "source_payload_bytes", "Bytes of the messages received from Redis";
    source_connects: Counters, "source_connects" by "source", "Connections made to Redis, by use";
    source_connected: Labelled<Gauge>, "source_connected" by "source", "1 while the connection of this use is up";
    source_queue_depth: Gauge, "source_queue_frames", "Frames waiting for intake";
    gaps: Counters, "source_gaps" by "reason", "Gaps in the received messages, by reason";
    gap_lost: Counters, "source_lost_messages" by "reason", "Messages known to be missed, by reason of the gap";
    stream_lag: Labelled<Gauge>, "stream_lag_entries" by "stream",
        "Entries of the stream that no daemon of the group has read yet; -1 where the server does not tell";
    stream_pending: Labelled<Gauge>, "stream_pending_entries" by "stream",
        "Entries that a daemon of the group has read and not acknowledged";
    stream_acknowledged: Counters, "stream_acknowledged_entries" by "stream",
        "Entries that this daemon has acknowledged: they are on its disk";
    stream_claimed: Counters, "stream_claimed_entries" by "stream", "Entries of dead consumers that this daemon has claimed";
    stream_recoveries: Counters, "stream_recoveries" by "stream",
        "How often the stream or its consumer group was gone, and was made again";
    intake_events: Counter, "intake_events", "Messages accepted";
    intake_rejected: Counters, "intake_rejected" by "reason", "Messages rejected, by reason";
    intake_invalid_timestamps: Counter, "intake_invalid_timestamps", "Events whose own time was absent or implausible";
    intake_invalid_fields: Counter, "intake_invalid_fields",
        "Fields whose value their column cannot take; the rest of the message became its row";
    intake_unknown_outcomes: Counter, "intake_unknown_outcomes", "Ends of runs whose status is no known word; stored as stopped";
    spool_bytes: Gauge, "spool_used_bytes", "Bytes of all segments";
    spool_capacity_bytes: Gauge, "spool_capacity_bytes", "Bytes that all segments may have";
    spool_records: Gauge, "spool_pending_records", "Durable records the store has not confirmed";
    spool_syncs: Counter, "spool_syncs", "Group commits (fdatasync)";
    spool_sync_failures: Counter, "spool_sync_failures", "Group commits that failed";
    spool_memory_bytes: Gauge, "spool_memory_bytes", "Bytes held in the memory segment";
    spool_corrupt_records: Counter, "spool_corrupt_records", "Records skipped because they did not match their checksum";
    spool_missing_records: Counter, "spool_missing_records",
        "Records lost because their segment was deleted or cut";
    spool_healthy: Gauge, "spool_healthy", "1 while the spool takes records on disk";
    writer_rows: Counters, "writer_rows" by "table", "Rows confirmed by the store, by table";
    writer_batches: Counter, "writer_batches", "Batches confirmed by the store";
    writer_retries: Counter, "writer_retries", "Batches tried again";
    writer_skipped_records: Counter, "writer_skipped_records", "Records of deleted runs, received before the deletion";
    writer_run_writes: Counter, "writer_run_writes", "Writes of run rows";
    writer_in_flight: Gauge, "writer_in_flight_batches", "Batches being written, small ones as parts of full ones";
    writer_in_flight_limit: Gauge, "writer_in_flight_limit_batches", "Full batches that may be written at once";
    writer_lag_seconds: FloatGauge, "writer_lag_seconds",
        "Age of the oldest record that is not in the store; grows while paused or held, 0 without one";
    writer_paused: Gauge, "writer_paused", "1 while paused";
    store_connected: Gauge, "store_connected", "1 while the store answers";
    store_needs_attention: Gauge, "store_needs_attention",
        "1 while rows are held until an operator repairs the store; see /readyz and the status";
    store_errors: Counters, "store_errors" by "error", "Failed calls, by kind of error";
    dead_letters: Counters, "deadletter_messages" by "reason", "Messages and rows set aside, by reason";
    dead_letters_dropped: Counter, "deadletter_dropped", "Oldest dead letters dropped to stay within capacity";
    dead_letters_stored: Gauge, "deadletter_stored", "Dead letters on disk that have not been dropped";
    dead_letters_bytes: Gauge, "deadletter_used_bytes", "Bytes of the segments of dead letters";
    dead_letters_capacity_bytes: Gauge, "deadletter_capacity_bytes", "Bytes that the segments of dead letters may have";
    redis_unusable_values: Counters, "redis_unusable_values" by "reason",
        "Values of own Redis keys that were not read: too large, of another type, or no text";
    latest_writes: Counter, "latest_writes", "Latest-state keys set";
    latest_errors: Counter, "latest_errors", "Latest-state keys that could not be set";
    latest_skipped: Counter, "latest_coalesced", "Latest-state values replaced before they were written";
    name_conflict: Gauge, "latest_name_conflict", "1 while another daemon writes its status under the same name";
    control_commands: Counters, "control_commands" by "outcome", "Commands received, by outcome";
    api_requests: Counters, "api_requests" by "status", "Requests answered, by class of status";
    api_refusals: Counters, "api_refusals" by "reason", "Requests refused for what they carry or lack, by reason";
    api_sessions: Counters, "api_sessions" by "event", "Sessions begun and signed out";
    api_tokens: Labelled<Gauge>, "api_tokens" by "scope", "Tokens in force, by scope";
    api_tokens_outdated: Gauge, "api_tokens_outdated",
        "1 while `http.tokens_file` cannot be used and the previous tokens stay in force";
    api_certificate_outdated: Gauge, "api_certificate_outdated",
        "1 while the files of `http.tls` cannot be used and the former certificate stays in use";
    api_bodies_cut: Counter, "api_bodies_cut", "Streams and exports ended because their token or session was";
    api_latest_hits: Counter, "api_latest_hits", "Latest values answered from Redis";
    api_latest_misses: Counter, "api_latest_misses", "Latest values that Redis did not have";
}

fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn commit() -> &'static str {
    COMMIT.filter(|commit| !commit.is_empty()).unwrap_or("unknown")
}

fn latency_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 16))
}

impl Metrics {
    /// All at zero; the labels that are known beforehand are there from the first scrape on.
    pub fn new() -> Arc<Self> {
        Self::with_former_label(false)
    }

    /// The same; `former_label`: what has a label has its value as `name`, too.
    pub fn with_former_label(former_label: bool) -> Arc<Self> {
        let mut metrics = Self::register(Registry::default(), former_label);
        metrics.registry.register_collector(Box::new(ProcessCollector::new()));
        let own = metrics.registry.sub_registry_with_prefix("cascor");
        let written = metrics.intake_written_seconds.clone();
        own.register_with_unit("intake_written", "Received until written to the spool", Unit::Seconds, written);
        let durable = metrics.intake_durable_seconds.clone();
        own.register_with_unit("intake_durable", "Received until durable", Unit::Seconds, durable);
        let latency = metrics.store_latency_seconds.clone();
        own.register_with_unit("store_latency", "Latency of the store, by kind of call", Unit::Seconds, latency);
        // Former names, for one release.
        own.register(
            "intake_unusable_times",
            "Former name of cascor_intake_invalid_timestamps_total",
            metrics.intake_invalid_timestamps.clone(),
        );
        own.register(
            "deadletter_kept_letters",
            "Former name of cascor_deadletter_stored",
            metrics.dead_letters_stored.clone(),
        );
        metrics.gaps.show(GapReason::ALL.map(GapReason::as_str));
        metrics.gap_lost.show(GapReason::ALL.map(GapReason::as_str));
        metrics.intake_rejected.show(Reason::of_intake().map(Reason::as_str));
        metrics.dead_letters.show(Reason::ALL.map(Reason::as_str));
        Arc::new(metrics)
    }

    /// Says in `cascor_build_info` which program this is, and which kind of store it uses.
    pub fn set_build_info(&self, store: &'static str) {
        let info = BuildInfo { version: env!("CARGO_PKG_VERSION"), commit: commit(), store };
        self.build_info.get_or_create(&info).set(1);
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

    fn shows(page: &str, line: &str) {
        assert!(page.lines().any(|shown| shown == line), "{line}: {page}");
    }

    #[test]
    fn the_page_shows_every_reason_from_the_start() {
        let metrics = Metrics::new();
        metrics.gaps.of(GapReason::QueueFull.as_str()).inc();
        let page = metrics.page();
        shows(&page, "cascor_source_gaps_total{reason=\"queue_full\"} 1");
        shows(&page, "cascor_source_gaps_total{reason=\"spool_full\"} 0");
        shows(&page, "cascor_intake_rejected_total{reason=\"invalid_field\"} 0");
        // The store refuses rows, which are no messages: they are among the dead letters.
        shows(&page, "cascor_deadletter_messages_total{reason=\"rejected_by_store\"} 0");
        assert!(!page.contains("cascor_intake_rejected_total{reason=\"rejected_by_store\"}"), "{page}");
        shows(&page, "cascor_writer_lag_seconds 0.0");
        assert!(page.ends_with("# EOF\n") && !page.contains("name=\""), "{page}");
    }

    #[test]
    fn the_former_label_stands_beside_the_present_one() {
        let metrics = Metrics::with_former_label(true);
        metrics.store_latency_seconds.of("write").observe(0.1);
        let page = metrics.page();
        shows(&page, "cascor_source_gaps_total{reason=\"spool_full\",name=\"spool_full\"} 0");
        shows(&page, "cascor_store_latency_seconds_count{call=\"write\",name=\"write\"} 1");
    }

    #[test]
    fn the_page_tells_the_program_and_its_process() {
        let metrics = Metrics::new();
        metrics.set_build_info("sqlite");
        let page = metrics.page();
        let (version, commit) = (env!("CARGO_PKG_VERSION"), commit());
        shows(&page, &format!("cascor_build_info{{version=\"{version}\",commit=\"{commit}\",store=\"sqlite\"}} 1"));
        for name in [
            "process_cpu_seconds_total",
            "process_start_time_seconds",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
        ] {
            let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            assert!(value.is_some_and(|value| value > 0.0), "{name}: {page}");
        }
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
            shows(&page, line);
        }
    }
}
