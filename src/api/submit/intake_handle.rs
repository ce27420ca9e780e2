//! The way into this process' intake.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::Instant,
};
use uuid::Uuid;

use crate::{
    api::error::ApiError,
    event::{ControlRow, MemSize, RunRow},
    frame::{Ack, Frame, IntakeItem},
    source::ReceiveClock,
    units,
};

/// Batches of all requests that may wait for intake.
const MAX_QUEUED_BATCHES: usize = 4;
/// Created runs that are remembered, since they may not be in the store yet.
const CREATED_MAX: usize = 1_024;
/// Their size.
const CREATED_BYTES_MAX: usize = 4 << 20;

/// The way into this process' intake.
pub struct IntakeHandle {
    pub(super) queues: IntakeSenders,
    /// Name of this daemon.
    pub instance: String,
    /// Runs created by HTTP, the newest last.
    created: Mutex<VecDeque<RunRow>>,
    /// Permits for batches in the queue.
    pub(super) batches: Arc<Semaphore>,
    /// Gives each message of a batch a time of receipt of its own.
    pub(super) clock: Mutex<ReceiveClock>,
}

/// The queues of intake. Weak, because intake drains until every sender is gone.
#[derive(Clone, Debug)]
pub struct IntakeSenders {
    /// For what few requests send; served first.
    pub control: mpsc::WeakSender<IntakeItem>,
    /// For messages in bulk, which must not delay commands.
    pub training: mpsc::WeakSender<IntakeItem>,
}

impl IntakeHandle {
    /// The way into intake through these queues.
    pub fn new(queues: IntakeSenders, instance: String) -> Self {
        let batches = Arc::new(Semaphore::new(MAX_QUEUED_BATCHES));
        Self { queues, instance, created: Mutex::default(), batches, clock: Mutex::default() }
    }

    /// Hands over a message and waits until it is durable; a command, until it is taken.
    pub async fn submit(&self, channel: &str, payload: Vec<u8>, control: bool) -> Result<(), ApiError> {
        let (answer, taken) = oneshot::channel();
        let frame = Frame {
            channel: channel.into(),
            payload: payload.into(),
            received_at: units::now(),
            received: Instant::now(),
            control,
            entry: None,
        };
        self.send(IntakeItem::FrameWithAck(frame, answer), "the queue of intake is full; try again")?;
        match taken.await {
            Ok(Ack::Durable) => Ok(()),
            Ok(Ack::Rejected(rejection)) => Err(ApiError::bad_request(rejection.to_string())),
            // Not on disk, but executed all the same; the receipt tells the outcome.
            Ok(Ack::NotDurable) if control => Ok(()),
            Ok(Ack::NotDurable) => Err(ApiError::unavailable(
                "received, but not durable, because the disk takes no writes; it may be lost",
            )),
            Err(_) => Err(ApiError::unavailable("the daemon is stopping")),
        }
    }

    /// Remembers a run that was created here.
    pub fn remember(&self, row: RunRow) {
        let mut created = self.created.lock().unwrap_or_else(PoisonError::into_inner);
        created.push_back(row);
        while created.len() > CREATED_MAX || created.iter().map(RunRow::bytes).sum::<usize>() > CREATED_BYTES_MAX {
            created.pop_front();
        }
    }

    /// A run that was created here recently.
    pub fn created(&self, run_id: Uuid) -> Option<RunRow> {
        let created = self.created.lock().unwrap_or_else(PoisonError::into_inner);
        created.iter().rev().find(|row| row.run_id == run_id).cloned()
    }

    /// A run was deleted.
    pub fn forget_created(&self, run_id: Uuid) {
        self.created.lock().unwrap_or_else(PoisonError::into_inner).retain(|row| row.run_id != run_id);
    }

    /// Hands over a row of `control_log`.
    ///
    /// # Errors
    /// 503 when the queue is full, or intake has ended.
    pub fn record(&self, row: ControlRow) -> Result<(), ApiError> {
        self.send(IntakeItem::Receipt(row), "the queue of intake is full, so the caller cannot be recorded; try again")
    }

    /// The queue is upgraded for this moment only: a sender that is kept would keep intake from draining.
    fn send(&self, item: IntakeItem, when_full: &str) -> Result<(), ApiError> {
        let queue = self.queues.control.upgrade().ok_or_else(|| ApiError::unavailable("the daemon is stopping"))?;
        queue.try_send(item).map_err(|_| ApiError::unavailable(when_full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_that_is_not_durable_is_executed_and_a_message_is_refused() {
        let (queue, mut arrivals) = mpsc::channel(1);
        let queues = IntakeSenders { control: queue.downgrade(), training: queue.downgrade() };
        let to = IntakeHandle::new(queues, "a".into());
        let intake = async {
            for _ in 0..2 {
                let Some(IntakeItem::FrameWithAck(_, answer)) = arrivals.recv().await else {
                    panic!("nothing is asked")
                };
                answer.send(Ack::NotDurable).unwrap();
            }
        };
        let asker = async {
            assert!(to.submit("http", b"pause".to_vec(), true).await.is_ok(), "its receipt is waited for");
            assert!(to.submit("http", b"{}".to_vec(), false).await.is_err());
        };
        tokio::join!(intake, asker);
    }
}
