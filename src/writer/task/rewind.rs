//! Going back to the checkpoint: the store may have lost rows, or a run was deleted.

use futures_util::StreamExt;
use tokio::time::Instant;

use super::{PendingDeadLetters, Writer};
use crate::writer::{
    WriterError,
    batch::ReadyBatches,
    frontier::Frontier,
    ports::{Commit, DeadLetterSink, RecordSource},
};

impl<C: Commit, A: DeadLetterSink> Writer<C, A> {
    /// Reads again from the first offset that the store may have lost.
    pub(super) async fn rewind<R: RecordSource>(&mut self, records: &mut R) -> Result<(), WriterError> {
        self.restarts = self.ports.store.restart_count();
        // What is in flight would confirm records of the old count.
        loop {
            tokio::select! {
                biased;
                () = self.stop.stopped() => return Ok(()),
                completion = self.in_flight.next() => match completion {
                    Some(completion) => self.on_completion(completion, Instant::now())?,
                    None => break,
                },
            }
        }
        self.commit_progress();
        let offset = self.ports.commit.rollback_to_checkpoint();
        if self.deletions.must_rewind() {
            tracing::info!("a run was deleted; its records that were received before are skipped");
        } else {
            let (from, to) = (offset, self.committed);
            tracing::info!(from, to, "store was restarted; writing again the records that it may have lost");
        }
        self.ports.store.deletions_applied(self.deletions.applied());
        self.batches.flush(Instant::now(), true, &mut self.ready);
        self.ready = ReadyBatches::default();
        self.runs.clear();
        self.dead_letters = PendingDeadLetters::default();
        self.bytes = 0;
        self.frontier = Frontier::new(offset);
        self.waiting_received_at = None;
        self.committed = offset;
        records.rewind(offset);
        Ok(())
    }
}
