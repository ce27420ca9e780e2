//! When to try again: the delays between tries, by what has failed. (The Cassandra session reconnects at intervals of its own.) Pure: the caller brings the randomness.

use std::time::Duration;

/// Redis is away. At once and without jitter: each millisecond without a subscription loses messages.
pub const REDIS: Policy =
    Policy { at_once: true, first: Duration::from_millis(1), cap: Duration::from_millis(100), jitter: false };
/// The store, Cassandra or SQLite, is away: the same batch again.
pub const STORE: Policy =
    Policy { at_once: false, first: Duration::from_millis(20), cap: Duration::from_secs(1), jitter: true };
/// `http.listen` cannot be bound.
pub const LISTEN: Policy =
    Policy { at_once: false, first: Duration::from_millis(100), cap: Duration::from_secs(5), jitter: true };

/// An operator must repair something: a login, a schema, a permission.
pub const OPERATOR: Duration = Duration::from_secs(1);
/// Redis refuses a channel while it allows others.
pub const REFUSED_CHANNEL: Duration = Duration::from_secs(2);
/// A file of the spool, its checkpoint or the dead letters cannot be written.
pub const DISK: Duration = Duration::from_secs(1);
/// The disk, or the spool's capacity, is full. Shorter: space comes back when the writer commits.
pub const DISK_FULL: Duration = Duration::from_millis(100);
/// A segment cannot be read.
pub const SEGMENT_READ: Duration = Duration::from_millis(200);

/// Exponential delays: the first, doubled with each try up to the cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether the first retry has no delay.
    pub at_once: bool,
    /// The first delay.
    pub first: Duration,
    /// The longest delay.
    pub cap: Duration,
    /// Whether a delay is between half of its value and all of it.
    pub jitter: bool,
}

/// The delays of one series of tries.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: Policy,
    tries: u32,
    random: u64,
}

impl Backoff {
    /// Delays by this policy; `seed` decides the jitter.
    pub fn new(policy: Policy, seed: u64) -> Self {
        Self { policy, tries: 0, random: seed | 1 }
    }

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        let Policy { at_once, first, cap, jitter } = self.policy;
        let tries = self.tries;
        self.tries = tries.saturating_add(1);
        let Some(doublings) = tries.checked_sub(u32::from(at_once)) else { return Duration::ZERO };
        let full = first.saturating_mul(1 << doublings.min(20)).min(cap);
        if !jitter {
            return full;
        }
        // xorshift64: spreads many waiting daemons; nothing secret depends on it.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        full / 2 + full.mul_f64((self.random >> 40) as f64 / (1u64 << 25) as f64)
    }

    /// Failures in a row.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// After a success: the next delay is the first again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_start_again() {
        let (first, cap) = (Duration::from_millis(10), Duration::from_secs(1));
        for seed in 0..100 {
            let mut backoff = Backoff::new(Policy { at_once: false, first, cap, jitter: true }, seed);
            for n in 0..40u32 {
                let full = first.saturating_mul(1 << n.min(20)).min(cap);
                let delay = backoff.next_delay();
                assert!(delay >= full / 2 && delay <= full, "try {n}: {delay:?}");
            }
            backoff.reset();
            assert!(backoff.next_delay() <= first);
        }
    }

    #[test]
    fn redis_is_tried_at_once_and_then_less_and_less_often() {
        let mut backoff = Backoff::new(REDIS, 0);
        let delays: Vec<_> = (0..10).map(|_| backoff.next_delay().as_millis()).collect();
        assert_eq!(delays, [0, 1, 2, 4, 8, 16, 32, 64, 100, 100]);
    }
}
