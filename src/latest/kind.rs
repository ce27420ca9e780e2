//! The kinds of latest keys.
//!
//! A new kind is a variant here with its name and TTL; `intake::accept` says which messages feed it; a kind of which each run has a
//! key is also listed where [`state`](super::state) goes over the keys of a run.

use std::time::Duration;

use super::config::Config;
use crate::words::words;

words! {
    /// Which of the latest keys an event belongs to.
    pub enum LatestKind(name) {
        /// Metrics: its key, its run's key, and the history.
        Metrics "metrics",
        /// Topology: its key and its run's key.
        Topology "topology",
        /// State, run start and run end.
        State "state",
    }
}

impl LatestKind {
    /// Whether each run has a key of this kind, too.
    pub(super) fn has_run_key(self) -> bool {
        match self {
            Self::Metrics | Self::Topology => true,
            Self::State => false,
        }
    }

    pub(super) fn ttl(self, config: &Config) -> Duration {
        match self {
            Self::Metrics => config.metrics_ttl,
            Self::Topology => config.topology_ttl,
            Self::State => config.state_ttl,
        }
    }
}
