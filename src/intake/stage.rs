//! The thread: takes groups of messages from the queues until both are closed.

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::tz::TimeZone;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::{
    config::Config,
    drop_counter::DropCounter,
    group::{GROUP_MAX, collect_group},
    recover_runs::replay,
    shared_entries::{CloseReason, SharedEntries},
    state::{RunSharing, StateFile},
    zone::ZoneCheck,
};
use crate::{
    event::Resolved,
    frame::{Ack, BatchAck, DeliveryTag, Frame, IntakeItem, escape_reserved_name},
    gaps::{Gap, SeqTracker},
    latest::LatestState,
    lifecycle::{Readiness, block_until},
    live::LiveFeed,
    memory::MemoryLimit,
    metrics::Metrics,
    runs::{OpenRun, Resolver},
    service_manager::Heartbeat,
    spool::{self, Appender, NewRecord, RecordKind},
    units::{self, Micros},
    wire::{Limits, ReceivedCommand},
};

/// A source records a loss within this time.
const WATERMARK_MARGIN: Micros = 1_500_000;

/// Memory of the commands that wait to be executed; more are recorded, and not executed.
const COMMANDS_BYTES: usize = 8 << 20;

/// How long intake waits for the outcomes of the last commands when stopping.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// What intake depends on.
pub struct IntakeDeps {
    /// Settings.
    pub config: Config,
    /// Limits of a message; may be replaced while running.
    pub limits: watch::Receiver<Limits>,
    /// Where open runs are remembered.
    pub state_dir: PathBuf,
    /// The log.
    pub appender: Appender,
    /// The latest values.
    pub latest: Arc<LatestState>,
    /// The live feed.
    pub live: LiveFeed,
    /// Where durable commands go.
    pub commands: mpsc::Sender<ReceivedCommand>,
    /// The name of this daemon.
    pub instance: String,
    /// The streams that it reads.
    pub streams: Vec<Arc<str>>,
    /// Open runs of other instances.
    pub sharing: Box<dyn RunSharing>,
    /// Updated with whether the disk takes records.
    pub readiness: Readiness,
    /// Out: the newest gap.
    pub last_gap: watch::Sender<Option<Gap>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Beats each round.
    pub heartbeat: Heartbeat,
    /// The moment before which the sources have received everything, or recorded it as a gap.
    pub low_watermark: Box<dyn Fn() -> Option<Micros> + Send>,
    /// Gives back the bytes of a frame to the bound of the queue it came from.
    pub return_bytes: Box<dyn Fn(&Frame) + Send>,
}

/// What became of a message, once the next sync has made its record durable.
pub(super) struct Accepted {
    pub(super) ack: Ack,
    /// Whether the spool had room for its record.
    pub(super) recorded: bool,
}

impl Accepted {
    pub(super) fn durable_if(recorded: bool) -> Self {
        Self { ack: if recorded { Ack::Durable } else { Ack::NotDurable }, recorded }
    }
}

/// The stage.
pub struct Intake {
    pub(super) deps: IntakeDeps,
    pub(super) limits: Limits,
    pub(super) zone: TimeZone,
    pub(super) zone_check: ZoneCheck,
    pub(super) resolver: Resolver,
    pub(super) seqs: SeqTracker,
    pub(super) state: StateFile,
    /// How long this process has been subscribed; a silent run ages only in that time.
    pub(super) subscribed: Duration,
    pub(super) last_tick: Instant,
    /// Memory of the commands that wait to be executed.
    pub(super) commands: MemoryLimit,
    /// Commands of the group that is not durable yet.
    pub(super) pending_commands: Vec<ReceivedCommand>,
    /// When the frames of the group were received; those in front of `written_frames` are written.
    pub(super) pending_since: Vec<Instant>,
    pub(super) written_frames: usize,
    pub(super) drop_counter: DropCounter,
    /// Requests that wait for the group to be durable.
    pub(super) pending_acks: Vec<oneshot::Sender<Ack>>,
    /// The same of batches, with what became of each so far.
    pub(super) pending_batches: Vec<(oneshot::Sender<BatchAck>, BatchAck)>,
    /// Frames of the group that their source keeps until they are durable.
    pub(super) pending_tags: Vec<DeliveryTag>,
    /// Runs of streams.
    pub(super) entries: SharedEntries,
    pub(super) rejected: u64,
    /// When the last frame was received.
    pub(super) last_received: Option<Micros>,
    pub(super) unwritten: bool,
    pub(super) unsynced: bool,
    pub(super) healthy: bool,
    /// Whether anything came since the state file was saved.
    pub(super) changed: bool,
    pub(super) last_message: Option<Instant>,
}

impl Intake {
    /// Recovers the open runs from their file, and from the records of the spool behind it.
    pub fn new(mut deps: IntakeDeps, recovery: &spool::Recovery) -> Self {
        deps.appender.retain_from(0); // until the first save
        let (state, resolver, seqs) =
            StateFile::open(&deps.state_dir, deps.appender.spool_id(), &deps.config, |as_of, observe| {
                replay(recovery, as_of, observe);
            });
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
            written_frames: 0,
            drop_counter: DropCounter::default(),
            pending_acks: Vec::new(),
            pending_batches: Vec::new(),
            pending_tags: Vec::new(),
            entries: SharedEntries::default(),
            rejected: 0,
            last_received: None,
            unwritten: false,
            unsynced: false,
            healthy: false,
            changed: true,
            last_message: None,
        }
    }

    /// When the previous process was last known to listen, if there was one.
    pub fn previous_watermark(&self) -> Option<Micros> {
        self.state.watermark()
    }

    /// Runs until both queues are closed; everything taken is durable, or counted, when it returns.
    pub fn run(mut self, mut training: mpsc::Receiver<IntakeItem>, mut control: mpsc::Receiver<IntakeItem>) {
        self.note_health();
        let mut group = Vec::with_capacity(GROUP_MAX);
        let mut open = true;
        while open {
            self.deps.heartbeat.beat();
            open = collect_group(&mut training, &mut control, &mut group, self.longest_wait());
            self.process(&mut group);
            self.write_or_sync();
            let watermark = self.watermark(training.is_empty() && control.is_empty());
            self.housekeeping(watermark, false);
        }
        self.drain(control, &mut group);
    }

    /// The moment up to which everything is in the spool; after a restart the gap begins here. Too early is safe.
    fn watermark(&self, queues_are_empty: bool) -> Option<Micros> {
        if !self.state.save_is_due() {
            return None;
        }
        // Read after the queues: a frame is in its queue before its source reports it as received. So the queue may have filled since
        // it was found empty, which the margin covers.
        let received = (self.deps.low_watermark)()?;
        // Until the first frame is taken, the watermark of the previous process holds.
        let until = if queues_are_empty { received } else { received.min(self.last_received?) };
        Some(until - WATERMARK_MARGIN)
    }

    /// After the sources have ended: the last commands are executed, their outcomes recorded, everything synced.
    fn drain(mut self, mut control: mpsc::Receiver<IntakeItem>, group: &mut Vec<IntakeItem>) {
        self.sync();
        let (closed, _) = mpsc::channel(1);
        self.deps.commands = closed; // the control stage ends when it has answered what it has
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while block_until(deadline, control.recv_many(group, GROUP_MAX)).is_some_and(|count| count > 0) {
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
        if !group.is_empty() {
            (self.changed, self.last_message) = (true, Some(Instant::now()));
        }
        self.entries.begin_group();
        for item in group.drain(..) {
            match item {
                IntakeItem::Frames(frames) => {
                    for frame in frames {
                        let (frame, accepted) = self.receive(frame);
                        self.count_drop(&frame, accepted.recorded);
                    }
                }
                IntakeItem::TrackedFrames(frames) => {
                    frames.into_iter().for_each(|(frame, tag)| self.receive_tracked(frame, tag));
                }
                IntakeItem::FrameWithAck(frame, answer) => {
                    let accepted = self.accept(&frame);
                    self.count_drop(&frame, accepted.recorded);
                    match accepted.ack {
                        Ack::Durable => self.pending_acks.push(answer),
                        // The request may have been cancelled.
                        other => _ = answer.send(other),
                    }
                }
                IntakeItem::Batch(batch) => self.accept_batch(batch),
                IntakeItem::Gap(gap) => self.append_gap(gap),
                IntakeItem::GapWithAck(gap, answer) => self.append_kept_gap(gap, answer),
                IntakeItem::Receipt(row) => {
                    let payload = serde_json::to_vec(&row).expect("strings and numbers always serialise");
                    if self.append_plain(RecordKind::Receipt, row.timestamp, &row.source, &payload).is_none() {
                        warn!(command = row.command, "outcome of a command is not recorded: the spool is full");
                    }
                }
                IntakeItem::CloseRuns(at) => {
                    self.close_runs(|_| true);
                    self.close_stream_runs(CloseReason::Reset(at));
                }
                IntakeItem::CloseDeletedRun(run_id, deleted_at) => {
                    self.close_runs(|run| run.run_id == run_id && run.opened_at <= deleted_at);
                    self.close_stream_runs(CloseReason::Deleted(run_id, deleted_at));
                }
            }
        }
    }

    /// Closes the open runs of channels that are `chosen`, here and in what other instances would adopt.
    fn close_runs(&mut self, chosen: impl Fn(&OpenRun) -> bool) {
        let streams = &self.deps.streams;
        let is_channel = |name: &str| !streams.iter().any(|stream| **stream == *name);
        let closed = self.resolver.close(|name, run| is_channel(name) && chosen(run));
        closed.iter().for_each(|channel| self.deps.sharing.forget(channel));
    }

    /// Takes in a message of a source.
    fn receive(&mut self, mut frame: Frame) -> (Frame, Accepted) {
        // The time of an entry is that of its id.
        self.last_received = if frame.entry.is_some() {
            let ago = Micros::try_from(frame.received.elapsed().as_micros()).unwrap_or(0);
            self.last_received.max(Some(units::now() - ago))
        } else {
            Some(frame.received_at)
        };
        if frame.control
            && let Some(name) = escape_reserved_name(&frame.channel)
        {
            frame.channel = name.into();
        }
        let accepted = self.accept(&frame);
        (self.deps.return_bytes)(&frame);
        (frame, accepted)
    }

    /// Takes in a message that its source delivers again until it is durable.
    fn receive_tracked(&mut self, frame: Frame, tag: DeliveryTag) {
        if !self.deps.appender.healthy() {
            // In memory it would only take the room of messages that come once.
            (self.deps.return_bytes)(&frame);
            return tag.settle(false);
        }
        match self.receive(frame).1.recorded {
            true => self.pending_tags.push(tag),
            false => tag.settle(false),
        }
    }

    /// Counts a message that is lost because the spool has no room for it.
    fn count_drop(&mut self, frame: &Frame, recorded: bool) {
        if !recorded && self.drop_counter.count(&frame.channel, frame.received_at) {
            error!(channel = &*frame.channel, "spool is full; messages are being dropped, and counted");
        }
    }

    /// Appends a record that belongs to no run.
    pub(super) fn append_plain(&mut self, kind: RecordKind, at: Micros, channel: &str, payload: &[u8]) -> Option<u64> {
        let decided =
            Resolved { run_id: Uuid::nil(), event_time: at, received_at: at, has_event_time: false, opened_run: false };
        self.append(&NewRecord {
            kind,
            decided,
            strict_json: false,
            from_stream: false,
            channel,
            preamble: b"",
            payload,
        })
    }

    pub(super) fn append(&mut self, record: &NewRecord<'_>) -> Option<u64> {
        let offset = self.deps.appender.append(record).ok()?;
        (self.unwritten, self.unsynced, self.changed) = (true, true, true);
        Some(offset)
    }
}
