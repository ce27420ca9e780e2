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
    sync::mpsc::{self, error::TrySendError},
    time::sleep,
};

use crate::{
    frame::{DeliveryTag, Frame, IntakeItem},
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
    bytes: QueuedBytes,
    bytes_max: usize,
    memory: Option<MemoryLimit>,
}

/// Bytes in the queue. The receiver of a frame gives its bytes back.
#[derive(Clone, Debug, Default)]
pub struct QueuedBytes(Arc<AtomicUsize>);

impl QueuedBytes {
    /// A frame was taken out of the queue.
    pub fn taken(&self, frame: &Frame) {
        self.0.fetch_sub(frame.payload.len() + FRAME_OVERHEAD, Ordering::AcqRel);
    }

    /// Bytes in the queue now.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// A queue of at most `frames` items and `bytes_max` bytes.
pub fn queue(frames: usize, bytes_max: usize) -> (Queue, mpsc::Receiver<IntakeItem>, QueuedBytes) {
    let (sender, receiver) = mpsc::channel(frames);
    let bytes = QueuedBytes::default();
    (Queue { sender, bytes: bytes.clone(), bytes_max, memory: None }, receiver, bytes)
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
        let before = self.bytes.get();
        before == 0 || before + bytes + FRAME_OVERHEAD <= self.bytes_max
    }

    /// Puts a frame into the queue if there is room.
    pub(super) fn try_send(&self, frame: Frame) -> Result<(), SendError> {
        let frame = self.charge(frame);
        let bytes = frame.payload.len() + FRAME_OVERHEAD;
        let before = self.bytes.0.fetch_add(bytes, Ordering::AcqRel);
        if before > 0 && before + bytes > self.bytes_max {
            self.bytes.0.fetch_sub(bytes, Ordering::AcqRel);
            return Err(SendError::Full(frame));
        }
        self.sender.try_send(IntakeItem::Frame(frame)).map_err(|error| {
            self.bytes.0.fetch_sub(bytes, Ordering::AcqRel);
            match error {
                TrySendError::Full(IntakeItem::Frame(frame)) => SendError::Full(frame),
                _ => SendError::Closed,
            }
        })
    }

    /// Puts a frame into the queue once there is room; it is acknowledged by its tag.
    pub(super) async fn send(&self, frame: Frame, tag: DeliveryTag) -> Result<(), Closed> {
        while !self.has_room(frame.payload.len()) {
            if self.sender.is_closed() {
                return Err(Closed);
            }
            sleep(ROOM_POLL_INTERVAL).await;
        }
        let permit = self.sender.reserve().await.map_err(|_| Closed)?;
        let frame = self.charge(frame);
        self.bytes.0.fetch_add(frame.payload.len() + FRAME_OVERHEAD, Ordering::AcqRel);
        permit.send(IntakeItem::TrackedFrame(frame, tag));
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

    /// Items in the queue.
    pub(super) fn depth(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
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

/// Why a frame is not in the queue.
#[derive(Debug)]
pub(super) enum SendError {
    /// There is no room for it.
    Full(Frame),
    /// See [`Closed`].
    Closed,
}

/// Intake has ended; nothing can be delivered any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;
