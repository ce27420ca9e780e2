//! Signals of the operating system: the first SIGTERM or SIGINT stops, the second ends at once, SIGHUP reloads.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
    thread,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
    iterator::Signals,
};
use tokio::sync::mpsc;
use tracing::info;

use crate::lifecycle::Stopper;

/// Listens from now on. Reloads are asked for on the returned queue; while one is waiting, another adds nothing.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn install(stopper: Arc<Stopper>) -> io::Result<mpsc::Receiver<()>> {
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the second signal finds the flag that the first has raised.
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&stopping))?;
        flag::register(signal, Arc::clone(&stopping))?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (reload, reloads) = mpsc::channel(1);
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                let _ = reload.try_send(());
            } else {
                info!(signal, "stopping; a second signal ends at once");
                stopper.stop();
            }
        }
    })?;
    Ok(reloads)
}
