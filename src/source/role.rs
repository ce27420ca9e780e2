//! What a source is for, and what it does when its queue is full.

use serde::Serialize;

use crate::words::words;

words! {
    /// What a source receives. Its name labels the metrics and the status of its connection.
    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Role(as_str) {
        /// Training messages.
        Training "training",
        /// Entries of a stream with training messages.
        Stream "stream",
        /// Commands.
        Control "control",
    }
}

impl Role {
    /// The task that receives it, as its log lines name it.
    pub fn task(self) -> &'static str {
        match self {
            Self::Training => "receive training",
            Self::Stream => "read stream",
            Self::Control => "receive control",
        }
    }

    /// The place of a loss, as gaps are recorded.
    pub fn gap_source(self) -> &'static str {
        match self {
            Self::Training => "redis",
            Self::Stream => "stream",
            Self::Control => "control",
        }
    }
}

/// What a source does with a frame for which its queue has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Waits for room. For a server that keeps a message until it is acknowledged: every frame is, after the fsync.
    Wait,
    /// Drops the frame and counts it. For Pub/Sub: Redis would cut off a client that waits, and more would be lost, uncounted.
    Drop,
}
