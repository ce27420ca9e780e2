//! How many messages are received a second: the count of received messages, sampled once a second.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use crate::{
    lifecycle::{Signal, next_tick},
    metrics::Metrics,
};

/// Between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Time over which the rate is averaged.
const WINDOW: Duration = Duration::from_secs(10);

/// The samples of the last seconds.
#[derive(Debug, Default)]
pub(super) struct ReceiveRate(Mutex<VecDeque<Sample>>);

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    received: u64,
}

impl ReceiveRate {
    /// Takes a sample, and drops those that the window no longer needs.
    fn sample(&self, received: u64, at: Instant) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back(Sample { at, received });
        while samples.get(1).is_some_and(|second| at.duration_since(second.at) >= WINDOW) {
            samples.pop_front();
        }
    }

    /// Messages a second since the oldest sample of the window; 0 before the first.
    pub(super) fn per_second(&self, received: u64, now: Instant) -> f64 {
        let oldest = self.0.lock().unwrap_or_else(PoisonError::into_inner).front().copied();
        let Some(oldest) = oldest.filter(|oldest| oldest.at < now) else { return 0.0 };
        // Shorter intervals would show the messages of one moment as a rate of thousands.
        let seconds = now.duration_since(oldest.at).max(SAMPLE_INTERVAL).as_secs_f64();
        received.saturating_sub(oldest.received) as f64 / seconds
    }
}

/// Samples until stopped.
pub(super) async fn run(rate: Arc<ReceiveRate>, metrics: Arc<Metrics>, mut stop: Signal) -> Result<(), Infallible> {
    loop {
        let now = Instant::now();
        rate.sample(metrics.source_messages.get(), now);
        tokio::select! {
            () = stop.stopped() => return Ok(()),
            () = sleep_until(next_tick(now, SAMPLE_INTERVAL)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let (rate, start) = (ReceiveRate::default(), Instant::now());
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(rate.per_second(100, start), 0.0, "nothing to compare with");
        // 100 a second for 20 seconds, then none.
        for second in 0..=20 {
            rate.sample(second * 100, after(second));
        }
        assert_eq!(rate.per_second(2_000, after(20)), 100.0);
        for second in 21..=25 {
            rate.sample(2_000, after(second));
        }
        assert_eq!(rate.per_second(2_000, after(25)), 50.0);
        for second in 26..=40 {
            rate.sample(2_000, after(second));
        }
        assert_eq!(rate.per_second(2_000, after(40)), 0.0);
        let fresh = ReceiveRate::default();
        fresh.sample(0, start);
        assert_eq!(fresh.per_second(10, start + Duration::from_millis(1)), 10.0, "not 10,000");
    }
}
