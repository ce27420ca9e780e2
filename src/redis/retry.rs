//! How long to wait between tries to connect.

use std::time::Duration;

use super::ConnectError;

/// Delays between tries: at once, 1 ms, doubling up to 100 ms; 1 s where a person must act. Without jitter: every millisecond
/// without a subscription is lost messages.
#[derive(Debug, Default)]
pub struct Retry(u32);

impl Retry {
    /// The next delay.
    pub fn next_delay(&mut self, error: Option<&ConnectError>) -> Duration {
        let tries = self.0;
        self.0 = tries.saturating_add(1);
        match (tries, error) {
            (_, Some(error)) if error.needs_operator() => Duration::from_secs(1),
            (0, _) => Duration::ZERO,
            (tries, _) => Duration::from_millis((1u64 << (tries - 1).min(10)).min(100)),
        }
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.0 = 0;
    }
}
