//! One gap: its bounds, its reason and the number of messages.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{units::Micros, words::words};

/// A gap in what was received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First moment of the loss.
    pub started_at: Micros,
    /// Last moment of the loss.
    pub ended_at: Micros,
    /// The reason.
    pub reason: GapReason,
    /// Place of the loss: `redis`, `control`, `stream`, `queue`, `spool`, `process`.
    pub source: String,
    /// The channel; absent: all of them.
    pub channel: Option<String>,
    /// The run; only where `seq` shows the gap.
    pub run_id: Option<Uuid>,
    /// Number of messages; absent: unknown.
    pub lost: Option<u64>,
    /// The instance that its row names; absent: the one that writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

impl Gap {
    /// A gap of unknown size on all channels. Where the clock was set back meanwhile, it ends at its beginning.
    pub fn new(reason: GapReason, source: &str, started_at: Micros, ended_at: Micros) -> Self {
        let ended_at = ended_at.max(started_at);
        Self {
            started_at,
            ended_at,
            reason,
            source: source.to_owned(),
            channel: None,
            run_id: None,
            lost: None,
            instance: None,
        }
    }

    /// Takes in a gap of the same reason. The size of the sum is unknown where one of both is.
    pub fn merge(&mut self, other: &Self) {
        if self.channel != other.channel {
            self.channel = None;
        }
        if self.run_id != other.run_id {
            self.run_id = None;
        }
        self.started_at = self.started_at.min(other.started_at);
        self.ended_at = self.ended_at.max(other.ended_at);
        self.lost = self.lost.zip(other.lost).map(|(one, more)| one + more);
    }
}

words! {
    /// Why messages were lost.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum GapReason(as_str) {
        /// The process was not running, or not yet subscribed.
        NotListening "not_listening",
        /// The connection to Redis was lost.
        Disconnected "disconnected",
        /// Redis cut the connection: a slow subscriber, or one huge message, exceeded its output buffer.
        CutByRedis "cut_by_redis",
        /// The receive buffer of the Redis client overflowed; former releases had one.
        ClientLag "client_lag",
        /// The frames queue was full.
        QueueFull "queue_full",
        /// The spool, disk and memory segment, was full.
        SpoolFull "spool_full",
        /// The process was stopped, or the machine asleep. Losses in that time have gaps of their own as well.
        ProcessPaused "process_paused",
        /// Entries of a stream were trimmed before they were read.
        Trimmed "trimmed",
        /// The same; the number is a bound: some may have been deleted, or read by another consumer.
        TrimmedAtMost "trimmed_at_most",
        /// A stream, or its consumer group, was deleted or replaced: what was unread in it is lost.
        StreamReset "stream_reset",
        /// The producer's `seq` shows a gap; restates per run what the other reasons count per channel.
        Sequence "sequence",
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
