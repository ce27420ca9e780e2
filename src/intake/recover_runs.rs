//! Reads the spool back, to recover the open runs and the last `seq` per run.

use tracing::warn;
use uuid::Uuid;

use super::state::ReplayedRecord;
use crate::{
    event::{Resolved, split_source},
    gaps::{Gap, GapReason},
    logging::Chain,
    runs::RunHints,
    spool::{self, RecordKind},
    wire::{self, MessageTime},
};

/// The run whose gap in `seq` this record reports.
fn run_of_gap(payload: &[u8]) -> Option<Uuid> {
    let gap: Gap = serde_json::from_slice(payload).ok()?;
    gap.run_id.filter(|_| gap.reason == GapReason::Sequence)
}

/// Passes each record from `as_of` on to `observe`.
pub(super) fn replay(recovery: &spool::Recovery, as_of: u64, observe: &mut dyn FnMut(ReplayedRecord<'_>)) {
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
            observe(ReplayedRecord {
                decided,
                channel: split_source(record.channel).0,
                hints: message.as_ref().map(|message| {
                    let Resolved { event_time, has_event_time: from_message, received_at, .. } = decided;
                    let time = MessageTime { event_time, from_message, naive: None };
                    RunHints::of(message, time, received_at, record.payload)
                }),
                // Those of a stream are shared by several daemons; none of them has all.
                seq: message.as_ref().filter(|_| !record.from_stream).and_then(wire::Message::seq),
                reported_gap: (record.kind == RecordKind::Gap).then(|| run_of_gap(record.payload)).flatten(),
            });
        }
    }
}
