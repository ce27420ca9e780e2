//! The thread that receives, and its pace.
//!
//! Waking up costs more than receiving: after a few idle milliseconds the CPU caches are cold. So the sources share one thread that,
//! while messages flow, sleeps for [`COALESCE_WINDOW`] instead of being woken for each packet; the kernel buffers what arrives
//! meanwhile. A message after a silence is received at once.
//!
//! Between the socket and the queue to intake nothing is dropped but a message that is longer than the whole queue, which is counted.

use std::{io, pin::Pin, sync::Arc, thread, time::Duration};

use tokio::{sync::oneshot, task::JoinSet, time::Instant};
use tracing::Instrument;

use super::{
    queue::Queue,
    queue_sender::QueueSender,
    role::{Role, WhenFull},
    traffic::TrafficFlag,
};
use crate::{lifecycle::Signal, logging::stage, metrics::Metrics};

/// How long messages are coalesced while they flow: the longest that one waits before it is received.
const COALESCE_WINDOW: Duration = Duration::from_millis(8);

/// A running source.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One kind of place that messages come from.
pub trait Source: Send {
    /// What it receives.
    fn role(&self) -> Role;

    /// What its sender does when the queue has no room.
    fn when_full(&self) -> WhenFull;

    /// Delivers frames and gaps until told to stop, or until intake has ended. Keeps trying whatever the server does, and delivers every
    /// received frame before it returns.
    fn run(self: Box<Self>, sender: QueueSender, stop: Signal) -> Running;
}

/// A source, and the queue that it feeds.
pub struct Input {
    source: Box<dyn Source>,
    queue: Queue,
}

impl Input {
    /// Feeds this queue from this source.
    pub fn new(source: impl Source + 'static, queue: Queue) -> Self {
        Self { source: Box::new(source), queue }
    }

    /// Runs the source on the runtime of the caller, without the pace of the receive thread.
    pub fn run(self, metrics: Arc<Metrics>, stop: Signal) -> Running {
        self.run_with(TrafficFlag::default(), metrics, stop)
    }

    fn run_with(self, traffic: TrafficFlag, metrics: Arc<Metrics>, stop: Signal) -> Running {
        let (role, when_full) = (self.source.role(), self.source.when_full());
        let sender = QueueSender::new(self.queue, role, when_full, metrics).with_traffic_flag(traffic);
        self.source.run(sender, stop)
    }
}

/// The receive thread has ended.
#[derive(Debug, thiserror::Error)]
#[error("the thread of the sources ended")]
pub struct ThreadEnded;

/// Starts the thread; the future ends when all sources have ended.
///
/// # Errors
/// When the system gives no thread.
pub fn receive(
    inputs: Vec<Input>,
    metrics: Arc<Metrics>,
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
                if traffic.take() {
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
            for input in inputs {
                let span = stage(input.source.role().task());
                running.spawn(input.run_with(traffic.clone(), Arc::clone(&metrics), stop.clone()).instrument(span));
            }
            // A source that ends before it is told to is a fault in this program: the daemon must not go on without it.
            while let Some(ended) = running.join_next().await {
                if ended.is_err() || !stop.is_stopped() {
                    return false;
                }
            }
            true
        });
        runtime.shutdown_background();
        // The receiver is gone when the daemon fails.
        let _ = ended_out.send(clean);
    };
    thread::Builder::new().name("sources".into()).spawn(work)?;
    Ok(async move { if ended.await == Ok(true) { Ok(()) } else { Err(ThreadEnded) } })
}
