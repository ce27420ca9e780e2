//! The time of receipt: strictly increasing, so that equal messages in one microsecond stay two events.

use crate::units::{self, Micros};

/// A clock that is set back by more than this is followed; by less, it is waited for.
const MAX_BACKWARD_STEP: Micros = 1_000_000;

/// Gives each message a time of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReceiveClock(Micros);

impl ReceiveClock {
    /// The next time of receipt.
    pub fn now(&mut self) -> Micros {
        self.at(units::now())
    }

    /// The next time of receipt, when the clock was read already.
    pub fn at(&mut self, clock: Micros) -> Micros {
        self.0 = if clock > self.0 || self.0 - clock > MAX_BACKWARD_STEP { clock } else { self.0 + 1 };
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_increase_and_follow_the_clock_when_it_is_set_back() {
        let mut receive_clock = ReceiveClock::default();
        for (clock, stamp) in
            [(10_000_000, 10_000_000), (10_000_000, 10_000_001), (9_500_000, 10_000_002), (8_000_000, 8_000_000)]
        {
            assert_eq!(receive_clock.at(clock), stamp);
        }
    }
}
