//! The queue between a source and intake: bounded in frames and in bytes. Full: the newest are dropped and counted, because
//! waiting would make Redis cut the connection and lose more, unseen.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{Instant, timeout},
};

use tracing::warn;

use crate::{
    frame::{Frame, Gap, GapReason, IntakeItem},
    memory::{LARGE_VALUE, MemoryLimit, guarded},
    metrics::{Label, Metrics},
    units::Micros,
};

/// Memory of a queued frame beside its payload.
const FRAME_OVERHEAD: usize = 96;
/// A gap of dropped frames is told once nothing was dropped for this long, …
const DROP_QUIET: Duration = Duration::from_millis(100);
/// … or after this long.
const DROP_WINDOW: Duration = Duration::from_secs(1);
/// Channels that lose at once and are told apart.
const CHANNELS_MAX: usize = 64;
/// Gaps that wait for room are merged beyond this many.
const PENDING_GAPS_MAX: usize = 1_024;

/// The sending end. Each source has its own; the receiving end is one.
#[derive(Clone, Debug)]
pub struct Queue {
    sender: mpsc::Sender<IntakeItem>,
    bytes: QueuedBytes,
    bytes_max: usize,
    memory: Option<MemoryLimit>,
}

/// How many bytes wait; whoever takes a frame out says so.
#[derive(Clone, Debug, Default)]
pub struct QueuedBytes(Arc<AtomicUsize>);

impl QueuedBytes {
    /// A frame was taken out of the queue.
    pub fn taken(&self, frame: &Frame) {
        self.0.fetch_sub(frame.payload.len() + FRAME_OVERHEAD, Ordering::AcqRel);
    }

    /// Bytes that wait now.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// A queue of at most `frames` arrivals and `bytes_max` bytes.
pub fn queue(frames: usize, bytes_max: usize) -> (Queue, mpsc::Receiver<IntakeItem>, QueuedBytes) {
    let (sender, receiver) = mpsc::channel(frames);
    let bytes = QueuedBytes::default();
    (Queue { sender, bytes: bytes.clone(), bytes_max, memory: None }, receiver, bytes)
}

impl Queue {
    /// The bare sender, for receipts.
    pub fn sender(&self) -> mpsc::Sender<IntakeItem> {
        self.sender.clone()
    }

    /// Large messages are counted in this budget.
    pub fn charging(self, memory: MemoryLimit) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// Whether a message of so many bytes would be taken now. An empty queue takes any, however large.
    fn has_room(&self, bytes: usize) -> bool {
        let before = self.bytes.get();
        before == 0 || before + bytes + FRAME_OVERHEAD <= self.bytes_max
    }

    fn try_send(&self, mut frame: Frame) -> Result<(), Refused> {
        let bytes = frame.payload.len() + FRAME_OVERHEAD;
        if let Some(memory) = self.memory.as_ref().filter(|_| bytes > LARGE_VALUE) {
            // Counted also while intake, watchers and the latest values hold it.
            frame.payload = guarded(mem::take(&mut frame.payload), memory.charge(bytes));
        }
        let before = self.bytes.0.fetch_add(bytes, Ordering::AcqRel);
        if before > 0 && before + bytes > self.bytes_max {
            self.bytes.0.fetch_sub(bytes, Ordering::AcqRel);
            return Err(Refused::Full(frame));
        }
        self.sender.try_send(IntakeItem::Frame(frame)).map_err(|error| {
            self.bytes.0.fetch_sub(bytes, Ordering::AcqRel);
            match error {
                TrySendError::Full(IntakeItem::Frame(frame)) => Refused::Full(frame),
                _ => Refused::Closed,
            }
        })
    }
}

enum Refused {
    Full(Frame),
    Closed,
}

/// Intake is gone; nothing can be delivered any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

/// Delivers frames, and every gap, sooner or later.
pub(super) struct QueueSender {
    queue: Queue,
    source: &'static str,
    metrics: Arc<Metrics>,
    /// What is being lost, by reason and channel; few channels lose at once.
    open_drops: Vec<Gap>,
    drops_since: Option<Instant>,
    last_drop_at: Option<Instant>,
    pending_gaps: VecDeque<Gap>,
}

impl QueueSender {
    pub(super) fn new(queue: Queue, source: &'static str, metrics: Arc<Metrics>) -> Self {
        Self {
            queue,
            source,
            metrics,
            open_drops: Vec::new(),
            drops_since: None,
            last_drop_at: None,
            pending_gaps: VecDeque::new(),
        }
    }

    /// Puts a frame into the queue, or counts it.
    pub(super) fn send(&mut self, frame: Frame) -> Result<(), Closed> {
        match self.queue.try_send(frame) {
            Ok(()) => Ok(()),
            Err(Refused::Closed) => Err(Closed),
            Err(Refused::Full(frame)) => {
                self.refuse(&frame.channel, frame.received_at, frame.received);
                Ok(())
            }
        }
    }

    /// Whether a message of so many bytes is worth a copy: otherwise it is to be [refused](Self::refuse).
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.queue.has_room(bytes)
    }

    /// Counts a message for which the queue has no room.
    pub(super) fn refuse(&mut self, channel: &str, received_at: Micros, received: Instant) {
        self.record_drop(GapReason::QueueFull, (received_at, received_at), Some(channel), 1, received);
    }

    /// Counts what an overload costs: it may cost something many times a second, and is one gap.
    pub(super) fn record_drop(
        &mut self,
        reason: GapReason,
        bounds: (Micros, Micros),
        channel: Option<&str>,
        lost: u64,
        now: Instant,
    ) {
        self.drops_since.get_or_insert(now);
        self.last_drop_at = Some(now);
        self.metrics.gap_lost.get_or_create(&Label::of(reason.as_str())).inc_by(lost);
        let (started_at, ended_at) = (bounds.0, bounds.1.max(bounds.0));
        let position =
            |channel| self.open_drops.iter().position(|gap| gap.reason == reason && gap.channel.as_deref() == channel);
        // Beyond so many channels at once it is no longer told which.
        let (at, channel) = match position(channel) {
            None if self.open_drops.len() >= CHANNELS_MAX => (position(None), None),
            at => (at, channel),
        };
        match at.and_then(|at| self.open_drops.get_mut(at)) {
            Some(gap) => {
                gap.started_at = gap.started_at.min(started_at);
                gap.ended_at = gap.ended_at.max(ended_at);
                gap.lost = gap.lost.map(|before| before + lost);
            }
            None => self.open_drops.push(Gap {
                started_at,
                ended_at,
                reason,
                source: if reason == GapReason::QueueFull { "queue" } else { self.source }.into(),
                channel: channel.map(str::to_owned),
                run_id: None,
                lost: Some(lost),
            }),
        }
    }

    /// Notes a gap of unknown size.
    pub(super) fn record_gap(&mut self, reason: GapReason, bounds: (Micros, Micros), channel: Option<String>) {
        self.push(Gap {
            started_at: bounds.0,
            ended_at: bounds.1.max(bounds.0),
            reason,
            source: self.source.into(),
            channel,
            run_id: None,
            lost: None,
        });
    }

    fn push(&mut self, gap: Gap) {
        if self.pending_gaps.len() >= PENDING_GAPS_MAX
            && let Some(last) =
                self.pending_gaps.iter_mut().rev().find(|last| last.reason == gap.reason && last.source == gap.source)
        {
            if last.channel != gap.channel {
                last.channel = None;
            }
            last.started_at = last.started_at.min(gap.started_at);
            last.ended_at = last.ended_at.max(gap.ended_at);
            last.lost = last.lost.zip(gap.lost).map(|(one, other)| one + other);
            return;
        }
        self.metrics.gaps.get_or_create(&Label::of(gap.reason.as_str())).inc();
        self.pending_gaps.push_back(gap);
    }

    /// Whether [`flush_gaps`](Self::flush_gaps) has something to do.
    pub(super) fn has_pending_gaps(&self) -> bool {
        self.drops_since.is_some() || !self.pending_gaps.is_empty()
    }

    /// Tells what is due, as far as there is room.
    pub(super) fn flush_gaps(&mut self, now: Instant) -> Result<(), Closed> {
        let due = |at: Option<Instant>, after| at.is_some_and(|at| now.duration_since(at) >= after);
        if due(self.last_drop_at, DROP_QUIET) || due(self.drops_since, DROP_WINDOW) {
            self.close_drops();
        }
        while let Some(gap) = self.pending_gaps.pop_front() {
            match self.queue.sender.try_send(IntakeItem::Gap(gap)) {
                Ok(()) => {}
                Err(TrySendError::Full(IntakeItem::Gap(gap))) => {
                    self.pending_gaps.push_front(gap);
                    break;
                }
                Err(_) => return Err(Closed),
            }
        }
        Ok(())
    }

    /// At the end: tells everything, waiting for room as long as intake takes.
    pub(super) async fn finish(&mut self, max_wait: Duration) {
        self.close_drops();
        let _ = timeout(max_wait, async {
            while let Some(gap) = self.pending_gaps.pop_front() {
                if self.queue.sender.send(IntakeItem::Gap(gap)).await.is_err() {
                    return;
                }
            }
        })
        .await;
    }

    fn close_drops(&mut self) {
        (self.drops_since, self.last_drop_at) = (None, None);
        for gap in std::mem::take(&mut self.open_drops) {
            // Once for all that was lost meanwhile, which may have been something each millisecond.
            warn!(
                reason = gap.reason.as_str(),
                source = gap.source,
                channel = gap.channel,
                lost = gap.lost,
                "messages came faster than they could be taken; they are counted"
            );
            self.push(gap);
        }
    }

    /// Frames and bytes that wait, for the gauges.
    pub(super) fn depth(&self) -> usize {
        self.queue.sender.max_capacity() - self.queue.sender.capacity()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn frame(n: i64, bytes: usize) -> Frame {
        Frame {
            channel: "c".into(),
            payload: Bytes::from(vec![b'x'; bytes]),
            received_at: n,
            received: Instant::now(),
            control: false,
        }
    }

    #[test]
    fn whether_a_message_has_room_is_known_before_it_is_copied() {
        let (queue, _receiver, bytes) = queue(100, 4 * (10 + FRAME_OVERHEAD));
        let mut sender = QueueSender::new(queue, "redis", Metrics::new());
        assert!(sender.has_room(1 << 30), "an empty queue takes any");
        for n in 0..4 {
            assert!(sender.has_room(10), "{n}");
            sender.send(frame(n, 10)).unwrap();
        }
        assert!(!sender.has_room(1));
        assert!(sender.open_drops.is_empty());
        sender.refuse("c", 5, Instant::now());
        assert_eq!((sender.open_drops[0].reason, sender.open_drops[0].lost), (GapReason::QueueFull, Some(1)));
        bytes.taken(&frame(0, 10));
        assert!(sender.has_room(10));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_is_counted_exactly_and_told_when_there_is_room() {
        for (name, frames, bytes_max, size) in
            [("frames", 4, 1 << 20, 10), ("bytes", 100, 4 * (10 + FRAME_OVERHEAD), 10)]
        {
            let (queue, mut receiver, bytes) = queue(frames, bytes_max);
            let mut sender = QueueSender::new(queue, "redis", Metrics::new());
            for n in 0..10 {
                sender.send(frame(n, size)).unwrap();
            }
            tokio::time::advance(DROP_QUIET).await;
            sender.flush_gaps(Instant::now()).unwrap();
            let mut received = 0;
            let mut gaps = Vec::new();
            for _ in 0..2 {
                while let Ok(item) = receiver.try_recv() {
                    match item {
                        IntakeItem::Frame(frame) => {
                            bytes.taken(&frame);
                            received += 1;
                        }
                        IntakeItem::Gap(gap) => gaps.push(gap),
                        other => panic!("{other:?}"),
                    }
                }
                sender.flush_gaps(Instant::now()).unwrap();
            }
            assert_eq!((received, gaps.len(), bytes.get()), (4, 1, 0), "{name}");
            assert_eq!((gaps[0].lost, gaps[0].started_at, gaps[0].ended_at), (Some(6), 4, 9), "{name}");
            assert!(!sender.has_pending_gaps());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_receive_buffer_that_overflows_many_times_is_one_gap() {
        let (queue, mut receiver, _bytes) = queue(4, 100);
        let mut sender = QueueSender::new(queue, "training", Metrics::new());
        for n in 0..50 {
            sender.record_drop(GapReason::ClientLag, (n, n + 2), None, 10, Instant::now());
            sender.flush_gaps(Instant::now()).unwrap();
        }
        tokio::time::advance(DROP_QUIET).await;
        sender.flush_gaps(Instant::now()).unwrap();
        let Ok(IntakeItem::Gap(gap)) = receiver.try_recv() else { panic!("no gap") };
        let reported = (gap.reason, gap.source.as_str(), gap.lost, gap.started_at, gap.ended_at);
        assert_eq!(reported, (GapReason::ClientLag, "training", Some(500), 0, 51));
        assert!(receiver.try_recv().is_err() && !sender.has_pending_gaps());
    }

    #[tokio::test]
    async fn an_empty_queue_takes_a_message_larger_than_its_bound() {
        let (queue, _receiver, bytes) = queue(4, 100);
        let mut sender = QueueSender::new(queue, "redis", Metrics::new());
        sender.send(frame(1, 1_000)).unwrap();
        sender.send(frame(2, 1)).unwrap();
        assert_eq!(bytes.get(), 1_000 + FRAME_OVERHEAD);
        assert_eq!(sender.open_drops.len(), 1);
    }
}
