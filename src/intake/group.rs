//! Takes a group of messages out of the queues.

use std::time::Duration;

use tokio::{sync::mpsc, time::Instant};

use crate::{frame::IntakeItem, lifecycle::block_until};

/// Messages after which no more are taken in a round; bounds the memory of a group beside the queue's own bound.
pub(super) const GROUP_MAX: usize = 1_024;

/// Longest sleep: housekeeping (gaps, open runs, heartbeat) happens at least this often.
pub(super) const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(250);
/// The same when no gap can be open and nothing arrives.
pub(super) const IDLE_HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);
/// When that begins, after the last message; longer than the window of a gap.
pub(super) const IDLE_AFTER: Duration = Duration::from_secs(3);

/// Waits for messages, at most so long, and not at all when there are some. The control queue comes first. Returns `false` once the
/// training queue is closed and empty.
pub(super) fn collect_group(
    training: &mut mpsc::Receiver<IntakeItem>,
    control: &mut mpsc::Receiver<IntakeItem>,
    group: &mut Vec<IntakeItem>,
    wait: Duration,
) -> bool {
    if !take_ready(training, control, group) {
        return !group.is_empty();
    }
    if wait.is_zero() || !group.is_empty() {
        return true;
    }
    let first = async {
        tokio::select! {
            biased;
            Some(item) = control.recv() => Some(item),
            item = training.recv() => item,
        }
    };
    let open = match block_until(Instant::now() + wait, first) {
        Some(Some(item)) => {
            group.push(item);
            true
        }
        Some(None) => false,
        None => true,
    };
    // More may have arrived with the first: synced alone, it would cost a sync, and the rest would wait for the next one. A closed
    // queue is noticed at the next call.
    if !group.is_empty() {
        take_ready(training, control, group);
    }
    open
}

/// Takes the messages that are there. Returns whether the training queue may bring more.
fn take_ready(
    training: &mut mpsc::Receiver<IntakeItem>,
    control: &mut mpsc::Receiver<IntakeItem>,
    group: &mut Vec<IntakeItem>,
) -> bool {
    let mut messages: usize = group.iter().map(IntakeItem::messages).sum();
    while messages < GROUP_MAX
        && let Ok(item) = control.try_recv()
    {
        messages += item.messages();
        group.push(item);
    }
    while messages < GROUP_MAX {
        match training.try_recv() {
            Ok(item) => {
                messages += item.messages();
                group.push(item);
            }
            Err(mpsc::error::TryRecvError::Disconnected) => return false,
            Err(mpsc::error::TryRecvError::Empty) => break,
        }
    }
    true
}
