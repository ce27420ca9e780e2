//! What the results of calls mean for the task's state.

use std::time::Duration;

use tokio::{task::JoinError, time::Instant};
use tracing::{error, warn};

use super::Writer;
use crate::{
    event::Table,
    logging::Chain,
    metrics::Label,
    store::{Problem, StoreError},
    units,
    writer::{
        WriterError,
        flight::{Landed, Refused, RowsLanded},
        frontier::Ticket,
        gate::Failure,
        parts::{Aside, Commit, Kept, Letter},
    },
};

/// Between two tries to keep dead letters.
const LETTERS_AGAIN: Duration = Duration::from_secs(1);

impl<C: Commit, A: Aside> Writer<C, A> {
    /// Takes in the result of a call.
    pub(super) fn land(&mut self, landed: Result<Landed, JoinError>, now: Instant) -> Result<(), WriterError> {
        match landed.map_err(WriterError::Panicked)? {
            Landed::Rows(rows) => self.land_rows(rows, now),
            Landed::Read { run_id, result, trying } => {
                self.runs_flying -= 1;
                match result {
                    Ok(known) => {
                        self.runs_gate.read_succeeded(trying, now);
                        let free = self.runs.read(run_id, known);
                        self.release(&free);
                    }
                    Err(StoreError::Rejected(error)) => {
                        // The store answers: only this run cannot be read.
                        self.runs_gate.read_succeeded(trying, now);
                        self.land_unreadable(run_id, &Chain(&*error).to_string(), now);
                    }
                    Err(error) => {
                        let quiet = self.rows_gate.is_closed();
                        self.runs_gate.failed(trying, Failure { error: &error, of_write: false, quiet }, now);
                        self.runs.failed(run_id);
                    }
                }
            }
            Landed::Run { run_id, result, trying } => {
                self.runs_flying -= 1;
                match result {
                    Ok(refused) => {
                        self.runs_gate.succeeded(trying, now);
                        self.ends.metrics.writer_run_writes.inc();
                        self.land_run(run_id, refused, now);
                    }
                    Err(error) => {
                        let quiet = self.rows_gate.is_closed();
                        self.runs_gate.failed(trying, Failure { error: &error, of_write: true, quiet }, now);
                        self.runs.failed(run_id);
                    }
                }
            }
            Landed::Letters { letters, tickets, result } => self.land_letters(letters, tickets, result, now),
        }
        Ok(())
    }

    /// Sets a record, or a part of it, aside; the record waits until that is durable.
    pub(super) fn set_aside(&mut self, letter: Letter, ticket: Ticket) {
        self.bytes += letter.bytes();
        self.letters.waiting.push(letter);
        self.letters.tickets.push(ticket);
    }

    fn land_rows(&mut self, landed: RowsLanded, now: Instant) {
        self.rows_flying -= 1;
        self.ordered_flying.retain(|table| *table != landed.table);
        self.bytes -= landed.bytes;
        for origin in &landed.stored {
            self.frontier.release(origin.ticket);
        }
        let metrics = &self.ends.metrics;
        let rows = landed.stored.len() as u64;
        metrics.writer_rows.get_or_create(&Label::of(name(landed.table))).inc_by(rows);
        if let Some((_, _, error)) = landed.refused.first() {
            let table = name(landed.table);
            warn!(table, rows = landed.refused.len(), error, "store refuses rows; they become dead letters");
        }
        for (origin, row, error) in landed.refused {
            let (offset, received_at) = self.frontier.origin(origin.ticket);
            let kept = Kept::refused(error, &row, row.bytes());
            self.set_aside(Letter { offset, part: origin.row, received_at, kept }, origin.ticket);
        }
        match landed.left {
            None => {
                self.ends.metrics.writer_batches.inc();
                self.rows_gate.succeeded(landed.trying, now);
                // More is waiting, so it is the limit that holds it back.
                let saturated = landed.saturated || !self.ready.is_empty();
                self.limit.succeeded(landed.rows, landed.took, saturated);
            }
            Some((left, error)) => {
                self.ends.metrics.writer_retries.inc();
                if !self.rows_gate.is_closed() && matches!(error, StoreError::Unavailable(_)) {
                    self.limit.failed();
                }
                let failure = Failure { error: &error, of_write: true, quiet: false };
                self.rows_gate.failed(landed.trying, failure, now);
                self.bytes += left.bytes;
                self.ready.push_front(left);
            }
        }
    }

    fn land_run(&mut self, run_id: uuid::Uuid, refused: Vec<Refused>, now: Instant) {
        let written = self.runs.written(run_id, refused, now);
        // One letter a record whose value is refused; it waits for the letter instead of the row.
        for (ticket, refused) in written.refused {
            let (offset, received_at) = self.frontier.origin(ticket);
            let (rows, errors): (Vec<_>, Vec<_>) =
                refused.into_iter().map(|refused| (refused.row, refused.error)).unzip();
            warn!(run_id = %run_id, offset, error = errors[0], "store refuses values of a run; they become a dead letter");
            let row = rows.join("; ");
            let kept = Kept::Refused { error: errors.join("; "), size: row.len(), row };
            self.set_aside(Letter { offset, part: Letter::RUN, received_at, kept }, ticket);
        }
        for refused in written.of_the_past {
            let error = refused.error;
            error!(run_id = %run_id, error, "a value of a run that had vanished is refused by the store and stays absent");
        }
        self.release(&written.stored);
    }

    /// What is stored of a run cannot be read. What its records say of it waits as dead letters, until a person has mended that.
    fn land_unreadable(&mut self, run_id: uuid::Uuid, said: &str, now: Instant) {
        let (records, is_news) = self.runs.unreadable(run_id, now);
        if is_news {
            error!(run_id = %run_id, error = said, "stored row of a run cannot be read; what its records say becomes dead letters");
        }
        for ticket in records {
            let (offset, received_at) = self.frontier.origin(ticket);
            let error = format!("the stored row of run {run_id} cannot be read: {said}");
            let row = format!("what the message says of run {run_id}");
            let kept = Kept::Refused { error, size: row.len(), row };
            self.set_aside(Letter { offset, part: Letter::RUN, received_at, kept }, ticket);
        }
    }

    fn land_letters(
        &mut self,
        mut letters: Vec<Letter>,
        mut tickets: Vec<Ticket>,
        result: Result<(), crate::store::BoxError>,
        now: Instant,
    ) {
        self.letters.flying = false;
        match result {
            Ok(()) => {
                (self.letters.again, self.letters.problem) = (None, None);
                self.bytes -= letters.iter().map(Letter::bytes).sum::<usize>();
                self.release(&tickets);
            }
            Err(error) => {
                if self.letters.again.is_none() {
                    error!(error = %Chain(&*error), "dead letters cannot be kept; holding, trying again every second");
                }
                self.letters.again = Some(now + LETTERS_AGAIN);
                let since = self.letters.problem.take().map_or_else(units::now, |problem| problem.since);
                self.letters.problem = Some(Problem::of("dead letters", &StoreError::Unavailable(error), since));
                letters.append(&mut self.letters.waiting);
                tickets.append(&mut self.letters.tickets);
                self.letters.waiting = letters;
                self.letters.tickets = tickets;
            }
        }
    }

    fn release(&mut self, tickets: &[Ticket]) {
        for ticket in tickets {
            self.frontier.release(*ticket);
        }
    }
}

fn name(table: Table) -> &'static str {
    match table {
        Table::Metrics => "training_metrics",
        Table::Topology => "network_topology",
        Table::Events => "training_events",
        Table::Datasets => "dataset_info",
        Table::Control => "control_log",
        Table::Gaps => "ingest_gaps",
    }
}
