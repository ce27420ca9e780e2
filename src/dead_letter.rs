//! Messages and rows set aside, with the reason.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::units::ByteSize;

/// Where and how many.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Its private directory; empty: `<state_dir>/deadletter`.
    pub dir: PathBuf,
    /// Size beyond which the oldest are dropped, and counted.
    pub capacity: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self { dir: PathBuf::new(), capacity: ByteSize::gib(1) }
    }
}
