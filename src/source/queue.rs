//! The queue between a source and intake, bounded in frames and in bytes.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::sleep,
};

use crate::{
    frame::{Ack, DeliveryTag, Frame, IntakeItem},
    gaps::Gap,
    memory::{LARGE_VALUE, MemoryLimit, guarded},
};

/// Memory of a queued frame beside its payload.
pub(super) const FRAME_OVERHEAD: usize = 96;
/// How often a waiting sender tries to reserve room. Being woken would cost intake something for each frame.
const RESERVE_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The sending end. Each source has its own; the receiving end is one.
#[derive(Clone, Debug)]
pub struct Queue {
    sender: mpsc::Sender<IntakeItem>,
    usage: QueueUsage,
    /// The most that may be in the queue.
    max: Usage,
    memory: Option<MemoryLimit>,
}

/// What is in the queue. The receiver of a frame gives its room back.
#[derive(Clone, Debug, Default)]
pub struct QueueUsage(Arc<AtomicU64>);

/// Frames and bytes in the queue. One number holds both: a sender that finds no room must never be seen to have taken some, because a
/// sender that drops what has no room would then drop a message that has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Usage {
    frames: u64,
    bytes: u64,
}

impl Usage {
    /// 512 GiB; the rest holds the frames, twice as many as `redis.queue_frames` may be.
    const BYTES_BITS: u32 = 39;
    const BYTES_MAX: u64 = (1 << Self::BYTES_BITS) - 1;

    fn of(frame: &Frame) -> Self {
        Self { frames: 1, bytes: (frame.payload.len() + FRAME_OVERHEAD) as u64 }
    }

    fn pack(self) -> u64 {
        (self.frames << Self::BYTES_BITS) | self.bytes
    }

    fn unpack(packed: u64) -> Self {
        Self { frames: packed >> Self::BYTES_BITS, bytes: packed & Self::BYTES_MAX }
    }
}

impl QueueUsage {
    /// A frame was taken out of the queue.
    pub fn taken(&self, frame: &Frame) {
        self.0.fetch_sub(Usage::of(frame).pack(), Ordering::AcqRel);
    }

    /// Bytes in the queue now.
    pub fn bytes(&self) -> usize {
        self.now().bytes as usize
    }

    /// Frames in the queue now.
    pub fn frames(&self) -> usize {
        self.now().frames as usize
    }

    fn now(&self) -> Usage {
        Usage::unpack(self.0.load(Ordering::Acquire))
    }
}

/// A queue of at most `frames` frames and `bytes_max` bytes, and of as many other items.
pub fn queue(frames: usize, bytes_max: usize) -> (Queue, mpsc::Receiver<IntakeItem>, QueueUsage) {
    let (sender, receiver) = mpsc::channel(frames);
    let usage = QueueUsage::default();
    let max = Usage { frames: frames as u64, bytes: (bytes_max as u64).min(Usage::BYTES_MAX) };
    (Queue { sender, usage: usage.clone(), max, memory: None }, receiver, usage)
}

impl Queue {
    /// The bare sender, for receipts and gaps from elsewhere.
    pub fn sender(&self) -> mpsc::Sender<IntakeItem> {
        self.sender.clone()
    }

    /// Counts large messages in this budget.
    pub fn charging(self, memory: MemoryLimit) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// Whether a message of this size would be taken now. An empty queue takes any.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let more = Usage { frames: 1, bytes: (bytes + FRAME_OVERHEAD) as u64 };
        self.with(self.usage.now(), more).is_some()
    }

    /// Whether a message of this size can be taken at some time: it is not longer than the queue, or the queue is empty.
    pub(super) fn may_fit(&self, bytes: usize) -> bool {
        (bytes + FRAME_OVERHEAD) as u64 <= self.max.bytes || self.has_room(bytes)
    }

    /// The usage with one frame more; `None`: there is no room for it.
    fn with(&self, now: Usage, more: Usage) -> Option<Usage> {
        let sum = Usage { frames: now.frames + more.frames, bytes: now.bytes + more.bytes };
        (now.frames == 0 || (sum.bytes <= self.max.bytes && sum.frames <= self.max.frames)).then_some(sum)
    }

    /// Reserves room for a frame, if there is some.
    fn try_reserve(&self, frame: &Frame) -> bool {
        let more = Usage::of(frame);
        let reserve = |packed| self.with(Usage::unpack(packed), more).map(Usage::pack);
        self.usage.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, reserve).is_ok()
    }

    /// Puts the frames into the queue as one item, by which the receiver is woken once, as far as there is room. Returns those without
    /// room.
    pub(super) fn try_send(&self, frames: Vec<Frame>) -> Result<Vec<Frame>, Closed> {
        // Before any room is reserved.
        let permit = match self.sender.try_reserve() {
            Ok(permit) => permit,
            // Other items fill the queue.
            Err(TrySendError::Full(())) => return Ok(frames),
            Err(TrySendError::Closed(())) => return Err(Closed),
        };
        let (mut taken, mut refused) = (Vec::with_capacity(frames.len()), Vec::new());
        for frame in frames {
            if self.try_reserve(&frame) {
                taken.push(self.charge(frame));
            } else {
                refused.push(frame);
            }
        }
        if !taken.is_empty() {
            permit.send(IntakeItem::Frames(taken));
        }
        Ok(refused)
    }

    /// Puts the frames into the queue, each once there is room; they are acknowledged by their tags. Frames that have room together are
    /// one item.
    pub(super) async fn send(&self, frames: impl Iterator<Item = (Frame, DeliveryTag)>) -> Result<(), Closed> {
        let mut taken = Vec::new();
        for (frame, tag) in frames {
            while !self.try_reserve(&frame) {
                self.send_tracked(&mut taken).await?;
                if self.sender.is_closed() {
                    return Err(Closed);
                }
                sleep(RESERVE_POLL_INTERVAL).await;
            }
            taken.push((self.charge(frame), tag));
        }
        self.send_tracked(&mut taken).await
    }

    /// Sends frames that have their room. A future that is dropped meanwhile gives the room back.
    async fn send_tracked(&self, frames: &mut Vec<(Frame, DeliveryTag)>) -> Result<(), Closed> {
        if frames.is_empty() {
            return Ok(());
        }
        let reservation = Reservation { usage: &self.usage, frames: mem::take(frames) };
        let permit = self.sender.reserve().await.map_err(|_| Closed)?;
        permit.send(IntakeItem::TrackedFrames(reservation.into_frames()));
        Ok(())
    }

    /// Puts a gap into the queue if there is room; gives it back if not.
    pub(super) fn try_send_gap(&self, gap: Gap) -> Result<Option<Gap>, Closed> {
        match self.sender.try_send(IntakeItem::Gap(gap)) {
            Ok(()) => Ok(None),
            Err(TrySendError::Full(IntakeItem::Gap(gap))) => Ok(Some(gap)),
            Err(_) => Err(Closed),
        }
    }

    /// Puts a gap into the queue once there is room.
    pub(super) async fn send_gap(&self, gap: Gap) -> Result<(), Closed> {
        self.sender.send(IntakeItem::Gap(gap)).await.map_err(|_| Closed)
    }

    /// The same, of a gap that is answered once it is durable. Returns whether it is.
    pub(super) async fn send_gap_durably(&self, gap: Gap) -> bool {
        let (answer, durable) = oneshot::channel();
        let sent = self.sender.send(IntakeItem::GapWithAck(gap, answer)).await;
        sent.is_ok() && matches!(durable.await, Ok(Ack::Durable))
    }

    /// Frames in the queue, with those that the receiver has in hand.
    pub(super) fn depth(&self) -> usize {
        self.usage.frames()
    }

    /// A large message is counted for as long as intake, the streams and the latest values hold it.
    fn charge(&self, mut frame: Frame) -> Frame {
        let bytes = frame.payload.len() + FRAME_OVERHEAD;
        if let Some(memory) = self.memory.as_ref().filter(|_| bytes > LARGE_VALUE) {
            frame.payload = guarded(mem::take(&mut frame.payload), memory.charge(bytes));
        }
        frame
    }
}

/// Frames that have room in the queue and are not in it yet. Dropped, it gives the room back.
struct Reservation<'a> {
    usage: &'a QueueUsage,
    frames: Vec<(Frame, DeliveryTag)>,
}

impl Reservation<'_> {
    /// The frames, on their way into the queue.
    fn into_frames(mut self) -> Vec<(Frame, DeliveryTag)> {
        mem::take(&mut self.frames)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.frames.iter().for_each(|(frame, _)| self.usage.taken(frame));
    }
}

/// Intake has ended; nothing can be delivered any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::time::Instant;

    use super::*;

    fn frame(bytes: usize) -> Frame {
        Frame {
            channel: "c".into(),
            payload: Bytes::from(vec![b'x'; bytes]),
            received_at: 0,
            received: Instant::now(),
            control: false,
            entry: None,
        }
    }

    #[test]
    fn a_sender_that_waits_for_room_takes_none_from_one_that_drops() {
        let (queue, _receiver, usage) = queue(4, 10_000);
        let held = frame(1_000);
        assert!(queue.try_reserve(&held));
        let waiting = queue.clone();
        std::thread::scope(|scope| {
            // It has no room, and tries again and again.
            let large = frame(9_000);
            let tries = scope.spawn(move || (0..300_000).filter(|_| waiting.try_reserve(&large)).count());
            let small = frame(1_000);
            while !tries.is_finished() {
                assert!(queue.try_reserve(&small), "there was room for it");
                usage.taken(&small);
            }
            assert_eq!(tries.join().unwrap(), 0);
        });
        assert_eq!((usage.frames(), usage.bytes()), (1, 1_000 + FRAME_OVERHEAD));
        usage.taken(&held);
        assert_eq!((usage.frames(), usage.bytes()), (0, 0));
    }

    #[test]
    fn both_bounds_hold_and_an_empty_queue_takes_any() {
        let two = 2 * (10 + FRAME_OVERHEAD);
        for (name, frames, bytes_max, fits) in [
            ("frames", 3, 1 << 20, 3),
            ("bytes", 100, two, 2),
            ("one", 1, 0, 1),
            ("beyond what is counted", 2, usize::MAX, 2),
        ] {
            let (queue, _receiver, usage) = queue(frames, bytes_max);
            let taken = (0..10).take_while(|_| queue.try_reserve(&frame(10))).count();
            assert_eq!((taken, usage.frames(), queue.has_room(10)), (fits, fits, false), "{name}");
        }
    }
}
