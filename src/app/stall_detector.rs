//! Detects that the process did not run: stopped (SIGSTOP, a debugger, a frozen container), or asleep with its machine.
//!
//! The sign is a timer tick that comes far too late, by the clock that goes on while a machine sleeps. The timer is a task of the
//! runtime, because intake may wait that long for a disk. Redis buffers messages meanwhile: where the connection held, nothing is lost,
//! and the gap has `lost` 0. Overflows have gaps of their own.

use std::{convert::Infallible, sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use tokio::{sync::mpsc, time::Instant};
use tracing::warn;

use crate::{
    frame::IntakeItem,
    gaps::{Gap, GapReason},
    lifecycle::{Signal, next_tick},
    metrics::Metrics,
    source::SourceStatus,
    units::{self, Micros},
};

/// Between two ticks.
const TICK_INTERVAL: Duration = Duration::from_millis(500);
/// A tick that is later than this is a pause; a busy machine does not delay it that much.
const STALL_THRESHOLD: Duration = Duration::from_secs(3);
/// How long after a pause a lost connection may still be noticed.
const SETTLE_TIME: Duration = Duration::from_secs(5);

/// Reports every pause, until `stop`.
///
/// # Errors
/// Never.
pub async fn report(
    redis: SourceStatus,
    to_intake: mpsc::Sender<IntakeItem>,
    metrics: Arc<Metrics>,
    mut stop: Signal,
) -> Result<(), Infallible> {
    let mut last = since_boot();
    let mut settling: Option<(Gap, Instant)> = None;
    loop {
        tokio::select! {
            () = stop.stopped() => break,
            () = tokio::time::sleep_until(next_tick(Instant::now(), TICK_INTERVAL)) => {}
        }
        let now = since_boot();
        let pause = stall_gap(now.saturating_sub(last), units::now());
        last = now;
        if let Some(gap) = pause {
            warn!(ms = (gap.ended_at - gap.started_at) / 1_000, "the process was stopped, or the machine asleep");
            metrics.gaps.of(gap.reason.as_str()).inc();
            // The pause before has not settled: its loss stays unknown.
            if let Some((before, _)) = settling.replace((gap, Instant::now() + SETTLE_TIME)) {
                let _ = to_intake.send(IntakeItem::Gap(before)).await;
            }
        }
        if let Some((gap, _)) = settling.take_if(|(_, at)| *at <= Instant::now()) {
            let lost = connection_held(&redis, gap.started_at).then_some(0);
            let _ = to_intake.send(IntakeItem::Gap(Gap { lost, ..gap })).await;
        }
    }
    if let Some((gap, _)) = settling {
        let _ = to_intake.send(IntakeItem::Gap(gap)).await;
    }
    Ok(())
}

/// The gap of a tick that came `elapsed` after the one before.
fn stall_gap(elapsed: Duration, now: Micros) -> Option<Gap> {
    let elapsed_us = Micros::try_from(elapsed.as_micros()).ok()?;
    (elapsed >= STALL_THRESHOLD).then(|| Gap::new(GapReason::ProcessPaused, "process", now - elapsed_us, now))
}

/// Whether every connection was made before the pause.
fn connection_held(redis: &SourceStatus, paused_at: Micros) -> bool {
    let connections = redis.connections();
    let mut listening = connections.iter().filter(|connection| !connection.channels.is_empty());
    listening.all(|connection| connection.connected && connection.since <= paused_at)
}

fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_tick_is_a_pause_with_its_bounds() {
        assert_eq!(stall_gap(TICK_INTERVAL, 100), None);
        assert_eq!(stall_gap(STALL_THRESHOLD - TICK_INTERVAL, 100), None);
        let gap = stall_gap(Duration::from_secs(20), 90_000_000).unwrap();
        assert_eq!((gap.started_at, gap.ended_at, gap.reason), (70_000_000, 90_000_000, GapReason::ProcessPaused));
    }

    #[test]
    fn the_clock_moves() {
        let before = since_boot();
        assert!(!before.is_zero() && since_boot() >= before);
    }
}
