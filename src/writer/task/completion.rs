//! How the results of calls change the state of the task.

use tokio::time::Instant;
use tracing::{error, warn};

use super::Writer;
use crate::{
    backoff,
    logging::Chain,
    store::{Deletions, Problem, StoreError},
    units,
    writer::{
        WriterError,
        circuit_breaker::Failure,
        frontier::RecordToken,
        ports::{Commit, DeadLetterBody, DeadLetterEntry, DeadLetterSink},
        store_call::{BatchResult, Completion, RefusedValue, RunReply},
    },
};

impl<C: Commit, A: DeadLetterSink> Writer<C, A> {
    /// Takes in the result of a call.
    pub(super) fn on_completion(
        &mut self,
        completion: Result<Completion, WriterError>,
        now: Instant,
    ) -> Result<(), WriterError> {
        match completion? {
            Completion::Batch(rows) => self.on_batch(rows, now),
            Completion::Run { run_id, result, calls, of_write, is_probe } => {
                self.run_calls_in_flight -= calls;
                match result {
                    Ok(RunReply::Read(known)) => {
                        self.runs_breaker.read_succeeded(is_probe, now);
                        let free = self.runs.on_read(run_id, known);
                        self.confirm_parts(&free);
                    }
                    Ok(RunReply::Written(refused)) => {
                        self.runs_breaker.succeeded(is_probe, now);
                        self.ports.metrics.writer_run_writes.inc();
                        self.on_run_written(run_id, refused, now);
                    }
                    Err(StoreError::Rejected(error)) if !of_write => {
                        // The store answers: only this run cannot be read.
                        self.runs_breaker.read_succeeded(is_probe, now);
                        self.on_unreadable_run(run_id, &Chain(&*error).to_string(), now);
                    }
                    Err(error) => {
                        let quiet = self.rows_breaker.is_open();
                        self.runs_breaker.failed(is_probe, Failure { error: &error, of_write, quiet }, now);
                        self.runs.on_failed(run_id);
                    }
                }
            }
            Completion::Deletions(result) => self.on_deletions(result, now),
            Completion::DeadLetters { entries, tokens, result } => self.on_dead_letters(entries, tokens, result, now),
        }
        Ok(())
    }

    fn on_deletions(&mut self, result: Result<Deletions, StoreError>, now: Instant) {
        if self.deletions.on_read(result, now) {
            self.ports.deletions.send_replace(self.deletions.runs().clone());
        }
        // New ones are applied by going back to the checkpoint, with no call in flight.
        if self.deletions.is_known() && !self.deletions.must_rewind() {
            self.ports.store.deletions_applied(self.deletions.runs());
        }
    }

    /// Sets a part of a record aside; the record waits until that is durable.
    pub(super) fn add_dead_letter(&mut self, token: RecordToken, part: u32, body: DeadLetterBody) {
        let (offset, received_at) = self.frontier.record(token);
        let entry = DeadLetterEntry { offset, part, received_at, body };
        self.bytes += entry.bytes();
        self.dead_letters.waiting.push(entry);
        self.dead_letters.tokens.push(token);
    }

    fn on_batch(&mut self, completion: BatchResult, now: Instant) {
        self.parts_in_flight -= completion.parts;
        self.ordered_in_flight.retain(|table| *table != completion.table);
        self.bytes -= completion.bytes;
        for origin in &completion.stored {
            self.frontier.confirm_part(origin.token);
        }
        let metrics = &self.ports.metrics;
        let rows = completion.stored.len() as u64;
        metrics.writer_rows.of(completion.table.name()).inc_by(rows);
        if let Some((_, _, error)) = completion.refused.first() {
            let table = completion.table.name();
            warn!(table, rows = completion.refused.len(), error, "store refuses rows; they become dead letters");
        }
        for (origin, row, error) in completion.refused {
            self.add_dead_letter(origin.token, origin.row, DeadLetterBody::refused(error, &row, row.bytes()));
        }
        match completion.unwritten {
            None => {
                self.ports.metrics.writer_batches.inc();
                self.rows_breaker.succeeded(completion.is_probe, now);
                // More is waiting, so it is the limit that holds it back.
                let saturated = completion.saturated || !self.ready.is_empty();
                self.limit.succeeded(completion.rows, completion.parts, completion.latency, saturated);
            }
            Some((left, error)) => {
                self.ports.metrics.writer_retries.inc();
                if !self.rows_breaker.is_open() && matches!(error, StoreError::Unavailable(_)) {
                    self.limit.failed();
                }
                let failure = Failure { error: &error, of_write: true, quiet: false };
                self.rows_breaker.failed(completion.is_probe, failure, now);
                self.bytes += left.bytes;
                self.ready.put_back(left);
            }
        }
    }

    fn on_run_written(&mut self, run_id: uuid::Uuid, refused: Vec<RefusedValue>, now: Instant) {
        let outcome = self.runs.on_written(run_id, refused, now);
        // One letter a record whose value is refused; it waits for the letter instead of the row.
        for (token, refused) in outcome.refused {
            let (offset, _) = self.frontier.record(token);
            let (rows, errors): (Vec<_>, Vec<_>) =
                refused.into_iter().map(|refused| (refused.row, refused.error)).unzip();
            warn!(run_id = %run_id, offset, error = errors[0], "store refuses values of a run; they become a dead letter");
            let row = rows.join("; ");
            let body = DeadLetterBody::Refused { error: errors.join("; "), size: row.len(), row };
            self.add_dead_letter(token, DeadLetterEntry::RUN_ROW, body);
        }
        for refused in outcome.already_confirmed {
            let error = refused.error;
            error!(run_id = %run_id, error, "the store refuses a restored value of a run; the value stays absent");
        }
        self.confirm_parts(&outcome.stored);
    }

    /// The stored row of a run cannot be read: the run updates of its records become dead letters, until that is repaired.
    fn on_unreadable_run(&mut self, run_id: uuid::Uuid, message: &str, now: Instant) {
        let (records, is_news) = self.runs.on_unreadable(run_id, now);
        if is_news {
            error!(run_id = %run_id, error = message, "stored row of a run cannot be read; what its records say becomes dead letters");
        }
        for token in records {
            let error = format!("the stored row of run {run_id} cannot be read: {message}");
            let row = format!("what the message says of run {run_id}");
            let body = DeadLetterBody::Refused { error, size: row.len(), row };
            self.add_dead_letter(token, DeadLetterEntry::RUN_ROW, body);
        }
    }

    fn on_dead_letters(
        &mut self,
        mut entries: Vec<DeadLetterEntry>,
        mut tokens: Vec<RecordToken>,
        result: Result<(), crate::store::BoxError>,
        now: Instant,
    ) {
        self.dead_letters.in_flight = false;
        match result {
            Ok(()) => {
                (self.dead_letters.retry_at, self.dead_letters.problem) = (None, None);
                self.bytes -= entries.iter().map(DeadLetterEntry::bytes).sum::<usize>();
                self.confirm_parts(&tokens);
            }
            Err(error) => {
                if self.dead_letters.retry_at.is_none() {
                    error!(error = %Chain(&*error), "dead letters cannot be kept; holding, trying again every second");
                }
                self.dead_letters.retry_at = Some(now + backoff::DISK);
                let since = self.dead_letters.problem.take().map_or_else(units::now, |problem| problem.since);
                self.dead_letters.problem = Some(Problem::of("dead letters", &StoreError::Unavailable(error), since));
                entries.append(&mut self.dead_letters.waiting);
                tokens.append(&mut self.dead_letters.tokens);
                self.dead_letters.waiting = entries;
                self.dead_letters.tokens = tokens;
            }
        }
    }

    fn confirm_parts(&mut self, tokens: &[RecordToken]) {
        for token in tokens {
            self.frontier.confirm_part(*token);
        }
    }
}
