//! The task of the writer: takes records while there is room, starts calls that are due, and waits for the next event.

mod accept;
mod completion;
mod due;
mod report;
mod rewind;

use std::{
    future::{Future, pending},
    mem,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::SystemTime,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{Duration, Instant, sleep_until, timeout_at},
};

use super::{
    Config, WriterError, WriterPorts,
    batch::{Batches, FULL, ReadyBatches},
    circuit_breaker::CircuitBreaker,
    concurrency_limit::ConcurrencyLimit,
    deletions::{KnownDeletions, Moment},
    frontier::{Frontier, RecordToken},
    ports::{Commit, DeadLetterEntry, DeadLetterSink, RecordChunk, RecordSource},
    run_call::RunCall,
    runs::RunTable,
    store_call::{self, Completion},
};
use crate::{
    event::Table,
    store::{BoxFuture, Problem},
    units::Micros,
};

/// Records taken and not yet passed, at most.
const PENDING_RECORDS_MAX: usize = 1 << 18;
/// Runs remembered, and bytes of their texts.
const RUNS_MAX: usize = 10_000;
const RUN_TEXT_BYTES_MAX: usize = 16 << 20;
/// Reads and writes of run rows at once; the read of a run's history, which takes much more memory, counts as [`HISTORY_CALLS`].
const RUN_CALLS_MAX: usize = 128;
const HISTORY_CALLS: usize = 8;
/// Records taken between two polls for completed calls.
const RECORDS_PER_POLL: usize = 32;
/// How often the store is asked for restarts when nothing else happens.
const RESTART_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long the store may take at the end for the calls in flight. No messages are received meanwhile, so that a store that hangs
/// must not delay the end; unconfirmed rows are written again after the restart.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The state of the task.
pub struct Writer<C, A> {
    config: Config,
    ports: WriterPorts<C, A>,
    stop: crate::lifecycle::Signal,
    stopping: bool,
    frontier: Frontier,
    /// When the record was received that waits for room or for the end of a pause, and is not in the frontier yet.
    waiting_received_at: Option<Micros>,
    /// Where the frontier was when it was last committed.
    committed: u64,
    batches: Batches,
    /// When the log is polled again, once it was read to its end.
    next_poll: Option<Instant>,
    /// How long the records that are being read have waited, at most.
    waited: Duration,
    /// Due, and waiting for the limit or for the store.
    ready: ReadyBatches,
    runs: RunTable,
    deletions: KnownDeletions,
    dead_letters: PendingDeadLetters,
    /// Driven by this task: with a task for each, every answer of the store would wake a thread.
    in_flight: FuturesUnordered<BoxFuture<'static, Result<Completion, WriterError>>>,
    /// The sum of the parts of the batches that are being written.
    parts_in_flight: usize,
    run_calls_in_flight: usize,
    /// Tables of which a batch is in flight and no second may be: see [`is_ordered`].
    ordered_in_flight: Vec<Table>,
    /// Rows and letters held in memory.
    bytes: usize,
    limit: ConcurrencyLimit,
    rows_breaker: CircuitBreaker,
    runs_breaker: CircuitBreaker,
    restarts: u64,
    outside_changes: Option<u64>,
    /// When runs were last checked because another process had changed the store.
    rechecked_at: Option<Instant>,
}

/// Dead letters that are not durable yet.
#[derive(Default)]
struct PendingDeadLetters {
    waiting: Vec<DeadLetterEntry>,
    tokens: Vec<RecordToken>,
    in_flight: bool,
    /// The last try failed; the next one is then.
    retry_at: Option<Instant>,
    /// Why.
    problem: Option<Problem>,
}

/// How the loop continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Continue,
    Stop,
    /// The store may have forgotten rows, or a run was deleted.
    Rewind,
}

impl<C: Commit, A: DeadLetterSink> Writer<C, A> {
    /// Nothing taken yet.
    pub fn new(config: Config, ports: WriterPorts<C, A>, stop: crate::lifecycle::Signal) -> Self {
        ports.metrics.writer_rows.show(Table::ALL.map(Table::name));
        let start = ports.commit.rollback_to_checkpoint();
        let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
        let batches = Batches::new(config.batch_rows, config.batch_bytes.as_usize(), config.flush_interval);
        let outside_changes = ports.store.outside_changes();
        let writer = Self {
            stop,
            stopping: false,
            frontier: Frontier::new(start),
            waiting_received_at: None,
            committed: start,
            batches,
            next_poll: None,
            waited: Duration::ZERO,
            ready: ReadyBatches::default(),
            runs: RunTable::new(RUNS_MAX, RUN_TEXT_BYTES_MAX)
                // Another daemon may have read a row before this one wrote it, and write it after; a store that tells of changes does so
                // with the next write, which may never come.
                .checked_by_time(outside_changes.is_none() || config.shares_runs)
                .shared(config.shares_runs),
            deletions: KnownDeletions::new(Instant::now()),
            dead_letters: PendingDeadLetters::default(),
            in_flight: FuturesUnordered::new(),
            parts_in_flight: 0,
            run_calls_in_flight: 0,
            ordered_in_flight: Vec::new(),
            bytes: 0,
            limit: ConcurrencyLimit::new(config.in_flight),
            rows_breaker: CircuitBreaker::new("rows", seed),
            runs_breaker: CircuitBreaker::new("runs", seed.rotate_left(17)),
            restarts: ports.store.restart_count(),
            outside_changes,
            rechecked_at: None,
            config,
            ports,
        };
        writer.report(start);
        writer
    }

    /// Until stopped.
    pub async fn run<R: RecordSource>(mut self, mut records: R) -> Result<(), WriterError> {
        let mut next = Next::Continue;
        loop {
            match next {
                Next::Continue => {}
                Next::Stop => break,
                Next::Rewind => self.rewind(&mut records).await?,
            }
            if self.flush_target() > self.frontier.next_offset {
                records.skip_pause();
            }
            next = match self.drive_until(records.next()).await? {
                Ok(chunk) => self.consume(&chunk).await?,
                Err(next) => next,
            };
        }
        self.drain().await
    }

    /// Takes every record of the chunk, waiting for room where there is none.
    async fn consume<K: RecordChunk>(&mut self, chunk: &K) -> Result<Next, WriterError> {
        let mut now = Instant::now();
        (self.next_poll, self.waited) = (None, chunk.waited());
        for (count, record) in chunk.records().enumerate() {
            if record.offset < self.frontier.next_offset {
                continue;
            }
            if count % RECORDS_PER_POLL == RECORDS_PER_POLL - 1 {
                if count % (RECORDS_PER_POLL * 8) == RECORDS_PER_POLL * 8 - 1 {
                    // Other tasks of this thread must run during a long backlog.
                    tokio::task::yield_now().await;
                }
                now = Instant::now();
                self.poll_calls(now)?;
                self.commit_progress();
                self.dispatch_due(now);
            }
            while !self.has_capacity(record.offset) {
                self.waiting_received_at = Some(record.received_at);
                match self.drive_until(pending::<()>()).await? {
                    Ok(()) | Err(Next::Continue) => now = Instant::now(),
                    Err(next) => return Ok(next),
                }
            }
            self.waiting_received_at = None;
            self.accept(record, now);
            if self.ready.next_fits(&self.ordered_in_flight, self.parts_left()) {
                self.dispatch_due(now);
                // They begin when they are polled.
                self.poll_calls(now)?;
            }
        }
        self.next_poll = chunk.next_poll();
        Ok(self.next_step())
    }

    /// Starts calls that are due and handles completions until `other` is ready, or until the loop must stop or rewind.
    async fn drive_until<T>(&mut self, other: impl Future<Output = T>) -> Result<Result<T, Next>, WriterError> {
        let now = Instant::now();
        self.dispatch_due(now);
        self.report_problem();
        let wake = self.wake_at(now);
        let mut came = None;
        tokio::select! {
            biased;
            () = self.stop.stopped() => return Ok(Err(Next::Stop)),
            Some(completion) = self.in_flight.next() => self.on_completion(completion, Instant::now())?,
            () = changed(&mut self.ports.pause_barrier) => {}
            () = changed(&mut self.ports.flush_to) => {}
            value = other => came = Some(value),
            () = sleep_until(wake) => {}
        }
        self.poll_calls(Instant::now())?;
        self.commit_progress();
        Ok(came.ok_or_else(|| self.next_step()))
    }

    /// Drives the calls, and handles those that are completed.
    fn poll_calls(&mut self, now: Instant) -> Result<(), WriterError> {
        while let Some(Some(completion)) = self.in_flight.next().now_or_never() {
            self.on_completion(completion, now)?;
        }
        Ok(())
    }

    fn next_step(&self) -> Next {
        if self.stop.is_stopped() {
            Next::Stop
        } else if self.ports.store.restart_count() != self.restarts || self.deletions.must_rewind() {
            Next::Rewind
        } else {
            Next::Continue
        }
    }

    /// Starts everything that may start.
    fn dispatch_due(&mut self, now: Instant) {
        let deletion_count = self.ports.store.deletion_count();
        let moment = Moment::now(now);
        if self.deletions.begin_read(moment, deletion_count) {
            self.start(store_call::read_deletions(Arc::clone(&self.ports.store)));
        }
        let may_write = self.deletions.allow_writes(moment, deletion_count);
        let urgent = self.flush_requested();
        if self.may_flush_aged() {
            let until = self.flush_until(now);
            self.batches.flush(until, urgent || self.blocked_by_open_batches(), &mut self.ready);
        }
        while may_write
            && self.rows_breaker.allows(now)
            && let Some(pending_batch) = self.ready.take(&self.ordered_in_flight, self.parts_left())
        {
            let is_probe = self.rows_breaker.begin_call();
            self.parts_in_flight += pending_batch.parts;
            if is_ordered(pending_batch.batch.table) {
                self.ordered_in_flight.push(pending_batch.batch.table);
            }
            let saturated = self.parts_in_flight >= self.parts_max();
            let (store, memory) = (self.ports.store.clone(), self.ports.memory.clone());
            let call = store_call::write_batch(store, pending_batch, memory, is_probe, saturated);
            self.start(call);
        }
        let urgent = urgent || self.frontier.len() > PENDING_RECORDS_MAX / 2 || !self.runs.has_room();
        while may_write
            && self.run_calls_in_flight < RUN_CALLS_MAX
            && self.runs_breaker.allows(now)
            && let Some(call) = self.runs.next_call(now, urgent)
        {
            let is_probe = self.runs_breaker.begin_call();
            let calls = if matches!(call, RunCall::History(..)) { HISTORY_CALLS } else { 1 };
            self.run_calls_in_flight += calls;
            let call = store_call::run_call(self.ports.store.clone(), call, calls, is_probe);
            self.start(call);
        }
        if self.run_calls_in_flight == 0 && self.runs.is_idle() {
            self.runs_breaker.reset_if_idle(now);
        }
        let dead_letters = &mut self.dead_letters;
        if !dead_letters.in_flight
            && !dead_letters.waiting.is_empty()
            && dead_letters.retry_at.is_none_or(|at| at <= now)
        {
            dead_letters.in_flight = true;
            let (waiting, tokens) = (mem::take(&mut dead_letters.waiting), mem::take(&mut dead_letters.tokens));
            let call = store_call::write_dead_letters(self.ports.dead_letters.clone(), waiting, tokens);
            self.start(call);
        }
        self.ports.metrics.writer_in_flight.set(self.parts_in_flight.div_ceil(FULL) as i64);
        self.ports.metrics.writer_in_flight_limit.set(self.limit.get() as i64);
    }

    /// Starts a call.
    fn start(&mut self, call: impl Future<Output = Completion> + Send + 'static) {
        let call = AssertUnwindSafe(call).catch_unwind();
        self.in_flight.push(Box::pin(async move { call.await.map_err(|_| WriterError::Panicked) }));
    }

    /// Commits what the frontier has passed.
    fn commit_progress(&mut self) {
        self.detect_outside_changes();
        let at = self.frontier.advance();
        if at > self.committed {
            self.committed = at;
            self.ports.commit.commit(at);
        }
        self.report(at);
    }

    /// Writes what has been gathered, unless the store is down: then it is on disk, and read again at the next start.
    async fn drain(&mut self) -> Result<(), WriterError> {
        self.stopping = true;
        self.runs.stop_checks();
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        loop {
            let now = Instant::now();
            self.dispatch_due(now);
            if self.rows_breaker.is_open() || self.runs_breaker.is_open() || self.dead_letters.retry_at.is_some() {
                break;
            }
            let Ok(Some(completion)) = timeout_at(deadline, self.in_flight.next()).await else { break };
            self.on_completion(completion, Instant::now())?;
            self.commit_progress();
        }
        let left = self.frontier.next_offset - self.committed;
        if left > 0 {
            tracing::info!(left, "stopping with unconfirmed records; they stay in the spool");
        }
        Ok(())
    }
}

/// Rows of these tables may be written twice under one key with different columns (a command, then its outcome; a dataset
/// described again): their batches go one after the other.
fn is_ordered(table: Table) -> bool {
    matches!(table, Table::Control | Table::Datasets)
}

/// The value changed; never, once the sender is gone.
async fn changed<T>(watched: &mut watch::Receiver<T>) {
    if watched.changed().await.is_err() {
        pending().await
    }
}
