//! The queue between a source and intake, bounded in frames and in bytes.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
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
/// How often a waiting sender looks for room in bytes. Being woken would cost intake something for each frame.
const ROOM_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The sending end. Each source has its own; the receiving end is one.
#[derive(Clone, Debug)]
pub struct Queue {
    sender: mpsc::Sender<IntakeItem>,
    usage: QueueUsage,
    frames_max: usize,
    bytes_max: usize,
    memory: Option<MemoryLimit>,
}

/// What is in the queue. The receiver of a frame gives its room back.
#[derive(Clone, Debug, Default)]
pub struct QueueUsage(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    frames: AtomicUsize,
    bytes: AtomicUsize,
}

impl QueueUsage {
    /// A frame was taken out of the queue.
    pub fn taken(&self, frame: &Frame) {
        self.give_back(1, frame.payload.len() + FRAME_OVERHEAD);
    }

    fn give_back(&self, frames: usize, bytes: usize) {
        self.0.frames.fetch_sub(frames, Ordering::AcqRel);
        self.0.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Bytes in the queue now.
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Acquire)
    }

    /// Frames in the queue now.
    pub fn frames(&self) -> usize {
        self.0.frames.load(Ordering::Acquire)
    }
}

/// A queue of at most `frames` frames and `bytes_max` bytes, and of as many other items.
pub fn queue(frames: usize, bytes_max: usize) -> (Queue, mpsc::Receiver<IntakeItem>, QueueUsage) {
    let (sender, receiver) = mpsc::channel(frames);
    let usage = QueueUsage::default();
    (Queue { sender, usage: usage.clone(), frames_max: frames, bytes_max, memory: None }, receiver, usage)
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
        let before = self.usage.bytes();
        before == 0 || (before + bytes + FRAME_OVERHEAD <= self.bytes_max && self.usage.frames() < self.frames_max)
    }

    /// Takes room for a frame, if there is some.
    fn try_take_room(&self, frame: &Frame) -> bool {
        let bytes = frame.payload.len() + FRAME_OVERHEAD;
        let before = self.usage.0.bytes.fetch_add(bytes, Ordering::AcqRel);
        let frames = self.usage.0.frames.fetch_add(1, Ordering::AcqRel);
        let has_room = before == 0 || (before + bytes <= self.bytes_max && frames < self.frames_max);
        if !has_room {
            self.usage.give_back(1, bytes);
        }
        has_room
    }

    /// Puts the frames into the queue as one item, by which the receiver is woken once, as far as there is room. Returns those without
    /// room.
    pub(super) fn try_send(&self, frames: Vec<Frame>) -> Result<Vec<Frame>, Closed> {
        let (mut taken, mut refused) = (Vec::with_capacity(frames.len()), Vec::new());
        for frame in frames {
            if self.try_take_room(&frame) {
                taken.push(self.charge(frame));
            } else {
                refused.push(frame);
            }
        }
        if taken.is_empty() {
            return if self.sender.is_closed() { Err(Closed) } else { Ok(refused) };
        }
        match self.sender.try_send(IntakeItem::Frames(taken)) {
            Ok(()) => Ok(refused),
            // Other items fill the queue.
            Err(TrySendError::Full(IntakeItem::Frames(mut taken))) => {
                taken.iter().for_each(|frame| self.usage.taken(frame));
                taken.append(&mut refused);
                Ok(taken)
            }
            Err(_) => Err(Closed),
        }
    }

    /// Puts the frames into the queue, each once there is room; they are acknowledged by their tags. Frames that have room together are
    /// one item.
    pub(super) async fn send(&self, frames: impl Iterator<Item = (Frame, DeliveryTag)>) -> Result<(), Closed> {
        let mut taken = Vec::new();
        for (frame, tag) in frames {
            while !self.try_take_room(&frame) {
                self.send_tracked(&mut taken).await?;
                if self.sender.is_closed() {
                    return Err(Closed);
                }
                sleep(ROOM_POLL_INTERVAL).await;
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
        let room = Room { usage: &self.usage, frames: mem::take(frames) };
        let permit = self.sender.reserve().await.map_err(|_| Closed)?;
        permit.send(IntakeItem::TrackedFrames(room.keep()));
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

/// Frames that have room in the queue and are not in it yet.
struct Room<'a> {
    usage: &'a QueueUsage,
    frames: Vec<(Frame, DeliveryTag)>,
}

impl Room<'_> {
    /// The frames, on their way into the queue.
    fn keep(mut self) -> Vec<(Frame, DeliveryTag)> {
        mem::take(&mut self.frames)
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.frames.iter().for_each(|(frame, _)| self.usage.taken(frame));
    }
}

/// Intake has ended; nothing can be delivered any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;
