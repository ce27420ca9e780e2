//! What happens between the first failure of the store and the first success after it.
//!
//! Pure but for its log lines: one when an outage begins, one when its nature changes, one when it ends. While it lasts, only one
//! call at a time is let through, each after a longer delay: the one that failed. Nothing else counts as the end of the outage.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::{
    backoff::Backoff,
    logging::Chain,
    store::{Problem, StoreError},
    units,
};

/// Between two tries of something that a person must mend.
const MENDING: Duration = Duration::from_secs(1);
const FIRST: Duration = Duration::from_millis(20);
const CAP: Duration = Duration::from_secs(1);

/// Holds one kind of call while the store is down.
#[derive(Debug)]
pub struct Gate {
    what: &'static str,
    backoff: Backoff,
    outage: Option<Outage>,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    until: Instant,
    failures: u64,
    mending: bool,
    trying: bool,
    /// Whether it is a write that fails.
    of_write: bool,
    problem: Problem,
}

/// A call that failed.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    /// What the store said.
    pub error: &'a StoreError,
    /// Whether it was a write. What a user may read it may not always write.
    pub of_write: bool,
    /// Whether it is logged elsewhere.
    pub quiet: bool,
}

impl Gate {
    /// Open. `what` names the calls in the log; `seed` spreads the delays.
    pub fn new(what: &'static str, seed: u64) -> Self {
        Self { what, backoff: Backoff::new(FIRST, CAP, seed), outage: None }
    }

    /// Whether the store is held to be down.
    pub fn is_closed(&self) -> bool {
        self.outage.is_some()
    }

    /// Whether a call may begin now.
    pub fn admits(&self, now: Instant) -> bool {
        self.outage.as_ref().is_none_or(|outage| !outage.trying && outage.until <= now)
    }

    /// A call that is [admitted](Self::admits) begins, and must come to an end: until then no other is admitted, if it is a try
    /// during an outage. Whether it is.
    pub fn begin(&mut self) -> bool {
        if let Some(outage) = &mut self.outage {
            outage.trying = true;
        }
        self.outage.is_some()
    }

    /// When the next try is due.
    pub fn until(&self) -> Option<Instant> {
        self.outage.as_ref().filter(|outage| !outage.trying).map(|outage| outage.until)
    }

    /// What holds the calls.
    pub fn problem(&self) -> Option<&Problem> {
        self.outage.as_ref().map(|outage| &outage.problem)
    }

    /// A read succeeded. Where it is a write that fails, that says nothing of it: the write may be tried now.
    pub fn read_succeeded(&mut self, trying: bool, now: Instant) {
        match &mut self.outage {
            Some(outage) if outage.of_write && trying => (outage.trying, outage.until) = (false, now),
            _ => self.succeeded(trying, now),
        }
    }

    /// A call succeeded.
    pub fn succeeded(&mut self, trying: bool, now: Instant) {
        if !trying {
            return;
        }
        self.backoff.reset();
        if let Some(outage) = self.outage.take() {
            let seconds = (now - outage.since).as_secs_f64();
            info!(what = self.what, seconds, failures = outage.failures, "store is available again");
        }
    }

    /// No call waits and none is under way: there is nothing left that could fail.
    pub fn nothing_waits(&mut self, now: Instant) {
        if let Some(outage) = self.outage.take() {
            self.backoff.reset();
            let seconds = (now - outage.since).as_secs_f64();
            info!(what = self.what, seconds, failures = outage.failures, "nothing waits for the store any more");
        }
    }

    /// A call failed and will be repeated.
    pub fn failed(&mut self, trying: bool, failure: Failure<'_>, now: Instant) {
        let Failure { error, of_write, quiet } = failure;
        let mending = !matches!(error, StoreError::Unavailable(_));
        let known = self.outage.as_ref().map(|outage| outage.mending);
        let what = self.what;
        let outage = self.outage.get_or_insert_with(|| {
            let problem = Problem::of(what, error, units::now());
            Outage { since: now, until: now, failures: 0, mending, trying: false, of_write, problem }
        });
        outage.failures += 1;
        if known.is_some() && !trying {
            // It began before the outage did and says nothing new.
            return;
        }
        outage.trying = false;
        (outage.mending, outage.of_write) = (mending, of_write);
        outage.problem = Problem::of(what, error, outage.problem.since);
        outage.until = now + if mending { MENDING } else { self.backoff.next_delay() };
        let error = Chain(error);
        if known == Some(mending) || quiet {
            debug!(what = self.what, %error, failures = outage.failures, "store fails");
        } else if mending {
            error!(what = self.what, %error, "store needs attention; holding, trying again every second");
        } else {
            warn!(what = self.what, %error, "store is unavailable; holding");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(error: &StoreError) -> Failure<'_> {
        Failure { error, of_write: true, quiet: false }
    }

    fn admit(gate: &mut Gate, now: Instant) -> Option<bool> {
        gate.admits(now).then(|| gate.begin())
    }

    #[test]
    fn a_read_does_not_end_the_outage_of_writes() {
        let now = Instant::now();
        let mut gate = Gate::new("runs", 1);
        let refused = StoreError::Misconfigured("no MODIFY permission".into());
        gate.failed(false, write(&refused), now);
        let since = gate.problem().unwrap().since;
        for second in 1..10 {
            let now = now + MENDING * second;
            assert_eq!(admit(&mut gate, now), Some(true));
            gate.read_succeeded(true, now);
            assert_eq!(admit(&mut gate, now), Some(true), "the write is tried");
            gate.failed(true, write(&refused), now);
            assert_eq!(gate.problem().map(|problem| problem.since), Some(since));
        }
        let now = now + MENDING * 10;
        assert_eq!(admit(&mut gate, now), Some(true));
        gate.succeeded(true, now);
        assert_eq!(gate.problem(), None);
        gate.failed(false, Failure { of_write: false, ..write(&refused) }, now);
        assert_eq!(admit(&mut gate, now + MENDING), Some(true));
        gate.read_succeeded(true, now);
        assert!(!gate.is_closed());
    }

    #[test]
    fn one_try_at_a_time_until_one_succeeds() {
        let mut now = Instant::now();
        let mut gate = Gate::new("rows", 1);
        let down = StoreError::Unavailable("down".into());
        assert_eq!(admit(&mut gate, now), Some(false));
        gate.failed(false, write(&down), now);
        gate.failed(false, write(&down), now);
        assert_eq!(admit(&mut gate, now), None, "first the delay");
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            let until = gate.until().unwrap();
            longest = longest.max(until - now);
            now = until;
            assert_eq!((admit(&mut gate, now), admit(&mut gate, now)), (Some(true), None));
            gate.succeeded(false, now);
            assert!(gate.is_closed(), "a call that began before the outage does not end it");
            gate.failed(true, write(&down), now);
        }
        assert!(longest > CAP / 2 && longest <= CAP);
        gate.failed(true, write(&StoreError::Misconfigured("no table".into())), now);
        assert_eq!(gate.problem().map(|problem| problem.reason.as_str()), Some("no table"));
        assert_eq!(gate.until(), Some(now + MENDING));
        now += MENDING;
        assert_eq!(admit(&mut gate, now), Some(true));
        gate.succeeded(true, now);
        assert_eq!((gate.is_closed(), admit(&mut gate, now)), (false, Some(false)));
    }
}
