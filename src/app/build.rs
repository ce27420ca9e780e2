//! The steps of building the daemon: each connects one part to its neighbours and spawns what drives it. The composition root calls
//! them in order.

use std::{sync::Arc, thread};

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    channels::{ControlChannels, IntakeChannels, StatusChannels, WriterChannels},
    error::AppError,
    http,
    lag::Lag,
    live_streams,
    receive_rate::{self, ReceiveRate},
    run_removal, stall_detector,
    startup_shutdown::report_restart,
    status::StatusInputs,
    storage::Storage,
    stores,
};
use crate::{
    api,
    config::Settings,
    control,
    frame::IntakeItem,
    intake::{Intake, IntakeDeps, SharedRuns},
    latest::{self, LatestState, MessageRenderer},
    lifecycle::{Readiness, Signal, Tasks},
    live::LiveFeed,
    logging::stage,
    memory::MemoryLimit,
    metrics::Metrics,
    redis::{Link, RunShare},
    service_manager::{self, Heartbeat},
    source::{self, Input, QueueUsage, SourceStatus, StreamsStatus, pubsub::PubSub, queue, streams::Stream},
    spool,
    store::{Deletions, Store},
    units::{self, Micros},
    wire::Limits,
    writer::{self, Decoder, SpoolCommit, SpoolDeadLetters, SpoolRecords},
};

/// Frames that may wait on the control connection, with the receipts, gaps and requests that travel in the same queue.
const CONTROL_QUEUE_FRAMES: usize = 1_024;

/// What every step needs.
pub(super) struct Daemon<'a> {
    pub(super) settings: &'a Settings,
    /// When the process started.
    pub(super) started: Instant,
    pub(super) metrics: Arc<Metrics>,
    pub(super) memory: MemoryLimit,
    pub(super) live: LiveFeed,
    pub(super) latest_state: Arc<LatestState>,
    /// Stops the sources, and what only observes.
    pub(super) ingest_stop: Signal,
    /// Stops the rest, once intake has drained.
    pub(super) drain_stop: Signal,
    pub(super) readiness: Readiness,
    pub(super) tasks: Tasks,
}

/// The connections to Redis.
#[derive(Clone)]
pub(super) struct RedisHandles {
    pub(super) status: SourceStatus,
    pub(super) streams: StreamsStatus,
    pub(super) link: Link,
}

/// The queues of intake.
pub(super) struct IntakeQueues {
    training: mpsc::Receiver<IntakeItem>,
    training_bytes: QueueUsage,
    control: mpsc::Receiver<IntakeItem>,
    control_bytes: QueueUsage,
    /// Feeds the control queue.
    pub(super) sender: mpsc::Sender<IntakeItem>,
    /// Feeds the training queue.
    training_sender: mpsc::WeakSender<IntakeItem>,
}

impl IntakeQueues {
    /// The ways into both queues.
    pub(super) fn senders(&self) -> api::IntakeSenders {
        api::IntakeSenders { control: self.sender.downgrade(), training: self.training_sender.clone() }
    }
}

/// The log, as intake sees it.
pub(super) struct IntakeLog {
    pub(super) appender: spool::Appender,
    /// The records of before the start.
    pub(super) recovery: spool::Recovery,
}

/// Intake while it runs.
pub(super) struct RunningIntake {
    /// Completes once intake has drained.
    pub(super) drained: oneshot::Receiver<()>,
    pub(super) heartbeat: Heartbeat,
}

/// What is observed by HTTP and the service manager.
pub(super) struct Observed {
    pub(super) status_inputs: Arc<StatusInputs>,
    pub(super) link: Link,
    pub(super) heartbeat: Heartbeat,
    pub(super) store: Arc<dyn Store>,
    pub(super) submitter: api::Submitter,
    pub(super) access: http::Access,
}

impl Daemon<'_> {
    /// Comes first: what is published before the subscription is missed.
    pub(super) fn spawn_sources(&mut self) -> Result<(RedisHandles, IntakeQueues), AppError> {
        let redis = &self.settings.redis;
        let status = SourceStatus::new(self.readiness.clone());
        let (training_queue, training, training_bytes) = queue(redis.queue_frames, redis.queue_bytes.as_usize());
        let (control_queue, control, control_bytes) = queue(CONTROL_QUEUE_FRAMES, redis.queue_bytes.as_usize());
        let [training_queue, control_queue] =
            [training_queue, control_queue].map(|queue| queue.charging(self.memory.clone()));
        let (sender, training_sender) = (control_queue.sender(), training_queue.sender().downgrade());
        let mut inputs = Vec::new();
        if !redis.training_channels.is_empty() {
            let training = PubSub::training(redis, &status, Arc::clone(&self.metrics));
            inputs.push(Input::new(training, training_queue.clone()));
        }
        inputs.push(Input::new(PubSub::control(redis, &status, Arc::clone(&self.metrics)), control_queue));
        let streams = StreamsStatus::default();
        let sources = Stream::all(redis, &self.settings.instance, &status, &streams, &self.metrics);
        inputs.extend(sources.into_iter().map(|stream| Input::new(stream, training_queue.clone())));
        drop(training_queue);
        let sources = source::receive(inputs, Arc::clone(&self.metrics), self.ingest_stop.clone());
        self.tasks.spawn("sources", sources.map_err(AppError::Start)?);
        let (link, upkeep) = Link::new(redis, self.drain_stop.clone());
        let link = link.counted_in(&self.metrics);
        self.tasks.spawn("redis commands", upkeep);
        let queues = IntakeQueues { training, training_bytes, control, control_bytes, sender, training_sender };
        Ok((RedisHandles { status, streams, link }, queues))
    }

    /// What the status object is made of.
    pub(super) fn status_inputs(
        &mut self,
        redis: &RedisHandles,
        storage: &Storage,
        channels: StatusChannels,
        access: &http::Access,
    ) -> Arc<StatusInputs> {
        let receive_rate = Arc::<ReceiveRate>::default();
        let sampling = receive_rate::run(Arc::clone(&receive_rate), Arc::clone(&self.metrics), self.drain_stop.clone());
        self.tasks.spawn("receive rate", sampling);
        Arc::new(StatusInputs {
            instance: self.settings.instance.clone(),
            process: format!("{}:{}", rustix::system::uname().nodename().to_string_lossy(), std::process::id()),
            store: self.settings.store.kind.name(),
            started_at: units::now() - Micros::try_from(self.started.elapsed().as_micros()).unwrap_or(0),
            started: self.started,
            readiness: self.readiness.clone(),
            redis: redis.status.clone(),
            streams: redis.streams.clone(),
            latest_state: Arc::clone(&self.latest_state),
            storage: storage.clone(),
            channels,
            access: access.clone(),
            metrics: Arc::clone(&self.metrics),
            receive_rate,
            http: api::Listening::new(&self.settings.http.listen),
            lag: Lag::default(),
        })
    }

    /// Executes durable commands.
    pub(super) fn spawn_control(
        &mut self,
        status_inputs: &Arc<StatusInputs>,
        channels: ControlChannels,
        link: &Link,
        to_intake: &mpsc::Sender<IntakeItem>,
    ) {
        let settings = self.settings;
        let identity = control::Identity {
            instance: settings.instance.clone(),
            key_prefix: settings.redis.key_prefix.clone(),
            state_dir: settings.state_dir.clone(),
            latest_ttl: settings.latest.enabled.then_some(settings.latest.control_ttl),
        };
        let [end, fill, status] = [(); 3].map(|()| Arc::clone(status_inputs));
        let ports = control::ControlPorts {
            pause_barrier: channels.pause_barrier,
            stored: status_inputs.channels.progress.clone(),
            received_end: Box::new(move || end.storage.spool.end()),
            spool_fill: Box::new(move || {
                let spool = &fill.storage.spool;
                spool.bytes() as f64 / spool.capacity().max(1) as f64
            }),
            status: Box::new(move || status.status().to_string()),
            latest_state: Arc::clone(&self.latest_state),
            to_intake: to_intake.clone(),
            link: link.clone(),
            receipts: channels.receipts,
        };
        let stage = control::Stage::new(&settings.control, identity, ports, Arc::clone(&self.metrics));
        self.tasks.spawn("control", stage.run(channels.commands, self.drain_stop.clone()));
    }

    /// Recovers the open runs, then receives, on a thread of its own.
    pub(super) fn spawn_intake(
        &mut self,
        queues: IntakeQueues,
        channels: IntakeChannels,
        redis: &RedisHandles,
        log: IntakeLog,
    ) -> Result<RunningIntake, AppError> {
        let IntakeQueues { training, training_bytes, control, control_bytes, sender, .. } = queues;
        let share = RunShare::new(redis.link.clone(), &self.settings.redis.key_prefix);
        let (sharing, share_runs) = SharedRuns::new(share, Handle::current(), self.drain_stop.clone());
        self.tasks.spawn("shared runs", share_runs);
        let heartbeat = Heartbeat::default();
        let status = redis.status.clone();
        let deps = IntakeDeps {
            config: self.settings.intake.clone(),
            limits: channels.limits,
            state_dir: self.settings.state_dir.clone(),
            appender: log.appender,
            latest: Arc::clone(&self.latest_state),
            live: self.live.clone(),
            commands: channels.commands,
            instance: self.settings.instance.clone(),
            streams: self.settings.redis.streams.iter().map(|stream| stream.as_str().into()).collect(),
            sharing: Box::new(sharing),
            readiness: self.readiness.clone(),
            low_watermark: Box::new(move || status.low_watermark()),
            last_gap: channels.last_gap,
            metrics: Arc::clone(&self.metrics),
            heartbeat: heartbeat.clone(),
            return_bytes: Box::new(move |frame| {
                if frame.control { control_bytes.taken(frame) } else { training_bytes.taken(frame) }
            }),
        };
        let intake = Intake::new(deps, &log.recovery);
        self.spawn_gap_reports(redis, intake.previous_watermark(), sender);
        let (drained_out, drained) = oneshot::channel();
        let work = move || {
            let _span = stage("intake").entered();
            intake.run(training, control);
            // The receiver is gone when the daemon fails.
            let _ = drained_out.send(());
        };
        thread::Builder::new().name("intake".into()).spawn(work).map_err(AppError::Start)?;
        Ok(RunningIntake { drained, heartbeat })
    }

    /// Gaps that no source can know: while the process was stopped, and before this process.
    fn spawn_gap_reports(
        &mut self,
        redis: &RedisHandles,
        previous_watermark: Option<Micros>,
        to_intake: mpsc::Sender<IntakeItem>,
    ) {
        let (metrics, stop) = (&self.metrics, &self.ingest_stop);
        let stalls = stall_detector::report(redis.status.clone(), to_intake.clone(), Arc::clone(metrics), stop.clone());
        let restart =
            report_restart(previous_watermark, redis.status.clone(), to_intake, Arc::clone(metrics), stop.clone());
        self.tasks.spawn("pauses", stalls);
        self.tasks.spawn("restart gap", restart);
    }

    /// Writes from the spool to the store.
    pub(super) fn spawn_writer(
        &mut self,
        reader: spool::Reader,
        committer: spool::Committer,
        storage: Storage,
        channels: WriterChannels,
    ) -> Arc<dyn Store> {
        let settings = self.settings;
        let (store, upkeep) = stores::open(settings, &self.metrics, self.drain_stop.clone());
        self.tasks.spawn("store", upkeep);
        let Storage { spool, dead_letters } = storage;
        let decoder = Arc::new(Decoder::new(&settings.instance));
        let memory = self.memory.clone();
        let records = SpoolRecords::new(reader, spool.clone(), decoder, memory, settings.writer.flush_interval);
        let ports = writer::WriterPorts {
            store: Arc::clone(&store),
            commit: SpoolCommit::new(committer, spool.clone(), Arc::clone(&store), settings.spool.checkpoint_delay),
            memory: self.memory.clone(),
            dead_letters: Arc::new(SpoolDeadLetters::new(dead_letters, spool, self.memory.clone())),
            pause_barrier: channels.pause_barrier,
            flush_to: channels.flush_to,
            problem: channels.problem,
            deletions: channels.deletions,
            progress: channels.progress,
            oldest_unstored: channels.oldest_unstored,
            metrics: Arc::clone(&self.metrics),
        };
        let config = writer::Config { shares_runs: !settings.redis.streams.is_empty(), ..settings.writer.clone() };
        self.tasks.spawn("writer", writer::run(config, records, ports, self.drain_stop.clone()));
        store
    }

    /// Removes deleted runs from what is remembered of runs.
    pub(super) fn spawn_run_removal(
        &mut self,
        deletions: watch::Receiver<Deletions>,
        link: &Link,
        to_intake: &mpsc::Sender<IntakeItem>,
    ) {
        let removal = run_removal::RunRemoval {
            deletions,
            to_intake: to_intake.downgrade(),
            latest_state: Arc::clone(&self.latest_state),
            link: link.clone(),
        };
        self.tasks.spawn("deleted runs", removal.run(self.ingest_stop.clone()));
    }

    /// Publishes what any daemon takes of the streams to the live feed.
    pub(super) fn spawn_live_streams(&mut self, link: &Link, limits: &watch::Receiver<Limits>) {
        let feed = live_streams::StreamFeed { live: &self.live, memory: &self.memory };
        let streams = live_streams::run(self.settings, &feed, link, limits, self.ingest_stop.clone());
        self.tasks.spawn("live streams", streams);
    }

    /// Spawns HTTP, the latest-key flusher and service-manager notifications.
    pub(super) fn spawn_observers(&mut self, observed: Observed) {
        let settings = self.settings;
        let Observed { status_inputs, link, heartbeat, store, submitter, access } = observed;
        let listening = status_inputs.http.clone();
        let [json, text, line] = [(); 3].map(|()| Arc::clone(&status_inputs));
        let flusher = latest::FlusherDeps {
            latest_state: Arc::clone(&self.latest_state),
            link: link.clone(),
            render: Arc::new(MessageRenderer::new(&settings.instance)),
            instance: settings.instance.clone(),
            shares_runs: !settings.redis.streams.is_empty(),
            status: Box::new(move || text.status().to_string()),
            metrics: Arc::clone(&self.metrics),
        };
        self.tasks.spawn("latest keys", latest::flusher(flusher, self.drain_stop.clone()));
        let readiness = self.readiness.clone();
        let inputs = http::ApiInputs {
            metrics: Arc::clone(&self.metrics),
            store,
            link,
            live: self.live.clone(),
            memory: self.memory.clone(),
            access,
            status: Arc::new(move || json.status()),
            missing: Arc::new(move || readiness.missing().into_iter().map(str::to_owned).collect()),
        };
        let state = http::api_state(settings, inputs, submitter);
        self.tasks.spawn("http", api::run(state, listening, self.drain_stop.clone()));
        let notifications =
            service_manager::run(vec![("intake", heartbeat)], move || line.line(), self.ingest_stop.clone());
        self.tasks.spawn("service manager", notifications);
    }
}
