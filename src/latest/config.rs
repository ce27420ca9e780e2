//! Settings of the latest-state keys.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    section::{self, require},
    units::{self, ByteSize},
};

/// Lifetimes and sizes of the latest-state keys. Their prefix is `redis.key_prefix`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
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
        section::defaults("latest")
    }
}

impl Config {
    /// Adds what is wrong with these settings.
    pub fn problems(&self, problems: &mut Vec<String>) {
        for (name, ttl) in [
            ("metrics_ttl", self.metrics_ttl),
            ("topology_ttl", self.topology_ttl),
            ("state_ttl", self.state_ttl),
            ("history_ttl", self.history_ttl),
            ("control_ttl", self.control_ttl),
            ("status_ttl", self.status_ttl),
        ] {
            require(problems, ttl >= Duration::from_millis(1), format!("`latest.{name}` must be at least 1ms"));
        }
        require(problems, self.runs > 0, "`latest.runs` must be at least 1");
    }
}
