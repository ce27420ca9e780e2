//! A message as received, and the other items that flow into intake: gaps, receipts of commands.

use std::{
    fmt, mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, oneshot},
    time::Instant,
};
use uuid::Uuid;

use crate::{
    event::{ControlRow, EntryId, entry_source},
    gaps::Gap,
    units::Micros,
    words::words,
};

/// One message, copied out of the client's buffer.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The channel it was published on (not the pattern that matched).
    pub channel: Arc<str>,
    /// Its bytes, untouched.
    pub payload: Bytes,
    /// Wall clock at receipt.
    pub received_at: Micros,
    /// The same moment on the monotonic clock, for latencies.
    pub received: Instant,
    /// Whether it came on a control channel.
    pub control: bool,
    /// Of an entry of a stream, whose name is `channel`: its id there.
    pub entry: Option<EntryId>,
}

impl Frame {
    /// What the event id is a hash of, beside the payload: the channel; with the entry where that has no time of its own.
    pub fn event_source(&self, has_own_time: bool) -> Arc<str> {
        match self.entry.filter(|_| !has_own_time) {
            Some(entry) => entry_source(&self.channel, entry).into(),
            None => Arc::clone(&self.channel),
        }
    }
}

/// The source, in `control_log`, of commands by HTTP; the name of the token follows behind a colon.
pub const SOURCE_HTTP: &str = "http";
/// The source of changes by the command line; the name of the person follows behind a colon.
pub const SOURCE_CLI: &str = "cli";
/// The source of commands that the daemon gives itself.
pub const SOURCE_SELF: &str = "self";

/// The recorded name of a Redis channel that is called like [`SOURCE_HTTP`], [`SOURCE_CLI`] or [`SOURCE_SELF`], which a pattern may
/// match: it must not pass for one of these sources.
pub fn escape_reserved_name(channel: &str) -> Option<String> {
    let ours = channel == SOURCE_SELF || [SOURCE_HTTP, SOURCE_CLI].map(Some).contains(&channel.split(':').next());
    ours.then(|| format!("redis:{channel}"))
}

/// Why a message cannot become rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// One of the contract's reasons.
    pub reason: Reason,
    /// For `invalid_field` the field and its value (cut to 200 bytes), else the place or the limit.
    pub detail: String,
}

words! {
    /// The contract's reasons of rejection, and one for rows that the store refuses.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    #[allow(missing_docs, reason = "the contract's names")]
    pub enum Reason(as_str) {
        TooLarge "too_large",
        TooDeep "too_deep",
        MalformedJson "malformed_json",
        MalformedMsgpack "malformed_msgpack",
        NotAnObject "not_an_object",
        UnknownShape "unknown_shape",
        InvalidField "invalid_field",
        /// The store said that this row can never be stored.
        RejectedByStore "rejected_by_store",
    }
}

impl Reason {
    /// The reasons for which intake rejects a message.
    pub fn of_intake() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|reason| *reason != Self::RejectedByStore)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.detail)
    }
}

/// The receipt of a command: its second record in the log, and the answer on the ack channel.
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

words! {
    /// How a command ended.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    #[allow(missing_docs, reason = "the contract's names")]
    pub enum Outcome(as_str) {
        Done "done",
        Ignored "ignored",
        Refused "refused",
        Failed "failed",
    }
}

/// What flows into intake: from the sources, the control stage and HTTP.
#[derive(Debug)]
pub enum IntakeItem {
    /// Messages that arrived together.
    Frames(Vec<Frame>),
    /// Messages whose server keeps them until they are acknowledged.
    TrackedFrames(Vec<(Frame, DeliveryTag)>),
    /// A message of a request that waits for its outcome.
    FrameWithAck(Frame, oneshot::Sender<Ack>),
    /// Some of the messages of a request.
    Batch(MessageBatch),
    /// A gap.
    Gap(Gap),
    /// A gap whose source keeps it until it is durable.
    GapWithAck(Gap, oneshot::Sender<Ack>),
    /// The row of an executed command, to be recorded in the log.
    Receipt(ControlRow),
    /// Close every open run: a `reset` that was received at this time.
    CloseRuns(Micros),
    /// Close a deleted run, where it was opened at or before this time.
    CloseDeletedRun(Uuid, Micros),
}

impl IntakeItem {
    /// The number of messages in it; 1 for anything else.
    pub fn messages(&self) -> usize {
        match self {
            Self::Frames(frames) => frames.len(),
            Self::TrackedFrames(frames) => frames.len(),
            Self::Batch(batch) => batch.frames.len(),
            _ => 1,
        }
    }
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ack {
    /// It is on disk; its rows follow.
    Durable,
    /// It is a dead letter, for this reason.
    Rejected(Rejection),
    /// The spool cannot write to disk: it may be lost.
    NotDurable,
}

/// Some of the messages of a request, which keeps them until they are durable: what is not taken is not counted as lost. They are
/// taken in order, up to the first for which there is no room.
#[derive(Debug)]
pub struct MessageBatch {
    /// The messages.
    pub frames: Vec<Frame>,
    /// Shared by the batches of one request.
    pub cut_short: CutShort,
    /// Where the outcome goes.
    pub answer: oneshot::Sender<BatchAck>,
    /// Bounds the batches in the queue; released when this one is taken out.
    pub permit: OwnedSemaphorePermit,
}

/// What became of a [`MessageBatch`].
#[derive(Debug)]
pub struct BatchAck {
    /// Messages taken, of its beginning.
    pub taken: usize,
    /// Those among them that are dead letters: their positions, and why.
    pub rejected: Vec<(usize, Rejection)>,
    /// Whether the messages taken are on disk. If not, they may be lost.
    pub durable: bool,
}

/// Set when a batch of a request was not taken whole: its later batches are then not taken at all, so that what was taken of a
/// request is always its beginning.
#[derive(Clone, Debug, Default)]
pub struct CutShort(Arc<AtomicBool>);

impl CutShort {
    /// Sets it.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The number of a frame at its source, and the way back there. Dropped without [`settle`](Self::settle) it acknowledges nothing.
#[derive(Debug)]
pub struct DeliveryTag {
    number: u64,
    settlements: Settlements,
}

impl DeliveryTag {
    /// Tells the source what became of the frame.
    pub fn settle(self, durable: bool) {
        Self::settle_all([self], durable);
    }

    /// Tells the sources what became of frames: once for consecutive ones, because each time may wake the source.
    pub fn settle_all(tags: impl IntoIterator<Item = Self>, durable: bool) {
        let mut open: Option<(Settlements, Settled)> = None;
        for Self { number, settlements } in tags {
            match &mut open {
                Some((of, settled)) if Arc::ptr_eq(&of.0, &settlements.0) && settled.last + 1 == number => {
                    settled.last = number;
                }
                _ => {
                    let next = (settlements, Settled { first: number, last: number, durable });
                    if let Some((of, settled)) = open.replace(next) {
                        of.push(settled);
                    }
                }
            }
        }
        if let Some((of, settled)) = open {
            of.push(settled);
        }
    }
}

/// What became of consecutive frames of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Number of the first frame.
    pub first: u64,
    /// Number of the last frame.
    pub last: u64,
    /// Whether they are on disk, each as an event, a command or a rejected message. If not, the spool has no room for them or its disk
    /// fails; they are not counted as lost, because the source has to deliver them again.
    pub durable: bool,
}

/// Acknowledgements on their way back to one source. Bounded: those of consecutive frames are one entry.
#[derive(Clone, Debug, Default)]
pub struct Settlements(Arc<SettledQueue>);

#[derive(Debug, Default)]
struct SettledQueue {
    settled: Mutex<Vec<Settled>>,
    added: Notify,
}

impl Settlements {
    /// The tag of the frame with this number.
    pub fn tag(&self, number: u64) -> DeliveryTag {
        DeliveryTag { number, settlements: self.clone() }
    }

    /// Waits for acknowledgements, and takes them. Dropping the future loses none.
    pub async fn next(&self) -> Vec<Settled> {
        loop {
            let settled = mem::take(&mut *self.0.settled.lock().unwrap_or_else(PoisonError::into_inner));
            if !settled.is_empty() {
                return settled;
            }
            self.0.added.notified().await;
        }
    }

    fn push(&self, next: Settled) {
        let mut settled = self.0.settled.lock().unwrap_or_else(PoisonError::into_inner);
        match settled.last_mut() {
            Some(last) if last.durable == next.durable && last.last + 1 == next.first => last.last = next.last,
            _ => settled.push(next),
        }
        drop(settled);
        self.0.added.notify_one();
    }
}

/// A rejected message: what a rejected record and a dead letter carry in front of the raw bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedMessage {
    /// Why.
    pub rejection: Rejection,
    /// Length of the message as received; of a `too_large` one only the beginning is kept.
    pub length: u64,
    /// XXH3-64 of the whole message, in hexadecimal.
    pub hash: String,
}

impl RejectedMessage {
    /// Bytes kept of a message above the limit.
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

    /// The bytes in front of the kept ones: `u32 length of the description ‖ description (JSON)`.
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
    fn no_channel_is_recorded_under_the_name_of_an_internal_source() {
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

    #[tokio::test]
    async fn consecutive_frames_of_one_source_are_settled_together() {
        let (one, other) = (Settlements::default(), Settlements::default());
        let tags = [(&one, 0), (&one, 1), (&other, 0), (&one, 2), (&one, 4)].map(|(of, number)| of.tag(number));
        DeliveryTag::settle_all(tags, true);
        DeliveryTag::settle_all([one.tag(5)], false);
        let settled = |first, last, durable| Settled { first, last, durable };
        assert_eq!(one.next().await, [settled(0, 2, true), settled(4, 4, true), settled(5, 5, false)]);
        assert_eq!(other.next().await, [settled(0, 0, true)]);
    }

    #[test]
    fn a_rejected_message_keeps_its_bytes_and_its_reason() {
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
