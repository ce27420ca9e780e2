//! Word to the service manager: READY, STATUS, WATCHDOG, STOPPING. Nothing happens where there is none.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::lifecycle::Signal;

/// A counter that a stage moves each time it gets round its loop.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    /// Still moving.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it has moved.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Tells the service manager that the daemon is up.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// Tells the service manager that the daemon is about to end.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "service manager did not take the notification");
    }
}

/// Sends a status line every five seconds, and feeds the watchdog as long as every heartbeat moves.
///
/// # Errors
/// Never.
pub async fn run(
    heartbeats: Vec<(&'static str, Heartbeat)>,
    status: impl Fn() -> String + Send,
    mut stop: Signal,
) -> Result<(), Infallible> {
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(Duration::from_secs(5), |limit| (limit / 3).min(Duration::from_secs(5)));
    let mut seen: Vec<u64> = heartbeats.iter().map(|(_, beat)| beat.count()).collect();
    let mut status_at = Instant::now();
    loop {
        tokio::select! {
            () = stop.stopped() => return Ok(()),
            () = tokio::time::sleep(every) => {}
        }
        let mut stuck = None;
        for ((name, beat), seen) in heartbeats.iter().zip(&mut seen) {
            let count = beat.count();
            if count == *seen {
                stuck = Some(*name);
            }
            *seen = count;
        }
        match stuck {
            Some(stage) => warn!(stage, "stage makes no progress; the watchdog is not fed"),
            None if watchdog.is_some() => send(&[NotifyState::Watchdog]),
            None => {}
        }
        if status_at <= Instant::now() {
            status_at = Instant::now() + Duration::from_secs(5);
            send(&[NotifyState::Status(&status())]);
        }
    }
}
