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
    adapters::{self, Renderer, SpoolCommit, SpoolDeadLetters},
    decode::SpoolRecords,
    http,
    shared_runs::SharedRuns,
    stall_detector,
    startup_shutdown::report_restart,
    status::{StatusInputs, TaskReports},
    stores,
};
use crate::{
    api,
    config::Settings,
    control,
    dead_letter::DeadLetterLog,
    frame::IntakeItem,
    gaps::Gap,
    intake::{self, Intake},
    latest::{self, LatestState},
    lifecycle::{PauseBarrier, Readiness, Signal, Tasks},
    live::LiveFeed,
    memory::MemoryLimit,
    metrics::Metrics,
    notify::{self, Heartbeat},
    redis::{Link, RunShare},
    source::{self, Input, QueuedBytes, SourceStatus, pubsub::PubSub, queue},
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
    pub(super) live: LiveFeed,
    pub(super) ingest_stop: Signal,
    pub(super) drain_stop: Signal,
    pub(super) readiness: Readiness,
    pub(super) tasks: Tasks,
}

/// What the sources feed.
pub(super) struct SourceHandles {
    pub(super) status: SourceStatus,
    pub(super) link: Link,
    pub(super) training: mpsc::Receiver<IntakeItem>,
    pub(super) training_bytes: QueuedBytes,
    pub(super) control: mpsc::Receiver<IntakeItem>,
    pub(super) control_bytes: QueuedBytes,
    pub(super) to_intake: mpsc::Sender<IntakeItem>,
}

/// What is left of them once intake has its queues.
pub(super) struct RedisHandles {
    pub(super) status: SourceStatus,
    pub(super) link: Link,
}

impl Daemon<'_> {
    /// First of all: every millisecond before it is lost to us.
    pub(super) fn spawn_sources(&mut self) -> Result<SourceHandles, AppError> {
        let redis = &self.settings.redis;
        let status = SourceStatus::new(self.readiness.clone());
        let (training_queue, training, training_bytes) = queue(redis.queue_frames, redis.queue_bytes.as_usize());
        let (control_queue, control, control_bytes) = queue(CONTROL_QUEUE, redis.queue_bytes.as_usize());
        let [training_queue, control_queue] =
            [training_queue, control_queue].map(|queue| queue.charging(self.memory.clone()));
        let to_intake = control_queue.sender();
        let inputs = vec![
            Input::new(PubSub::training(redis, &status, Arc::clone(&self.metrics)), training_queue),
            Input::new(PubSub::control(redis, &status, Arc::clone(&self.metrics)), control_queue),
        ];
        let sources = source::receive(inputs, Arc::clone(&self.metrics), self.ingest_stop.clone());
        self.tasks.spawn("sources", sources.map_err(AppError::Start)?);
        let (link, upkeep) = Link::new(redis, self.drain_stop.clone());
        let link = link.counted_in(&self.metrics);
        self.tasks.spawn("redis commands", upkeep);
        Ok(SourceHandles { status, link, training, training_bytes, control, control_bytes, to_intake })
    }

    /// What the status object tells.
    pub(super) fn status_inputs(
        &self,
        started: Instant,
        redis: &SourceStatus,
        (spool, dead_letters): (&spool::View, &Arc<DeadLetterLog>),
        reports: TaskReports,
    ) -> Arc<StatusInputs> {
        Arc::new(StatusInputs {
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
            reports,
            metrics: Arc::clone(&self.metrics),
        })
    }

    /// Executes durable commands; the returned queue takes them.
    pub(super) fn spawn_control(
        &mut self,
        status_inputs: &Arc<StatusInputs>,
        pause_barrier: watch::Sender<PauseBarrier>,
        latest_state: &Arc<LatestState>,
        handles: &SourceHandles,
        receipts: broadcast::Sender<Arc<str>>,
    ) -> mpsc::Sender<ReceivedCommand> {
        let settings = self.settings;
        let identity = control::Identity {
            instance: settings.instance.clone(),
            key_prefix: settings.redis.key_prefix.clone(),
            state_dir: settings.state_dir.clone(),
            latest_ttl: settings.latest.enabled.then_some(settings.latest.control_ttl),
        };
        let ports = control_ports(status_inputs, pause_barrier, latest_state, handles, receipts);
        let stage = control::Stage::new(&settings.control, identity, ports, Arc::clone(&self.metrics));
        let (jobs_out, jobs) = mpsc::channel(CONTROL_QUEUE);
        self.tasks.spawn("control", stage.run(jobs, self.drain_stop.clone()));
        jobs_out
    }

    /// Recovers the open runs, then receives, on a thread of its own.
    #[allow(clippy::too_many_arguments, reason = "each is a different end that only intake gets")]
    pub(super) fn spawn_intake(
        &mut self,
        handles: SourceHandles,
        appender: spool::Appender,
        recovery: &spool::Recovery,
        latest_state: &Arc<LatestState>,
        commands: mpsc::Sender<ReceivedCommand>,
        (limits, last_gap): (watch::Receiver<wire::Limits>, watch::Sender<Option<Gap>>),
    ) -> Result<(oneshot::Receiver<()>, Heartbeat, RedisHandles), AppError> {
        let SourceHandles { status, link, training, training_bytes, control, control_bytes, to_intake } = handles;
        let share = RunShare::new(link.clone(), &self.settings.redis.key_prefix);
        let (sharing, share_runs) = SharedRuns::new(share, Handle::current(), self.drain_stop.clone());
        self.tasks.spawn("shared runs", share_runs);
        let heartbeat = Heartbeat::default();
        let heard = status.clone();
        let deps = intake::IntakeDeps {
            config: self.settings.intake.clone(),
            limits,
            state_dir: self.settings.state_dir.clone(),
            appender,
            latest: Arc::clone(latest_state),
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
        let intake = Intake::new(deps, |as_of, tell| adapters::recover(recovery, as_of, tell));
        let stalls = stall_detector::report(
            status.clone(),
            to_intake.clone(),
            Arc::clone(&self.metrics),
            self.ingest_stop.clone(),
        );
        self.tasks.spawn("pauses", stalls);
        let restart = report_restart(
            intake.previous_watermark(),
            status.clone(),
            to_intake,
            Arc::clone(&self.metrics),
            self.ingest_stop.clone(),
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
        Ok((drained, heartbeat, RedisHandles { status, link }))
    }

    /// From the log to the store.
    pub(super) fn spawn_writer(
        &mut self,
        records: SpoolRecords,
        committer: spool::Committer,
        view: &spool::View,
        (pause_barrier, flush_to): (watch::Receiver<PauseBarrier>, watch::Receiver<u64>),
        (progress, problem, dead_letters): (watch::Sender<u64>, watch::Sender<Option<Problem>>, Arc<DeadLetterLog>),
    ) -> Arc<dyn Store> {
        let settings = self.settings;
        let (store, upkeep) = stores::open(settings, &self.metrics, self.drain_stop.clone());
        self.tasks.spawn("store", upkeep);
        let ports = writer::WriterPorts {
            store: Arc::clone(&store),
            commit: SpoolCommit::new(committer, view.clone(), Arc::clone(&store), settings.spool.checkpoint_delay),
            memory: self.memory.clone(),
            dead_letters: Arc::new(SpoolDeadLetters::new(dead_letters, view.clone(), self.memory.clone())),
            pause_barrier,
            flush_to,
            problem,
            progress,
            metrics: Arc::clone(&self.metrics),
        };
        self.tasks.spawn("writer", writer::run(settings.writer.clone(), records, ports, self.drain_stop.clone()));
        store
    }

    /// Those who only look.
    pub(super) fn spawn_observers(
        &mut self,
        status_inputs: &Arc<StatusInputs>,
        latest_state: Arc<LatestState>,
        link: Link,
        heartbeat: Heartbeat,
        store: Arc<dyn Store>,
        (submitter, token_store): (api::Submitter, Arc<api::TokenStore>),
    ) {
        let settings = self.settings;
        let status: api::StatusFn = {
            let status_inputs = Arc::clone(status_inputs);
            Arc::new(move || status_inputs.status())
        };
        let render = Arc::new(Renderer::new(&settings.instance));
        let (instance, key) = (settings.instance.clone(), adapters::status_json(&status));
        let flusher = latest::flusher(
            latest_state,
            link.clone(),
            render,
            instance,
            key,
            Arc::clone(&self.metrics),
            self.drain_stop.clone(),
        );
        self.tasks.spawn("latest keys", flusher);
        let readiness = self.readiness.clone();
        let missing: api::MissingFn = Arc::new(move || readiness.missing().into_iter().map(str::to_owned).collect());
        let live = self.live.clone();
        let (metrics, memory) = (Arc::clone(&self.metrics), self.memory.clone());
        let inputs = http::ApiInputs { metrics, store, link, live, memory, token_store, status, missing };
        self.tasks.spawn("http", api::run(http::api_state(settings, inputs, submitter), self.drain_stop.clone()));
        let line = {
            let status_inputs = Arc::clone(status_inputs);
            move || status_inputs.line()
        };
        self.tasks.spawn("service manager", notify::run(vec![("intake", heartbeat)], line, self.ingest_stop.clone()));
    }
}

/// What the commands move.
fn control_ports(
    status_inputs: &Arc<StatusInputs>,
    pause_barrier: watch::Sender<PauseBarrier>,
    latest_state: &Arc<LatestState>,
    handles: &SourceHandles,
    receipts: broadcast::Sender<Arc<str>>,
) -> control::ControlPorts {
    let (end, fill, status) = (Arc::clone(status_inputs), Arc::clone(status_inputs), Arc::clone(status_inputs));
    control::ControlPorts {
        pause_barrier,
        stored: status_inputs.reports.progress.clone(),
        received_end: Box::new(move || end.spool.end()),
        spool_fill: Box::new(move || fill.spool.bytes() as f64 / fill.spool.capacity().max(1) as f64),
        status: Box::new(move || status.status().to_string()),
        latest_state: Arc::clone(latest_state),
        to_intake: handles.to_intake.clone(),
        link: handles.link.clone(),
        receipts,
    }
}
