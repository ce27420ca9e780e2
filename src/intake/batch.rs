//! Messages of a request, which its client keeps until they are durable.

use super::stage::Intake;
use crate::frame::{Ack, BatchAck, MessageBatch};

impl Intake {
    /// Takes the messages in, up to the first for which there is no room; answered with the next sync.
    pub(super) fn accept_batch(&mut self, batch: MessageBatch) {
        let MessageBatch { frames, cut_short, answer, permit } = batch;
        drop(permit);
        let mut ack = BatchAck { taken: 0, rejected: Vec::new(), durable: false };
        // While the disk takes no records, what is taken could be lost; the client still has it.
        if cut_short.is_set() || !self.deps.appender.healthy() {
            cut_short.set();
            let _ = answer.send(ack);
            return;
        }
        for (n, frame) in frames.iter().enumerate() {
            let accepted = self.accept(frame);
            if !accepted.recorded {
                cut_short.set();
                break;
            }
            if let Ack::Rejected(rejection) = accepted.ack {
                ack.rejected.push((n, rejection));
            }
            ack.taken += 1;
        }
        match ack.taken {
            // No sync will follow.
            0 => _ = answer.send(ack),
            _ => self.pending_batches.push((answer, ack)),
        }
    }
}
