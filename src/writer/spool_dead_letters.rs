//! Rejected messages and refused rows as dead letters, with the bytes that the spool still has.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::ports::{DeadLetterBody, DeadLetterEntry, DeadLetterSink};
use crate::{
    dead_letter::{DeadLetterError, DeadLetterLog, NewDeadLetter},
    event::Resolved,
    frame::{Reason, RejectedMessage, Rejection},
    memory::{LARGE_VALUE, MemoryLimit},
    spool::{self, RecordKind},
    store::BoxError,
};

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
