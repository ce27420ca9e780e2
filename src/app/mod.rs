//! The composition root: what is spawned, how it is connected ([`build`]), in which order it starts and stops. Nothing else knows
//! all parts.
//!
//! ```text
//! start:  spool lock ─► subscribe ─► recover open runs ─► receive ─► write
//! stop:   sources ─► intake (drains, syncs) ─► control (answers what it has) ─► writer (what is gathered) ─► the rest
//! ```
//! Nothing waits for the store: what it has not confirmed is in the spool. Two signals make the order: `front` stops the sources
//! and whoever only looks; `back` is raised when intake has drained and the writer has had its chance.

mod build;
mod decode;
mod follow;
mod http;
mod parts;
mod pauses;
mod phases;
pub mod refill;
pub mod replay;
mod serve;
mod shared_runs;
mod signals;
mod status;
pub mod stores;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};
use tracing::info;

use self::{
    build::Daemon,
    decode::{Decoder, SpoolRecords},
    phases::{Reloaded, drain, reload_when_asked, tell_ready},
    status::Watched,
};
use crate::{
    config::Settings,
    dead_letter::{DeadLetterError, DeadLetterLog},
    files,
    latest::{self, Board},
    lifecycle::{Hold, Readiness, Signal, Tasks},
    live::Live,
    logging::LevelHandle,
    memory::MemoryLimit,
    metrics::Metrics,
    spool::{self, SpoolError},
};

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
    files::create_dir(&settings.state_dir)
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
    appender.retain_from(0);
    let live = Live::new(settings.http.stream_buffer.as_usize(), settings.http.streams);
    let readiness = Readiness::default();
    let memory = MemoryLimit::default();
    let mut daemon =
        Daemon { settings, metrics, memory: memory.clone(), live, front, back, readiness, tasks: Tasks::new() };

    let inlets = daemon.subscribe()?;
    let (hold_out, hold) = watch::channel(Hold::Open);
    let (progress_out, progress) = watch::channel(view.committed());
    let (flush_out, flush_to) = watch::channel(0);
    let (last_gap_out, last_gap) = watch::channel(None);
    let dead_letters = DeadLetterLog::open(&settings.dead_letter, Arc::clone(&daemon.metrics));
    let dead_letters = Arc::new(dead_letters.map_err(AppError::DeadLetters)?);
    let (problem_out, problem) = watch::channel(None);
    let keys = http::keys(settings, &inlets.link, &daemon.metrics);
    let watched =
        Watched { hold: hold.clone(), progress: progress.clone(), last_gap, problem, keys: Arc::clone(&keys) };
    let sources = daemon.sources(started, &inlets.status, (&view, &dead_letters), watched);
    let board = Board::new(&settings.latest, &settings.redis.key_prefix, memory.clone(), Arc::clone(&daemon.metrics));
    // Takes up a pause of before the restart, so it comes before the writer.
    let (receipts, _) = broadcast::channel(RECEIPTS);
    let jobs = daemon.control(&sources, hold_out, &board, &inlets, receipts.clone());
    let to_intake = inlets.to_intake.downgrade();
    let (limits_out, limits) = watch::channel(settings.limits.clone());
    let decoder = Arc::new(Decoder::new(&settings.instance));
    let (drained, heartbeat, inlets) =
        daemon.receive(inlets, appender, &recovery, &board, jobs, (limits.clone(), last_gap_out))?;
    let store = daemon.write(
        SpoolRecords::new(reader, view.clone(), decoder, memory),
        committer,
        &view,
        (hold, flush_to),
        (progress_out, problem_out, dead_letters),
    );
    let inlet = http::intake_submitter(settings, &inlets.link, to_intake, receipts, limits);
    let (prefix, instance) = (settings.redis.key_prefix.clone(), settings.instance.clone());
    let farewell = latest::forget_status(inlets.link.clone(), prefix, instance);
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
