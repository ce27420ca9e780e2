//! Settings: the size of batches, and what is written at once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{self, ByteSize};

/// When a batch is written, and how many at once.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Rows that make a batch due.
    pub batch_rows: usize,
    /// Bytes that make a batch due.
    pub batch_bytes: ByteSize,
    /// Age that makes a batch due.
    #[serde(with = "units::duration")]
    pub flush_interval: Duration,
    /// Batches written at once, at most; the limit adapts to latency below it.
    pub in_flight: usize,
    /// Bytes of all batches being gathered or written.
    pub memory: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            batch_rows: 100,
            batch_bytes: ByteSize::kib(64),
            flush_interval: Duration::from_millis(250),
            in_flight: 16,
            memory: ByteSize::mib(16),
        }
    }
}

impl Config {
    /// Adds what is wrong with these settings.
    pub fn problems(&self, problems: &mut Vec<String>) {
        if self.batch_rows == 0 {
            problems.push("`writer.batch_rows` must be at least 1".into());
        }
        if self.in_flight == 0 {
            problems.push("`writer.in_flight` must be at least 1".into());
        }
        if self.memory.0 == 0 {
            problems.push("`writer.memory` must be above zero: without it nothing is ever read".into());
        }
    }
}
