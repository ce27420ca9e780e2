//! Frames to durable records: decode once, decide once, append, one fsync for the group.
//!
//! Intake is one operating-system thread, because its work is bytes and fsyncs: nothing here may hold up the runtime that
//! receives from Redis, and no task of that runtime may hold up an fsync. While traffic flows the thread sleeps until the group
//! is due instead of being woken for every message; when it is idle a message is made durable at once.
//!
//! * Commands are served before training messages, so that a flood cannot delay them.
//! * Only after the fsync a command is passed on to be executed.
//! * What the spool cannot take is counted, and becomes one coalesced gap ([`GapReason::SpoolFull`](crate::gaps::GapReason)).
//! * A gap for which there is no room either waits, merged with its like, until there is.

mod accept;
mod config;
mod drop_counter;
mod group;
mod state;
mod zone;

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use jiff::tz::TimeZone;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tracing::{error, info, warn};
use uuid::Uuid;

use self::{accept::Accepted, drop_counter::DropCounter, group::collect_group, state::StateFile, zone::ZoneCheck};
pub use self::{
    config::Config,
    state::{ReplayedRecord, RunSharing},
};
use crate::{
    event::Resolved,
    frame::{Ack, DeliveryTag, Frame, IntakeItem, escape_reserved_name},
    gaps::{Gap, SeqTracker},
    latest::LatestState,
    lifecycle::Readiness,
    live::LiveFeed,
    memory::MemoryLimit,
    metrics::{Label, Metrics},
    notify::Heartbeat,
    runs::Resolver,
    spool::{Appender, NewRecord, RecordKind},
    units::{self, Micros},
    wire::{Limits, ReceivedCommand},
};

/// Messages taken in one round; bounds the memory of a group beside the queue's own bound.
const GROUP_MAX: usize = 1_024;

/// Longest sleep: housekeeping (gaps, open runs, heartbeat) happens at least this often.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(250);

/// A loss that the sources know of is told within this time.
const WATERMARK_MARGIN: Micros = 1_500_000;

/// Memory of the commands that wait to be executed; more are recorded, and not executed.
const COMMANDS_BYTES: usize = 8 << 20;

/// How long the outcomes of the last commands are waited for when stopping.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// What intake is built from.
pub struct IntakeDeps {
    /// Decisions.
    pub config: Config,
    /// Limits of a message; may be replaced while running.
    pub limits: watch::Receiver<Limits>,
    /// Where open runs are remembered.
    pub state_dir: PathBuf,
    /// The log.
    pub appender: Appender,
    /// The newest values.
    pub latest: Arc<LatestState>,
    /// What happens now.
    pub live: LiveFeed,
    /// Where durable commands go.
    pub commands: mpsc::Sender<ReceivedCommand>,
    /// Open runs of other instances.
    pub sharing: Box<dyn RunSharing>,
    /// Told whether the disk takes records.
    pub readiness: Readiness,
    /// Shown the newest gap.
    pub last_gap: watch::Sender<Option<Gap>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Moved each round.
    pub heartbeat: Heartbeat,
    /// The moment before which the sources have received everything, or told it as a gap.
    pub low_watermark: Box<dyn Fn() -> Option<Micros> + Send>,
    /// Gives back the bytes of a frame to the bound of the queue it came from.
    pub return_bytes: Box<dyn Fn(&Frame) + Send>,
}

/// The stage; see the module.
pub struct Intake {
    deps: IntakeDeps,
    limits: Limits,
    zone: TimeZone,
    zone_check: ZoneCheck,
    resolver: Resolver,
    seqs: SeqTracker,
    state: StateFile,
    /// For how long this process has been subscribed; a silent run ages only then.
    subscribed: Duration,
    last_tick: Instant,
    /// What commands may take until they are executed.
    commands: MemoryLimit,
    /// Commands of the group that is not durable yet.
    pending_commands: Vec<ReceivedCommand>,
    /// When the frames of the group were received.
    pending_since: Vec<Instant>,
    drop_counter: DropCounter,
    /// Requests that wait for the group to be durable.
    pending_acks: Vec<oneshot::Sender<Ack>>,
    /// Frames of the group that their source keeps until they are durable.
    pending_tags: Vec<DeliveryTag>,
    rejected: u64,
    /// When the last frame was received.
    last_received: Option<Micros>,
    unsynced: bool,
    healthy: bool,
}

impl Intake {
    /// Reads the open runs back, and what the spool knows beyond them.
    pub fn new(mut deps: IntakeDeps, recovered: impl FnMut(u64, &mut dyn FnMut(ReplayedRecord<'_>))) -> Self {
        deps.appender.retain_from(0); // until the first save
        let (state, resolver, seqs) =
            StateFile::open(&deps.state_dir, deps.appender.spool_id(), &deps.config, recovered);
        if let Some(offset) = state.as_of() {
            deps.appender.skip_to(offset);
        }
        let zone = TimeZone::get(&deps.config.time_zone).unwrap_or(TimeZone::UTC);
        let limits = deps.limits.borrow().clone();
        Self {
            deps,
            limits,
            zone,
            zone_check: ZoneCheck::default(),
            resolver,
            seqs,
            state,
            subscribed: Duration::ZERO,
            last_tick: Instant::now(),
            commands: MemoryLimit::new(COMMANDS_BYTES),
            pending_commands: Vec::new(),
            pending_since: Vec::with_capacity(GROUP_MAX),
            drop_counter: DropCounter::default(),
            pending_acks: Vec::new(),
            pending_tags: Vec::new(),
            rejected: 0,
            last_received: None,
            unsynced: false,
            healthy: false,
        }
    }

    /// When the previous process was last known to listen, if there was one.
    pub fn previous_watermark(&self) -> Option<Micros> {
        self.state.watermark()
    }

    /// Runs until both queues are closed; everything taken is durable, or counted, when it returns.
    pub fn run(
        mut self,
        handle: &Handle,
        mut training: mpsc::Receiver<IntakeItem>,
        mut control: mpsc::Receiver<IntakeItem>,
    ) {
        self.note_health();
        let mut group = Vec::with_capacity(GROUP_MAX);
        let mut open = true;
        while open {
            self.deps.heartbeat.beat();
            open = collect_group(handle, &mut training, &mut control, &mut group, self.unsynced);
            self.process(&mut group);
            self.sync_when_due();
            let watermark = self.watermark(training.is_empty() && control.is_empty());
            self.housekeeping(watermark, false);
        }
        self.drain(handle, control, &mut group);
    }

    /// When we last were not behind, for a restart: what it has not seen of us is told as a gap from here on. Too early is safe.
    fn watermark(&self, queues_are_empty: bool) -> Option<Micros> {
        if !self.state.save_is_due() {
            return None;
        }
        // Asked after the queues: a frame is in its queue before its source says that it has received it. So an empty queue
        // found before may be a little out of date, which the margin covers.
        let received = (self.deps.low_watermark)()?;
        // While the first frames still wait, what the last process has told stays true.
        let until = if queues_are_empty { received } else { received.min(self.last_received?) };
        Some(until - WATERMARK_MARGIN)
    }

    /// The sources have ended: the last commands are executed, their outcomes logged, everything synced.
    fn drain(mut self, handle: &Handle, mut control: mpsc::Receiver<IntakeItem>, group: &mut Vec<IntakeItem>) {
        self.sync();
        let (closed, _) = mpsc::channel(1);
        self.deps.commands = closed; // the control stage ends when it has answered what it has
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while handle
            .block_on(async { tokio::time::timeout_at(deadline, control.recv_many(group, GROUP_MAX)).await })
            .is_ok_and(|count| count > 0)
        {
            self.process(group);
            self.sync();
        }
        self.housekeeping((self.deps.low_watermark)(), true);
        self.sync();
        info!("intake has drained");
    }

    fn process(&mut self, group: &mut Vec<IntakeItem>) {
        if self.deps.limits.has_changed().unwrap_or(false) {
            self.limits = self.deps.limits.borrow_and_update().clone();
        }
        for item in group.drain(..) {
            match item {
                IntakeItem::Frame(frame) => {
                    let (frame, accepted) = self.receive(frame);
                    self.count_drop(&frame, accepted.recorded);
                }
                IntakeItem::TrackedFrame(frame, tag) => match self.receive(frame).1.recorded {
                    true => self.pending_tags.push(tag),
                    false => tag.settle(false),
                },
                IntakeItem::FrameWithAck(frame, answer) => {
                    let accepted = self.accept(&frame);
                    self.count_drop(&frame, accepted.recorded);
                    match accepted.ack {
                        Ack::Durable => self.pending_acks.push(answer),
                        // The request may have been cancelled.
                        other => _ = answer.send(other),
                    }
                }
                IntakeItem::Gap(gap) => self.append_gap(gap),
                IntakeItem::Receipt(row) => {
                    let payload = serde_json::to_vec(&row).expect("strings and numbers always serialise");
                    if self.append_plain(RecordKind::Receipt, row.timestamp, &row.source, &payload).is_none() {
                        warn!(command = row.command, "outcome of a command is not recorded: the spool is full");
                    }
                }
                IntakeItem::CloseRuns => {
                    // Nobody shall adopt them again either.
                    let channels: Vec<_> = self.resolver.open_runs().map(|(channel, _)| channel.to_owned()).collect();
                    channels.iter().for_each(|channel| self.deps.sharing.forget(channel));
                    self.resolver.close_all();
                }
            }
        }
    }

    /// Takes in a message of a source.
    fn receive(&mut self, mut frame: Frame) -> (Frame, Accepted) {
        self.last_received = Some(frame.received_at);
        if frame.control
            && let Some(name) = escape_reserved_name(&frame.channel)
        {
            frame.channel = name.into();
        }
        let accepted = self.accept(&frame);
        (self.deps.return_bytes)(&frame);
        (frame, accepted)
    }

    /// Counts a message that is lost because the spool has no room for it.
    fn count_drop(&mut self, frame: &Frame, recorded: bool) {
        if !recorded && self.drop_counter.count(&frame.channel, frame.received_at) {
            error!(channel = &*frame.channel, "spool is full; messages are being dropped, and counted");
        }
    }

    /// Appends a record that belongs to no run.
    fn append_plain(&mut self, kind: RecordKind, at: Micros, channel: &str, payload: &[u8]) -> Option<u64> {
        let decided =
            Resolved { run_id: Uuid::nil(), event_time: at, received_at: at, has_event_time: false, opened_run: false };
        self.append(&NewRecord { kind, decided, channel, preamble: b"", payload })
    }

    fn append(&mut self, record: &NewRecord<'_>) -> Option<u64> {
        let offset = self.deps.appender.append(record).ok()?;
        self.unsynced = true;
        Some(offset)
    }

    /// Counts a gap that is found here; the sources count theirs.
    fn count_gap(&self, gap: &Gap) {
        let label = Label::of(gap.reason.as_str());
        self.deps.metrics.gaps.get_or_create(&label).inc();
        self.deps.metrics.gap_lost.get_or_create(&label).inc_by(gap.lost.unwrap_or(0));
    }

    /// Logs a gap; without room for it, it waits.
    fn append_gap(&mut self, gap: Gap) {
        self.deps.last_gap.send_replace(Some(gap.clone()));
        self.log_gap(gap);
    }

    fn log_gap(&mut self, gap: Gap) {
        let payload = serde_json::to_vec(&gap).expect("strings and numbers always serialise");
        let channel = gap.channel.as_deref().unwrap_or("");
        if self.append_plain(RecordKind::Gap, gap.started_at, channel, &payload).is_none() {
            self.drop_counter.defer(gap);
        }
    }

    fn sync_when_due(&mut self) {
        match self.deps.appender.sync_due() {
            // Asleep until the group is due: what arrives meanwhile belongs to the same group.
            Some(due) if self.unsynced && due > Instant::now() => {
                thread::sleep((due - Instant::now()).min(HOUSEKEEPING_INTERVAL));
            }
            // Due without anything new: the disk failed, and is tried again.
            Some(due) if due <= Instant::now() => self.sync(),
            _ => {}
        }
    }

    /// The group becomes durable; only then are its commands passed on.
    fn sync(&mut self) {
        self.deps.appender.sync();
        self.unsynced = false;
        let now = Instant::now();
        for since in self.pending_since.drain(..) {
            self.deps.metrics.intake_durable_seconds.observe((now - since).as_secs_f64());
        }
        for command in self.pending_commands.drain(..) {
            if let Err(error) = self.deps.commands.try_send(command) {
                warn!(%error, "command is recorded but not executed: too many at once");
            }
        }
        self.note_health();
        for answer in self.pending_acks.drain(..) {
            let _ = answer.send(if self.healthy { Ack::Durable } else { Ack::NotDurable });
        }
        self.pending_tags.drain(..).for_each(|tag| tag.settle(self.healthy));
    }

    fn note_health(&mut self) {
        let healthy = self.deps.appender.healthy();
        if healthy != self.healthy {
            self.healthy = healthy;
            self.deps.readiness.set_spool_writable(healthy);
        }
    }

    fn housekeeping(&mut self, watermark: Option<Micros>, last: bool) {
        let tick = Instant::now();
        if self.deps.readiness.is_subscribed() {
            self.subscribed += tick - self.last_tick;
        }
        self.last_tick = tick;
        let now = units::now();
        if let Some(until) = watermark {
            self.state.set_watermark(until);
        }
        self.emit_gaps(now, last);
        if self.rejected > 0 && self.state.save_is_due() {
            warn!(count = self.rejected, "messages were rejected; see `cascor-ingest deadletter list`");
            self.rejected = 0;
        }
        if last || self.state.save_is_due() {
            // Records of the group are not durable yet; the state must not be ahead of the log.
            if self.unsynced {
                self.sync();
            }
            if !self.deps.appender.healthy() || self.drop_counter.has_deferred() {
                // What is in memory only is lost with the process; a state that knew of it would hide that loss.
                // Nor is anything kept for it: a disk that is full must not stay full for this.
                self.deps.appender.retain_from(u64::MAX);
                return self.state.defer_save();
            }
            let (runs, end) = (self.resolver.state(self.subscribed), self.deps.appender.end());
            let saved = self.state.save(runs, &self.seqs, end);
            self.deps.appender.retain_from(if saved { end } else { u64::MAX });
        }
    }

    /// Logs what waited for room, then the gaps whose windows are over.
    fn emit_gaps(&mut self, now: Micros, last: bool) {
        for gap in self.drop_counter.take_deferred() {
            self.log_gap(gap);
        }
        let mut found = self.seqs.drain(now, last);
        found.extend(self.drop_counter.due(now, last));
        for gap in found {
            self.count_gap(&gap);
            self.append_gap(gap);
        }
        if last {
            for gap in self.drop_counter.take_deferred() {
                error!(?gap, "gap is not recorded: there is no room for it");
            }
        }
    }
}
