//! Delays between tries: exponential, capped, jittered. Pure: the caller brings the randomness.

use std::time::Duration;

/// How long to wait before the next try.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    tries: u32,
    random: u64,
}

impl Backoff {
    /// Delays from `first`, doubling up to `cap`; `seed` decides the jitter.
    pub fn new(first: Duration, cap: Duration, seed: u64) -> Self {
        Self { first, cap, tries: 0, random: seed | 1 }
    }

    /// The next delay: between half of the exponential value and all of it.
    pub fn next_delay(&mut self) -> Duration {
        let full = self.first.saturating_mul(1 << self.tries.min(20)).min(self.cap);
        self.tries = self.tries.saturating_add(1);
        // xorshift64: spreads many waiting daemons; nothing secret depends on it.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        full / 2 + full.mul_f64((self.random >> 40) as f64 / (1u64 << 25) as f64)
    }

    /// How often it has failed in a row.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// It worked: the next delay is the first again.
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
            let mut backoff = Backoff::new(first, cap, seed);
            for n in 0..40u32 {
                let full = first.saturating_mul(1 << n.min(20)).min(cap);
                let delay = backoff.next_delay();
                assert!(delay >= full / 2 && delay <= full, "try {n}: {delay:?}");
            }
            backoff.reset();
            assert!(backoff.next_delay() <= first);
        }
    }
}
