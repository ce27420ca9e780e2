//! Tasks of start and stop: the gap of a restart, READY, reload, drain. Each ends with the daemon.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tracing::{info, warn};

use super::{channels::DrainChannels, http};
use crate::{
    config::Settings,
    frame::IntakeItem,
    gaps::{Gap, GapReason},
    latest::LatestState,
    lifecycle::{Readiness, Signal, Stopper},
    logging::{Chain, LevelHandle},
    metrics::Metrics,
    service_manager,
    source::SourceStatus,
    spool,
    store::Store,
    units::{self, Micros},
    wire,
};

/// How long the first connection to Redis may take: READY waits for it, and messages published before it are not counted as a gap.
const FIRST_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the writer may write from the spool once intake has drained.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the store may take to answer when the daemon stops.
const STORE_PING_TIMEOUT: Duration = Duration::from_millis(500);

/// Reads the configuration again, for SIGHUP; `Err` says what is wrong with it.
pub type Reload = Box<dyn Fn() -> Result<Settings, String> + Send>;

/// Reports the gap between the watermark of the previous process and the first confirmed subscription of this one. Without a previous
/// process the gap begins at the start, and is reported only where the subscription took longer than [`FIRST_CONNECT_TIMEOUT`].
pub async fn report_restart(
    last_alive: Option<Micros>,
    redis: SourceStatus,
    to_intake: mpsc::Sender<IntakeItem>,
    metrics: Arc<Metrics>,
    mut stop: Signal,
) -> Result<(), Infallible> {
    let began = units::now();
    let mut first = redis.first_confirmed();
    let proven = tokio::select! {
        () = stop.stopped() => None,
        proven = first.wait_for(Option::is_some) => proven.ok().and_then(|at| *at),
    };
    let slow = proven.is_some_and(|at| at - began > FIRST_CONNECT_TIMEOUT.as_micros() as Micros);
    if let (Some(started_at), Some(ended_at)) = (last_alive.or(slow.then_some(began)), proven) {
        metrics.gaps.of(GapReason::NotListening.as_str()).inc();
        // The clock may have been set back meanwhile.
        let gap = Gap::new(GapReason::NotListening, "redis", started_at.min(ended_at), ended_at);
        let _ = to_intake.send(IntakeItem::Gap(gap)).await;
    }
    drop(to_intake); // intake drains until every sender is dropped
    stop.stopped().await;
    Ok(())
}

/// READY: the spool is locked and the first connection was tried; Redis itself may be absent.
pub async fn notify_ready(redis: SourceStatus, mut stop: Signal) -> Result<(), Infallible> {
    let deadline = Instant::now() + FIRST_CONNECT_TIMEOUT;
    let tried = || redis.connections().iter().any(|connection| connection.connects > 0 || connection.error.is_some());
    while !tried() && Instant::now() < deadline && !stop.is_stopped() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    service_manager::ready();
    stop.stopped().await;
    Ok(())
}

/// The parts that SIGHUP can change.
pub struct Reloadable {
    /// Log levels.
    pub levels: Option<LevelHandle>,
    /// Limits of a message.
    pub limits: watch::Sender<wire::Limits>,
    /// Lifetimes of the latest keys.
    pub latest_state: Arc<LatestState>,
    /// Tokens and certificate.
    pub access: http::Access,
}

/// SIGHUP: applies the settings of [`Reloadable`]; files with secrets are read at each connect anyway.
pub async fn reload_on_signal(
    mut asked: mpsc::Receiver<()>,
    reload: Reload,
    reloadable: Reloadable,
    mut stop: Signal,
) -> Result<(), Infallible> {
    loop {
        tokio::select! {
            () = stop.stopped() => return Ok(()),
            Some(()) = asked.recv() => {}
        }
        let outcome = reload().and_then(|settings| {
            if let Some(levels) = &reloadable.levels {
                levels.set(&settings.log.level)?;
            }
            reloadable.latest_state.set_ttls(&settings.latest);
            http::reload_access(&reloadable.access, &settings);
            reloadable.limits.send_replace(settings.limits);
            Ok(())
        });
        match outcome {
            Ok(()) => info!(
                "configuration is reloaded: log levels, limits, lifetimes of the latest keys, tokens, certificate"
            ),
            Err(error) => {
                warn!(
                    error,
                    "configuration is not reloaded; the old one stays, but for the files of tokens and of `http.tls`"
                );
                http::reload_tokens(&reloadable.access.token_store);
                reloadable.access.certificate.reload();
            }
        }
    }
}

/// Waits until intake is told to stop, calls `stopping`, and waits until it has drained; false when it did not end in order.
async fn wait_for_intake(
    mut ingest_stop: Signal,
    mut drained: oneshot::Receiver<()>,
    stopping: impl FnOnce(),
) -> io::Result<bool> {
    let ended = tokio::select! {
        biased;
        () = ingest_stop.stopped() => None,
        ended = &mut drained => Some(ended),
    };
    // Intake has a thread of its own, and may have drained before this task sees the signal.
    if ended.is_some() && !ingest_stop.is_stopped() {
        return Err(io::Error::other("intake ended before it was told to"));
    }
    stopping();
    let ended = match ended {
        Some(ended) => ended,
        None => drained.await,
    };
    Ok(ended.is_ok())
}

/// Stops the daemon in order.
pub struct Drain {
    /// Raised to stop the daemon.
    pub ingest_stop: Signal,
    /// Stops the writer and the rest.
    pub drain_stop: Stopper,
    /// Says that the daemon is stopping.
    pub readiness: Readiness,
    /// Told once intake has drained.
    pub drained: oneshot::Receiver<()>,
    /// The log.
    pub spool: spool::View,
    /// Ends of the writer's channels.
    pub channels: DrainChannels,
    /// Where the writer writes.
    pub store: Arc<dyn Store>,
}

impl Drain {
    /// Waits until intake has drained, gives the writer [`DRAIN_TIMEOUT`] for what is in the spool, then stops the rest.
    pub async fn run(mut self, delete_status: impl Future<Output = ()>) -> Result<(), io::Error> {
        let stopping = || {
            self.readiness.set_stopping();
            service_manager::stopping();
        };
        if !wait_for_intake(self.ingest_stop, self.drained, stopping).await? {
            warn!("intake did not end in order; what it had not synced is lost");
        }
        let reachable = tokio::time::timeout(STORE_PING_TIMEOUT, self.store.ping()).await;
        if matches!(reachable, Ok(Ok(()))) {
            self.channels.flush_to.send_replace(self.spool.end());
            let all = self.channels.progress.wait_for(|stored| *stored >= self.spool.end());
            if tokio::time::timeout(DRAIN_TIMEOUT, all).await.is_err() {
                info!("the store has not confirmed everything; the rest is in the spool");
            }
        } else if let Ok(Err(error)) = reachable {
            info!(error = %Chain(&error), "the store is away; everything not confirmed is in the spool");
        }
        delete_status.await;
        self.drain_stop.stop();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_intake_that_drains_before_the_signal_is_seen_has_still_ended_in_order() {
        // Often: a wrong order would be right by chance half of the time.
        for _ in 0..64 {
            for in_order in [true, false] {
                let ((stopper, ingest_stop), (drained_out, drained)) = (Signal::new(), oneshot::channel());
                stopper.stop();
                if in_order {
                    drained_out.send(()).unwrap();
                } else {
                    drop(drained_out);
                }
                let mut told = false;
                assert_eq!(wait_for_intake(ingest_stop, drained, || told = true).await.unwrap(), in_order);
                assert!(told);
            }
        }
        let ((_stopper, ingest_stop), (drained_out, drained)) = (Signal::new(), oneshot::channel());
        drained_out.send(()).unwrap();
        let early = wait_for_intake(ingest_stop, drained, || unreachable!("nothing stops")).await;
        assert!(early.unwrap_err().to_string().contains("before it was told to"));
    }
}
