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
    event::{EventKey, MetricsRow, Row, RunRow, RunUpdate},
    lifecycle::{Signal, Stopper},
    metrics::Metrics,
    store::{BoxError, Problem},
    writer::{Aside, Chunk, Commit, Config, Content, Decoded, Ends, Hold, Letter, Records, WriterError, run},
};

/// The log: a list, handed out a few at a time.
pub struct Log {
    pub all: Arc<Vec<Decoded>>,
    pub at: usize,
    pub chunk: usize,
}

pub struct Some_(Vec<Decoded>);

impl Chunk for Some_ {
    fn records(&self) -> impl Iterator<Item = Decoded> + Send {
        self.0.iter().cloned()
    }
}

impl Records for Log {
    type Chunk = Some_;

    async fn next(&mut self) -> Some_ {
        if self.at >= self.all.len() {
            pending::<()>().await;
        }
        let end = (self.at + self.chunk).min(self.all.len());
        let chunk = self.all[self.at..end].to_vec();
        self.at = end;
        Some_(chunk)
    }

    fn rewind(&mut self, offset: u64) {
        self.at = self.all.partition_point(|record| record.offset < offset);
    }
}

#[derive(Default)]
pub struct Checkpoint {
    pub committed: AtomicU64,
    /// What a rewind goes back to; 0: from the beginning.
    pub checkpoint: AtomicU64,
}

impl Commit for Arc<Checkpoint> {
    fn commit(&self, next: u64) {
        self.committed.store(next, Ordering::SeqCst);
    }
    fn withdraw(&self) -> u64 {
        self.checkpoint.load(Ordering::SeqCst)
    }
}

#[derive(Default)]
pub struct Box_ {
    pub letters: Mutex<BTreeMap<(u64, u32), Letter>>,
    pub full: std::sync::atomic::AtomicBool,
}

impl Aside for Box_ {
    async fn put(&self, letters: &[Letter]) -> Result<(), BoxError> {
        if self.full.load(Ordering::SeqCst) {
            return Err("disk is full".into());
        }
        let mut kept = self.letters.lock().unwrap();
        kept.extend(letters.iter().map(|letter| ((letter.offset, letter.part), letter.clone())));
        Ok(())
    }
}

/// A running writer and everything around it.
pub struct Running {
    pub store: Arc<Fake>,
    pub aside: Arc<Box_>,
    pub checkpoint: Arc<Checkpoint>,
    pub hold: watch::Sender<Hold>,
    pub flush_to: watch::Sender<u64>,
    pub progress: watch::Receiver<u64>,
    pub problem: watch::Receiver<Option<Problem>>,
    pub stopper: Stopper,
    pub task: JoinSet<Result<(), WriterError>>,
}

pub fn start(config: Config, all: Vec<Decoded>) -> Running {
    start_with(config, Arc::new(all), Arc::default(), Arc::default(), Arc::default(), Hold::Open)
}

pub fn start_with(
    config: Config,
    all: Arc<Vec<Decoded>>,
    store: Arc<Fake>,
    aside: Arc<Box_>,
    checkpoint: Arc<Checkpoint>,
    hold: Hold,
) -> Running {
    let (hold, hold_receiver) = watch::channel(hold);
    let (flush_to, flush_receiver) = watch::channel(0);
    let (progress_sender, progress) = watch::channel(0);
    let (problem_sender, problem) = watch::channel(None);
    let (stopper, stop) = Signal::new();
    let ends = Ends {
        memory: crate::memory::MemoryLimit::default(),
        store: store.clone(),
        commit: checkpoint.clone(),
        aside: aside.clone(),
        hold: hold_receiver,
        flush_to: flush_receiver,
        problem: problem_sender,
        progress: progress_sender,
        metrics: Metrics::new(),
    };
    let from = checkpoint.withdraw();
    let mut log = Log { all, at: 0, chunk: 37 };
    log.rewind(from);
    let mut task = JoinSet::new();
    task.spawn(run(config, log, ends, stop));
    Running { store, aside, checkpoint, hold, flush_to, progress, problem, stopper, task }
}

impl Running {
    /// Waits until the frontier is there; how long that took.
    pub async fn reaches(&mut self, offset: u64) -> Duration {
        let began = Instant::now();
        let reached = self.progress.wait_for(|at| *at >= offset);
        tokio::time::timeout(Duration::from_secs(3_600), reached).await.expect("in time").expect("running");
        began.elapsed()
    }

    pub fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.store.state.lock().unwrap()
    }
}

pub fn run_id(n: u64) -> Uuid {
    Uuid::from_u128(u128::from(n) + 1)
}

/// A metrics record at `offset` of run `run`, with a touch of the run.
pub fn metrics(offset: u64, run: u64) -> Decoded {
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
        epoch: Some(offset as i32),
        step: None,
        train_loss: Some(0.5),
        train_accuracy: None,
        val_loss: None,
        val_accuracy: None,
        learning_rate: None,
        hidden_units: None,
        phase: None,
        seq: None,
        extra: BTreeMap::new(),
        rest_json: None,
    })
}

pub fn record(offset: u64, rows: Vec<Row>, touch: Option<(Uuid, RunUpdate)>) -> Decoded {
    Decoded { offset, received_at: offset as i64, content: Content::Rows { rows, touch } }
}
