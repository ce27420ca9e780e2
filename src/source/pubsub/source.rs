//! One Pub/Sub source: its channels, and where it reports.

use std::sync::Arc;

use crate::{
    metrics::Metrics,
    redis::{Config, overlap},
    source::{
        role::Role,
        status::{ConnectionHandle, SourceStatus},
    },
    units,
};

/// One source with its own connection and its own channels.
pub struct PubSub {
    pub(super) role: Role,
    pub(super) redis: Config,
    pub(super) channels: Vec<String>,
    /// The channel of this program that is read although it is its own.
    ack_channel: Option<String>,
    pub(super) status: ConnectionHandle,
    pub(super) metrics: Arc<Metrics>,
}

impl PubSub {
    /// The source of training messages.
    pub fn training(config: &Config, status: &SourceStatus, metrics: Arc<Metrics>) -> Self {
        Self::new(Role::Training, config, config.training_channels.clone(), status, metrics)
    }

    /// The source of commands, on a connection of its own.
    pub fn control(config: &Config, status: &SourceStatus, metrics: Arc<Metrics>) -> Self {
        Self::new(Role::Control, config, config.control_channels.clone(), status, metrics)
    }

    /// For a process that only passes on what it receives: training messages, and the answers of daemons to commands.
    pub fn listener(config: &Config, status: &SourceStatus, metrics: Arc<Metrics>) -> Self {
        let mut channels = config.training_channels.clone();
        // A pattern may bring them already.
        if !channels.iter().any(|channel| overlap(channel, &config.ack_channel())) {
            channels.push(config.ack_channel());
        }
        let source = Self::new(Role::Training, config, channels, status, metrics);
        Self { ack_channel: Some(config.ack_channel()), ..source }
    }

    fn new(role: Role, config: &Config, channels: Vec<String>, status: &SourceStatus, metrics: Arc<Metrics>) -> Self {
        metrics.source_connected.show([role.as_str()]);
        metrics.source_connects.show([role.as_str()]);
        Self {
            role,
            status: status.register(role, &channels, units::now()),
            channels,
            ack_channel: None,
            redis: config.clone(),
            metrics,
        }
    }

    /// Whether a channel of this program is matched by a pattern, and not to be read.
    pub(super) fn is_ignored(&self, channel: &str) -> bool {
        self.redis.is_own_channel(channel) && self.ack_channel.as_deref() != Some(channel)
    }
}
