//! Fills the store from what lies on disk, without a daemon: a spool that nobody holds, dead letters after their cause is mended.
//!
//! It is the daemon's own writer, decoder and commit that work here, so that rows come out the same. What is not confirmed by the
//! store stays where it is: doing it again repeats nothing.

use std::{
    collections::HashSet,
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{
    decode::{Decoder, SpoolRecords},
    parts::{Letters, SpoolCommit},
    stores,
};
use crate::{
    config::Settings,
    dead_letter::{self, DeadLetterError, DeadLetterLog},
    lifecycle::{Hold, Signal},
    memory::MemoryLimit,
    metrics::Metrics,
    spool::{self, SpoolError},
    store::{BoxError, Store, StoreError},
    writer::{self, Aside, Commit, Ends, Letter, Records, WriterError},
};

/// How long the store may take to answer for the first time.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may confirm nothing, beyond the time that confirmations linger.
const STALLED: Duration = Duration::from_secs(30);
/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(100);

/// Why the store could not be filled. What is not stored is where it was.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum RefillError {
    #[error("the store is away; nothing is lost, run it again when the store is back")]
    Away(#[source] StoreError),
    #[error("the store has confirmed nothing for {} s; the rest is where it was, run it again", .0.as_secs())]
    Stalled(Duration),
    #[error("failed to open the spool")]
    Spool(#[source] SpoolError),
    #[error(
        "`{}` does not say which daemon it belonged to, and its rows carry that name; say it with --owner",
        .0.display()
    )]
    Nameless(PathBuf),
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
    /// Those of them that are stored now, whole.
    pub stored: u64,
    /// Records that could not be read any more.
    pub unreadable: u64,
    /// Offsets between segments that were set aside, whose records are no business of theirs.
    pub elsewhere: u64,
    /// Dead letters that there are now beside the spool.
    pub dead_letters: u64,
}

/// Where to drain from.
#[derive(Clone, Debug)]
pub struct Orphan {
    /// The spool.
    pub dir: PathBuf,
    /// The instance whose rows they are; absent: as the spool says.
    pub owner: Option<String>,
    /// Where its dead letters go.
    pub dead_letters: PathBuf,
    /// Whether its daemon will come back: its segments stay then. At its start it recovers from them the runs that were open and
    /// what numbers were seen; without them it would report what is stored as lost, and removes them after that.
    pub returns: bool,
    /// Whether it is a `quarantine/`: segments of a spool that went on without them, so that what is between them is not missing.
    pub quarantine: bool,
}

/// Puts letters, and knows of how many records.
struct Counted {
    letters: Letters,
    records: Mutex<HashSet<u64>>,
}

impl Aside for Counted {
    async fn put(&self, letters: &[Letter]) -> Result<(), BoxError> {
        self.letters.put(letters).await?;
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.extend(letters.iter().map(|letter| letter.offset));
        Ok(())
    }
}

/// Empties a spool that nobody holds into the store. `tell` hears how many of how many records are confirmed.
///
/// # Errors
/// When the spool is held by somebody, the store is away, or the dead letters cannot be kept.
pub async fn drain(settings: &Settings, orphan: Orphan, tell: impl FnMut(u64, u64)) -> Result<Drained, RefillError> {
    let found = spool::inspect(&orphan.dir).map_err(RefillError::Spool)?;
    let owner = orphan.owner.clone().or(found.owner).ok_or_else(|| RefillError::Nameless(orphan.dir.clone()))?;
    let metrics = Metrics::new();
    let (_stopper, stop) = Signal::new();
    let (store, upkeep) = stores::open(settings, &metrics, stop);
    let work = async {
        // Before anything is touched.
        reach(&*store).await?;
        drain_into(settings, &orphan, &owner, &store, &metrics, tell).await
    };
    beside(upkeep, work).await
}

async fn drain_into(
    settings: &Settings,
    orphan: &Orphan,
    owner: &str,
    store: &Arc<dyn Store>,
    metrics: &Arc<Metrics>,
    mut tell: impl FnMut(u64, u64),
) -> Result<Drained, RefillError> {
    let config = spool::Config { dir: orphan.dir.clone(), ..settings.spool.clone() };
    let opened = spool::open(&config, Arc::clone(metrics)).map_err(RefillError::Spool)?;
    let spool::Opened { appender, reader, committer, view, recovery } = opened;
    if orphan.returns {
        appender.retain_from(0);
    }
    drop(appender);
    let (first, end) = (recovery.first_uncommitted.min(recovery.next), recovery.next);
    drop(recovery);
    let letters = dead_letter::Config { dir: orphan.dead_letters.clone(), ..settings.dead_letter.clone() };
    let letters = Arc::new(DeadLetterLog::open(&letters, Arc::clone(metrics)).map_err(RefillError::DeadLetters)?);
    let memory = MemoryLimit::default();
    let records = SpoolRecords::new(reader, view.clone(), Arc::new(Decoder::new(owner)), memory.clone());
    let commit = SpoolCommit::new(committer, view.clone(), Arc::clone(store), settings.spool.linger);
    let aside = Letters::new(Arc::clone(&letters), view.clone(), memory);
    let aside = Arc::new(Counted { letters: aside, records: Mutex::default() });
    let tell = |at: u64| tell(at.clamp(first, end) - first, end - first);
    let until = Until { first, finished: || view.committed() >= end, tell };
    if first < end {
        pump(settings, store, metrics, (records, commit, Arc::clone(&aside)), until).await?;
    }
    // Where a segment is damaged, what lacks is damaged: it may have been in it.
    let elsewhere = if orphan.quarantine { metrics.spool_missing_records.get() } else { 0 };
    let (records, unreadable) = (end - first - elsewhere, view.missing() - elsewhere);
    let set_aside = aside.records.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
    let stored = records.saturating_sub(unreadable).saturating_sub(set_aside);
    Ok(Drained { records, stored, unreadable, elsewhere, dead_letters: letters.usage().entries })
}

/// When to stop, and who wants to know how far it is.
pub(super) struct Until<F, T> {
    pub(super) first: u64,
    pub(super) finished: F,
    pub(super) tell: T,
}

/// Runs the writer until `finished`, or until the store gets nowhere.
pub(super) async fn pump<R: Records, C: Commit, A: Aside>(
    settings: &Settings,
    store: &Arc<dyn Store>,
    metrics: &Arc<Metrics>,
    (records, commit, aside): (R, C, Arc<A>),
    mut until: Until<impl Fn() -> bool, impl FnMut(u64)>,
) -> Result<(), RefillError> {
    let (stopper, stop) = Signal::new();
    let (_hold, hold) = watch::channel(Hold::Open);
    let (_flush, flush_to) = watch::channel(0);
    let (progress_out, progress) = watch::channel(until.first);
    let ends = Ends {
        memory: MemoryLimit::default(),
        store: Arc::clone(store),
        commit,
        aside,
        hold,
        flush_to,
        // The command says itself why it does not get on.
        problem: watch::Sender::new(None),
        progress: progress_out,
        metrics: Arc::clone(metrics),
    };
    let mut writer = Box::pin(writer::run(settings.writer.clone(), records, ends, stop));
    let limit = STALLED + settings.spool.linger;
    let (mut last, mut moved) = (until.first, Instant::now());
    while !(until.finished)() {
        tokio::select! {
            ended = &mut writer => return ended.map_err(RefillError::Writer),
            () = tokio::time::sleep(LOOK) => {}
        }
        let at = *progress.borrow();
        if at > last {
            (last, moved) = (at, Instant::now());
        }
        (until.tell)(at);
        if moved.elapsed() > limit {
            return match store.ping().await {
                Err(error) => Err(RefillError::Away(error)),
                Ok(()) => Err(RefillError::Stalled(limit)),
            };
        }
    }
    stopper.stop();
    writer.await.map_err(RefillError::Writer)
}

/// Waits for the first answer of the store.
pub(super) async fn reach(store: &dyn Store) -> Result<(), RefillError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match store.ping().await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(RefillError::Away(error)),
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Works while the store's connection is kept up.
pub(super) async fn beside<T>(upkeep: stores::Upkeep, work: impl Future<Output = T>) -> T {
    let forever = async {
        let _: Result<(), Infallible> = upkeep.await;
        std::future::pending().await
    };
    tokio::select! {
        done = work => done,
        never = forever => never,
    }
}
