//! What one group is made of.

use tokio::{runtime::Handle, sync::mpsc};

use super::{GROUP_MAX, HOUSEKEEPING};
use crate::frame::Arrival;

/// Waits for something to do, at most [`HOUSEKEEPING`]; does not wait at all when a group is already open. Commands come
/// first. Returns `false` once the training queue is closed and empty.
pub(super) fn gather(
    handle: &Handle,
    training: &mut mpsc::Receiver<Arrival>,
    control: &mut mpsc::Receiver<Arrival>,
    group: &mut Vec<Arrival>,
    group_is_open: bool,
) -> bool {
    if !take(training, control, group) {
        return !group.is_empty();
    }
    if group_is_open || !group.is_empty() {
        return true;
    }
    let open = handle.block_on(async {
        tokio::select! {
            biased;
            Some(arrival) = control.recv() => group.push(arrival),
            arrival = training.recv() => match arrival {
                Some(arrival) => group.push(arrival),
                None => return false,
            },
            () = tokio::time::sleep(HOUSEKEEPING) => {}
        }
        true
    });
    // The first of many woke us: alone it would cost a sync, and the others would wait for the next one. Whether the queue
    // is closed is found again the next time.
    if !group.is_empty() {
        take(training, control, group);
    }
    open
}

/// Takes what is there; whether the training queue may bring more.
fn take(
    training: &mut mpsc::Receiver<Arrival>,
    control: &mut mpsc::Receiver<Arrival>,
    group: &mut Vec<Arrival>,
) -> bool {
    while group.len() < GROUP_MAX
        && let Ok(arrival) = control.try_recv()
    {
        group.push(arrival);
    }
    while group.len() < GROUP_MAX {
        match training.try_recv() {
            Ok(arrival) => group.push(arrival),
            Err(mpsc::error::TryRecvError::Disconnected) => return false,
            Err(mpsc::error::TryRecvError::Empty) => break,
        }
    }
    true
}
