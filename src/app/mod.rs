//! The composition root: what is spawned, how it is connected, in which order it starts and stops. Nothing else knows all parts.
//!
//! ```text
//! start:  spool lock ─► subscribe ─► recover open runs ─► receive ─► write
//! stop:   sources ─► intake (drains, syncs) ─► control (answers what it has) ─► writer (what is gathered) ─► the rest
//! ```
//! Nothing waits for the store: what it has not confirmed is in the spool. Two signals make the order: `front` stops the sources
//! and whoever only looks; `back` is raised when intake has drained and the writer has had its chance.

mod decode;
mod parts;
mod signals;
mod status;
pub mod stores;

use std::{convert::Infallible, fs, io, path::PathBuf, sync::Arc, thread, time::Duration};

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tracing::{info, warn};

use self::{
    decode::{Decoder, SpoolRecords},
    parts::{Letters, Renderer, SharedRuns, SpoolCommit},
    status::Sources,
};
use crate::{
    api,
    config::Settings,
    control,
    dead_letter::{DeadLetterError, DeadLetters},
    frame::{Arrival, Gap, GapReason},
    intake::{self, Intake},
    latest::{self, Board},
    lifecycle::{Hold, Readiness, Signal, Stopper, Tasks},
    logging::{Chain, LevelHandle},
    metrics::Metrics,
    notify::{self, Heartbeat},
    redis::{Link, RunShare},
    source::{SourceStatus, pubsub::Source, queue},
    spool::{self, SpoolError},
    store::{Store, StoreKind},
    units::Micros,
    wire, writer,
};

/// Commands that may wait to be executed, and frames that may wait on the control connection.
const CONTROL_QUEUE: usize = 1_024;

/// How long READY waits for the first try to reach Redis.
const FIRST_TRY: Duration = Duration::from_secs(3);

/// How long the writer may go on with what is in the spool once intake has drained.
const LAST_WRITES: Duration = Duration::from_secs(3);

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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("runtime")
        .enable_all()
        .build()
        .map_err(AppError::Start)?;
    let outcome = runtime.block_on(serve(settings, spool, metrics, started, reload, levels));
    // What still runs is at an await, and holds nothing that is not on disk.
    runtime.shutdown_timeout(Duration::from_millis(500));
    outcome
}

async fn serve(
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
    let mut tasks = Tasks::new();
    let readiness = Readiness::default();
    let heartbeat = Heartbeat::default();
    info!(version = env!("CARGO_PKG_VERSION"), instance = settings.instance, state_dir = %settings.state_dir.display(), "starting");

    // Subscribe first: every millisecond before it is lost to us.
    let redis_status = SourceStatus::new(readiness.clone());
    let (training, training_arrivals, training_bytes) =
        queue(settings.redis.queue_frames, settings.redis.queue_bytes.as_usize());
    let (control, control_arrivals, control_bytes) = queue(CONTROL_QUEUE, settings.redis.queue_bytes.as_usize());
    let to_intake = control.sender();
    let gaps_to_intake = control.sender();
    tasks.spawn(
        "training source",
        Source::training(&settings.redis, training, redis_status.clone(), Arc::clone(&metrics)).run(front.clone()),
    );
    tasks.spawn(
        "control source",
        Source::control(&settings.redis, control, redis_status.clone(), Arc::clone(&metrics)).run(front.clone()),
    );
    let (link, link_upkeep) = Link::new(&settings.redis, back.clone());
    tasks.spawn("redis commands", link_upkeep);

    let view = spool.view.clone();
    let (hold_out, hold) = watch::channel(Hold::Open);
    let (progress_out, progress) = watch::channel(view.committed());
    let board = Board::new(&settings.latest, &settings.redis.key_prefix, Arc::clone(&metrics));
    let sources = Arc::new(Sources {
        instance: settings.instance.clone(),
        store: match settings.store.kind {
            StoreKind::Sqlite => "sqlite",
            StoreKind::Cassandra => "cassandra",
        },
        started_at: intake::now() - Micros::try_from(started.elapsed().as_micros()).unwrap_or(0),
        started,
        readiness: readiness.clone(),
        redis: redis_status.clone(),
        spool: view.clone(),
        hold: hold.clone(),
        progress: progress.clone(),
        metrics: Arc::clone(&metrics),
    });

    // Control takes up a pause of before the restart, so it is built before the writer runs.
    let (jobs_out, jobs) = mpsc::channel(CONTROL_QUEUE);
    let stage = control::Stage::new(
        &settings.control,
        control::Identity {
            instance: settings.instance.clone(),
            key_prefix: settings.redis.key_prefix.clone(),
            state_dir: settings.state_dir.clone(),
            latest_ttl: settings.latest.enabled.then_some(settings.latest.control_ttl),
        },
        levers(&sources, hold_out, &board, to_intake, &link),
        Arc::clone(&metrics),
    );
    tasks.spawn("control", stage.run(jobs, back.clone()));

    // Recover, then receive.
    let (limits_out, limits) = watch::channel(settings.limits.clone());
    let decoder = Arc::new(Decoder::new(&settings.instance));
    let intake = Intake::new(
        intake::Parts {
            config: settings.intake.clone(),
            limits,
            state_dir: settings.state_dir.clone(),
            appender: spool.appender,
            board: Arc::clone(&board),
            commands: jobs_out,
            sharing: Box::new(SharedRuns::new(
                RunShare::new(link.clone(), &settings.redis.key_prefix),
                Handle::current(),
            )),
            readiness: readiness.clone(),
            metrics: Arc::clone(&metrics),
            heartbeat: heartbeat.clone(),
            release: Box::new(
                move |frame| if frame.control { control_bytes.taken(frame) } else { training_bytes.taken(frame) },
            ),
        },
        |as_of, tell| parts::recover(&spool.recovery, &decoder, as_of, tell),
    );
    let last_alive = intake.last_alive();
    let (drained_out, drained) = oneshot::channel();
    let handle = Handle::current();
    thread::Builder::new()
        .name("intake".into())
        .spawn(move || {
            intake.run(&handle, training_arrivals, control_arrivals);
            let _ = drained_out.send(());
        })
        .map_err(AppError::Start)?;
    tasks.spawn("restart gap", report_restart(last_alive, redis_status.clone(), gaps_to_intake, front.clone()));

    // Write.
    let (store, upkeep) = stores::open(settings, &metrics, back.clone());
    tasks.spawn("store", upkeep);
    let dead_letters = DeadLetters::open(&settings.dead_letter, Arc::clone(&metrics)).map_err(AppError::DeadLetters)?;
    let (_, flush_to) = watch::channel(0);
    let ends = writer::Ends {
        store: Arc::clone(&store),
        commit: SpoolCommit::new(spool.committer, view.clone(), Arc::clone(&store), settings.spool.linger),
        aside: Arc::new(Letters::new(dead_letters, view.clone())),
        hold,
        flush_to,
        progress: progress_out,
        metrics: Arc::clone(&metrics),
    };
    let records = SpoolRecords { reader: spool.reader, decoder };
    tasks.spawn("writer", writer::run(settings.writer.clone(), records, ends, back.clone()));

    // Look.
    let status_json: api::StatusFn = {
        let sources = Arc::clone(&sources);
        Arc::new(move || sources.status())
    };
    tasks.spawn(
        "latest keys",
        latest::flusher(
            board,
            link,
            Arc::new(Renderer::new(&settings.instance)),
            settings.instance.clone(),
            parts::status_key(&status_json),
            Arc::clone(&metrics),
            back.clone(),
        ),
    );
    let sight = api::Sight { readiness: readiness.clone(), metrics: Arc::clone(&metrics), status: status_json };
    tasks.spawn("http", api::run(settings.http.clone(), sight, back.clone()));
    let line = {
        let sources = Arc::clone(&sources);
        move || sources.line()
    };
    tasks.spawn("service manager", notify::run(vec![("intake", heartbeat)], line, front.clone()));
    tasks.spawn("ready", tell_ready(redis_status, front.clone()));
    tasks.spawn("reload", reload_when_asked(reloads, reload, levels, limits_out, front.clone()));
    tasks.spawn("drain", drain(front.clone(), readiness, drained, view, progress, store, back_stopper));
    tasks.run(stopper, front, settings.shutdown_grace).await.map_err(AppError::Ended)?;
    info!("stopped");
    Ok(())
}

/// What the commands move.
fn levers(
    sources: &Arc<Sources>,
    hold: watch::Sender<Hold>,
    board: &Arc<Board>,
    to_intake: mpsc::Sender<Arrival>,
    link: &Link,
) -> control::Levers {
    let (end, fill, status) = (Arc::clone(sources), Arc::clone(sources), Arc::clone(sources));
    control::Levers {
        hold,
        stored: sources.progress.clone(),
        end: Box::new(move || end.spool.end()),
        spool_fill: Box::new(move || fill.spool.bytes() as f64 / fill.spool.capacity().max(1) as f64),
        status: Box::new(move || status.status().to_string()),
        board: Arc::clone(board),
        to_intake,
        link: link.clone(),
    }
}

/// Nobody listened between the last sign of life of the process before and the first proven subscription of this one.
async fn report_restart(
    last_alive: Option<Micros>,
    redis: SourceStatus,
    to_intake: mpsc::Sender<Arrival>,
    mut stop: Signal,
) -> Result<(), Infallible> {
    let mut first = redis.first_proven();
    let proven = tokio::select! {
        () = stop.stopped() => None,
        proven = first.wait_for(Option::is_some) => proven.ok().and_then(|at| *at),
    };
    if let (Some(started_at), Some(ended_at)) = (last_alive, proven)
        && started_at < ended_at
    {
        let gap = Gap {
            started_at,
            ended_at,
            reason: GapReason::NotListening,
            source: "redis".into(),
            channel: None,
            run_id: None,
            lost: None,
        };
        let _ = to_intake.send(Arrival::Gap(gap)).await;
    }
    drop(to_intake); // intake drains until every sender is gone
    stop.stopped().await;
    Ok(())
}

/// READY: the spool is locked and the first connection was tried; Redis itself may be absent.
async fn tell_ready(redis: SourceStatus, mut stop: Signal) -> Result<(), Infallible> {
    let deadline = Instant::now() + FIRST_TRY;
    let tried = || redis.connections().iter().any(|connection| connection.connects > 0 || connection.error.is_some());
    while !tried() && Instant::now() < deadline && !stop.is_stopped() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    notify::ready();
    stop.stopped().await;
    Ok(())
}

/// SIGHUP: log levels and the limits of a message are taken over; files with secrets are read at each connect anyway.
async fn reload_when_asked(
    mut asked: mpsc::Receiver<()>,
    reload: Reload,
    levels: Option<LevelHandle>,
    limits: watch::Sender<wire::Limits>,
    mut stop: Signal,
) -> Result<(), Infallible> {
    loop {
        tokio::select! {
            () = stop.stopped() => return Ok(()),
            Some(()) = asked.recv() => {}
        }
        let outcome = reload().and_then(|settings| {
            if let Some(levels) = &levels {
                levels.set(&settings.log.level)?;
            }
            limits.send_replace(settings.limits);
            Ok(())
        });
        match outcome {
            Ok(()) => info!("configuration is reloaded: log levels, limits"),
            Err(error) => warn!(error, "configuration is not reloaded; the old one stays"),
        }
    }
}

/// The order of stopping: once intake has drained, the writer may go on while it gets somewhere; then the rest ends.
async fn drain(
    mut front: Signal,
    readiness: Readiness,
    drained: oneshot::Receiver<()>,
    spool: spool::View,
    mut progress: watch::Receiver<u64>,
    store: Arc<dyn Store>,
    back: Stopper,
) -> Result<(), io::Error> {
    let mut drained = drained;
    let early = tokio::select! {
        () = front.stopped() => None,
        ended = &mut drained => Some(ended),
    };
    if early.is_some() {
        return Err(io::Error::other("intake ended before it was told to"));
    }
    readiness.set_stopping();
    notify::stopping();
    if drained.await.is_err() {
        warn!("intake did not end in order; what it had not synced is lost");
    }
    let reachable = tokio::time::timeout(Duration::from_millis(500), store.ping()).await;
    if matches!(reachable, Ok(Ok(()))) {
        let all = progress.wait_for(|stored| *stored >= spool.end());
        if tokio::time::timeout(LAST_WRITES, all).await.is_err() {
            info!("the store has not confirmed everything; the rest is in the spool");
        }
    } else if let Ok(Err(error)) = reachable {
        info!(error = %Chain(&error), "the store is away; everything not confirmed is in the spool");
    }
    back.stop();
    Ok(())
}
