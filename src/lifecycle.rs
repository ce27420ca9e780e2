//! Starting and stopping: [`Signal`] says when to stop, [`Tasks`] watches what runs, [`Readiness`] says what works.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tracing::{Instrument, debug, error, warn};

use crate::logging::{Chain, stage};

/// The next moment for periodic work: a multiple of the period since this was first called. The timers of an idle process then go off
/// together, and it is woken once for all of them.
pub fn next_tick(now: Instant, period: Duration) -> Instant {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let since = now.saturating_duration_since(*FIRST.get_or_init(|| now));
    let past = since.as_nanos() % period.as_nanos().max(1);
    now + period.saturating_sub(Duration::from_nanos(u64::try_from(past).unwrap_or(0)))
}

/// Wakes the thread that waits in [`block_until`].
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread; `None` when it is not ready by the deadline. The future must not use timers or I/O of tokio: no runtime
/// drives it. A runtime would also wake up for its wheel of timers; a shared one wakes a thread of its own for each deadline.
pub fn block_until<T>(deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left);
    }
}

/// The request to stop. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Signal(watch::Receiver<bool>);

/// The other end of a [`Signal`]. Dropping it stops, too.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Signal {
    /// A signal and the end that raises it.
    pub fn new() -> (Stopper, Self) {
        let (sender, receiver) = watch::channel(false);
        (Stopper(sender), Self(receiver))
    }

    /// Returns once stopping was asked for. Safe to drop and call again.
    pub async fn stopped(&mut self) {
        // An error means that the stopper is gone, which is the same message.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether stopping was asked for.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

impl Stopper {
    /// Raises the signal. Idempotent.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// The running tasks, by name. The first to end on its own stops the rest.
#[derive(Debug, Default)]
pub struct Tasks(JoinSet<(&'static str, Result<(), String>)>);

impl Tasks {
    /// No task yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task in its [span](stage). Its error is logged when it ends.
    pub fn spawn<F, E>(&mut self, name: &'static str, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::error::Error + 'static,
    {
        let task = async move { (name, future.await.map_err(|error| Chain(&error).to_string())) };
        // Of one type: the runtime's code for a task would be compiled for each.
        let task: BoxFuture<'static, _> = Box::pin(task.instrument(stage(name)));
        self.0.spawn(task);
    }

    /// Waits until `stop` is raised or a task ends, then stops all and waits at most `grace` for them.
    ///
    /// # Errors
    /// The name of the task that failed, and why; or the number of tasks that did not end in time.
    pub async fn run(mut self, stopper: Arc<Stopper>, mut stop: Signal, grace: Duration) -> Result<(), String> {
        let mut failure = None;
        tokio::select! {
            () = stop.stopped() => {}
            Some(ended) = self.0.join_next() => note(ended, &mut failure, stop.is_stopped()),
        }
        stopper.stop();
        let deadline = Instant::now() + grace;
        loop {
            match tokio::time::timeout_at(deadline, self.0.join_next()).await {
                Ok(None) => break,
                Ok(Some(ended)) => note(ended, &mut failure, true),
                Err(_) => {
                    warn!(left = self.0.len(), "shutdown grace is over; what is left is on disk");
                    break;
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

fn note(
    ended: Result<(&'static str, Result<(), String>), tokio::task::JoinError>,
    failure: &mut Option<String>,
    stopping: bool,
) {
    let message = match ended {
        Ok((task, Ok(()))) if stopping => {
            debug!(task, "task ended");
            return;
        }
        Ok((task, Ok(()))) => format!("task `{task}` ended by itself"),
        Ok((task, Err(error))) => format!("task `{task}` failed: {error}"),
        Err(join) => format!("a task panicked: {join}"),
    };
    error!(error = message, "stopping, because a task ended");
    failure.get_or_insert(message);
}

/// How far the writer may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseBarrier {
    /// As far as there are records.
    None,
    /// Only records below this offset.
    At(u64),
}

/// The conditions of readiness, shared by the stages that set them and the health checks.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    subscribed: AtomicBool,
    spool_writable: AtomicBool,
    stopping: AtomicBool,
}

impl Readiness {
    /// The subscription is proven, or lost.
    pub fn set_subscribed(&self, yes: bool) {
        self.0.subscribed.store(yes, Ordering::Release);
    }

    /// Whether the subscription is proven.
    pub fn is_subscribed(&self) -> bool {
        self.0.subscribed.load(Ordering::Acquire)
    }

    /// The spool takes records on disk, or not.
    pub fn set_spool_writable(&self, yes: bool) {
        self.0.spool_writable.store(yes, Ordering::Release);
    }

    /// The daemon is about to end.
    pub fn set_stopping(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    /// What is missing; empty: ready.
    pub fn missing(&self) -> Vec<&'static str> {
        let Flags { subscribed, spool_writable, stopping } = &*self.0;
        let missing = [
            (!subscribed.load(Ordering::Acquire), "subscription is not proven"),
            (!spool_writable.load(Ordering::Acquire), "spool cannot write to disk"),
            (stopping.load(Ordering::Acquire), "stopping"),
        ];
        missing.into_iter().filter_map(|(is_missing, what)| is_missing.then_some(what)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_waits_for_a_future_until_the_deadline_and_not_longer_than_needed() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let began = Instant::now();
        assert_eq!(block_until(began + Duration::from_millis(30), receiver.recv()), None);
        assert!(began.elapsed() >= Duration::from_millis(30));
        let sends = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            sender.blocking_send(7).unwrap();
        });
        assert_eq!(block_until(began + Duration::from_secs(60), receiver.recv()), Some(Some(7)));
        sends.join().unwrap();
        assert_eq!(block_until(Instant::now(), receiver.recv()), Some(None), "the sender is gone");
    }
}
