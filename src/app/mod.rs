//! The composition root: what is spawned, how it is connected ([`build`]), in which order it starts and stops. Nothing else knows
//! all parts.
//!
//! ```text
//! start:  spool lock ─► subscribe ─► recover open runs ─► receive ─► write
//! stop:   sources ─► intake (drains, syncs) ─► control (answers what it has) ─► writer (what is gathered) ─► the rest
//! ```
//! Nothing waits for the store: what it has not confirmed is in the spool. Two signals make the order: `ingest_stop` stops the sources
//! and whoever only looks; `drain_stop` is raised when intake has drained and the writer has had its chance.

mod adapters;
mod build;
mod decode;
mod http;
mod live_mirror;
pub mod offline_drain;
pub mod replay;
mod serve;
mod shared_runs;
mod signals;
mod stall_detector;
mod startup_shutdown;
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
    startup_shutdown::{Reloadable, drain, notify_ready, reload_on_signal},
    status::TaskReports,
};
use crate::{
    config::Settings,
    dead_letter::{DeadLetterError, DeadLetterLog},
    files,
    latest::{self, LatestState},
    lifecycle::{PauseBarrier, Readiness, Signal, Tasks},
    live::LiveFeed,
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
    let (stopper, ingest_stop) = Signal::new();
    let (drain_stopper, drain_stop) = Signal::new();
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
    let live = LiveFeed::new(settings.http.stream_buffer.as_usize(), settings.http.streams);
    let readiness = Readiness::default();
    let memory = MemoryLimit::default();
    let mut daemon = Daemon {
        settings,
        metrics,
        memory: memory.clone(),
        live,
        ingest_stop,
        drain_stop,
        readiness,
        tasks: Tasks::new(),
    };

    let handles = daemon.spawn_sources()?;
    let (pause_barrier_out, pause_barrier) = watch::channel(PauseBarrier::None);
    let (progress_out, progress) = watch::channel(view.committed());
    let (flush_out, flush_to) = watch::channel(0);
    let (last_gap_out, last_gap) = watch::channel(None);
    let dead_letters = DeadLetterLog::open(&settings.dead_letter, Arc::clone(&daemon.metrics));
    let dead_letters = Arc::new(dead_letters.map_err(AppError::DeadLetters)?);
    let (problem_out, problem) = watch::channel(None);
    let token_store = http::token_store(settings, &handles.link, &daemon.metrics);
    let reports = TaskReports {
        pause_barrier: pause_barrier.clone(),
        progress: progress.clone(),
        last_gap,
        problem,
        token_store: Arc::clone(&token_store),
    };
    let status_inputs = daemon.status_inputs(started, &handles.status, (&view, &dead_letters), reports);
    let latest_state =
        LatestState::new(&settings.latest, &settings.redis.key_prefix, memory.clone(), Arc::clone(&daemon.metrics));
    // Takes up a pause of before the restart, so it comes before the writer.
    let (receipts, _) = broadcast::channel(RECEIPTS);
    let jobs = daemon.spawn_control(&status_inputs, pause_barrier_out, &latest_state, &handles, receipts.clone());
    let to_intake = handles.to_intake.downgrade();
    let (limits_out, limits) = watch::channel(settings.limits.clone());
    let decoder = Arc::new(Decoder::new(&settings.instance));
    let (drained, heartbeat, handles) =
        daemon.spawn_intake(handles, appender, &recovery, &latest_state, jobs, (limits.clone(), last_gap_out))?;
    let store = daemon.spawn_writer(
        SpoolRecords::new(reader, view.clone(), decoder, memory),
        committer,
        &view,
        (pause_barrier, flush_to),
        (progress_out, problem_out, dead_letters),
    );
    let submitter = http::intake_submitter(settings, &handles.link, to_intake, receipts, limits);
    let (prefix, instance) = (settings.redis.key_prefix.clone(), settings.instance.clone());
    let delete_status = latest::delete_status(handles.link.clone(), prefix, instance);
    let reloadable = Reloadable {
        levels,
        limits: limits_out,
        latest_state: Arc::clone(&latest_state),
        token_store: Arc::clone(&token_store),
    };
    daemon.spawn_observers(
        &status_inputs,
        latest_state,
        handles.link,
        heartbeat,
        Arc::clone(&store),
        (submitter, token_store),
    );

    let Daemon { mut tasks, ingest_stop, readiness, .. } = daemon;
    tasks.spawn("ready", notify_ready(handles.status, ingest_stop.clone()));
    tasks.spawn("reload", reload_on_signal(reloads, reload, reloadable, ingest_stop.clone()));
    tasks.spawn(
        "drain",
        drain(
            (ingest_stop.clone(), drain_stopper),
            readiness,
            drained,
            view,
            (flush_out, progress),
            store,
            delete_status,
        ),
    );
    tasks.run(stopper, ingest_stop, settings.shutdown_grace).await.map_err(AppError::Ended)?;
    info!("stopped");
    Ok(())
}
