//! JSON and MessagePack messages to typed events; reasons of rejection.

use serde::{Deserialize, Serialize};

use crate::units::ByteSize;

/// What a message may be at most; checked before decoding.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Size of a message; larger ones are dead letters of which the first 64 KiB are kept.
    pub message: ByteSize,
    /// Depth of nesting.
    pub depth: usize,
    /// Fields in one map.
    pub fields: usize,
    /// Length of one string outside a topology.
    pub string: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message: ByteSize::mib(20), depth: 64, fields: 4_096, string: ByteSize::kib(64) }
    }
}

impl Limits {
    /// Adds what is wrong with these settings.
    pub fn problems(&self, problems: &mut Vec<String>) {
        if self.message > ByteSize::mib(32) {
            problems.push("`limits.message` is above 32MiB, where Redis cuts the connection of a subscriber".into());
        }
    }
}
