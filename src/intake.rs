//! Frames to durable records: decode once, decide once, append, one fsync for the group.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units;

/// What is decided about a message.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Zone of times that carry none.
    pub time_zone: String,
    /// A channel's open run ends after this long without an event, counting only time subscribed.
    #[serde(with = "units::duration")]
    pub run_idle_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { time_zone: "UTC".into(), run_idle_timeout: Duration::from_secs(6 * 3_600) }
    }
}
