//! Whether messages flow, for the pace of the receive thread.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Set by the sources when messages arrive.
#[derive(Clone, Debug, Default)]
pub(super) struct TrafficFlag(Arc<AtomicBool>);

impl TrafficFlag {
    /// Messages were received.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether messages were received since the last call.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}
