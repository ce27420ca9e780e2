//! The thread that receives, and its pace.
//!
//! Waking up costs more than the work it is done for: after a few idle milliseconds nothing of ours is in the caches any more. So
//! the sources share one thread that, while messages flow, waits out [`COALESCE_WINDOW`] instead of being woken for each packet; the
//! kernel keeps what arrives meanwhile. A message that comes after a silence is received at once.
//!
//! One thread, not several workers: the library's reader and our receive loop then take turns, so that the buffer between them
//! cannot overflow while one of them is not scheduled. In one turn the reader puts at most 128 reads (tokio's budget of a task) of
//! 8 KiB (the library's buffer) into the buffer, and then our loop empties it: the default of `redis.receive_buffer` holds 1 MiB of
//! messages of 32 bytes each, with their channel and the protocol's own. More comes in one turn only behind a message of many MiB,
//! whose buffer is used up first; what falls out of the buffer then is counted as `client_lag`. A thread of their own, so that no
//! other work delays it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{sync::oneshot, task::JoinSet, time::Instant};

use super::pubsub::Source;
use crate::lifecycle::Signal;

/// How long messages are coalesced while they flow: the longest that one waits before it is received.
const COALESCE_WINDOW: Duration = Duration::from_millis(8);

/// The thread is gone.
#[derive(Debug, thiserror::Error)]
#[error("the thread of the sources ended")]
pub struct ThreadEnded;

/// Told by the sources that messages flow.
#[derive(Clone, Debug, Default)]
pub(super) struct TrafficFlag(Arc<AtomicBool>);

impl TrafficFlag {
    /// A message was received.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts the thread; the future ends when all sources have ended.
///
/// # Errors
/// When the system gives no thread.
pub fn receive(
    sources: Vec<Source>,
    stop: Signal,
) -> io::Result<impl Future<Output = Result<(), ThreadEnded>> + Send + 'static> {
    let traffic = TrafficFlag::default();
    let runtime = {
        let traffic = traffic.clone();
        let window = std::sync::Mutex::new(Instant::now());
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Called when every task waits for something.
            .on_thread_park(move || {
                let Ok(mut window_start) = window.lock() else { return };
                if traffic.0.swap(false, Ordering::Relaxed) {
                    thread::sleep((*window_start + COALESCE_WINDOW).saturating_duration_since(Instant::now()));
                }
                *window_start = Instant::now();
            })
            .build()?
    };
    let (ended_out, ended) = oneshot::channel();
    let work = move || {
        let clean = runtime.block_on(async {
            let mut running = JoinSet::new();
            for mut source in sources {
                source.set_traffic_flag(traffic.clone());
                running.spawn(source.run(stop.clone()));
            }
            // One that ends before it is told to is a fault of ours: the daemon must not go on half deaf.
            while let Some(ended) = running.join_next().await {
                if ended.is_err() || !stop.is_stopped() {
                    return false;
                }
            }
            true
        });
        runtime.shutdown_background();
        // Nobody waits for it when the daemon fails.
        let _ = ended_out.send(clean);
    };
    thread::Builder::new().name("sources".into()).spawn(work)?;
    Ok(async move { if ended.await == Ok(true) { Ok(()) } else { Err(ThreadEnded) } })
}
