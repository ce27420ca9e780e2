//! One message as it was received, and the other things that travel the same way: gaps and outcomes of commands.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, time::Instant};
use uuid::Uuid;

use crate::{event::ControlRow, units::Micros};

/// One message, copied out of the client's buffer.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The channel it was published on (not the pattern that matched).
    pub channel: Arc<str>,
    /// Its bytes, untouched.
    pub payload: Bytes,
    /// Wall clock when our task had it.
    pub received_at: Micros,
    /// The same moment on the monotonic clock, for latencies.
    pub received: Instant,
    /// Whether it came on a control channel.
    pub control: bool,
}

/// The source, in `control_log`, of what people and programs ask by HTTP; behind a colon the name of their token.
pub const SOURCE_HTTP: &str = "http";
/// The source of what the daemon does by itself.
pub const SOURCE_SELF: &str = "self";

/// The name to record a channel of Redis by, where its own would claim to be one of our sources: anybody may publish on a channel
/// that is called `http:somebody`, if a pattern subscribes to it.
pub fn escape_reserved_name(channel: &str) -> Option<String> {
    let ours = channel == SOURCE_SELF || channel.split(':').next() == Some(SOURCE_HTTP);
    ours.then(|| format!("redis:{channel}"))
}

/// A gap in what was received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First moment at which something may have been missed.
    pub started_at: Micros,
    /// Last such moment.
    pub ended_at: Micros,
    /// Why.
    pub reason: GapReason,
    /// Where it was missed: `redis`, `control`, `queue`, `spool`, `process`.
    pub source: String,
    /// On which channel; absent: on all of them.
    pub channel: Option<String>,
    /// Of which run; only where `seq` tells.
    pub run_id: Option<Uuid>,
    /// How many; absent: unknown.
    pub lost: Option<u64>,
}

/// Why something was missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The process was not running, or not yet subscribed.
    NotListening,
    /// The connection to Redis was lost.
    Disconnected,
    /// Redis cut the connection because we, or one huge message, exceeded its output buffer.
    CutByRedis,
    /// The client's receive buffer overflowed.
    ClientLag,
    /// The frames queue was full.
    QueueFull,
    /// The spool, disk and memory segment, was full.
    SpoolFull,
    /// The process was stopped or the machine asleep; what was lost while it was, other gaps tell, too.
    ProcessPaused,
    /// The producer's `seq` shows a gap; restates per run what the other reasons count per channel.
    Sequence,
}

impl GapReason {
    /// Every reason, for metrics and documentation.
    pub const ALL: [Self; 8] = [
        Self::NotListening,
        Self::Disconnected,
        Self::CutByRedis,
        Self::ClientLag,
        Self::QueueFull,
        Self::SpoolFull,
        Self::ProcessPaused,
        Self::Sequence,
    ];

    /// The name that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotListening => "not_listening",
            Self::Disconnected => "disconnected",
            Self::CutByRedis => "cut_by_redis",
            Self::ClientLag => "client_lag",
            Self::QueueFull => "queue_full",
            Self::SpoolFull => "spool_full",
            Self::ProcessPaused => "process_paused",
            Self::Sequence => "sequence",
        }
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a message cannot become rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// One of the contract's reasons.
    pub reason: Reason,
    /// What exactly: for `invalid_field` the field and its value (cut to 200 bytes), else the place or the limit.
    pub detail: String,
}

/// The contract's reasons of rejection, and one for rows that the store refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the contract's names")]
pub enum Reason {
    TooLarge,
    TooDeep,
    MalformedJson,
    MalformedMsgpack,
    NotAnObject,
    UnknownShape,
    InvalidField,
    /// The store said that this row can never be stored.
    RejectedByStore,
}

impl Reason {
    /// Every reason, for metrics and filters.
    pub const ALL: [Self; 8] = [
        Self::TooLarge,
        Self::TooDeep,
        Self::MalformedJson,
        Self::MalformedMsgpack,
        Self::NotAnObject,
        Self::UnknownShape,
        Self::InvalidField,
        Self::RejectedByStore,
    ];

    /// The name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::MalformedJson => "malformed_json",
            Self::MalformedMsgpack => "malformed_msgpack",
            Self::NotAnObject => "not_an_object",
            Self::UnknownShape => "unknown_shape",
            Self::InvalidField => "invalid_field",
            Self::RejectedByStore => "rejected_by_store",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.detail)
    }
}

/// What the daemon did about a command; the second record of a command in the log, and the answer on the ack channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields of the contract's receipt, by name")]
pub struct Receipt {
    pub id: Option<String>,
    pub command: String,
    pub target: Option<String>,
    pub instance: String,
    pub outcome: Outcome,
    pub detail: String,
    /// When the command was received; with its bytes and channel the key of its row.
    pub received_at: Micros,
    pub took_ms: u64,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the contract's names")]
pub enum Outcome {
    Done,
    Ignored,
    Refused,
    Failed,
}

impl Outcome {
    /// The name that is stored and published.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Ignored => "ignored",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What flows from the sources (and back from the control stage) into intake.
#[derive(Debug)]
pub enum IntakeItem {
    /// A message.
    Frame(Frame),
    /// A message whose sender waits to hear what became of it.
    FrameWithAck(Frame, oneshot::Sender<Ack>),
    /// A gap.
    Gap(Gap),
    /// The outcome of a command, to be logged like everything else.
    Receipt(ControlRow),
    /// Close every open run (`reset`).
    CloseRuns,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ack {
    /// It is on disk, and will be its rows.
    Durable,
    /// It is a dead letter, for this reason.
    Rejected(Rejection),
    /// The disk does not take it now: it may be lost.
    NotDurable,
}

/// A rejected message: what a rejected record and a dead letter carry in front of the raw bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedMessage {
    /// Why.
    pub rejection: Rejection,
    /// Length of the message as received; what is kept of a `too_large` one is only its beginning.
    pub length: u64,
    /// XXH3-64 of the whole message, in hexadecimal.
    pub hash: String,
}

impl RejectedMessage {
    /// How much is kept of a message that is longer than messages may be.
    pub const MAX_PRESERVED: usize = 64 << 10;

    /// The description of `raw`, all of which is kept.
    pub fn new(rejection: Rejection, raw: &[u8]) -> (Self, &[u8]) {
        Self::with_limit(rejection, raw, usize::MAX)
    }

    /// The same of a message as it was received: of one longer than `limit` the beginning is kept.
    pub fn with_limit(rejection: Rejection, raw: &[u8], limit: usize) -> (Self, &[u8]) {
        let preserved = if raw.len() > limit { &raw[..raw.len().min(Self::MAX_PRESERVED)] } else { raw };
        let hash = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(raw));
        (Self { rejection, length: raw.len() as u64, hash }, preserved)
    }

    /// What stands in front of the kept bytes: `u32 length of the description ‖ description (JSON)`.
    pub fn encode(&self) -> Vec<u8> {
        let description = serde_json::to_vec(self).expect("strings and numbers always serialise");
        let mut bytes = (description.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&description);
        bytes
    }

    /// The description and the kept bytes behind it; `None` when the bytes are something else.
    pub fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (head, preserved) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some((serde_json::from_slice(head).ok()?, preserved))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_channel_has_the_name_of_a_source_of_ours() {
        for (channel, recorded) in [
            ("http:ann", Some("redis:http:ann")),
            ("http", Some("redis:http")),
            ("self", Some("redis:self")),
            ("cascor:control", None),
            ("https:ann", None),
            ("redis:http:ann", None),
            ("", None),
        ] {
            assert_eq!(escape_reserved_name(channel).as_deref(), recorded, "{channel}");
        }
    }

    #[test]
    fn a_set_aside_message_keeps_its_bytes_and_its_reason() {
        let raw = vec![b'x'; RejectedMessage::MAX_PRESERVED + 1];
        let (reason, long) = (Reason::TooLarge, raw.len());
        for (limit, kept_bytes) in [(long - 1, RejectedMessage::MAX_PRESERVED), (long, long), (usize::MAX, long)] {
            let rejection = Rejection { reason, detail: "because".into() };
            let (rejected, preserved) = RejectedMessage::with_limit(rejection, &raw, limit);
            assert_eq!((preserved.len(), rejected.length), (kept_bytes, raw.len() as u64));
            assert_eq!(
                RejectedMessage::decode(&[&rejected.encode(), preserved].concat()),
                Some((rejected.clone(), preserved))
            );
        }
        assert_eq!(RejectedMessage::decode(b"\xff\xff\xff\xff"), None);
    }
}
