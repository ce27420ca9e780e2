//! The circuit breaker: holds calls from the first failure of the store until a probe succeeds.
//!
//! Pure but for its log lines: when an outage begins, when its kind changes, and when it ends. During an outage one call at a time
//! is let through as a probe, each after a longer delay. Only the success of a probe ends the outage.

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::{
    backoff::{self, Backoff},
    logging::Chain,
    store::{Problem, StoreError},
    units,
};

/// A circuit breaker for one kind of call: it holds them while the store is down.
#[derive(Debug)]
pub struct CircuitBreaker {
    what: &'static str,
    backoff: Backoff,
    outage: Option<Outage>,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    retry_at: Instant,
    failures: u64,
    needs_operator: bool,
    probe_in_flight: bool,
    /// Whether it is a write that fails.
    of_write: bool,
    problem: Problem,
}

/// A call that failed.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    /// What the store said.
    pub error: &'a StoreError,
    /// Whether it was a write: permission to read is no permission to write.
    pub of_write: bool,
    /// Whether it is logged elsewhere.
    pub quiet: bool,
}

impl CircuitBreaker {
    /// Closed: calls pass. `what` names the calls in the log; `seed` spreads the delays.
    pub fn new(what: &'static str, seed: u64) -> Self {
        Self { what, backoff: Backoff::new(backoff::STORE, seed), outage: None }
    }

    /// Whether the store counts as down.
    pub fn is_open(&self) -> bool {
        self.outage.is_some()
    }

    /// Whether a call may begin now.
    pub fn allows(&self, now: Instant) -> bool {
        self.outage.as_ref().is_none_or(|outage| !outage.probe_in_flight && outage.retry_at <= now)
    }

    /// A call that is [allowed](Self::allows) begins, and must come to an end: until then no other is allowed, if it is a probe
    /// during an outage. Whether it is.
    pub fn begin_call(&mut self) -> bool {
        if let Some(outage) = &mut self.outage {
            outage.probe_in_flight = true;
        }
        self.outage.is_some()
    }

    /// When the next probe is due.
    pub fn next_probe_at(&self) -> Option<Instant> {
        self.outage.as_ref().filter(|outage| !outage.probe_in_flight).map(|outage| outage.retry_at)
    }

    /// What holds the calls.
    pub fn problem(&self) -> Option<&Problem> {
        self.outage.as_ref().map(|outage| &outage.problem)
    }

    /// A read succeeded. That does not end an outage of writes, of which the next may be tried now.
    pub fn read_succeeded(&mut self, is_probe: bool, now: Instant) {
        match &mut self.outage {
            Some(outage) if outage.of_write && is_probe => (outage.probe_in_flight, outage.retry_at) = (false, now),
            _ => self.succeeded(is_probe, now),
        }
    }

    /// A call succeeded.
    pub fn succeeded(&mut self, is_probe: bool, now: Instant) {
        if is_probe {
            self.close(now, "store is available again");
        }
    }

    /// Closes when no call waits and none is in flight: no probe could end the outage.
    pub fn reset_if_idle(&mut self, now: Instant) {
        self.close(now, "no more calls wait for the store");
    }

    fn close(&mut self, now: Instant, why: &str) {
        if let Some(outage) = self.outage.take() {
            self.backoff.reset();
            let seconds = (now - outage.since).as_secs_f64();
            info!(what = self.what, seconds, failures = outage.failures, "{why}");
        }
    }

    /// A call failed and will be repeated.
    pub fn failed(&mut self, is_probe: bool, failure: Failure<'_>, now: Instant) {
        let Failure { error, of_write, quiet } = failure;
        let needs_operator = !matches!(error, StoreError::Unavailable(_));
        let known = self.outage.as_ref().map(|outage| outage.needs_operator);
        let what = self.what;
        let outage = self.outage.get_or_insert_with(|| {
            let problem = Problem::of(what, error, units::now());
            Outage { since: now, retry_at: now, failures: 0, needs_operator, probe_in_flight: false, of_write, problem }
        });
        outage.failures += 1;
        if known.is_some() && !is_probe {
            // It began before the outage did and says nothing new.
            return;
        }
        outage.probe_in_flight = false;
        (outage.needs_operator, outage.of_write) = (needs_operator, of_write);
        outage.problem = Problem::of(what, error, outage.problem.since);
        outage.retry_at = now + if needs_operator { backoff::OPERATOR } else { self.backoff.next_delay() };
        let error = Chain(error);
        if known == Some(needs_operator) || quiet {
            debug!(what = self.what, %error, failures = outage.failures, "store fails");
        } else if needs_operator {
            error!(what = self.what, %error, "store needs attention; holding, trying again every second");
        } else {
            warn!(what = self.what, %error, "store is unavailable; holding");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn write(error: &StoreError) -> Failure<'_> {
        Failure { error, of_write: true, quiet: false }
    }

    fn try_acquire(breaker: &mut CircuitBreaker, now: Instant) -> Option<bool> {
        breaker.allows(now).then(|| breaker.begin_call())
    }

    #[test]
    fn a_read_does_not_end_the_outage_of_writes() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::new("runs", 1);
        let refused = StoreError::Misconfigured("no MODIFY permission".into());
        breaker.failed(false, write(&refused), now);
        let since = breaker.problem().unwrap().since;
        for second in 1..10 {
            let now = now + backoff::OPERATOR * second;
            assert_eq!(try_acquire(&mut breaker, now), Some(true));
            breaker.read_succeeded(true, now);
            assert_eq!(try_acquire(&mut breaker, now), Some(true), "the write is tried");
            breaker.failed(true, write(&refused), now);
            assert_eq!(breaker.problem().map(|problem| problem.since), Some(since));
        }
        let now = now + backoff::OPERATOR * 10;
        assert_eq!(try_acquire(&mut breaker, now), Some(true));
        breaker.succeeded(true, now);
        assert_eq!(breaker.problem(), None);
        breaker.failed(false, Failure { of_write: false, ..write(&refused) }, now);
        assert_eq!(try_acquire(&mut breaker, now + backoff::OPERATOR), Some(true));
        breaker.read_succeeded(true, now);
        assert!(!breaker.is_open());
    }

    #[test]
    fn one_try_at_a_time_until_one_succeeds() {
        let mut now = Instant::now();
        let mut breaker = CircuitBreaker::new("rows", 1);
        let down = StoreError::Unavailable("down".into());
        assert_eq!(try_acquire(&mut breaker, now), Some(false));
        breaker.failed(false, write(&down), now);
        breaker.failed(false, write(&down), now);
        assert_eq!(try_acquire(&mut breaker, now), None, "first the delay");
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            let until = breaker.next_probe_at().unwrap();
            longest = longest.max(until - now);
            now = until;
            assert_eq!((try_acquire(&mut breaker, now), try_acquire(&mut breaker, now)), (Some(true), None));
            breaker.succeeded(false, now);
            assert!(breaker.is_open(), "a call that began before the outage does not end it");
            breaker.failed(true, write(&down), now);
        }
        assert!(longest > backoff::STORE.cap / 2 && longest <= backoff::STORE.cap);
        breaker.failed(true, write(&StoreError::Misconfigured("no table".into())), now);
        assert_eq!(breaker.problem().map(|problem| problem.reason.as_str()), Some("no table"));
        assert_eq!(breaker.next_probe_at(), Some(now + backoff::OPERATOR));
        now += backoff::OPERATOR;
        assert_eq!(try_acquire(&mut breaker, now), Some(true));
        breaker.succeeded(true, now);
        assert_eq!((breaker.is_open(), try_acquire(&mut breaker, now)), (false, Some(false)));
    }
}
