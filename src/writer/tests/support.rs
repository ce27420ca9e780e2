//! A store, a log and dead letters that remember what they were asked.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet, time::Instant};
use uuid::Uuid;

use crate::{
    event::{
        ControlRow, DatasetRow, EventKey, EventRow, GapRow, MetricsRow, Row, RunRow, RunTouch, Table, TopologyRow,
    },
    lifecycle::{Signal, Stopper},
    metrics::Metrics,
    store::{Batch, BoxError, BoxFuture, DaysQuery, Problem, RangeQuery, Runs, RunsQuery, Store, StoreError, merge},
    units::Micros,
    writer::{Aside, Chunk, Commit, Config, Content, Decoded, Ends, Hold, Letter, Records, WriterError, run},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Down,
    Misconfigured,
}

impl Fault {
    fn error(self) -> StoreError {
        match self {
            Self::Down => StoreError::Unavailable("down".into()),
            Self::Misconfigured => StoreError::Misconfigured("no such table".into()),
        }
    }
}

#[derive(Default)]
pub struct State {
    pub rows: BTreeMap<String, Row>,
    pub runs: HashMap<Uuid, RunRow>,
    /// Of every batch that was tried: when, where, how many rows.
    pub tries: Vec<(Instant, Table, usize)>,
    pub run_writes: Vec<(Instant, RunRow, Option<Micros>)>,
    pub rows_fault: Option<Fault>,
    pub runs_fault: Option<Fault>,
    /// Fail calls by chance: the state of a generator, and the share in 256.
    pub chance: Option<(u64, u8)>,
    /// Event ids that can never be stored.
    pub poison: HashSet<i64>,
    pub delay: Duration,
    /// What the store says of changes that others made.
    pub outside_changes: Option<u64>,
    /// Runs that are not in the index.
    pub unlisted: HashSet<Uuid>,
    pub datasets: HashMap<Uuid, DatasetRow>,
    /// When each run's row was read.
    pub run_reads: Vec<(Instant, Uuid)>,
    pub flying: usize,
    pub flying_max: usize,
}

#[derive(Default)]
pub struct Fake {
    pub state: Mutex<State>,
    pub restarts: AtomicU64,
}

impl Fake {
    fn lucky(state: &mut State) -> (bool, Duration) {
        let Some((random, share)) = &mut state.chance else { return (true, state.delay) };
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((*random >> 40) as u8) >= *share, Duration::from_millis(*random >> 58))
    }
}

fn key(row: &Row) -> String {
    match row {
        Row::Metrics(row) => format!("m{:?}", row.key),
        Row::Topology(row) => format!("t{:?}", row.key),
        Row::Event(row) => format!("e{:?}", row.key),
        Row::Dataset(row) => format!("d{}", row.dataset_id),
        Row::Control(row) => format!("c{}/{}", row.timestamp, row.event_id),
        Row::Gap(row) => format!("g{}", row.gap_id),
    }
}

impl Store for Fake {
    fn write<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let (lucky, delay) = {
                let mut state = self.state.lock().unwrap();
                state.tries.push((Instant::now(), batch.table, batch.rows.len()));
                state.flying += 1;
                state.flying_max = state.flying_max.max(state.flying);
                Self::lucky(&mut state)
            };
            tokio::time::sleep(delay).await;
            let mut state = self.state.lock().unwrap();
            state.flying -= 1;
            if let Some(fault) = state.rows_fault {
                return Err(fault.error());
            }
            let bad = |row: &Row| matches!(row, Row::Metrics(row) if state.poison.contains(&row.key.event_id));
            if batch.rows.iter().any(bad) {
                return Err(StoreError::Rejected("poison".into()));
            }
            for row in &batch.rows {
                if let Row::Dataset(row) = row {
                    state.datasets.insert(row.dataset_id, row.clone());
                }
                assert_eq!(row.destination(), (batch.table, batch.partition));
                state.rows.insert(key(row), row.clone());
            }
            // A write that fails may have been applied.
            if lucky { Ok(()) } else { Err(Fault::Down.error()) }
        })
    }

    fn read_run(&self, run_id: Uuid) -> BoxFuture<'_, Result<Option<RunRow>, StoreError>> {
        Box::pin(async move {
            let (lucky, delay) = Self::lucky(&mut self.state.lock().unwrap());
            tokio::time::sleep(delay).await;
            let mut state = self.state.lock().unwrap();
            state.run_reads.push((Instant::now(), run_id));
            match state.runs_fault {
                Some(fault) => Err(fault.error()),
                None if !lucky => Err(Fault::Down.error()),
                None => Ok(state.runs.get(&run_id).cloned()),
            }
        })
    }

    fn write_run<'a>(
        &'a self,
        change: &'a RunRow,
        stored_start: Option<Micros>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let (lucky, delay) = Self::lucky(&mut self.state.lock().unwrap());
            tokio::time::sleep(delay).await;
            let mut state = self.state.lock().unwrap();
            if let Some(fault) = state.runs_fault {
                return Err(fault.error());
            }
            let poison = |text: &String| text.starts_with("poison");
            if change.notes.iter().chain(&change.config_json).chain(&change.tags).any(poison) {
                return Err(StoreError::Rejected("poison".into()));
            }
            state.run_writes.push((Instant::now(), change.clone(), stored_start));
            if change.start_time.is_some() && stored_start.is_none() {
                state.unlisted.remove(&change.run_id);
            }
            let row = state.runs.entry(change.run_id).or_default();
            overlay(row, change);
            if lucky { Ok(()) } else { Err(Fault::Down.error()) }
        })
    }

    fn is_listed(&self, run_id: Uuid, start: Micros) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let state = self.state.lock().unwrap();
            Ok(!state.unlisted.contains(&run_id)
                && state.runs.get(&run_id).is_some_and(|row| row.start_time == Some(start)))
        })
    }

    fn outside_changes(&self) -> Option<u64> {
        self.state.lock().unwrap().outside_changes
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
    fn runs<'a>(&'a self, _: &'a RunsQuery) -> BoxFuture<'a, Result<Runs, StoreError>> {
        Box::pin(async { Ok(Runs::default()) })
    }
    fn metrics<'a>(&'a self, _: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<MetricsRow>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn samples<'a>(
        &'a self,
        _: &'a crate::store::SamplesQuery,
    ) -> BoxFuture<'a, Result<crate::curve::Samples, StoreError>> {
        Box::pin(async { Ok(crate::curve::Samples::default()) })
    }
    fn count_metrics(&self, _: Uuid) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async { Ok(0) })
    }
    fn topology<'a>(&'a self, _: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<TopologyRow>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn events<'a>(&'a self, _: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<EventRow>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn dataset(&self, id: Uuid) -> BoxFuture<'_, Result<Option<DatasetRow>, StoreError>> {
        Box::pin(async move { Ok(self.state.lock().unwrap().datasets.get(&id).cloned()) })
    }
    fn gaps<'a>(&'a self, _: &'a DaysQuery) -> BoxFuture<'a, Result<Vec<GapRow>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn control_log<'a>(&'a self, _: &'a DaysQuery) -> BoxFuture<'a, Result<Vec<ControlRow>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::SeqCst)
    }
}

/// What a store does with the columns of a change.
pub fn overlay(row: &mut RunRow, change: &RunRow) {
    row.run_id = change.run_id;
    merge::apply(change, row);
}

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
        Some((run_id(run), RunTouch { event_time: time, lifecycle: None, values: Box::new(values) })),
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

pub fn record(offset: u64, rows: Vec<Row>, touch: Option<(Uuid, RunTouch)>) -> Decoded {
    Decoded { offset, received_at: offset as i64, content: Content::Rows { rows, touch } }
}
