//! Small adapters between parts that do not know each other.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::Value;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{
    dead_letter::{DeadLetterError, DeadLetterLog, NewDeadLetter},
    event::Resolved,
    frame::{Reason, RejectedMessage, Rejection},
    gaps::{Gap, GapReason},
    intake::ReplayedRecord,
    latest::Render,
    logging::Chain,
    memory::{LARGE_VALUE, MemoryLimit},
    runs::{EventTime, RunHints},
    spool::{self, RecordKind},
    store::{BoxError, Store},
    wire,
    writer::{Commit, DeadLetterBody, DeadLetterEntry, DeadLetterSink},
};

/// Renders latest values from the bytes of messages.
pub struct Renderer {
    instance: String,
}

impl Renderer {
    /// For the keys of this instance.
    pub fn new(instance: &str) -> Self {
        Self { instance: instance.to_owned() }
    }
}

impl Render for Renderer {
    fn text_bytes(&self, payload: &[u8]) -> usize {
        wire::text_bytes(payload)
    }

    fn render(&self, payload: &[u8], decided: &Resolved, canonical_only: bool, out: &mut String) {
        match wire::decode_accepted(payload) {
            Ok(message) if canonical_only => wire::latest_json_canonical(&message, decided, &self.instance, out),
            Ok(message) => wire::latest_json(&message, decided, &self.instance, out),
            Err(rejection) => debug!(%rejection, "an accepted message cannot be rendered"),
        }
    }
}

/// The status key's text.
pub fn status_json(status: &Arc<dyn Fn() -> Value + Send + Sync>) -> Arc<dyn Fn() -> String + Send + Sync> {
    let status = Arc::clone(status);
    Arc::new(move || status().to_string())
}

/// Commits to the spool; a store that may forget keeps the checkpoint behind.
pub struct SpoolCommit {
    committer: spool::Committer,
    view: spool::View,
    store: Arc<dyn Store>,
    linger: Duration,
}

impl SpoolCommit {
    /// `linger` is used while the store says that it may forget.
    pub fn new(committer: spool::Committer, view: spool::View, store: Arc<dyn Store>, linger: Duration) -> Self {
        Self { committer, view, store, linger }
    }
}

impl Commit for SpoolCommit {
    fn commit(&self, next: u64) {
        // Known only once the store is connected, so asked each time.
        self.committer.set_linger(if self.store.acks_may_be_lost() { self.linger } else { Duration::ZERO });
        self.committer.commit(next);
    }

    fn rollback_to_checkpoint(&self) -> u64 {
        // What lingers is forgotten when the reader goes back.
        self.view.committed()
    }
}

/// What a message as long as may be takes while it becomes a dead letter: read from the spool, copied, written.
const COPY_BYTES: usize = 60 << 20;

/// Dead letters of the writer.
pub struct SpoolDeadLetters {
    log: Arc<DeadLetterLog>,
    view: spool::View,
    memory: MemoryLimit,
}

/// A letter with everything that it borrows.
struct OwnedDeadLetter {
    channel: String,
    rejected: RejectedMessage,
    payload: Bytes,
    decided: Resolved,
    kind: RecordKind,
}

impl SpoolDeadLetters {
    /// Letters about records of this spool; what large ones take is counted in `memory`.
    pub fn new(entries: Arc<DeadLetterLog>, view: spool::View, memory: MemoryLimit) -> Self {
        Self { log: entries, view, memory }
    }

    fn to_owned_entry(view: &spool::View, entry: &DeadLetterEntry) -> OwnedDeadLetter {
        let at = entry.received_at;
        let plain =
            |run_id| Resolved { run_id, event_time: at, received_at: at, has_event_time: false, opened_run: false };
        match &entry.body {
            DeadLetterBody::Message { channel, rejected, bytes, run_id } => OwnedDeadLetter {
                channel: channel.clone(),
                rejected: rejected.clone(),
                payload: bytes.clone(),
                decided: plain(*run_id),
                kind: RecordKind::Rejected,
            },
            DeadLetterBody::Refused { error, row, .. } => {
                Self::from_spool(view, entry.offset, error).unwrap_or_else(|| {
                    let (rejected, kept) = RejectedMessage::new(refusal(error), row.as_bytes());
                    let (payload, decided) = (Bytes::copy_from_slice(kept), plain(Uuid::nil()));
                    OwnedDeadLetter { channel: String::new(), rejected, payload, decided, kind: RecordKind::Rejected }
                })
            }
        }
    }

    /// The message behind a refused row is still in the spool: the letter keeps its bytes, so that it can be replayed. `None`:
    /// the record is damaged, or in memory only.
    fn from_spool(view: &spool::View, offset: u64, error: &str) -> Option<OwnedDeadLetter> {
        view.records_from(offset).filter_map(Result::ok).find_map(|chunk| {
            let record = chunk.records().find(|record| record.offset >= offset)?;
            let (rejected, kept) = RejectedMessage::new(refusal(error), record.payload);
            Some((record.offset == offset).then(|| OwnedDeadLetter {
                channel: record.channel.to_owned(),
                rejected,
                payload: Bytes::copy_from_slice(kept),
                decided: record.decided,
                kind: record.kind,
            }))
        })?
    }
}

fn refusal(error: &str) -> Rejection {
    Rejection { reason: Reason::RejectedByStore, detail: error.to_owned() }
}

impl DeadLetterSink for SpoolDeadLetters {
    async fn put(&self, entries: &[DeadLetterEntry]) -> Result<(), BoxError> {
        // The bytes of rejected messages are counted already. Of what was refused only the place in the spool is known.
        let may_be_large = |entry: &DeadLetterEntry| match &entry.body {
            DeadLetterBody::Message { .. } => false,
            DeadLetterBody::Refused { size, .. } => *size >= LARGE_VALUE || entry.part == DeadLetterEntry::RUN_ROW,
        };
        let _copies = match entries.iter().any(may_be_large) {
            true => Some(self.memory.reserve_for_writer(COPY_BYTES, 0).await),
            false => None,
        };
        let (sink, view, entries) = (Arc::clone(&self.log), self.view.clone(), entries.to_vec());
        tokio::task::spawn_blocking(move || put_all(&sink, &view, &entries)).await??;
        Ok(())
    }
}

/// Writes letters, so many at once that few bytes of their messages are there.
fn put_all(sink: &DeadLetterLog, view: &spool::View, entries: &[DeadLetterEntry]) -> Result<(), DeadLetterError> {
    let (mut owned, mut bytes) = (Vec::new(), 0);
    for entry in entries {
        let next = SpoolDeadLetters::to_owned_entry(view, entry);
        bytes += next.payload.len();
        owned.push((entry, next));
        if bytes >= LARGE_VALUE {
            put_group(sink, view.id(), &owned)?;
            (owned, bytes) = (Vec::new(), 0);
        }
    }
    put_group(sink, view.id(), &owned)
}

fn put_group(
    sink: &DeadLetterLog,
    spool_id: Uuid,
    owned: &[(&DeadLetterEntry, OwnedDeadLetter)],
) -> Result<(), DeadLetterError> {
    if owned.is_empty() {
        return Ok(());
    }
    let entries: Vec<_> = owned
        .iter()
        .map(|(entry, owned)| NewDeadLetter {
            rejected: owned.rejected.clone(),
            channel: &owned.channel,
            decided: owned.decided,
            kind: owned.kind,
            spool_id,
            offset: entry.offset,
            row: entry.part,
            payload: &owned.payload,
        })
        .collect();
    sink.put_all(&entries)
}

/// The run whose hole this gap tells.
fn run_of_gap(payload: &[u8]) -> Option<Uuid> {
    let gap: Gap = serde_json::from_slice(payload).ok()?;
    gap.run_id.filter(|_| gap.reason == GapReason::Sequence)
}

/// Tells intake what the log holds from `as_of` on.
pub fn recover(recovery: &spool::Recovery, as_of: u64, tell: &mut dyn FnMut(ReplayedRecord<'_>)) {
    for chunk in recovery.records_from(as_of) {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => {
                warn!(error = %Chain(&error), "some records cannot be read to recover open runs");
                continue;
            }
        };
        for record in chunk.records() {
            let message =
                (record.kind == RecordKind::Event).then(|| wire::decode_accepted(record.payload).ok()).flatten();
            let decided = record.decided;
            tell(ReplayedRecord {
                decided,
                channel: record.channel,
                hints: message.as_ref().map(|message| {
                    let time = EventTime { micros: decided.event_time, from_message: decided.has_event_time };
                    RunHints::of(message, time, decided.received_at, record.payload)
                }),
                seq: message.as_ref().and_then(wire::Message::seq),
                reported_gap: (record.kind == RecordKind::Gap).then(|| run_of_gap(record.payload)).flatten(),
            });
        }
    }
}
