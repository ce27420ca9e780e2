//! A log and dead letters that remember what they were asked, and a writer between them and the [store](super::fake).

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet, time::Instant};
use uuid::Uuid;

pub use super::fake::*;
use crate::{
    event::{EventKey, MetricColumns, MetricsRow, Row, RunRow, RunUpdate},
    lifecycle::{Signal, Stopper},
    metrics::Metrics,
    store::{BoxError, Problem},
    writer::{
        Commit, Config, Content, DeadLetterEntry, DeadLetterSink, DecodedRecord, PauseBarrier, RecordChunk,
        RecordSource, WriterError, WriterPorts, run,
    },
};

/// The log: a list, handed out a few at a time.
pub struct FakeLog {
    pub all: Arc<Vec<DecodedRecord>>,
    pub at: usize,
    pub chunk: usize,
    /// How long its records have waited.
    pub age: Duration,
}

pub struct LogChunk {
    records: Vec<DecodedRecord>,
    age: Duration,
    is_last: bool,
}

impl RecordChunk for LogChunk {
    fn waited(&self) -> Duration {
        self.age
    }

    fn next_poll(&self) -> Option<Instant> {
        self.is_last.then(|| Instant::now() + self.age)
    }

    fn records(&self) -> impl Iterator<Item = DecodedRecord> + Send {
        self.records.iter().cloned()
    }
}

impl RecordSource for FakeLog {
    type Chunk = LogChunk;

    async fn next(&mut self) -> LogChunk {
        if self.at >= self.all.len() {
            pending::<()>().await;
        }
        let end = (self.at + self.chunk).min(self.all.len());
        let records = self.all[self.at..end].to_vec();
        self.at = end;
        LogChunk { records, age: self.age, is_last: end == self.all.len() }
    }

    fn rewind(&mut self, offset: u64) {
        self.at = self.all.partition_point(|record| record.offset < offset);
    }
}

#[derive(Default)]
pub struct FakeCheckpoint {
    pub committed: AtomicU64,
    /// What a rewind goes back to; 0: from the beginning.
    pub checkpoint: AtomicU64,
}

impl Commit for Arc<FakeCheckpoint> {
    fn commit(&self, next: u64) {
        self.committed.store(next, Ordering::SeqCst);
    }
    fn rollback_to_checkpoint(&self) -> u64 {
        self.checkpoint.load(Ordering::SeqCst)
    }
}

#[derive(Default)]
pub struct FakeDeadLetters {
    pub entries: Mutex<BTreeMap<(u64, u32), DeadLetterEntry>>,
    pub full: std::sync::atomic::AtomicBool,
}

impl DeadLetterSink for FakeDeadLetters {
    async fn put(&self, entries: &[DeadLetterEntry]) -> Result<(), BoxError> {
        if self.full.load(Ordering::SeqCst) {
            return Err("disk is full".into());
        }
        let mut kept = self.entries.lock().unwrap();
        kept.extend(entries.iter().map(|entry| ((entry.offset, entry.part), entry.clone())));
        Ok(())
    }
}

/// A running writer and everything around it.
pub struct Running {
    pub store: Arc<FakeStore>,
    pub dead_letters: Arc<FakeDeadLetters>,
    pub checkpoint: Arc<FakeCheckpoint>,
    pub pause_barrier: watch::Sender<PauseBarrier>,
    pub flush_to: watch::Sender<u64>,
    pub progress: watch::Receiver<u64>,
    pub problem: watch::Receiver<Option<Problem>>,
    pub stopper: Stopper,
    pub task: JoinSet<Result<(), WriterError>>,
}

pub fn start(config: Config, all: Vec<DecodedRecord>) -> Running {
    start_with(config, Arc::new(all), Arc::default(), Arc::default(), Arc::default(), PauseBarrier::None)
}

/// Of records that have waited for so long when they are read.
pub fn start_aged(config: Config, all: Vec<DecodedRecord>, age: Duration) -> Running {
    let log = FakeLog { all: Arc::new(all), at: 0, chunk: 37, age };
    start_log(config, log, Arc::default(), Arc::default(), Arc::default(), PauseBarrier::None)
}

pub fn start_with(
    config: Config,
    all: Arc<Vec<DecodedRecord>>,
    store: Arc<FakeStore>,
    dead_letters: Arc<FakeDeadLetters>,
    checkpoint: Arc<FakeCheckpoint>,
    pause_barrier: PauseBarrier,
) -> Running {
    let log = FakeLog { all, at: 0, chunk: 37, age: Duration::ZERO };
    start_log(config, log, store, dead_letters, checkpoint, pause_barrier)
}

fn start_log(
    config: Config,
    mut log: FakeLog,
    store: Arc<FakeStore>,
    dead_letters: Arc<FakeDeadLetters>,
    checkpoint: Arc<FakeCheckpoint>,
    pause_barrier: PauseBarrier,
) -> Running {
    let (pause_barrier, hold_receiver) = watch::channel(pause_barrier);
    let (flush_to, flush_receiver) = watch::channel(0);
    let (progress_sender, progress) = watch::channel(0);
    let (problem_sender, problem) = watch::channel(None);
    let (stopper, stop) = Signal::new();
    let ports = WriterPorts {
        memory: crate::memory::MemoryLimit::default(),
        store: store.clone(),
        commit: checkpoint.clone(),
        dead_letters: dead_letters.clone(),
        pause_barrier: hold_receiver,
        flush_to: flush_receiver,
        problem: problem_sender,
        deletions: watch::Sender::default(),
        progress: progress_sender,
        oldest_unstored: watch::Sender::new(None),
        metrics: Metrics::new(),
    };
    let from = checkpoint.rollback_to_checkpoint();
    log.rewind(from);
    let mut task = JoinSet::new();
    task.spawn(run(config, log, ports, stop));
    Running { store, dead_letters, checkpoint, pause_barrier, flush_to, progress, problem, stopper, task }
}

impl Running {
    /// Waits until the frontier is there; how long that took.
    pub async fn wait_for_offset(&mut self, offset: u64) -> Duration {
        let began = Instant::now();
        let reached = self.progress.wait_for(|at| *at >= offset);
        tokio::time::timeout(Duration::from_secs(3_600), reached).await.expect("in time").expect("running");
        began.elapsed()
    }

    pub fn state(&self) -> std::sync::MutexGuard<'_, FakeState> {
        self.store.state.lock().unwrap()
    }
}

pub fn run_id(n: u64) -> Uuid {
    Uuid::from_u128(u128::from(n) + 1)
}

/// A metrics record at `offset` of run `run`, with an update of the run.
pub fn metrics(offset: u64, run: u64) -> DecodedRecord {
    let time = offset as i64 * 1_000;
    let values = RunRow { final_epoch: Some(offset as i32), ..RunRow::default() };
    record(
        offset,
        vec![metrics_row(offset, run)],
        Some((run_id(run), RunUpdate { event_time: time, lifecycle: None, values: Box::new(values) })),
    )
}

pub fn metrics_row(offset: u64, run: u64) -> Row {
    Row::Metrics(MetricsRow {
        key: EventKey { run_id: run_id(run), timestamp: offset as i64 * 1_000, event_id: offset as i64 },
        columns: MetricColumns { epoch: Some(offset as i32), train_loss: Some(0.5), ..MetricColumns::default() },
        extra: BTreeMap::new(),
        rest_json: None,
    })
}

pub fn record(offset: u64, rows: Vec<Row>, update: Option<(Uuid, RunUpdate)>) -> DecodedRecord {
    DecodedRecord { offset, received_at: offset as i64, content: Content::Rows { rows, run_update: update } }
}
