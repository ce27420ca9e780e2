//! Open runs that instances share through Redis: published when intake opens one, fetched at the first message of a channel.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, sync::Notify};
use tracing::debug;

use super::state::{Exchanged, RunSharing, ShareError};
use crate::{
    lifecycle::Signal,
    redis::{RunShare, Unshared},
    runs::OpenRun,
};

/// How long Redis may take to store an open run.
const REDIS_TIMEOUT: Duration = Duration::from_secs(1);
/// Channels whose open runs may wait for Redis.
const PENDING_CHANNELS_MAX: usize = 16_384;

/// Open runs of all instances, for the intake thread. A task of its own publishes them, so that a slow Redis does not hold up intake.
pub struct SharedRuns {
    share: RunShare,
    runtime: Handle,
    pending: Arc<PendingRuns>,
}

/// Open runs that are not sent yet.
#[derive(Default)]
struct PendingRuns {
    queue: Mutex<PendingRunQueue>,
    changed: Notify,
}

/// The newest run of each channel. Bounded: runs are queued while fewer than [`PENDING_CHANNELS_MAX`] channels wait, and each queued run
/// reserves room for its deletion. So a key that was set is always deleted when its channel is evicted.
#[derive(Default)]
struct PendingRunQueue {
    /// The open run; `None`: its key is to be deleted.
    unsent: HashMap<String, Option<String>>,
    /// Channels whose run was queued and not deleted since.
    shared: HashSet<String>,
}

impl SharedRuns {
    /// Over this connection, which `runtime` drives; and the task that sends.
    pub fn new(
        share: RunShare,
        runtime: Handle,
        stop: Signal,
    ) -> (Self, impl Future<Output = Result<(), Infallible>> + Send) {
        let pending = Arc::new(PendingRuns::default());
        let task = send_pending(share.clone(), Arc::clone(&pending), stop);
        (Self { share, runtime, pending }, task)
    }
}

impl PendingRuns {
    fn lock(&self) -> MutexGuard<'_, PendingRunQueue> {
        // A panic elsewhere leaves plain values behind.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingRunQueue {
    fn publish(&mut self, channel: &str, json: String) {
        if self.unsent.len() < PENDING_CHANNELS_MAX || self.unsent.contains_key(channel) {
            self.unsent.insert(channel.to_owned(), Some(json));
            self.shared.insert(channel.to_owned());
        }
    }

    fn forget(&mut self, channel: &str) {
        if self.shared.remove(channel) || self.unsent.len() < PENDING_CHANNELS_MAX {
            self.unsent.insert(channel.to_owned(), None);
        }
    }
}

/// Sends the waiting runs; a last time when stopping.
async fn send_pending(share: RunShare, pending: Arc<PendingRuns>, mut stop: Signal) -> Result<(), Infallible> {
    loop {
        let stopping = tokio::select! {
            biased;
            () = stop.stopped() => true,
            () = pending.changed.notified() => false,
        };
        let unsent = mem::take(&mut pending.lock().unsent);
        for (channel, json) in unsent {
            let sent = async {
                match json {
                    Some(json) => share.publish(&channel, json).await,
                    None => share.forget(&channel).await,
                }
            };
            // A run that Redis does not take is sent again with its next change.
            if tokio::time::timeout(REDIS_TIMEOUT, sent).await.is_err() && stopping {
                break;
            }
        }
        if stopping {
            return Ok(());
        }
    }
}

impl RunSharing for SharedRuns {
    fn fetch(&mut self, channel: &str) -> Option<OpenRun> {
        read_open_run(&self.runtime.block_on(self.share.fetch(channel))?)
    }

    fn publish(&mut self, channel: &str, open: &OpenRun) {
        if let Ok(json) = serde_json::to_string(open) {
            self.pending.lock().publish(channel, json);
            self.pending.changed.notify_one();
        }
    }

    fn forget(&mut self, channel: &str) {
        self.pending.lock().forget(channel);
        self.pending.changed.notify_one();
    }

    fn fetch_shared(&mut self, stream: &str) -> Result<Option<String>, ShareError> {
        self.runtime.block_on(self.share.fetch_shared(stream)).map_err(why)
    }

    fn exchange(&mut self, stream: &str, before: Option<&str>, new: &str) -> Result<Exchanged, ShareError> {
        match self.runtime.block_on(self.share.exchange(stream, before, new)) {
            Ok(None) => Ok(Exchanged::Done),
            Ok(Some(other)) => Ok(Exchanged::Other(Some(other).filter(|other| !other.is_empty()))),
            Err(unshared) => Err(why(unshared)),
        }
    }
}

fn why(unshared: Unshared) -> ShareError {
    match unshared {
        Unshared::Unavailable => ShareError::Unavailable,
        Unshared::Refused => ShareError::Forbidden,
    }
}

/// A run as another instance shares it.
pub fn read_open_run(json: &str) -> Option<OpenRun> {
    serde_json::from_str(json)
        .inspect_err(|error| debug!(%error, "the shared run of a channel cannot be read"))
        .ok()
        .map(OpenRun::within_bounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_runs_are_bounded_and_each_shared_key_is_deleted() {
        let mut pending = PendingRunQueue::default();
        let name = |n: usize| format!("lab:{n}:training");
        for n in 0..PENDING_CHANNELS_MAX + 100 {
            pending.publish(&name(n), "{}".into());
        }
        assert_eq!(pending.unsent.len(), PENDING_CHANNELS_MAX);
        // The first are being written while as many wait: their keys are deleted all the same.
        pending.unsent.clear();
        for n in PENDING_CHANNELS_MAX..2 * PENDING_CHANNELS_MAX {
            pending.publish(&name(n), "{}".into());
        }
        for n in 0..2 * PENDING_CHANNELS_MAX + 100 {
            pending.forget(&name(n));
        }
        assert!((0..2 * PENDING_CHANNELS_MAX).all(|n| pending.unsent.get(&name(n)) == Some(&None)));
        assert_eq!((pending.unsent.len(), pending.shared.len()), (2 * PENDING_CHANNELS_MAX, 0));
        // One that has begun again before its deletion was sent is not deleted.
        pending.publish(&name(0), "{}".into());
        assert_eq!(pending.unsent.get(&name(0)), Some(&Some("{}".into())));
    }
}
