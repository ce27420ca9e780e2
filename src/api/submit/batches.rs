//! Messages in bulk: handed to intake in batches, in order, and answered when they are durable.

use std::{
    collections::VecDeque,
    iter::Peekable,
    sync::{Arc, PoisonError},
    vec,
};

use bytes::Bytes;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::intake_handle::IntakeHandle;
use crate::frame::{BatchAck, CutShort, Frame, IntakeItem, MessageBatch, Rejection};

/// Batches of one request of which the outcome is not known yet.
const MAX_PENDING_BATCHES: usize = 4;
/// A batch has at most so many messages, so that intake is not kept from what Redis delivers.
const BATCH_MESSAGES: usize = 128;
/// A batch ends with the message that reaches this size.
const BATCH_BYTES: usize = 256 << 10;

/// Why messages are not durable.
const NO_ROOM: &str = "the spool is full, or its disk takes no writes";

/// What became of the messages of a request.
#[derive(Debug, Default)]
pub struct Submitted {
    /// How many are durable, from the first on.
    pub taken: usize,
    /// Those among them that are dead letters: their positions, and why.
    pub rejected: Vec<(usize, Rejection)>,
    /// Why the remaining messages are not taken.
    pub refused: Option<&'static str>,
}

/// A batch that intake has, or will have.
struct Pending {
    messages: usize,
    ack: oneshot::Receiver<BatchAck>,
}

/// When a request ends, also at its deadline or because its client has gone, nothing more of it is taken: what was not answered as
/// taken will be sent again.
#[derive(Default)]
struct CutAtEnd(CutShort);

impl Drop for CutAtEnd {
    fn drop(&mut self) {
        self.0.set();
    }
}

impl IntakeHandle {
    /// Hands over messages, and waits until they are durable, up to the first for which there is no room.
    pub async fn submit_all(&self, channel: &str, payloads: Vec<Bytes>, deadline: Instant) -> Submitted {
        let mut submitted = Submitted::default();
        let result = timeout_at(deadline, self.submit_batches(channel, payloads, &mut submitted)).await;
        submitted.refused = match result {
            Ok(result) => result.err(),
            Err(_) => Some("the rest was not durable in time (`http.request_timeout`)"),
        };
        submitted
    }

    async fn submit_batches(
        &self,
        channel: &str,
        payloads: Vec<Bytes>,
        submitted: &mut Submitted,
    ) -> Result<(), &'static str> {
        let (channel, request) = (Arc::from(channel), CutAtEnd::default());
        let (mut payloads, mut pending) = (payloads.into_iter().peekable(), VecDeque::new());
        let mut refused = Ok(());
        while payloads.peek().is_some() && refused.is_ok() {
            if pending.len() >= MAX_PENDING_BATCHES
                && let Some(oldest) = pending.pop_front()
            {
                submitted.add(oldest).await?;
            }
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&self.batches).acquire_owned().await else { break };
            let frames = self.frames(&channel, next_batch(&mut payloads));
            let (answer, ack) = oneshot::channel();
            pending.push_back(Pending { messages: frames.len(), ack });
            let batch = MessageBatch { frames, cut_short: request.0.clone(), answer, permit };
            // Upgraded for this moment only: a sender that is kept would keep intake from draining.
            refused = match self.queues.training.upgrade() {
                Some(queue) => queue.try_send(IntakeItem::Batch(batch)).map_err(|_| "the queue of intake is full"),
                None => Err("the daemon is stopping"),
            };
            if refused.is_err() {
                pending.pop_back();
            }
        }
        // What intake has accepted is waited for in any case.
        for pending in pending {
            submitted.add(pending).await?;
        }
        refused
    }

    fn frames(&self, channel: &Arc<str>, payloads: Vec<Bytes>) -> Vec<Frame> {
        let received = Instant::now();
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let frame = |payload| Frame {
            channel: Arc::clone(channel),
            payload,
            received_at: clock.now(),
            received,
            control: false,
            entry: None,
        };
        payloads.into_iter().map(frame).collect()
    }
}

impl Submitted {
    /// Waits for a batch, and adds it.
    ///
    /// # Errors
    /// Why not all of it is durable.
    async fn add(&mut self, pending: Pending) -> Result<(), &'static str> {
        let Ok(ack) = pending.ack.await else { return Err("the daemon is stopping") };
        if !ack.durable && ack.taken > 0 {
            return Err(NO_ROOM);
        }
        let before = self.taken;
        self.rejected.extend(ack.rejected.into_iter().map(|(n, rejection)| (before + n, rejection)));
        self.taken += ack.taken;
        if ack.taken < pending.messages { Err(NO_ROOM) } else { Ok(()) }
    }
}

/// Takes the messages of the next batch.
fn next_batch(payloads: &mut Peekable<vec::IntoIter<Bytes>>) -> Vec<Bytes> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < BATCH_MESSAGES
        && bytes < BATCH_BYTES
        && let Some(payload) = payloads.next()
    {
        bytes += payload.len();
        batch.push(payload);
    }
    batch
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;
    use crate::{api::submit::IntakeSenders, frame::Reason};

    /// Answers `batches` batches; `room` messages are taken.
    async fn intake(mut arrivals: mpsc::Receiver<IntakeItem>, mut room: usize, durable: bool) -> Vec<usize> {
        let mut sizes = Vec::new();
        while let Some(IntakeItem::Batch(batch)) = arrivals.recv().await {
            sizes.push(batch.frames.len());
            let taken = if batch.cut_short.is_set() { 0 } else { batch.frames.len().min(room) };
            if taken < batch.frames.len() {
                batch.cut_short.set();
            }
            room -= taken;
            let rejection = Rejection { reason: Reason::UnknownShape, detail: "?".into() };
            let rejected = (0..taken).filter(|n| &*batch.frames[*n].payload == b"bad").map(|n| (n, rejection.clone()));
            let ack = BatchAck { taken, rejected: rejected.collect(), durable };
            drop(batch.permit);
            let _ = batch.answer.send(ack);
        }
        sizes
    }

    async fn submit(payloads: Vec<Bytes>, room: usize, durable: bool) -> (Submitted, Vec<usize>) {
        let (queue, arrivals) = mpsc::channel(8);
        let queues = IntakeSenders { control: queue.downgrade(), training: queue.downgrade() };
        let handle = IntakeHandle::new(queues, "a".into());
        let deadline = Instant::now() + Duration::from_secs(9);
        let submitting = async {
            let submitted = handle.submit_all("c", payloads, deadline).await;
            drop(queue);
            submitted
        };
        tokio::join!(submitting, intake(arrivals, room, durable))
    }

    fn messages(count: usize, bad: &[usize]) -> Vec<Bytes> {
        (0..count).map(|n| Bytes::from_static(if bad.contains(&n) { b"bad" } else { b"{}" })).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_is_the_beginning_and_positions_are_those_in_the_request() {
        for (count, room, taken) in [(0, 9, 0), (1, 9, 1), (1_000, 5_000, 1_000), (1_000, 300, 300), (1_000, 0, 0)] {
            let (submitted, _) = submit(messages(count, &[0, 127, 128, 299, 300, 999]), room, true).await;
            assert_eq!(submitted.taken, taken, "{count} with room for {room}");
            assert_eq!(submitted.refused.is_some(), taken < count);
            let rejected: Vec<_> = submitted.rejected.iter().map(|(n, _)| *n).collect();
            let expected: Vec<_> = [0, 127, 128, 299, 300, 999].into_iter().filter(|n| *n < taken).collect();
            assert_eq!(rejected, expected, "{count} with room for {room}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_durable_is_not_acknowledged() {
        let (submitted, _) = submit(messages(200, &[]), 500, false).await;
        assert_eq!((submitted.taken, submitted.refused.is_some()), (0, true));
    }

    #[tokio::test(start_paused = true)]
    async fn batches_are_bounded_in_messages_and_bytes() {
        let large = vec![Bytes::from(vec![b' '; BATCH_BYTES / 2 + 1]); 5];
        assert_eq!(submit(large, 9, true).await.1, [2, 2, 1]);
        assert_eq!(submit(messages(300, &[]), 999, true).await.1, [128, 128, 44]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_intake_that_does_not_answer_ends_at_the_deadline() {
        let (queue, mut arrivals) = mpsc::channel(8);
        let queues = IntakeSenders { control: queue.downgrade(), training: queue.downgrade() };
        let handle = IntakeHandle::new(queues, "a".into());
        let deadline = Instant::now() + Duration::from_secs(9);
        let submitted = handle.submit_all("c", messages(3, &[]), deadline).await;
        let Some(IntakeItem::Batch(batch)) = arrivals.recv().await else { panic!("nothing was handed over") };
        assert!(batch.cut_short.is_set(), "the client sends it again");
        drop(batch);
        assert!(submitted.taken == 0 && submitted.refused.is_some_and(|why| why.contains("in time")));
        drop(queue);
        let submitted = handle.submit_all("c", messages(3, &[]), deadline + Duration::from_secs(9)).await;
        assert_eq!(submitted.refused, Some("the daemon is stopping"));
    }
}
