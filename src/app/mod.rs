//! The composition root: what is spawned, how it is connected, in which order it starts and stops. No other module knows all parts.
//!
//! | Queue | From | To | Capacity | Full |
//! | --- | --- | --- | --- | --- |
//! | training | sources | intake | `redis.queue_frames`, `redis.queue_bytes` | the newest are dropped, and counted |
//! | control | sources, control, HTTP | intake | `build::CONTROL_QUEUE_FRAMES`, `redis.queue_bytes` | as training; HTTP answers 503 |
//! | commands | intake | control | `channels::COMMANDS` | recorded, not executed |
//! | spool | intake | writer | `spool.capacity` | the newest are dropped, and counted |
//! | receipts | control | HTTP | `channels::RECEIPTS` | the oldest are dropped |
//! | live feed | intake, `live_streams` | HTTP streams | `http.stream_buffer` | the oldest are dropped, and reported as skipped |
//! | latest keys | intake | flusher | one value a key | the newest replaces |
//!
//! ```text
//! start:  spool lock ─► subscribe ─► control (takes up a pause) ─► recover open runs ─► receive ─► write ─► HTTP
//! stop:   sources ─► intake (drains, syncs) ─► control (answers what it has) ─► writer (what is gathered) ─► the rest
//! ```
//! Nothing waits for the store: what it has not confirmed is in the spool. Two signals make the order of stopping: `ingest_stop` stops
//! the sources and what only observes; `drain_stop` stops the rest once intake has drained and the writer has flushed, or has had
//! its time.

pub mod backup;
mod build;
mod channels;
pub mod dead_letter_replay;
mod error;
mod http;
mod lag;
mod live_mirror;
mod live_runs;
mod live_streams;
pub mod offline_drain;
mod receive_rate;
mod run_removal;
mod serve;
pub mod signals;
mod stall_detector;
mod startup_shutdown;
mod status;
mod storage;
pub mod stores;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::info;

use self::{
    build::{Daemon, IntakeLog, Observed, RunningIntake},
    channels::Channels,
    startup_shutdown::{Drain, Reloadable, notify_ready, reload_on_signal},
    storage::Storage,
};
use crate::{
    api::{self, IntakeHandle},
    config::Settings,
    dead_letter::DeadLetterLog,
    files,
    latest::{self, LatestState},
    lifecycle::{Readiness, Signal, Tasks},
    live::LiveFeed,
    logging::LevelHandle,
    memory::MemoryLimit,
    metrics::Metrics,
    spool,
};

pub use self::{error::AppError, serve::run as serve, startup_shutdown::Reload};

/// What a process has before its runtime.
struct Process {
    started: Instant,
    metrics: Arc<Metrics>,
    reload: Reload,
    levels: Option<LevelHandle>,
}

/// Runs the daemon until a signal stops it.
///
/// # Errors
/// When it cannot start (the spool is locked, the state directory cannot be made), or a part of it fails.
pub fn run(settings: &Settings, reload: Reload, levels: Option<LevelHandle>) -> Result<(), AppError> {
    let started = Instant::now();
    files::create_dir(&settings.state_dir).map_err(|error| AppError::state_dir(&settings.state_dir, error))?;
    files::share_with_group_of(&settings.state_dir);
    backup::refuse_unfinished(&settings.state_dir)?;
    let metrics = http::metrics(settings);
    let spool = spool::open(&settings.spool, Arc::clone(&metrics)).map_err(AppError::spool)?;
    spool::set_owner(&settings.spool.dir, &settings.instance);
    block_on(2, daemon(settings, spool, Process { started, metrics, reload, levels }))
}

/// Runs a process on so many threads.
fn block_on(threads: usize, process: impl Future<Output = Result<(), AppError>>) -> Result<(), AppError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("runtime")
        .enable_all()
        .build()
        .map_err(AppError::Start)?;
    let outcome = runtime.block_on(process);
    // Tasks that still run are at an await, and hold nothing that is not on disk.
    runtime.shutdown_timeout(Duration::from_millis(500));
    outcome
}

async fn daemon(settings: &Settings, spool: spool::Opened, process: Process) -> Result<(), AppError> {
    let Process { started, metrics, reload, levels } = process;
    let ((stopper, ingest_stop), (drain_stopper, drain_stop)) = (Signal::new(), Signal::new());
    let stopper = Arc::new(stopper);
    let reloads = signals::install(Arc::clone(&stopper)).map_err(AppError::Start)?;
    let (version, state_dir) = (env!("CARGO_PKG_VERSION"), settings.state_dir.display());
    let dashboard = api::dashboard_url(&settings.http);
    info!(version, instance = settings.instance, %state_dir, dashboard, "starting");
    let spool::Opened { appender, reader, committer, view, recovery } = spool;
    // Until intake knows what the open runs still need.
    appender.retain_from(0);
    let prefix = &settings.redis.key_prefix;
    let memory = MemoryLimit::default();
    let mut daemon = Daemon {
        settings,
        started,
        live: LiveFeed::new(settings.http.stream_buffer.as_usize(), settings.http.streams),
        latest_state: LatestState::new(&settings.latest, prefix, memory.clone(), Arc::clone(&metrics)),
        memory,
        metrics,
        ingest_stop,
        drain_stop,
        readiness: Readiness::default(),
        tasks: Tasks::new(),
    };

    let (redis, queues) = daemon.spawn_sources()?;
    let dead_letters = DeadLetterLog::open(&settings.dead_letter, Arc::clone(&daemon.metrics));
    let storage = Storage { spool: view, dead_letters: dead_letters.map(Arc::new).map_err(AppError::DeadLetters)? };
    let channels = Channels::new(storage.spool.committed(), settings.limits.clone());
    let access = http::access(settings, &redis.link, &daemon.metrics);
    let status_inputs = daemon.status_inputs(&redis, &storage, channels.status, &access);
    let (receipts, limits) = (channels.control.receipts.clone(), channels.intake.limits.clone());
    let intake = IntakeHandle::new(queues.senders(), settings.instance.clone());
    daemon.spawn_live_streams(&redis.link, &limits);
    let submitter = http::submitter(settings, &redis.link, receipts, limits, Some(intake));
    // Takes up a pause of before the restart, so it comes before the writer.
    daemon.spawn_control(&status_inputs, channels.control, &redis.link, &queues.sender);
    daemon.spawn_run_removal(channels.deletions, &redis.link, &queues.sender);
    let log = IntakeLog { appender, recovery };
    let RunningIntake { drained, heartbeat } = daemon.spawn_intake(queues, channels.intake, &redis, log)?;
    let store = daemon.spawn_writer(reader, committer, storage.clone(), channels.writer);
    daemon.spawn_observers(Observed {
        status_inputs,
        link: redis.link.clone(),
        heartbeat,
        store: Arc::clone(&store),
        submitter,
        access: access.clone(),
    });

    let Daemon { mut tasks, ingest_stop, readiness, latest_state, .. } = daemon;
    let reloadable = Reloadable { levels, limits: channels.limits, latest_state, access };
    let drain = Drain {
        ingest_stop: ingest_stop.clone(),
        drain_stop: drain_stopper,
        readiness,
        drained,
        spool: storage.spool,
        channels: channels.drain,
        store,
    };
    let delete_status = latest::delete_status(redis.link, prefix.clone(), settings.instance.clone());
    tasks.spawn("ready", notify_ready(redis.status, ingest_stop.clone()));
    tasks.spawn("reload", reload_on_signal(reloads, reload, reloadable, ingest_stop.clone()));
    tasks.spawn("drain", drain.run(delete_status));
    tasks.run(stopper, ingest_stop, settings.shutdown_grace).await.map_err(AppError::Ended)?;
    info!("stopped");
    Ok(())
}
