//! Delivers the frames and gaps of a source: applies [`WhenFull`], counts losses, and brings acknowledgements back.
//!
//! Losses are coalesced: an overload drops something many times a second, and is one gap per reason and channel.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tracing::warn;

use super::{
    queue::{Closed, Queue},
    role::{Role, WhenFull},
    traffic::TrafficFlag,
};
use crate::{
    frame::{Frame, Settled, Settlements},
    gaps::{Gap, GapReason},
    metrics::Metrics,
    units::Micros,
};

/// A gap of dropped frames is sent once nothing was dropped for this long, …
const DROP_QUIET: Duration = Duration::from_millis(100);
/// … or after this long.
const DROP_WINDOW: Duration = Duration::from_secs(1);
/// Channels with losses that are counted apart; the losses of more are counted together.
const CHANNELS_MAX: usize = 64;
/// Gaps that wait for room; beyond this they are merged by reason.
const PENDING_GAPS_MAX: usize = 1_024;

/// Delivers the frames of one source, and every gap.
#[derive(Debug)]
pub struct QueueSender {
    queue: Queue,
    role: Role,
    when_full: WhenFull,
    metrics: Arc<Metrics>,
    traffic: TrafficFlag,
    settlements: Settlements,
    /// Frames delivered with a tag.
    tagged: u64,
    /// Losses not sent yet, by reason and channel; few channels lose at once.
    open_drops: Vec<Gap>,
    drops_since: Option<Instant>,
    last_drop_at: Option<Instant>,
    pending_gaps: VecDeque<Gap>,
}

/// Messages that were dropped.
#[derive(Clone, Copy, Debug)]
pub struct Loss<'a> {
    /// The reason.
    pub reason: GapReason,
    /// First moment of the loss.
    pub started_at: Micros,
    /// Last moment of the loss.
    pub ended_at: Micros,
    /// The channel; absent: unknown.
    pub channel: Option<&'a str>,
    /// Number of messages.
    pub lost: u64,
}

/// Records gaps that are kept elsewhere until they are durable.
#[derive(Clone, Debug)]
pub struct DurableGaps {
    queue: Queue,
    metrics: Arc<Metrics>,
}

impl DurableGaps {
    /// Hands a gap to intake. Returns whether it is durable; if not, it has to be recorded again, and may then be there twice.
    pub async fn record(&self, gap: Gap) -> bool {
        let (reason, lost) = (gap.reason.as_str(), gap.lost.unwrap_or(0));
        let durable = self.queue.send_gap_durably(gap).await;
        if durable {
            self.metrics.gaps.of(reason).inc();
            self.metrics.gap_lost.of(reason).inc_by(lost);
        }
        durable
    }
}

impl QueueSender {
    /// The sender of a source with this role.
    pub fn new(queue: Queue, role: Role, when_full: WhenFull, metrics: Arc<Metrics>) -> Self {
        Self {
            queue,
            role,
            when_full,
            metrics,
            traffic: TrafficFlag::default(),
            settlements: Settlements::default(),
            tagged: 0,
            open_drops: Vec::new(),
            drops_since: None,
            last_drop_at: None,
            pending_gaps: VecDeque::new(),
        }
    }

    /// Tells the receive thread when messages flow.
    pub(super) fn with_traffic_flag(self, traffic: TrafficFlag) -> Self {
        Self { traffic, ..self }
    }

    /// Puts frames into the queue, in order. Without room: [`WhenFull`]. With [`Wait`](WhenFull::Wait) each frame gets the next
    /// number, from 0 on, by which [`settled`](Self::settled) names it. A dropped future has delivered only some of the frames.
    ///
    /// # Errors
    /// When intake has ended.
    pub async fn deliver(&mut self, frames: &mut Vec<Frame>) -> Result<(), Closed> {
        if frames.is_empty() {
            return Ok(());
        }
        if self.when_full == WhenFull::Drop {
            self.coalesce();
        }
        let frames = mem::take(frames);
        match self.when_full {
            WhenFull::Drop => self.send_or_drop(frames),
            WhenFull::Wait => {
                let (settlements, tagged) = (&self.settlements, &mut self.tagged);
                let tags = (*tagged..).map(|number| settlements.tag(number));
                let tracked = frames.into_iter().zip(tags).inspect(|_| *tagged += 1);
                self.queue.send(tracked).await
            }
        }
    }

    /// Lets the receive thread coalesce what arrives next. A source that waits has a pace of its own, and says so where it has none.
    pub(super) fn coalesce(&self) {
        self.traffic.set();
    }

    /// Waits for acknowledgements of frames that were delivered with [`WhenFull::Wait`]; those of a full spool may
    /// overtake others. Dropping the future loses none.
    pub async fn settled(&self) -> Vec<Settled> {
        self.settlements.next().await
    }

    fn send_or_drop(&mut self, frames: Vec<Frame>) -> Result<(), Closed> {
        for frame in self.queue.try_send(frames)? {
            self.refuse(&frame.channel, frame.received_at, frame.received);
        }
        Ok(())
    }

    /// Whether a message of this size is worth a copy; otherwise it is to be [refused](Self::refuse).
    pub fn has_room(&self, bytes: usize) -> bool {
        self.queue.has_room(bytes)
    }

    /// Whether there may be room for a message of this size by the time that it has arrived; otherwise it is to be
    /// [refused](Self::refuse) now.
    pub fn may_fit(&self, bytes: usize) -> bool {
        self.queue.may_fit(bytes)
    }

    /// Counts a message for which the queue has no room.
    pub fn refuse(&mut self, channel: &str, received_at: Micros, received: Instant) {
        self.traffic.set();
        let (started_at, ended_at) = (received_at, received_at);
        let loss = Loss { reason: GapReason::QueueFull, started_at, ended_at, channel: Some(channel), lost: 1 };
        self.record_drop(loss, received);
    }

    /// Counts dropped messages; they become one gap with those before and after.
    pub fn record_drop(&mut self, loss: Loss<'_>, now: Instant) {
        let Loss { reason, started_at, ended_at, channel, lost } = loss;
        self.drops_since.get_or_insert(now);
        self.last_drop_at = Some(now);
        self.metrics.gap_lost.of(reason.as_str()).inc_by(lost);
        let position =
            |channel| self.open_drops.iter().position(|gap| gap.reason == reason && gap.channel.as_deref() == channel);
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
            None => {
                let source = if reason == GapReason::QueueFull { "queue" } else { self.role.gap_source() };
                let gap = Gap::new(reason, source, started_at, ended_at);
                self.open_drops.push(Gap { channel: channel.map(str::to_owned), lost: Some(lost), ..gap });
            }
        }
    }

    /// Records a gap of known size at once.
    pub fn record_loss(&mut self, loss: Loss<'_>) {
        let Loss { reason, started_at, ended_at, channel, lost } = loss;
        self.metrics.gap_lost.of(reason.as_str()).inc_by(lost);
        let gap = Gap::new(reason, self.role.gap_source(), started_at, ended_at);
        self.push(Gap { channel: channel.map(str::to_owned), lost: Some(lost), ..gap });
    }

    /// Records a gap of unknown size.
    pub fn record_gap(&mut self, reason: GapReason, started_at: Micros, ended_at: Micros, channel: Option<String>) {
        self.push(Gap { channel, ..Gap::new(reason, self.role.gap_source(), started_at, ended_at) });
    }

    /// Records gaps beside this sender.
    pub fn durable_gaps(&self) -> DurableGaps {
        DurableGaps { queue: self.queue.clone(), metrics: Arc::clone(&self.metrics) }
    }

    fn push(&mut self, gap: Gap) {
        if self.pending_gaps.len() >= PENDING_GAPS_MAX
            && let Some(last) =
                self.pending_gaps.iter_mut().rev().find(|last| last.reason == gap.reason && last.source == gap.source)
        {
            return last.merge(&gap);
        }
        self.metrics.gaps.of(gap.reason.as_str()).inc();
        self.pending_gaps.push_back(gap);
    }

    /// Whether [`flush_gaps`](Self::flush_gaps) has something to do.
    pub fn has_pending_gaps(&self) -> bool {
        self.drops_since.is_some() || !self.pending_gaps.is_empty()
    }

    /// Sends the gaps that are due, as far as there is room.
    ///
    /// # Errors
    /// When intake has ended.
    pub fn flush_gaps(&mut self, now: Instant) -> Result<(), Closed> {
        let due = |at: Option<Instant>, after| at.is_some_and(|at| now.duration_since(at) >= after);
        if due(self.last_drop_at, DROP_QUIET) || due(self.drops_since, DROP_WINDOW) {
            self.close_drops();
        }
        while let Some(gap) = self.pending_gaps.pop_front() {
            if let Some(gap) = self.queue.try_send_gap(gap)? {
                self.pending_gaps.push_front(gap);
                break;
            }
        }
        Ok(())
    }

    /// At the end: sends every gap, waiting for room for at most `max_wait`.
    pub async fn finish(&mut self, max_wait: Duration) {
        self.close_drops();
        let _ = timeout(max_wait, async {
            while let Some(gap) = self.pending_gaps.pop_front() {
                if self.queue.send_gap(gap).await.is_err() {
                    return;
                }
            }
        })
        .await;
    }

    fn close_drops(&mut self) {
        (self.drops_since, self.last_drop_at) = (None, None);
        for gap in mem::take(&mut self.open_drops) {
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

    /// Frames in the queue, with those that the receiver has in hand.
    pub fn depth(&self) -> usize {
        self.queue.depth()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        frame::IntakeItem,
        source::queue::{FRAME_OVERHEAD, queue},
    };

    fn dropping(queue: Queue, role: Role) -> QueueSender {
        QueueSender::new(queue, role, WhenFull::Drop, Metrics::new())
    }

    fn frame(n: i64, bytes: usize) -> Frame {
        Frame {
            channel: "c".into(),
            payload: Bytes::from(vec![b'x'; bytes]),
            received_at: n,
            received: Instant::now(),
            control: false,
            entry: None,
        }
    }

    #[test]
    fn whether_a_message_has_room_is_known_before_it_is_copied() {
        let (queue, _receiver, bytes) = queue(100, 4 * (10 + FRAME_OVERHEAD));
        let mut sender = dropping(queue, Role::Training);
        assert!(sender.has_room(1 << 30), "an empty queue takes any");
        for n in 0..4 {
            assert!(sender.has_room(10), "{n}");
            sender.send_or_drop(vec![frame(n, 10)]).unwrap();
        }
        assert!(!sender.has_room(1));
        assert!(sender.open_drops.is_empty());
        sender.refuse("c", 5, Instant::now());
        assert_eq!((sender.open_drops[0].reason, sender.open_drops[0].lost), (GapReason::QueueFull, Some(1)));
        bytes.taken(&frame(0, 10));
        assert!(sender.has_room(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_without_room_is_counted_exactly_and_its_gap_is_sent_when_there_is_room() {
        for (name, frames, bytes_max, size) in
            [("frames", 4, 1 << 20, 10), ("bytes", 100, 4 * (10 + FRAME_OVERHEAD), 10)]
        {
            let (queue, mut receiver, bytes) = queue(frames, bytes_max);
            let mut sender = dropping(queue, Role::Training);
            // Together and one by one.
            sender.send_or_drop((0..5).map(|n| frame(n, size)).collect()).unwrap();
            for n in 5..10 {
                sender.send_or_drop(vec![frame(n, size)]).unwrap();
            }
            tokio::time::advance(DROP_QUIET).await;
            sender.flush_gaps(Instant::now()).unwrap();
            let mut received = 0;
            let mut gaps = Vec::new();
            for _ in 0..2 {
                while let Ok(item) = receiver.try_recv() {
                    match item {
                        IntakeItem::Frames(frames) => {
                            frames.iter().for_each(|frame| bytes.taken(frame));
                            received += frames.len();
                        }
                        IntakeItem::Gap(gap) => gaps.push(gap),
                        other => panic!("{other:?}"),
                    }
                }
                sender.flush_gaps(Instant::now()).unwrap();
            }
            assert_eq!((received, gaps.len(), bytes.bytes()), (4, 1, 0), "{name}");
            assert_eq!((gaps[0].lost, gaps[0].started_at, gaps[0].ended_at), (Some(6), 4, 9), "{name}");
            assert!(!sender.has_pending_gaps());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn losses_that_follow_each_other_are_one_gap() {
        let (queue, mut receiver, _bytes) = queue(4, 100);
        let mut sender = dropping(queue, Role::Training);
        for n in 0..50 {
            let (reason, channel) = (GapReason::QueueFull, None);
            let loss = Loss { reason, started_at: n, ended_at: n + 2, channel, lost: 10 };
            sender.record_drop(loss, Instant::now());
            sender.flush_gaps(Instant::now()).unwrap();
        }
        tokio::time::advance(DROP_QUIET).await;
        sender.flush_gaps(Instant::now()).unwrap();
        let Ok(IntakeItem::Gap(gap)) = receiver.try_recv() else { panic!("no gap") };
        let reported = (gap.reason, gap.source.as_str(), gap.lost, gap.started_at, gap.ended_at);
        assert_eq!(reported, (GapReason::QueueFull, "queue", Some(500), 0, 51));
        assert!(receiver.try_recv().is_err() && !sender.has_pending_gaps());
    }

    #[tokio::test]
    async fn an_empty_queue_takes_a_message_larger_than_its_bound() {
        let (queue, _receiver, bytes) = queue(4, 100);
        let mut sender = dropping(queue, Role::Training);
        sender.send_or_drop(vec![frame(1, 1_000)]).unwrap();
        sender.send_or_drop(vec![frame(2, 1)]).unwrap();
        assert_eq!(bytes.bytes(), 1_000 + FRAME_OVERHEAD);
        assert_eq!(sender.open_drops.len(), 1);
    }
}
