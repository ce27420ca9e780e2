//! The composition root: what is spawned, how it is connected, in which order it starts and stops. Nothing else knows all parts.
//!
//! ```text
//! start:  spool lock ─► subscribe ─► recover open runs ─► receive ─► write
//! stop:   sources ─► intake (drains, syncs) ─► control (answers what it has) ─► writer (what is gathered) ─► the rest
//! ```
//! Nothing waits for the store: what it has not confirmed is in the spool. Two signals make the order: `front` stops the sources
//! and whoever only looks; `back` is raised when intake has drained and the writer has had its chance.

mod decode;
mod follow;
mod http;
mod parts;
mod pauses;
mod phases;
pub mod refill;
pub mod replay;
mod serve;
mod signals;
mod status;
pub mod stores;

use std::{fs, io, path::PathBuf, sync::Arc, thread, time::Duration};

use tokio::{
    runtime::Handle,
    sync::{broadcast, mpsc, oneshot, watch},
    time::Instant,
};
use tracing::info;

use self::{
    decode::{Decoder, SpoolRecords},
    parts::{Letters, Renderer, SharedRuns, SpoolCommit},
    phases::{Reloaded, drain, reload_when_asked, report_restart, tell_ready},
    status::Sources,
};
use crate::{
    api,
    config::Settings,
    control,
    dead_letter::{DeadLetterError, DeadLetters},
    frame::{Arrival, Gap},
    intake::{self, Intake},
    latest::{self, Board},
    lifecycle::{Hold, Readiness, Signal, Tasks},
    live::Live,
    logging::LevelHandle,
    metrics::Metrics,
    notify::{self, Heartbeat},
    redis::{Link, RunShare},
    source::{self, QueuedBytes, SourceStatus, pubsub::Source, queue},
    spool::{self, SpoolError},
    store::{Store, StoreKind},
    units::{self, Micros},
    wire::{self, Job},
    writer,
};

/// Commands that may wait to be executed, and frames that may wait on the control connection.
const CONTROL_QUEUE: usize = 1_024;
/// Receipts that those who asked by HTTP may be behind.
const RECEIPTS: usize = 256;

/// Why the daemon could not start, or ended.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum AppError {
    #[error("failed to create the state directory `{}`", .path.display())]
    StateDir {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("failed to open the spool")]
    Spool(#[source] SpoolError),
    #[error("failed to open the dead letters")]
    DeadLetters(#[source] DeadLetterError),
    #[error("failed to start")]
    Start(#[source] io::Error),
    #[error("{0}")]
    Ended(String),
}

pub use self::serve::run as serve;

/// Reads the configuration again, for SIGHUP; `Err` says what is wrong with it.
pub type Reload = Box<dyn Fn() -> Result<Settings, String> + Send>;

/// Runs the daemon until a signal stops it.
///
/// # Errors
/// When it cannot start (the spool is locked, the state directory cannot be made), or a part of it fails.
pub fn run(settings: &Settings, reload: Reload, levels: Option<LevelHandle>) -> Result<(), AppError> {
    let started = Instant::now();
    fs::create_dir_all(&settings.state_dir)
        .map_err(|error| AppError::StateDir { path: settings.state_dir.clone(), error })?;
    let metrics = Metrics::new();
    let spool = spool::open(&settings.spool, Arc::clone(&metrics)).map_err(AppError::Spool)?;
    spool::set_owner(&settings.spool.dir, &settings.instance);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("runtime")
        .enable_all()
        .build()
        .map_err(AppError::Start)?;
    let outcome = runtime.block_on(daemon(settings, spool, metrics, started, reload, levels));
    // What still runs is at an await, and holds nothing that is not on disk.
    runtime.shutdown_timeout(Duration::from_millis(500));
    outcome
}

async fn daemon(
    settings: &Settings,
    spool: spool::Opened,
    metrics: Arc<Metrics>,
    started: Instant,
    reload: Reload,
    levels: Option<LevelHandle>,
) -> Result<(), AppError> {
    let (stopper, front) = Signal::new();
    let (back_stopper, back) = Signal::new();
    let stopper = Arc::new(stopper);
    let reloads = signals::install(Arc::clone(&stopper)).map_err(AppError::Start)?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        instance = settings.instance,
        state_dir = %settings.state_dir.display(),
        "starting"
    );
    let spool::Opened { appender, reader, committer, view, recovery } = spool;
    // Until intake knows what the open runs still need.
    appender.keep_from(0);
    let live = Live::new(settings.http.stream_buffer.as_usize(), settings.http.streams);
    let readiness = Readiness::default();
    let mut daemon = Daemon { settings, metrics, live, front, back, readiness, tasks: Tasks::new() };

    let inlets = daemon.subscribe()?;
    let (hold_out, hold) = watch::channel(Hold::Open);
    let (progress_out, progress) = watch::channel(view.committed());
    let (flush_out, flush_to) = watch::channel(0);
    let (last_gap_out, last_gap) = watch::channel(None);
    let dead_letters = DeadLetters::open(&settings.dead_letter, Arc::clone(&daemon.metrics));
    let dead_letters = Arc::new(dead_letters.map_err(AppError::DeadLetters)?);
    let watched = (hold.clone(), progress.clone(), last_gap);
    let sources = daemon.sources(started, &inlets.status, (&view, &dead_letters), watched);
    let board = Board::new(&settings.latest, &settings.redis.key_prefix, Arc::clone(&daemon.metrics));
    // Takes up a pause of before the restart, so it comes before the writer.
    let (receipts, _) = broadcast::channel(RECEIPTS);
    let jobs = daemon.control(&sources, hold_out, &board, &inlets, receipts.clone());
    let to_intake = inlets.to_intake.downgrade();
    let (limits_out, limits) = watch::channel(settings.limits.clone());
    let decoder = Arc::new(Decoder::new(&settings.instance));
    let (drained, heartbeat, inlets) =
        daemon.receive(inlets, appender, &recovery, &board, jobs, (limits.clone(), last_gap_out))?;
    let store = daemon.write(
        SpoolRecords::new(reader, view.clone(), decoder),
        committer,
        &view,
        (hold, flush_to),
        (progress_out, dead_letters),
    );
    let inlet = http::inlet(settings, &inlets.link, to_intake, receipts, limits);
    let (prefix, instance) = (settings.redis.key_prefix.clone(), settings.instance.clone());
    let farewell = latest::forget_status(inlets.link.clone(), prefix, instance);
    let keys = http::keys(settings, &inlets.link);
    let reloaded = Reloaded { levels, limits: limits_out, board: Arc::clone(&board), keys: Arc::clone(&keys) };
    daemon.look(&sources, board, inlets.link, heartbeat, Arc::clone(&store), (inlet, keys));

    let Daemon { mut tasks, front, readiness, .. } = daemon;
    tasks.spawn("ready", tell_ready(inlets.status, front.clone()));
    tasks.spawn("reload", reload_when_asked(reloads, reload, reloaded, front.clone()));
    tasks.spawn(
        "drain",
        drain((front.clone(), back_stopper), readiness, drained, view, (flush_out, progress), store, farewell),
    );
    tasks.run(stopper, front, settings.shutdown_grace).await.map_err(AppError::Ended)?;
    info!("stopped");
    Ok(())
}

/// What every step of building needs.
struct Daemon<'a> {
    settings: &'a Settings,
    metrics: Arc<Metrics>,
    live: Live,
    front: Signal,
    back: Signal,
    readiness: Readiness,
    tasks: Tasks,
}

/// What the sources feed.
struct Inlets {
    status: SourceStatus,
    link: Link,
    training: mpsc::Receiver<Arrival>,
    training_bytes: QueuedBytes,
    control: mpsc::Receiver<Arrival>,
    control_bytes: QueuedBytes,
    to_intake: mpsc::Sender<Arrival>,
}

/// What is left of them once intake has its queues.
struct Outlets {
    status: SourceStatus,
    link: Link,
}

impl Daemon<'_> {
    /// First of all: every millisecond before it is lost to us.
    fn subscribe(&mut self) -> Result<Inlets, AppError> {
        let redis = &self.settings.redis;
        let status = SourceStatus::new(self.readiness.clone());
        let (training_queue, training, training_bytes) = queue(redis.queue_frames, redis.queue_bytes.as_usize());
        let (control_queue, control, control_bytes) = queue(CONTROL_QUEUE, redis.queue_bytes.as_usize());
        let to_intake = control_queue.sender();
        let training_source = Source::training(redis, training_queue, status.clone(), Arc::clone(&self.metrics));
        let control_source = Source::control(redis, control_queue, status.clone(), Arc::clone(&self.metrics));
        let sources = source::receive(vec![training_source, control_source], self.front.clone());
        self.tasks.spawn("sources", sources.map_err(AppError::Start)?);
        let (link, upkeep) = Link::new(redis, self.back.clone());
        self.tasks.spawn("redis commands", upkeep);
        Ok(Inlets { status, link, training, training_bytes, control, control_bytes, to_intake })
    }

    fn sources(
        &self,
        started: Instant,
        redis: &SourceStatus,
        (spool, dead_letters): (&spool::View, &Arc<DeadLetters>),
        (hold, progress, last_gap): (watch::Receiver<Hold>, watch::Receiver<u64>, watch::Receiver<Option<Gap>>),
    ) -> Arc<Sources> {
        Arc::new(Sources {
            instance: self.settings.instance.clone(),
            process: format!("{}:{}", rustix::system::uname().nodename().to_string_lossy(), std::process::id()),
            store: match self.settings.store.kind {
                StoreKind::Sqlite => "sqlite",
                StoreKind::Cassandra => "cassandra",
            },
            started_at: units::now() - Micros::try_from(started.elapsed().as_micros()).unwrap_or(0),
            started,
            readiness: self.readiness.clone(),
            redis: redis.clone(),
            spool: spool.clone(),
            dead_letters: Arc::clone(dead_letters),
            hold,
            progress,
            last_gap,
            metrics: Arc::clone(&self.metrics),
        })
    }

    /// Executes durable commands; the returned queue takes them.
    fn control(
        &mut self,
        sources: &Arc<Sources>,
        hold: watch::Sender<Hold>,
        board: &Arc<Board>,
        inlets: &Inlets,
        receipts: broadcast::Sender<Arc<str>>,
    ) -> mpsc::Sender<Job> {
        let settings = self.settings;
        let identity = control::Identity {
            instance: settings.instance.clone(),
            key_prefix: settings.redis.key_prefix.clone(),
            state_dir: settings.state_dir.clone(),
            latest_ttl: settings.latest.enabled.then_some(settings.latest.control_ttl),
        };
        let levers = levers(sources, hold, board, inlets, receipts);
        let stage = control::Stage::new(&settings.control, identity, levers, Arc::clone(&self.metrics));
        let (jobs_out, jobs) = mpsc::channel(CONTROL_QUEUE);
        self.tasks.spawn("control", stage.run(jobs, self.back.clone()));
        jobs_out
    }

    /// Recovers the open runs, then receives, on a thread of its own.
    #[allow(clippy::too_many_arguments, reason = "each is a different end that only intake gets")]
    fn receive(
        &mut self,
        inlets: Inlets,
        appender: spool::Appender,
        recovery: &spool::Recovery,
        board: &Arc<Board>,
        commands: mpsc::Sender<Job>,
        (limits, last_gap): (watch::Receiver<wire::Limits>, watch::Sender<Option<Gap>>),
    ) -> Result<(oneshot::Receiver<()>, Heartbeat, Outlets), AppError> {
        let Inlets { status, link, training, training_bytes, control, control_bytes, to_intake } = inlets;
        let share = RunShare::new(link.clone(), &self.settings.redis.key_prefix);
        let (sharing, share_runs) = SharedRuns::new(share, Handle::current(), self.back.clone());
        self.tasks.spawn("shared runs", share_runs);
        let heartbeat = Heartbeat::default();
        let heard = status.clone();
        let parts = intake::Parts {
            config: self.settings.intake.clone(),
            limits,
            state_dir: self.settings.state_dir.clone(),
            appender,
            board: Arc::clone(board),
            live: self.live.clone(),
            commands,
            sharing: Box::new(sharing),
            readiness: self.readiness.clone(),
            heard: Box::new(move || heard.heard_until()),
            last_gap,
            metrics: Arc::clone(&self.metrics),
            heartbeat: heartbeat.clone(),
            release: Box::new(
                move |frame| {
                    if frame.control { control_bytes.taken(frame) } else { training_bytes.taken(frame) }
                },
            ),
        };
        let intake = Intake::new(parts, |as_of, tell| parts::recover(recovery, as_of, tell));
        let pauses = pauses::report(status.clone(), to_intake.clone(), Arc::clone(&self.metrics), self.front.clone());
        self.tasks.spawn("pauses", pauses);
        let restart = report_restart(
            intake.last_alive(),
            status.clone(),
            to_intake,
            Arc::clone(&self.metrics),
            self.front.clone(),
        );
        self.tasks.spawn("restart gap", restart);
        let (drained_out, drained) = oneshot::channel();
        let handle = Handle::current();
        let work = move || {
            intake.run(&handle, training, control);
            // Nobody waits for it when the daemon fails.
            let _ = drained_out.send(());
        };
        thread::Builder::new().name("intake".into()).spawn(work).map_err(AppError::Start)?;
        Ok((drained, heartbeat, Outlets { status, link }))
    }

    fn write(
        &mut self,
        records: SpoolRecords,
        committer: spool::Committer,
        view: &spool::View,
        (hold, flush_to): (watch::Receiver<Hold>, watch::Receiver<u64>),
        (progress, dead_letters): (watch::Sender<u64>, Arc<DeadLetters>),
    ) -> Arc<dyn Store> {
        let settings = self.settings;
        let (store, upkeep) = stores::open(settings, &self.metrics, self.back.clone());
        self.tasks.spawn("store", upkeep);
        let ends = writer::Ends {
            store: Arc::clone(&store),
            commit: SpoolCommit::new(committer, view.clone(), Arc::clone(&store), settings.spool.linger),
            aside: Arc::new(Letters::new(dead_letters, view.clone())),
            hold,
            flush_to,
            progress,
            metrics: Arc::clone(&self.metrics),
        };
        self.tasks.spawn("writer", writer::run(settings.writer.clone(), records, ends, self.back.clone()));
        store
    }

    /// Those who only look.
    fn look(
        &mut self,
        sources: &Arc<Sources>,
        board: Arc<Board>,
        link: Link,
        heartbeat: Heartbeat,
        store: Arc<dyn Store>,
        (inlet, keys): (api::Inlet, Arc<api::Keyring>),
    ) {
        let settings = self.settings;
        let status: api::StatusFn = {
            let sources = Arc::clone(sources);
            Arc::new(move || sources.status())
        };
        let render = Arc::new(Renderer::new(&settings.instance));
        let (instance, key) = (settings.instance.clone(), parts::status_key(&status));
        let flusher =
            latest::flusher(board, link.clone(), render, instance, key, Arc::clone(&self.metrics), self.back.clone());
        self.tasks.spawn("latest keys", flusher);
        let readiness = self.readiness.clone();
        let missing: api::MissingFn = Arc::new(move || readiness.missing().into_iter().map(str::to_owned).collect());
        let live = self.live.clone();
        let seen = http::Seen { metrics: Arc::clone(&self.metrics), store, link, live, keys, status, missing };
        self.tasks.spawn("http", api::run(http::sight(settings, seen, inlet), self.back.clone()));
        let line = {
            let sources = Arc::clone(sources);
            move || sources.line()
        };
        self.tasks.spawn("service manager", notify::run(vec![("intake", heartbeat)], line, self.front.clone()));
    }
}

/// What the commands move.
fn levers(
    sources: &Arc<Sources>,
    hold: watch::Sender<Hold>,
    board: &Arc<Board>,
    inlets: &Inlets,
    receipts: broadcast::Sender<Arc<str>>,
) -> control::Levers {
    let (end, fill, status) = (Arc::clone(sources), Arc::clone(sources), Arc::clone(sources));
    control::Levers {
        hold,
        stored: sources.progress.clone(),
        end: Box::new(move || end.spool.end()),
        spool_fill: Box::new(move || fill.spool.bytes() as f64 / fill.spool.capacity().max(1) as f64),
        status: Box::new(move || status.status().to_string()),
        board: Arc::clone(board),
        to_intake: inlets.to_intake.clone(),
        link: inlets.link.clone(),
        receipts,
    }
}
