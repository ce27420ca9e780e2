//! What happens between the first failure of the store and the first success after it.
//!
//! Pure but for its log lines: one when an outage begins, one when its nature changes, one when it ends. While it lasts, only one
//! call at a time is let through, each after a longer delay: the one that failed. Nothing else counts as the end of the outage.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::{backoff::Backoff, logging::Chain, store::StoreError};

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

    /// Whether a call may begin now, and whether it is a try during an outage.
    pub fn admit(&mut self, now: Instant) -> Option<bool> {
        match &mut self.outage {
            None => Some(false),
            Some(outage) if !outage.trying && outage.until <= now => {
                outage.trying = true;
                Some(true)
            }
            Some(_) => None,
        }
    }

    /// When the next try is due.
    pub fn until(&self) -> Option<Instant> {
        self.outage.as_ref().filter(|outage| !outage.trying).map(|outage| outage.until)
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

    /// A call failed and will be repeated.
    pub fn failed(&mut self, trying: bool, error: &StoreError, quiet: bool, now: Instant) {
        let mending = !matches!(error, StoreError::Unavailable(_));
        let known = self.outage.as_ref().map(|outage| outage.mending);
        let outage = self.outage.get_or_insert(Outage { since: now, until: now, failures: 0, mending, trying: false });
        outage.failures += 1;
        if known.is_some() && !trying {
            // It began before the outage did and says nothing new.
            return;
        }
        outage.trying = false;
        outage.mending = mending;
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

    #[test]
    fn one_try_at_a_time_until_one_succeeds() {
        let mut now = Instant::now();
        let mut gate = Gate::new("rows", 1);
        let down = StoreError::Unavailable("down".into());
        assert_eq!(gate.admit(now), Some(false));
        gate.failed(false, &down, false, now);
        gate.failed(false, &down, false, now);
        assert_eq!(gate.admit(now), None, "first the delay");
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            let until = gate.until().unwrap();
            longest = longest.max(until - now);
            now = until;
            assert_eq!((gate.admit(now), gate.admit(now)), (Some(true), None));
            gate.succeeded(false, now);
            assert!(gate.is_closed(), "a call that began before the outage does not end it");
            gate.failed(true, &down, false, now);
        }
        assert!(longest > CAP / 2 && longest <= CAP);
        gate.failed(true, &StoreError::Misconfigured("no table".into()), false, now);
        assert_eq!(gate.until(), Some(now + MENDING));
        now += MENDING;
        assert_eq!(gate.admit(now), Some(true));
        gate.succeeded(true, now);
        assert_eq!((gate.is_closed(), gate.admit(now)), (false, Some(false)));
    }
}
