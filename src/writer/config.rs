//! Settings: the size of batches, and what is written at once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    section::{self, require},
    units::{self, ByteSize},
};

/// When a batch is written, and how many at once.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Rows that make a batch due.
    pub batch_rows: usize,
    /// Bytes that make a batch due.
    pub batch_bytes: ByteSize,
    /// Age that makes a batch due.
    #[serde(with = "units::duration")]
    pub flush_interval: Duration,
    /// Full batches written at once, at most; the limit adapts to latency below it. A batch of fewer rows and bytes takes as many eighths
    /// of a place as it fills.
    pub in_flight: usize,
    /// Bytes of all batches being gathered or written.
    pub memory: ByteSize,
    /// Whether other daemons write the same runs, each from some of their events: the entries of streams are shared. Follows from
    /// `redis.streams`.
    #[serde(skip)]
    pub shares_runs: bool,
}

impl Default for Config {
    fn default() -> Self {
        section::defaults("writer")
    }
}

impl Config {
    /// Adds what is wrong with these settings.
    pub fn problems(&self, problems: &mut Vec<String>) {
        require(problems, self.batch_rows > 0, "`writer.batch_rows` must be at least 1");
        require(problems, self.in_flight > 0, "`writer.in_flight` must be at least 1");
        require(problems, self.memory.0 > 0, "`writer.memory` must be above zero: without it nothing is ever read");
    }
}
