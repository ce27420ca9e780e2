//! The durable log between intake and the writer.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::units::{self, ByteSize};

/// Where and how much to spool.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Its private directory; empty: `<state_dir>/spool`.
    pub dir: PathBuf,
    /// Size of all segments beyond which new records go to memory, then are dropped and counted.
    pub capacity: ByteSize,
    /// Size at which a segment is closed and the next one begun.
    pub segment: ByteSize,
    /// Longest time a received message waits for its fsync.
    #[serde(with = "units::duration")]
    pub sync_interval: Duration,
    /// How long the checkpoint trails a store that may forget what it has acknowledged.
    #[serde(with = "units::duration")]
    pub linger: Duration,
    /// Size of the memory segment, used while the disk takes nothing.
    pub memory: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            capacity: ByteSize::gib(10),
            segment: ByteSize::mib(16),
            sync_interval: Duration::from_millis(5),
            linger: Duration::from_secs(15),
            memory: ByteSize::mib(32),
        }
    }
}

impl Config {
    /// Adds what is wrong with these settings.
    pub fn problems(&self, problems: &mut Vec<String>) {
        if self.capacity.0 < 2 * self.segment.0 {
            problems.push("`spool.capacity` must hold at least two segments (`spool.segment`)".into());
        }
    }
}
