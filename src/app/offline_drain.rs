//! Writes a spool to the store without its daemon. The same writer, decoder and commit run as in the daemon, so that the rows are the
//! same. Records that the store has not confirmed stay in the spool; a repeated run repeats nothing.

use std::{
    collections::HashSet,
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::stores;
use crate::{
    config::Settings,
    dead_letter::{self, DeadLetterError, DeadLetterLog},
    lifecycle::{PauseBarrier, Signal},
    memory::MemoryLimit,
    metrics::Metrics,
    spool::{self, SpoolError},
    store::{BoxError, Store, StoreError},
    writer::{
        self, Commit, DeadLetterEntry, DeadLetterSink, Decoder, RecordSource, SpoolCommit, SpoolDeadLetters,
        SpoolRecords, WriterError, WriterPorts,
    },
};

/// How long the store may take to answer for the first time.
const STORE_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may confirm nothing, beyond the delay of the checkpoint.
const NO_PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);
/// How often progress is read.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Why the spool could not be drained. Its other records are still there.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum OfflineDrainError {
    #[error("the store is away; nothing is lost, run it again when the store is back")]
    StoreUnavailable(#[source] StoreError),
    #[error("the store has confirmed nothing for {} s; the rest is where it was, run it again", .0.as_secs())]
    Stalled(Duration),
    #[error("failed to open the spool")]
    Spool(#[source] SpoolError),
    #[error(
        "`{}` does not say which daemon it belonged to, and its rows carry that name; say it with --owner",
        .0.display()
    )]
    UnknownOwner(PathBuf),
    #[error("failed to use the dead letters")]
    DeadLetters(#[source] DeadLetterError),
    #[error("the writer ended")]
    Writer(#[source] WriterError),
}

/// What was drained.
#[derive(Clone, Copy, Debug)]
pub struct Drained {
    /// Records that were waiting.
    pub records: u64,
    /// Records that are stored completely.
    pub stored: u64,
    /// Damaged or missing records.
    pub unreadable: u64,
    /// Offsets between quarantined segments, whose records are in the spool that went on.
    pub not_in_spool: u64,
    /// Dead letters beside the spool, now.
    pub dead_letters: u64,
}

/// The spool to drain.
#[derive(Clone, Debug)]
pub struct OrphanSpool {
    /// The spool.
    pub dir: PathBuf,
    /// The instance that the rows belong to; absent: the owner that the spool names.
    pub owner: Option<String>,
    /// The directory of its dead letters.
    pub dead_letters: PathBuf,
    /// Whether its daemon will start again. Its segments then stay: the daemon recovers the open runs and the last `seq` from them, and
    /// removes them afterwards; without them it would report stored messages as lost.
    pub daemon_returns: bool,
    /// Whether it is a `quarantine/`: its spool went on without these segments, so that records between them are not missing.
    pub quarantine: bool,
}

/// Stores dead letters, and counts their records.
struct CountingSink {
    inner: SpoolDeadLetters,
    records: Mutex<HashSet<u64>>,
}

impl DeadLetterSink for CountingSink {
    async fn put(&self, dead_letters: &[DeadLetterEntry]) -> Result<(), BoxError> {
        self.inner.put(dead_letters).await?;
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.extend(dead_letters.iter().map(|letter| letter.offset));
        Ok(())
    }
}

/// Drains a spool without a daemon into the store. `on_progress` gets the confirmed records, and all of them.
///
/// # Errors
/// When the spool is locked, the store is away, or the dead letters cannot be stored.
pub async fn drain(
    settings: &Settings,
    orphan: OrphanSpool,
    on_progress: impl FnMut(u64, u64),
) -> Result<Drained, OfflineDrainError> {
    let found = spool::inspect(&orphan.dir).map_err(OfflineDrainError::Spool)?;
    let owner =
        orphan.owner.clone().or(found.owner).ok_or_else(|| OfflineDrainError::UnknownOwner(orphan.dir.clone()))?;
    let metrics = Metrics::new();
    let (_stopper, stop) = Signal::new();
    let (store, upkeep) = stores::open(settings, &metrics, stop);
    let work = async {
        // Before the spool is opened.
        wait_for_store(&*store).await?;
        drain_into(Target { settings, store: &store, metrics: &metrics }, &orphan, &owner, on_progress).await
    };
    with_upkeep(upkeep, work).await
}

async fn drain_into(
    target: Target<'_>,
    orphan: &OrphanSpool,
    owner: &str,
    mut on_progress: impl FnMut(u64, u64),
) -> Result<Drained, OfflineDrainError> {
    let Target { settings, store, metrics } = target;
    let config = spool::Config { dir: orphan.dir.clone(), ..settings.spool.clone() };
    let opened = spool::open(&config, Arc::clone(metrics)).map_err(OfflineDrainError::Spool)?;
    let spool::Opened { appender, reader, committer, view, recovery } = opened;
    if orphan.daemon_returns {
        appender.retain_from(0);
    }
    drop(appender);
    let (first, end) = (recovery.first_uncommitted.min(recovery.next), recovery.next);
    drop(recovery);
    let dead_letters = dead_letter::Config { dir: orphan.dead_letters.clone(), ..settings.dead_letter.clone() };
    let dead_letters =
        Arc::new(DeadLetterLog::open(&dead_letters, Arc::clone(metrics)).map_err(OfflineDrainError::DeadLetters)?);
    let memory = MemoryLimit::default();
    let (decoder, flush_interval) = (Arc::new(Decoder::new(owner)), settings.writer.flush_interval);
    let records = SpoolRecords::new(reader, view.clone(), decoder, memory.clone(), flush_interval);
    let commit = SpoolCommit::new(committer, view.clone(), Arc::clone(store), settings.spool.checkpoint_delay);
    let sink = SpoolDeadLetters::new(Arc::clone(&dead_letters), view.clone(), memory);
    let sink = Arc::new(CountingSink { inner: sink, records: Mutex::default() });
    let on_progress = |at: u64| on_progress(at.clamp(first, end) - first, end - first);
    let stop_when = StopWhen { first, finished: || view.committed() >= end, on_progress };
    if first < end {
        let endpoints = Endpoints { records, commit, sink: Arc::clone(&sink) };
        run_writer_until(target, endpoints, stop_when).await?;
    }
    // In a damaged segment missing records count as damaged: they may have been in it.
    let not_in_spool = if orphan.quarantine { metrics.spool_missing_records.get() } else { 0 };
    let (records, unreadable) = (end - first - not_in_spool, view.missing() - not_in_spool);
    let set_aside = sink.records.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
    let stored = records.saturating_sub(unreadable).saturating_sub(set_aside);
    Ok(Drained { records, stored, unreadable, not_in_spool, dead_letters: dead_letters.usage().entries })
}

/// The store that is written to.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) settings: &'a Settings,
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) metrics: &'a Arc<Metrics>,
}

/// What the writer reads from and reports to.
pub(super) struct Endpoints<R, C, A> {
    pub(super) records: R,
    pub(super) commit: C,
    pub(super) sink: Arc<A>,
}

/// When to stop, and where progress is reported.
pub(super) struct StopWhen<F, T> {
    pub(super) first: u64,
    pub(super) finished: F,
    pub(super) on_progress: T,
}

/// Runs the writer until `finished`, or until the store confirms nothing.
pub(super) async fn run_writer_until<R: RecordSource, C: Commit, A: DeadLetterSink>(
    target: Target<'_>,
    endpoints: Endpoints<R, C, A>,
    mut stop_when: StopWhen<impl Fn() -> bool, impl FnMut(u64)>,
) -> Result<(), OfflineDrainError> {
    let Target { settings, store, metrics } = target;
    let (stopper, stop) = Signal::new();
    let (_hold, hold) = watch::channel(PauseBarrier::None);
    let (_flush, flush_to) = watch::channel(0);
    let (progress_out, progress) = watch::channel(stop_when.first);
    let ports = WriterPorts {
        memory: MemoryLimit::default(),
        store: Arc::clone(store),
        commit: endpoints.commit,
        dead_letters: endpoints.sink,
        pause_barrier: hold,
        flush_to,
        // The command reports errors itself.
        problem: watch::Sender::new(None),
        // Nothing else of this process keeps runs.
        deletions: watch::Sender::default(),
        progress: progress_out,
        oldest_unstored: watch::Sender::new(None),
        metrics: Arc::clone(metrics),
    };
    let mut writer = Box::pin(writer::run(settings.writer.clone(), endpoints.records, ports, stop));
    let limit = NO_PROGRESS_TIMEOUT + settings.spool.checkpoint_delay;
    let (mut last, mut moved) = (stop_when.first, Instant::now());
    while !(stop_when.finished)() {
        tokio::select! {
            ended = &mut writer => return ended.map_err(OfflineDrainError::Writer),
            () = tokio::time::sleep(POLL_INTERVAL) => {}
        }
        let at = *progress.borrow();
        if at > last {
            (last, moved) = (at, Instant::now());
        }
        (stop_when.on_progress)(at);
        if moved.elapsed() > limit {
            return match store.ping().await {
                Err(error) => Err(OfflineDrainError::StoreUnavailable(error)),
                Ok(()) => Err(OfflineDrainError::Stalled(limit)),
            };
        }
    }
    stopper.stop();
    writer.await.map_err(OfflineDrainError::Writer)
}

/// Waits for the first answer of the store.
pub(super) async fn wait_for_store(store: &dyn Store) -> Result<(), OfflineDrainError> {
    let deadline = Instant::now() + STORE_CONNECT_TIMEOUT;
    loop {
        match store.ping().await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(OfflineDrainError::StoreUnavailable(error)),
            Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}

/// Runs `work` while the store's connection is kept up.
pub(super) async fn with_upkeep<T>(upkeep: stores::Upkeep, work: impl Future<Output = T>) -> T {
    let forever = async {
        let _: Result<(), Infallible> = upkeep.await;
        std::future::pending().await
    };
    tokio::select! {
        done = work => done,
        never = forever => never,
    }
}
