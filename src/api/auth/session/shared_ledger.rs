//! The ledger that requests share, and its file. A request never waits long for the disk: what the disk does not take in time is
//! written with the next change.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc},
    thread,
    time::Duration,
};

use tokio::time::timeout;
use tracing::warn;

use super::ledger::{Ledger, read};
use crate::units::Micros;

/// How long the disk may take.
const DISK_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the sessions that other processes have written are read.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct SharedLedger {
    ledger: Arc<Mutex<Ledger>>,
    /// One save after the other, so that the newest is what stays on disk.
    save_lock: Arc<tokio::sync::Mutex<()>>,
}

impl SharedLedger {
    /// The ledger of a state directory. `cap`: open sessions of one token.
    pub fn open(state_dir: &Path, cap: usize, lifetime: Micros) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::open(Some(state_dir), cap, lifetime)));
        watch(Arc::downgrade(&ledger));
        Self { ledger, save_lock: Arc::default() }
    }

    /// Locks it, for moments: never while the disk is waited for.
    pub fn lock(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// Writes what has changed, on a thread that is waited for only so long.
    pub fn save_blocking(&self) {
        let (done, wait) = mpsc::sync_channel(1);
        let (ledger, save_lock) = (Arc::clone(&self.ledger), Arc::clone(&self.save_lock));
        let saves = move || {
            let _one = save_lock.blocking_lock();
            save(&ledger);
            let _ = done.send(());
        };
        let started = thread::Builder::new().name("sessions".into()).spawn(saves);
        if started.is_err() || wait.recv_timeout(DISK_TIMEOUT).is_err() {
            self.mark_unsaved();
        }
    }

    /// The same from a task.
    pub async fn save(&self) {
        let saved = async {
            // Held until it is written, even after the time-out: a disk that does not answer takes one thread.
            let one = Arc::clone(&self.save_lock).lock_owned().await;
            let ledger = Arc::clone(&self.ledger);
            let saves = move || {
                let _one = one;
                save(&ledger);
            };
            tokio::task::spawn_blocking(saves).await.is_ok()
        };
        if timeout(DISK_TIMEOUT, saved).await != Ok(true) {
            self.mark_unsaved();
        }
    }

    fn mark_unsaved(&self) {
        self.lock().saved(None);
        warn!("the disk does not take the list of ended sessions; until it does, the list is of this process alone");
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes what has changed, and merges what other processes have written. The ledger is not locked meanwhile.
fn save(ledger: &Mutex<Ledger>) {
    let unsaved = lock(ledger).unsaved();
    if let Some(unsaved) = unsaved {
        let saved = unsaved.save();
        lock(ledger).saved(saved);
    }
}

/// Merges what other processes write, on a thread of its own.
fn watch(ledger: Weak<Mutex<Ledger>>) {
    let watches = move || {
        while let Some(ledger) = ledger.upgrade() {
            let file = lock(&ledger).file();
            if let Some(found) = file.and_then(|(file, seen)| read(&file, seen)) {
                lock(&ledger).merge_file(found);
            }
            drop(ledger);
            thread::sleep(POLL_INTERVAL);
        }
    };
    if let Err(error) = thread::Builder::new().name("sessions".into()).spawn(watches) {
        warn!(%error, "what other processes say of ended sessions is not read");
    }
}
