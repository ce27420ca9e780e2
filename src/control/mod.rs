//! Commands on the control channel, and their receipts.
//!
//! Intake records every command and hands it on once it is durable; a command that is read again from the log is never executed
//! again. Nothing here waits for Redis: answers are published on the side.

mod pause;
mod receipt;
mod stage;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::{broadcast, mpsc, watch};

use serde::{Deserialize, Serialize};

pub use self::stage::Stage;
pub use crate::wire::{Command, ReceivedCommand};
use crate::{frame::IntakeItem, latest::LatestState, lifecycle::PauseBarrier, redis::Link, units};

/// Which commands to obey.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Commands to everyone, only those addressed to us, or none. All are recorded.
    pub obey: Obey,
    /// A pause ends by itself after this long.
    #[serde(with = "units::duration")]
    pub pause_max: Duration,
    /// How long `flush` waits for the store unless the command says otherwise.
    #[serde(with = "units::duration")]
    pub flush_timeout: Duration,
}

/// See [`Config::obey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the contract's names")]
pub enum Obey {
    All,
    Targeted,
    None,
}

impl Default for Config {
    fn default() -> Self {
        Self { obey: Obey::All, pause_max: Duration::from_secs(4 * 3_600), flush_timeout: Duration::from_secs(10) }
    }
}

impl Config {
    /// Adds what is wrong with these settings.
    pub fn problems(&self, problems: &mut Vec<String>) {
        if self.pause_max.is_zero() {
            problems.push("`control.pause_max` must be longer than zero".into());
        }
        if self.flush_timeout.is_zero() {
            problems.push("`control.flush_timeout` must be longer than zero".into());
        }
    }
}

/// What commands act on.
pub struct ControlPorts {
    /// How far the writer may go.
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
    /// For answers.
    pub link: Link,
    /// The same answers for whoever listens within the process; nobody has to.
    pub receipts: broadcast::Sender<Arc<str>>,
}

/// Where answers go, and who gives them.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Our name.
    pub instance: String,
    /// Prefix of the keys and channels of ours.
    pub key_prefix: String,
    /// Holds `pause.json`.
    pub state_dir: PathBuf,
    /// Lifetime of `<prefix>control:latest`; absent: the key is not kept.
    pub latest_ttl: Option<Duration>,
}

#[cfg(test)]
mod tests;
