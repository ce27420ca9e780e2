//! The newest value per key, coalesced and written to Redis with short TTLs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{self, ByteSize};

/// Lifetimes and sizes of the latest-state keys. Their prefix is `redis.key_prefix`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named like the keys")]
pub struct Config {
    /// Whether the keys are kept at all.
    pub enabled: bool,
    #[serde(with = "units::duration")]
    pub metrics_ttl: Duration,
    #[serde(with = "units::duration")]
    pub topology_ttl: Duration,
    #[serde(with = "units::duration")]
    pub state_ttl: Duration,
    #[serde(with = "units::duration")]
    pub history_ttl: Duration,
    #[serde(with = "units::duration")]
    pub control_ttl: Duration,
    #[serde(with = "units::duration")]
    pub status_ttl: Duration,
    /// Objects in the history, at most.
    pub history_objects: usize,
    /// Size of the history, at most.
    pub history_bytes: ByteSize,
    /// Most recently active runs that have keys of their own.
    pub runs: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            metrics_ttl: Duration::from_secs(1),
            topology_ttl: Duration::from_secs(5),
            state_ttl: Duration::from_secs(60),
            history_ttl: Duration::from_secs(60),
            control_ttl: Duration::from_secs(5),
            status_ttl: Duration::from_secs(15),
            history_objects: 512,
            history_bytes: ByteSize::mib(1),
            runs: 64,
        }
    }
}
