//! How far the store is behind, at the moment of the question: the writer says when its oldest record was received, and may say
//! nothing more for as long as the store keeps it waiting.

use std::sync::{Mutex, PoisonError};

use crate::units::Micros;

/// Since when records have been waiting of which the writer does not know the time yet: it has not been able to read them.
#[derive(Debug, Default)]
pub(super) struct Lag(Mutex<Option<Micros>>);

impl Lag {
    /// Age of the oldest record that is not in the store. `oldest`: when it was received, where the writer knows; `pending`: records
    /// that are not in the store.
    pub(super) fn seconds(&self, oldest: Option<Micros>, pending: u64, now: Micros) -> f64 {
        let mut unread_since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // At least since it was first found so; the status is computed every second.
        *unread_since = (oldest.is_none() && pending > 0).then(|| unread_since.unwrap_or(now));
        let since = oldest.filter(|_| pending > 0).or(*unread_since);
        // The clock may have been set back.
        since.map_or(0.0, |since| (now - since).max(0) as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_the_age_of_the_oldest_record_that_is_not_stored() {
        const SECOND: Micros = 1_000_000;
        let lag = Lag::default();
        for (name, oldest, pending, now, expected) in [
            ("nothing waits", None, 0, 10, 0.0),
            ("a record is being written", Some(8), 1, 10, 2.0),
            ("the writer has said nothing since", Some(8), 1, 15, 7.0),
            ("stored, and the writer has not said so yet", Some(8), 0, 16, 0.0),
            ("records that the writer has not read", None, 3, 20, 0.0),
            ("it still has not", None, 3, 24, 4.0),
            ("it has", Some(19), 3, 25, 6.0),
            ("the next one is not read yet", None, 2, 27, 0.0),
            ("all are stored", None, 0, 28, 0.0),
            ("another record waits", None, 1, 30, 0.0),
            ("the clock was set back", None, 1, 29, 0.0),
        ] {
            assert_eq!(lag.seconds(oldest.map(|at: Micros| at * SECOND), pending, now * SECOND), expected, "{name}");
        }
    }
}
