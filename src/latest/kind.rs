//! The kinds of latest keys.
//!
//! A new kind is a variant here with its name and TTL; `intake::accept` says which messages feed it; a kind of which each run has a
//! key is also listed where [`state`](super::state) goes over the keys of a run.

use std::time::Duration;

use super::config::Config;

/// Which of the latest keys an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LatestKind {
    /// Metrics: its key, its run's key, and the history.
    Metrics,
    /// Topology: its key and its run's key.
    Topology,
    /// State, run start and run end.
    State,
}

impl LatestKind {
    pub(super) const ALL: [Self; 3] = [Self::Metrics, Self::Topology, Self::State];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Topology => "topology",
            Self::State => "state",
        }
    }

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
