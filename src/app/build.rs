//! The steps of building the daemon: each connects one part to its neighbours and spawns what drives it. Their order is the
//! composition root's.

use std::{sync::Arc, thread};

use tokio::{
    runtime::Handle,
    sync::{broadcast, mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    AppError,
    decode::SpoolRecords,
    http,
    parts::{self, Letters, Renderer, SpoolCommit},
    pauses,
    phases::report_restart,
    shared_runs::SharedRuns,
    status::{Sources, Watched},
    stores,
};
use crate::{
    api,
    config::Settings,
    control,
    dead_letter::DeadLetterLog,
    frame::{Gap, IntakeItem},
    intake::{self, Intake},
    latest::{self, Board},
    lifecycle::{Hold, Readiness, Signal, Tasks},
    live::Live,
    memory::MemoryLimit,
    metrics::Metrics,
    notify::{self, Heartbeat},
    redis::{Link, RunShare},
    source::{self, QueuedBytes, SourceStatus, pubsub::Source, queue},
    spool,
    store::{Problem, Store, StoreKind},
    units::{self, Micros},
    wire::{self, ReceivedCommand},
    writer,
};

/// Commands that may wait to be executed, and frames that may wait on the control connection.
const CONTROL_QUEUE: usize = 1_024;

/// What every step of building needs.
pub(super) struct Daemon<'a> {
    pub(super) settings: &'a Settings,
    pub(super) metrics: Arc<Metrics>,
    pub(super) memory: MemoryLimit,
    pub(super) live: Live,
    pub(super) front: Signal,
    pub(super) back: Signal,
    pub(super) readiness: Readiness,
    pub(super) tasks: Tasks,
}

/// What the sources feed.
pub(super) struct Inlets {
    pub(super) status: SourceStatus,
    pub(super) link: Link,
    pub(super) training: mpsc::Receiver<IntakeItem>,
    pub(super) training_bytes: QueuedBytes,
    pub(super) control: mpsc::Receiver<IntakeItem>,
    pub(super) control_bytes: QueuedBytes,
    pub(super) to_intake: mpsc::Sender<IntakeItem>,
}

/// What is left of them once intake has its queues.
pub(super) struct Outlets {
    pub(super) status: SourceStatus,
    pub(super) link: Link,
}

impl Daemon<'_> {
    /// First of all: every millisecond before it is lost to us.
    pub(super) fn subscribe(&mut self) -> Result<Inlets, AppError> {
        let redis = &self.settings.redis;
        let status = SourceStatus::new(self.readiness.clone());
        let (training_queue, training, training_bytes) = queue(redis.queue_frames, redis.queue_bytes.as_usize());
        let (control_queue, control, control_bytes) = queue(CONTROL_QUEUE, redis.queue_bytes.as_usize());
        let [training_queue, control_queue] =
            [training_queue, control_queue].map(|queue| queue.charging(self.memory.clone()));
        let to_intake = control_queue.sender();
        let training_source = Source::training(redis, training_queue, status.clone(), Arc::clone(&self.metrics));
        let control_source = Source::control(redis, control_queue, status.clone(), Arc::clone(&self.metrics));
        let sources = source::receive(vec![training_source, control_source], self.front.clone());
        self.tasks.spawn("sources", sources.map_err(AppError::Start)?);
        let (link, upkeep) = Link::new(redis, self.back.clone());
        let link = link.counted_in(&self.metrics);
        self.tasks.spawn("redis commands", upkeep);
        Ok(Inlets { status, link, training, training_bytes, control, control_bytes, to_intake })
    }

    /// What the status object tells.
    pub(super) fn sources(
        &self,
        started: Instant,
        redis: &SourceStatus,
        (spool, dead_letters): (&spool::View, &Arc<DeadLetterLog>),
        watched: Watched,
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
            watched,
            metrics: Arc::clone(&self.metrics),
        })
    }

    /// Executes durable commands; the returned queue takes them.
    pub(super) fn control(
        &mut self,
        sources: &Arc<Sources>,
        hold: watch::Sender<Hold>,
        board: &Arc<Board>,
        inlets: &Inlets,
        receipts: broadcast::Sender<Arc<str>>,
    ) -> mpsc::Sender<ReceivedCommand> {
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
    pub(super) fn receive(
        &mut self,
        inlets: Inlets,
        appender: spool::Appender,
        recovery: &spool::Recovery,
        board: &Arc<Board>,
        commands: mpsc::Sender<ReceivedCommand>,
        (limits, last_gap): (watch::Receiver<wire::Limits>, watch::Sender<Option<Gap>>),
    ) -> Result<(oneshot::Receiver<()>, Heartbeat, Outlets), AppError> {
        let Inlets { status, link, training, training_bytes, control, control_bytes, to_intake } = inlets;
        let share = RunShare::new(link.clone(), &self.settings.redis.key_prefix);
        let (sharing, share_runs) = SharedRuns::new(share, Handle::current(), self.back.clone());
        self.tasks.spawn("shared runs", share_runs);
        let heartbeat = Heartbeat::default();
        let heard = status.clone();
        let parts = intake::IntakeDeps {
            config: self.settings.intake.clone(),
            limits,
            state_dir: self.settings.state_dir.clone(),
            appender,
            latest: Arc::clone(board),
            live: self.live.clone(),
            commands,
            sharing: Box::new(sharing),
            readiness: self.readiness.clone(),
            low_watermark: Box::new(move || heard.low_watermark()),
            last_gap,
            metrics: Arc::clone(&self.metrics),
            heartbeat: heartbeat.clone(),
            return_bytes: Box::new(move |frame| {
                if frame.control { control_bytes.taken(frame) } else { training_bytes.taken(frame) }
            }),
        };
        let intake = Intake::new(parts, |as_of, tell| parts::recover(recovery, as_of, tell));
        let pauses = pauses::report(status.clone(), to_intake.clone(), Arc::clone(&self.metrics), self.front.clone());
        self.tasks.spawn("pauses", pauses);
        let restart = report_restart(
            intake.previous_watermark(),
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

    /// From the log to the store.
    pub(super) fn write(
        &mut self,
        records: SpoolRecords,
        committer: spool::Committer,
        view: &spool::View,
        (hold, flush_to): (watch::Receiver<Hold>, watch::Receiver<u64>),
        (progress, problem, dead_letters): (watch::Sender<u64>, watch::Sender<Option<Problem>>, Arc<DeadLetterLog>),
    ) -> Arc<dyn Store> {
        let settings = self.settings;
        let (store, upkeep) = stores::open(settings, &self.metrics, self.back.clone());
        self.tasks.spawn("store", upkeep);
        let ends = writer::Ends {
            store: Arc::clone(&store),
            commit: SpoolCommit::new(committer, view.clone(), Arc::clone(&store), settings.spool.linger),
            memory: self.memory.clone(),
            aside: Arc::new(Letters::new(dead_letters, view.clone(), self.memory.clone())),
            hold,
            flush_to,
            problem,
            progress,
            metrics: Arc::clone(&self.metrics),
        };
        self.tasks.spawn("writer", writer::run(settings.writer.clone(), records, ends, self.back.clone()));
        store
    }

    /// Those who only look.
    pub(super) fn look(
        &mut self,
        sources: &Arc<Sources>,
        board: Arc<Board>,
        link: Link,
        heartbeat: Heartbeat,
        store: Arc<dyn Store>,
        (inlet, keys): (api::Submitter, Arc<api::TokenStore>),
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
        let (metrics, memory) = (Arc::clone(&self.metrics), self.memory.clone());
        let seen = http::ApiInputs { metrics, store, link, live, memory, token_store: keys, status, missing };
        self.tasks.spawn("http", api::run(http::api_state(settings, seen, inlet), self.back.clone()));
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
        stored: sources.watched.progress.clone(),
        end: Box::new(move || end.spool.end()),
        spool_fill: Box::new(move || fill.spool.bytes() as f64 / fill.spool.capacity().max(1) as f64),
        status: Box::new(move || status.status().to_string()),
        board: Arc::clone(board),
        to_intake: inlets.to_intake.clone(),
        link: inlets.link.clone(),
        receipts,
    }
}
