//! One stream, and where its source reports.

use std::sync::Arc;

use crate::{
    metrics::Metrics,
    redis::Config,
    source::{
        role::Role,
        status::{ConnectionHandle, SourceStatus},
        stream_status::{StreamHandle, StreamStatus, StreamsStatus},
    },
    units,
};

/// A source of its own for each stream: what is wrong with one does not delay the other streams.
pub struct Stream {
    pub(super) redis: Config,
    pub(super) name: Arc<str>,
    /// This daemon in the group; the same after a restart, which then has its unacknowledged entries first.
    pub(super) consumer: String,
    /// Its name as a label of metrics.
    pub(super) label: &'static str,
    /// Unacknowledged entries, and bytes of those on their way to the disk.
    pub(super) frames_max: usize,
    pub(super) bytes_max: usize,
    pub(super) connection: ConnectionHandle,
    pub(super) status: StreamHandle,
    pub(super) metrics: Arc<Metrics>,
}

/// Of the queue to intake, what all streams together may fill: Pub/Sub, which cannot wait, has the rest.
const QUEUE_SHARE: usize = 4;

impl Stream {
    /// The sources of all streams that are configured.
    pub fn all(
        config: &Config,
        instance: &str,
        status: &SourceStatus,
        streams: &StreamsStatus,
        metrics: &Arc<Metrics>,
    ) -> Vec<Self> {
        let share = QUEUE_SHARE * config.streams.len().max(1);
        let stream = |name: &String| {
            // One for each configured stream, for as long as the process lives.
            let label: &'static str = Box::leak(name.clone().into_boxed_str());
            metrics.source_connected.show([Role::Stream.as_str()]);
            metrics.source_connects.show([Role::Stream.as_str()]);
            for counters in [&metrics.stream_acknowledged, &metrics.stream_claimed, &metrics.stream_recoveries] {
                counters.show([label]);
            }
            let state = StreamStatus {
                name: name.clone(),
                group: config.group.clone(),
                consumer: instance.to_owned(),
                ..StreamStatus::default()
            };
            Self {
                redis: config.clone(),
                name: name.as_str().into(),
                consumer: instance.to_owned(),
                label,
                frames_max: (config.queue_frames / share).max(1),
                bytes_max: (config.queue_bytes.as_usize() / share).max(1),
                connection: status.register(Role::Stream, std::slice::from_ref(name), units::now()),
                status: streams.register(state),
                metrics: Arc::clone(metrics),
            }
        };
        config.streams.iter().map(stream).collect()
    }
}
