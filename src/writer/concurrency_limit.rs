//! How many full batches may be written at once: additive increase while latency stays near its best, multiplicative decrease when
//! it does not (AIMD).
//!
//! Pure: takes latencies and times. Latencies are compared only between batches of about the same size, or an idle hour of
//! single rows would make every full batch look slow. Slowness alone never goes below [`INITIAL_LIMIT`]: fewer would starve a healthy
//! store, and more than a few only queue inside it; failures go down to one.

use std::time::Duration;

use super::batch::FULL;

/// Where the limit begins.
const INITIAL_LIMIT: usize = 4;
/// Up to this multiple of the best latency there is room for one more.
const GROW_BELOW_RATIO: f64 = 2.5;
/// Above this multiple the store is queueing.
const SHRINK_ABOVE_RATIO: f64 = 4.0;
/// How long a best latency is remembered: it moves towards the present mean at this pace.
const BASELINE_DECAY: Duration = Duration::from_secs(60);
/// Sizes are classed by their power of two, up to 128 rows.
const SIZE_CLASSES: usize = 8;

/// The adaptive limit.
#[derive(Debug)]
pub struct ConcurrencyLimit {
    limit: usize,
    max: usize,
    /// Best latency in seconds, by class of size.
    baseline: [Option<f64>; SIZE_CLASSES],
    window: Window,
}

/// As many completions as the limit allows at once: of full batches so many, of smaller ones more.
#[derive(Debug, Default)]
struct Window {
    count: usize,
    parts: usize,
    saturated: usize,
    /// Sum of latency ÷ best.
    ratios: f64,
}

impl ConcurrencyLimit {
    /// At most `max`.
    pub fn new(max: usize) -> Self {
        Self {
            limit: INITIAL_LIMIT.min(max).max(1),
            max: max.max(1),
            baseline: [None; SIZE_CLASSES],
            window: Window::default(),
        }
    }

    /// Full batches that may be written at once, now.
    pub fn get(&self) -> usize {
        self.limit
    }

    /// A batch of so many rows, and [parts](super::batch::FULL) of a full one, took `took`; `saturated`: as much as allowed was in
    /// flight.
    pub fn succeeded(&mut self, rows: usize, parts: usize, took: Duration, saturated: bool) {
        let seconds = took.as_secs_f64().max(1e-6);
        let class = (rows.max(1).ilog2() as usize).min(SIZE_CLASSES - 1);
        let best = self.baseline[class].get_or_insert(seconds);
        *best = best.min(seconds);
        self.window.count += 1;
        self.window.parts += parts;
        self.window.saturated += usize::from(saturated);
        self.window.ratios += seconds / *best;
        // The baseline drifts upwards, or one lucky batch would set the standard for ever.
        let share = (took.as_secs_f64() / self.limit as f64 / BASELINE_DECAY.as_secs_f64()).min(0.05);
        *best += (seconds - *best) * share;
        if self.window.parts >= self.limit.max(INITIAL_LIMIT) * FULL {
            self.close_window();
        }
    }

    /// A batch failed because the store is unavailable.
    pub fn failed(&mut self) {
        self.limit = (self.limit / 2).max(1);
        self.window = Window::default();
    }

    fn close_window(&mut self) {
        let window = std::mem::take(&mut self.window);
        let ratio = window.ratios / window.count as f64;
        if ratio > SHRINK_ABOVE_RATIO {
            self.limit = (self.limit / 2).max(INITIAL_LIMIT.min(self.limit));
        } else if ratio <= GROW_BELOW_RATIO && window.saturated * 2 > window.count {
            self.limit = (self.limit + 1).min(self.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Completions of (rows, milliseconds, saturated), repeated.
    fn after(limit: &mut ConcurrencyLimit, times: usize, rows: usize, millis: u64, saturated: bool) -> usize {
        for _ in 0..times {
            limit.succeeded(rows, FULL, Duration::from_millis(millis), saturated);
        }
        limit.get()
    }

    #[test]
    fn grows_one_by_one_while_saturated_and_fast() {
        let mut limit = ConcurrencyLimit::new(16);
        assert_eq!(limit.get(), 4);
        assert_eq!(after(&mut limit, 4, 50, 10, true), 5, "one window, one more");
        assert_eq!(after(&mut limit, 400, 50, 10, true), 16, "up to the maximum");
        let mut limit = ConcurrencyLimit::new(16);
        assert_eq!(after(&mut limit, 400, 50, 10, false), 4, "not when there is nothing to do");
    }

    #[test]
    fn slowness_halves_it_but_never_below_the_start() {
        let mut limit = ConcurrencyLimit::new(16);
        after(&mut limit, 400, 50, 10, true);
        assert!(after(&mut limit, 32, 50, 100, true) <= 8);
        assert_eq!(after(&mut limit, 64, 50, 100, true), 4);
        let mut limit = ConcurrencyLimit::new(16);
        after(&mut limit, 400, 50, 10, true);
        assert_eq!(after(&mut limit, 16, 50, 30, true), 16, "between near and far it stays");
    }

    #[test]
    fn small_batches_do_not_set_the_standard_for_large_ones() {
        let mut limit = ConcurrencyLimit::new(16);
        after(&mut limit, 100, 1, 1, false);
        assert_eq!(after(&mut limit, 4, 100, 20, true), 5);
    }

    #[test]
    fn of_small_batches_one_round_changes_it_once() {
        let mut limit = ConcurrencyLimit::new(16);
        let mut round = |millis| {
            (0..4 * FULL).for_each(|_| limit.succeeded(1, 1, Duration::from_millis(millis), true));
            limit.get()
        };
        assert_eq!(round(1), 5);
    }

    #[test]
    fn failures_halve_it_down_to_one_and_it_recovers() {
        let mut limit = ConcurrencyLimit::new(16);
        limit.failed();
        assert_eq!(limit.get(), 2);
        limit.failed();
        limit.failed();
        assert_eq!(limit.get(), 1);
        assert_eq!(after(&mut limit, 4, 50, 10, true), 2);
        assert_eq!(ConcurrencyLimit::new(1).get(), 1);
    }

    #[test]
    fn a_lasting_change_becomes_the_new_standard() {
        let mut limit = ConcurrencyLimit::new(16);
        after(&mut limit, 40, 50, 1, true);
        after(&mut limit, 40, 50, 10, true);
        let low = limit.get();
        assert_eq!(low, 4);
        assert!(after(&mut limit, 200_000, 50, 10, true) > low, "the best latency drifts");
    }
}
