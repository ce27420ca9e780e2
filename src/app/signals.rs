//! Signals of the operating system: the first SIGTERM or SIGINT stops, a later one ends at once, SIGHUP reloads.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
    iterator::Signals,
};
use tokio::sync::mpsc;
use tracing::info;

use crate::lifecycle::Stopper;

/// Signals within this time of the first are the same request: Ctrl-C reaches every process of a terminal's group, and the program
/// that started this one often sends a SIGTERM of its own.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// Listens from now on. Reloads are asked for on the returned queue; while one is waiting, another adds nothing.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn install(stopper: Arc<Stopper>) -> io::Result<mpsc::Receiver<()>> {
    let (reload, reloads) = mpsc::channel(1);
    listen(&[SIGTERM, SIGINT, SIGHUP], 1, move |signal| {
        if signal == SIGHUP {
            let _ = reload.try_send(());
        } else {
            info!(signal, "stopping; a later signal ends at once");
            stopper.stop();
        }
    })?;
    Ok(reloads)
}

/// Calls `stop` at the first SIGTERM or SIGINT, from a thread of its own. A later one ends the process with status 130.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_interrupt(mut stop: impl FnMut() + Send + 'static) -> io::Result<()> {
    listen(&[SIGTERM, SIGINT], 130, move |_| stop())
}

/// Calls `act` for each of these signals, until the first that stops. A later one that stops ends the process with this status.
fn listen(signals: &[i32], status: i32, mut act: impl FnMut(i32) + Send + 'static) -> io::Result<()> {
    let ends_at_once = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, status, Arc::clone(&ends_at_once))?;
    }
    let mut signals = Signals::new(signals)?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            act(signal);
            if signal != SIGHUP {
                thread::sleep(SAME_REQUEST);
                ends_at_once.store(true, Ordering::SeqCst);
                return;
            }
        }
    })?;
    Ok(())
}
