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
    frame::{Arrival, Frame, Gap, GapReason},
    memory::{LARGE, MemoryLimit, guarded},
    metrics::{Label, Metrics},
    units::Micros,
};

/// Memory of a queued frame beside its payload.
const OVERHEAD: usize = 96;
/// A hole of dropped frames is told once nothing was dropped for this long, …
const QUIET: Duration = Duration::from_millis(100);
/// … or after this long.
const LONGEST: Duration = Duration::from_secs(1);
/// Channels that lose at once and are told apart.
const CHANNELS_MAX: usize = 64;
/// Holes that wait for room are merged beyond this many.
const HOLES_MAX: usize = 1_024;

/// The sending end. Each source has its own; the receiving end is one.
#[derive(Clone, Debug)]
pub struct Queue {
    sender: mpsc::Sender<Arrival>,
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
        self.0.fetch_sub(frame.payload.len() + OVERHEAD, Ordering::AcqRel);
    }

    /// Bytes that wait now.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// A queue of at most `frames` arrivals and `bytes_max` bytes.
pub fn queue(frames: usize, bytes_max: usize) -> (Queue, mpsc::Receiver<Arrival>, QueuedBytes) {
    let (sender, receiver) = mpsc::channel(frames);
    let bytes = QueuedBytes::default();
    (Queue { sender, bytes: bytes.clone(), bytes_max, memory: None }, receiver, bytes)
}

impl Queue {
    /// The bare sender, for receipts.
    pub fn sender(&self) -> mpsc::Sender<Arrival> {
        self.sender.clone()
    }

    /// Large messages are counted in this budget.
    pub fn charging(self, memory: MemoryLimit) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// Whether a message of so many bytes would be taken now. An empty queue takes any, however large.
    fn has_room(&self, bytes: usize) -> bool {
        let before = self.bytes.get();
        before == 0 || before + bytes + OVERHEAD <= self.bytes_max
    }

    fn offer(&self, mut frame: Frame) -> Result<(), Refused> {
        let bytes = frame.payload.len() + OVERHEAD;
        if let Some(memory) = self.memory.as_ref().filter(|_| bytes > LARGE) {
            // Counted also while intake, watchers and the latest values hold it.
            frame.payload = guarded(mem::take(&mut frame.payload), memory.charge(bytes));
        }
        let before = self.bytes.0.fetch_add(bytes, Ordering::AcqRel);
        if before > 0 && before + bytes > self.bytes_max {
            self.bytes.0.fetch_sub(bytes, Ordering::AcqRel);
            return Err(Refused::Full(frame));
        }
        self.sender.try_send(Arrival::Frame(frame)).map_err(|error| {
            self.bytes.0.fetch_sub(bytes, Ordering::AcqRel);
            match error {
                TrySendError::Full(Arrival::Frame(frame)) => Refused::Full(frame),
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

/// Delivers frames, and every hole, sooner or later.
pub(super) struct Delivery {
    queue: Queue,
    source: &'static str,
    metrics: Arc<Metrics>,
    /// What is being lost, by reason and channel; few channels lose at once.
    dropping: Vec<Gap>,
    dropping_since: Option<Instant>,
    dropped_last: Option<Instant>,
    holes: VecDeque<Gap>,
}

impl Delivery {
    pub(super) fn new(queue: Queue, source: &'static str, metrics: Arc<Metrics>) -> Self {
        Self {
            queue,
            source,
            metrics,
            dropping: Vec::new(),
            dropping_since: None,
            dropped_last: None,
            holes: VecDeque::new(),
        }
    }

    /// Puts a frame into the queue, or counts it.
    pub(super) fn frame(&mut self, frame: Frame) -> Result<(), Closed> {
        match self.queue.offer(frame) {
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
        self.lose(GapReason::QueueFull, (received_at, received_at), Some(channel), 1, received);
    }

    /// Counts what an overload costs: it may cost something many times a second, and is one hole.
    pub(super) fn lose(
        &mut self,
        reason: GapReason,
        bounds: (Micros, Micros),
        channel: Option<&str>,
        lost: u64,
        now: Instant,
    ) {
        self.dropping_since.get_or_insert(now);
        self.dropped_last = Some(now);
        self.metrics.gap_lost.get_or_create(&Label::of(reason.as_str())).inc_by(lost);
        let (started_at, ended_at) = (bounds.0, bounds.1.max(bounds.0));
        let place =
            |channel| self.dropping.iter().position(|gap| gap.reason == reason && gap.channel.as_deref() == channel);
        // Beyond so many channels at once it is no longer told which.
        let (at, channel) = match place(channel) {
            None if self.dropping.len() >= CHANNELS_MAX => (place(None), None),
            at => (at, channel),
        };
        match at.and_then(|at| self.dropping.get_mut(at)) {
            Some(gap) => {
                gap.started_at = gap.started_at.min(started_at);
                gap.ended_at = gap.ended_at.max(ended_at);
                gap.lost = gap.lost.map(|before| before + lost);
            }
            None => self.dropping.push(Gap {
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

    /// Notes a hole of unknown size.
    pub(super) fn hole(&mut self, reason: GapReason, bounds: (Micros, Micros), channel: Option<String>) {
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
        if self.holes.len() >= HOLES_MAX
            && let Some(last) =
                self.holes.iter_mut().rev().find(|last| last.reason == gap.reason && last.source == gap.source)
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
        self.holes.push_back(gap);
    }

    /// Whether [`tell`](Self::tell) has something to do.
    pub(super) fn pending(&self) -> bool {
        self.dropping_since.is_some() || !self.holes.is_empty()
    }

    /// Tells what is due, as far as there is room.
    pub(super) fn tell(&mut self, now: Instant) -> Result<(), Closed> {
        let due = |at: Option<Instant>, after| at.is_some_and(|at| now.duration_since(at) >= after);
        if due(self.dropped_last, QUIET) || due(self.dropping_since, LONGEST) {
            self.close_drops();
        }
        while let Some(gap) = self.holes.pop_front() {
            match self.queue.sender.try_send(Arrival::Gap(gap)) {
                Ok(()) => {}
                Err(TrySendError::Full(Arrival::Gap(gap))) => {
                    self.holes.push_front(gap);
                    break;
                }
                Err(_) => return Err(Closed),
            }
        }
        Ok(())
    }

    /// At the end: tells everything, waiting for room as long as intake takes.
    pub(super) async fn finish(&mut self, patience: Duration) {
        self.close_drops();
        let _ = timeout(patience, async {
            while let Some(gap) = self.holes.pop_front() {
                if self.queue.sender.send(Arrival::Gap(gap)).await.is_err() {
                    return;
                }
            }
        })
        .await;
    }

    fn close_drops(&mut self) {
        (self.dropping_since, self.dropped_last) = (None, None);
        for gap in std::mem::take(&mut self.dropping) {
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
        let (queue, _arrivals, bytes) = queue(100, 4 * (10 + OVERHEAD));
        let mut delivery = Delivery::new(queue, "redis", Metrics::new());
        assert!(delivery.has_room(1 << 30), "an empty queue takes any");
        for n in 0..4 {
            assert!(delivery.has_room(10), "{n}");
            delivery.frame(frame(n, 10)).unwrap();
        }
        assert!(!delivery.has_room(1));
        assert!(delivery.dropping.is_empty());
        delivery.refuse("c", 5, Instant::now());
        assert_eq!((delivery.dropping[0].reason, delivery.dropping[0].lost), (GapReason::QueueFull, Some(1)));
        bytes.taken(&frame(0, 10));
        assert!(delivery.has_room(10));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_is_counted_exactly_and_told_when_there_is_room() {
        for (name, frames, bytes_max, size) in [("frames", 4, 1 << 20, 10), ("bytes", 100, 4 * (10 + OVERHEAD), 10)] {
            let (queue, mut arrivals, bytes) = queue(frames, bytes_max);
            let mut delivery = Delivery::new(queue, "redis", Metrics::new());
            for n in 0..10 {
                delivery.frame(frame(n, size)).unwrap();
            }
            tokio::time::advance(QUIET).await;
            delivery.tell(Instant::now()).unwrap();
            let mut received = 0;
            let mut gaps = Vec::new();
            for _ in 0..2 {
                while let Ok(arrival) = arrivals.try_recv() {
                    match arrival {
                        Arrival::Frame(frame) => {
                            bytes.taken(&frame);
                            received += 1;
                        }
                        Arrival::Gap(gap) => gaps.push(gap),
                        other => panic!("{other:?}"),
                    }
                }
                delivery.tell(Instant::now()).unwrap();
            }
            assert_eq!((received, gaps.len(), bytes.get()), (4, 1, 0), "{name}");
            assert_eq!((gaps[0].lost, gaps[0].started_at, gaps[0].ended_at), (Some(6), 4, 9), "{name}");
            assert!(!delivery.pending());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_receive_buffer_that_overflows_many_times_is_one_hole() {
        let (queue, mut arrivals, _bytes) = queue(4, 100);
        let mut delivery = Delivery::new(queue, "training", Metrics::new());
        for n in 0..50 {
            delivery.lose(GapReason::ClientLag, (n, n + 2), None, 10, Instant::now());
            delivery.tell(Instant::now()).unwrap();
        }
        tokio::time::advance(QUIET).await;
        delivery.tell(Instant::now()).unwrap();
        let Ok(Arrival::Gap(gap)) = arrivals.try_recv() else { panic!("no gap") };
        let told = (gap.reason, gap.source.as_str(), gap.lost, gap.started_at, gap.ended_at);
        assert_eq!(told, (GapReason::ClientLag, "training", Some(500), 0, 51));
        assert!(arrivals.try_recv().is_err() && !delivery.pending());
    }

    #[tokio::test]
    async fn an_empty_queue_takes_a_message_larger_than_its_bound() {
        let (queue, _arrivals, bytes) = queue(4, 100);
        let mut delivery = Delivery::new(queue, "redis", Metrics::new());
        delivery.frame(frame(1, 1_000)).unwrap();
        delivery.frame(frame(2, 1)).unwrap();
        assert_eq!(bytes.get(), 1_000 + OVERHEAD);
        assert_eq!(delivery.dropping.len(), 1);
    }
}
