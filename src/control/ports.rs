//! What commands act on, and where their answers go.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::{broadcast, mpsc, watch};

use crate::{frame::IntakeItem, latest::LatestState, lifecycle::PauseBarrier, redis::Link};

/// What commands act on.
pub struct ControlPorts {
    /// Holds the writer.
    pub pause_barrier: watch::Sender<PauseBarrier>,
    /// Every record below this offset is confirmed by the store.
    pub stored: watch::Receiver<u64>,
    /// The offset after the last record received.
    pub received_end: Box<dyn Fn() -> u64 + Send + Sync>,
    /// How full the spool is, from 0 to 1.
    pub spool_fill: Box<dyn Fn() -> f64 + Send + Sync>,
    /// The status object, as JSON.
    pub status: Box<dyn Fn() -> String + Send + Sync>,
    /// The latest keys.
    pub latest_state: Arc<LatestState>,
    /// Where receipts and `CloseRuns` go.
    pub to_intake: mpsc::Sender<IntakeItem>,
    /// Publishes answers.
    pub link: Link,
    /// The same answers for requests of this process; it may have no receiver.
    pub receipts: broadcast::Sender<Arc<str>>,
}

/// The name in answers, and where they and the pause are kept.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The name of this daemon.
    pub instance: String,
    /// Prefix of this program's keys and channels.
    pub key_prefix: String,
    /// Holds `pause.json`.
    pub state_dir: PathBuf,
    /// Lifetime of `<prefix>control:latest`; absent: the key is not kept.
    pub latest_ttl: Option<Duration>,
}
