//! The state of the streams that are read, for the status.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// The state of all streams. Written by their sources, each through its [`StreamHandle`].
#[derive(Clone, Debug, Default)]
pub struct StreamsStatus(Arc<Mutex<Vec<StreamStatus>>>);

/// One stream, and the consumer group in which it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StreamStatus {
    /// Its key.
    pub name: String,
    /// The consumer group.
    pub group: String,
    /// This daemon in the group.
    pub consumer: String,
    /// Whether it is being read.
    pub reading: bool,
    /// Why not.
    pub error: Option<String>,
    /// Entries that no daemon has read yet; absent where the server does not tell.
    pub lag: Option<u64>,
    /// Entries that a daemon of the group has read and not acknowledged.
    pub pending: u64,
    /// Those of this daemon.
    pub unacknowledged: u64,
    /// Entries that this daemon has acknowledged.
    pub acknowledged: u64,
    /// Entries of dead consumers that it has claimed.
    pub claimed: u64,
    /// How often the stream or its group was gone, and was made again.
    pub recoveries: u64,
    /// What was found the last time.
    pub last_recovery: Option<String>,
}

/// Writes the status of one stream.
#[derive(Clone, Debug)]
pub struct StreamHandle {
    status: StreamsStatus,
    /// Place in the list of streams, which only grows.
    index: usize,
}

impl StreamsStatus {
    /// All streams, as they are now.
    pub fn streams(&self) -> Vec<StreamStatus> {
        self.lock().clone()
    }

    /// Adds a stream.
    pub fn register(&self, stream: StreamStatus) -> StreamHandle {
        let mut streams = self.lock();
        streams.push(stream);
        StreamHandle { status: self.clone(), index: streams.len() - 1 }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<StreamStatus>> {
        // A panic elsewhere leaves plain values behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamHandle {
    /// Changes it.
    pub fn change(&self, change: impl FnOnce(&mut StreamStatus)) {
        if let Some(stream) = self.status.lock().get_mut(self.index) {
            change(stream);
        }
    }
}
