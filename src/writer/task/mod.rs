//! The writer's one task: takes records while there is room, starts what is due, and waits for whatever happens first.

mod land;
mod report;
mod take;

use std::{collections::VecDeque, future::Future, future::pending, mem, time::SystemTime};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Duration, Instant, sleep_until, timeout_at},
};

use super::{
    Config, Ends, Hold, WriterError,
    batch::{Batches, Gathered},
    flight::{self, Landed},
    frontier::{Frontier, Ticket},
    gate::Gate,
    limit::Limit,
    parts::{Aside, Chunk, Commit, Letter, Records},
    runs::Runs,
};
use crate::{event::Table, store::Problem};

/// Records taken and not yet passed, at most.
const PENDING_MAX: usize = 1 << 18;
/// Runs remembered, and bytes of their texts.
const RUNS_MAX: usize = 10_000;
const RUNS_TEXT: usize = 16 << 20;
/// Reads and writes of run rows at once.
const RUN_CALLS: usize = 32;
/// Records taken between two looks at what has landed.
const STRIDE: usize = 32;
/// How often the store is asked for restarts when nothing else happens.
const TICK: Duration = Duration::from_millis(500);

/// How long a store may take for what is in flight at the end. Nobody listens meanwhile: a store that hangs must not cost
/// messages, and what it did not confirm is written again.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// The state of the task.
pub struct Writer<C, A> {
    config: Config,
    ends: Ends<C, A>,
    stop: crate::lifecycle::Signal,
    stopping: bool,
    frontier: Frontier,
    /// Where the frontier was when it was last committed.
    committed: u64,
    batches: Batches,
    /// Due, and waiting for the limit or for the store.
    ready: VecDeque<Gathered>,
    runs: Runs,
    letters: Letters,
    flights: JoinSet<Landed>,
    rows_flying: usize,
    runs_flying: usize,
    /// Tables of which a batch is in flight and no second may be: see [`is_ordered`].
    ordered_flying: Vec<Table>,
    /// Rows and letters held in memory.
    bytes: usize,
    limit: Limit,
    rows_gate: Gate,
    runs_gate: Gate,
    restarts: u64,
    outside_changes: Option<u64>,
    /// When others had last changed the store.
    doubted_at: Option<Instant>,
}

/// Dead letters that are not durable yet.
#[derive(Default)]
struct Letters {
    waiting: Vec<Letter>,
    tickets: Vec<Ticket>,
    flying: bool,
    /// The last try failed; the next one is then.
    again: Option<Instant>,
    /// Why.
    problem: Option<Problem>,
}

/// What a look around says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Go,
    Stop,
    /// The store may have forgotten rows.
    Rewind,
}

impl<C: Commit, A: Aside> Writer<C, A> {
    /// Nothing taken yet.
    pub fn new(config: Config, ends: Ends<C, A>, stop: crate::lifecycle::Signal) -> Self {
        let start = ends.commit.withdraw();
        let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
        let batches = Batches::new(config.batch_rows, config.batch_bytes.as_usize(), config.flush_interval);
        let outside_changes = ends.store.outside_changes();
        let writer = Self {
            stop,
            stopping: false,
            frontier: Frontier::new(start),
            committed: start,
            batches,
            ready: VecDeque::new(),
            runs: Runs::new(RUNS_MAX, RUNS_TEXT).checked_by_time(outside_changes.is_none()),
            letters: Letters::default(),
            flights: JoinSet::new(),
            rows_flying: 0,
            runs_flying: 0,
            ordered_flying: Vec::new(),
            bytes: 0,
            limit: Limit::new(config.in_flight),
            rows_gate: Gate::new("rows", seed),
            runs_gate: Gate::new("runs", seed.rotate_left(17)),
            restarts: ends.store.restart_count(),
            outside_changes,
            doubted_at: None,
            config,
            ends,
        };
        writer.report(start);
        writer
    }

    /// Until stopped.
    pub async fn run<R: Records>(mut self, mut records: R) -> Result<(), WriterError> {
        let mut flow = Flow::Go;
        loop {
            match flow {
                Flow::Go => {}
                Flow::Stop => break,
                Flow::Rewind => self.rewind(&mut records).await?,
            }
            flow = match self.until(records.next()).await? {
                Ok(chunk) => self.consume(&chunk).await?,
                Err(flow) => flow,
            };
        }
        self.drain().await
    }

    /// Takes every record of the chunk, waiting for room where there is none.
    async fn consume<K: Chunk>(&mut self, chunk: &K) -> Result<Flow, WriterError> {
        let mut now = Instant::now();
        for (count, record) in chunk.records().enumerate() {
            if record.offset < self.frontier.next() {
                continue;
            }
            if count % STRIDE == STRIDE - 1 {
                if count % (STRIDE * 8) == STRIDE * 8 - 1 {
                    // A long backlog must not keep the others on this thread from their work.
                    tokio::task::yield_now().await;
                }
                now = Instant::now();
                while let Some(landed) = self.flights.try_join_next() {
                    self.land(landed, now)?;
                }
                self.settle();
                self.work(now);
            }
            while !self.may_take(record.offset) {
                match self.until(pending::<()>()).await? {
                    Ok(()) | Err(Flow::Go) => now = Instant::now(),
                    Err(flow) => return Ok(flow),
                }
            }
            self.take(record, now);
            if !self.ready.is_empty() && self.rows_flying < self.limit.get() {
                self.work(now);
            }
        }
        Ok(self.flow())
    }

    /// Does what is due until `other` is ready, or until something happened that the caller must look at.
    async fn until<T>(&mut self, other: impl Future<Output = T>) -> Result<Result<T, Flow>, WriterError> {
        let now = Instant::now();
        self.work(now);
        let wake = self.wake_at(now);
        let mut came = None;
        tokio::select! {
            biased;
            () = self.stop.stopped() => return Ok(Err(Flow::Stop)),
            Some(landed) = self.flights.join_next() => self.land(landed, Instant::now())?,
            () = changed(&mut self.ends.hold) => {}
            () = changed(&mut self.ends.flush_to) => {}
            value = other => came = Some(value),
            () = sleep_until(wake) => {}
        }
        let now = Instant::now();
        while let Some(landed) = self.flights.try_join_next() {
            self.land(landed, now)?;
        }
        self.settle();
        self.tell_problem();
        Ok(came.ok_or_else(|| self.flow()))
    }

    fn flow(&self) -> Flow {
        if self.stop.is_stopped() {
            Flow::Stop
        } else if self.ends.store.restart_count() != self.restarts {
            Flow::Rewind
        } else {
            Flow::Go
        }
    }

    /// Starts everything that may start.
    fn work(&mut self, now: Instant) {
        let urgent = self.is_urgent();
        if self.takes_aged() {
            self.batches.flush(now, urgent || self.is_pressed(), &mut self.ready);
        }
        while self.rows_flying < self.limit.get()
            && let Some(index) = self.ready.iter().position(|next| !self.ordered_flying.contains(&next.batch.table))
            && self.rows_gate.admits(now)
            && let Some(gathered) = self.ready.remove(index)
        {
            let trying = self.rows_gate.begin();
            self.rows_flying += 1;
            if is_ordered(gathered.batch.table) {
                self.ordered_flying.push(gathered.batch.table);
            }
            let saturated = self.rows_flying == self.limit.get();
            self.flights.spawn(flight::rows(
                self.ends.store.clone(),
                gathered,
                self.ends.memory.clone(),
                trying,
                saturated,
            ));
        }
        let urgent = urgent || self.frontier.len() > PENDING_MAX / 2 || !self.runs.has_room();
        while self.runs_flying < RUN_CALLS
            && self.runs_gate.admits(now)
            && let Some(job) = self.runs.job(now, urgent)
        {
            let trying = self.runs_gate.begin();
            self.runs_flying += 1;
            self.flights.spawn(flight::run(self.ends.store.clone(), job, trying));
        }
        if self.runs_flying == 0 && self.runs.is_idle() {
            self.runs_gate.nothing_waits(now);
        }
        let letters = &mut self.letters;
        if !letters.flying && !letters.waiting.is_empty() && letters.again.is_none_or(|at| at <= now) {
            letters.flying = true;
            let (waiting, tickets) = (mem::take(&mut letters.waiting), mem::take(&mut letters.tickets));
            self.flights.spawn(flight::letters(self.ends.aside.clone(), waiting, tickets));
        }
        self.ends.metrics.writer_in_flight.set(self.rows_flying as i64);
        self.ends.metrics.writer_in_flight_limit.set(self.limit.get() as i64);
    }

    /// Whether somebody waits for what has been taken so far.
    fn is_urgent(&self) -> bool {
        let target = match *self.ends.hold.borrow() {
            Hold::Open => 0,
            Hold::After(end) => end,
        }
        .max(*self.ends.flush_to.borrow());
        self.stopping || self.frontier.next() >= target && self.committed < target
    }

    /// Whether only writing open batches makes room.
    fn is_pressed(&self) -> bool {
        self.ready.is_empty() && (self.bytes >= self.config.memory.as_usize() || self.frontier.len() >= PENDING_MAX)
    }

    /// Whether batches that are due by age join the queue now: one that would wait there goes on growing instead.
    fn takes_aged(&self) -> bool {
        self.ready.len() < self.limit.get() && !self.rows_gate.is_closed()
    }

    fn wake_at(&mut self, now: Instant) -> Instant {
        let aged = if self.takes_aged() { self.batches.due_at() } else { None };
        let rows = if self.ready.is_empty() { None } else { self.rows_gate.until() };
        let runs = if self.runs_flying >= RUN_CALLS {
            None
        } else {
            self.runs.due_at(now).map(|due| self.runs_gate.until().map_or(due, |until| until.max(due)))
        };
        // While its try is under way the gate lets nothing through, whatever is due.
        let runs = runs.filter(|_| !self.runs_gate.is_closed() || self.runs_gate.until().is_some());
        let letters = self.letters.again.filter(|_| !self.letters.flying);
        let wake = [aged, rows, runs, letters].into_iter().flatten().fold(now + TICK, Instant::min);
        // What is due but blocked by something in flight is looked at when that lands: never spin for it.
        wake.max(now + Duration::from_millis(1))
    }

    /// Commits what the frontier has passed.
    fn settle(&mut self) {
        self.look_for_changes();
        let at = self.frontier.advance();
        if at > self.committed {
            self.committed = at;
            self.ends.commit.commit(at);
        }
        self.report(at);
    }

    /// Reads again from where the store cannot have forgotten anything.
    async fn rewind<R: Records>(&mut self, records: &mut R) -> Result<(), WriterError> {
        self.restarts = self.ends.store.restart_count();
        // What is in flight would confirm records of the old count.
        loop {
            tokio::select! {
                biased;
                () = self.stop.stopped() => return Ok(()),
                landed = self.flights.join_next() => match landed {
                    Some(landed) => self.land(landed, Instant::now())?,
                    None => break,
                },
            }
        }
        self.settle();
        let offset = self.ends.commit.withdraw();
        tracing::info!(from = offset, to = self.committed, "store was restarted; writing again what it may have lost");
        self.batches.flush(Instant::now(), true, &mut self.ready);
        self.ready.clear();
        self.runs.clear();
        self.letters = Letters::default();
        self.bytes = 0;
        self.frontier = Frontier::new(offset);
        self.committed = offset;
        records.rewind(offset);
        Ok(())
    }

    /// Writes what has been gathered, unless the store is down: then it is on disk, and read again at the next start.
    async fn drain(&mut self) -> Result<(), WriterError> {
        self.stopping = true;
        self.runs.check_no_more();
        let deadline = Instant::now() + LAST_WRITES;
        loop {
            let now = Instant::now();
            self.work(now);
            if self.rows_gate.is_closed() || self.runs_gate.is_closed() || self.letters.again.is_some() {
                break;
            }
            let Ok(Some(landed)) = timeout_at(deadline, self.flights.join_next()).await else { break };
            self.land(landed, Instant::now())?;
            self.settle();
        }
        let left = self.frontier.next() - self.committed;
        if left > 0 {
            tracing::info!(
                left,
                "stopping with records in hand that are not confirmed; they are in the spool, as is what was not read yet"
            );
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
