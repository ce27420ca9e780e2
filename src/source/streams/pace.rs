//! When the next read begins, and when entries are acknowledged. Pure.
//!
//! A command costs as much as dozens of entries, here and in Redis. While entries flow they therefore gather in the stream, where they
//! are safe, and are read together; and those that are durable are acknowledged together. The first entry after a silence is read at
//! once, and the last ones before it are acknowledged at once.

use std::time::Duration;

use tokio::time::Instant;

use crate::lifecycle::next_tick;

/// How long entries gather: the longest that one waits before it is read.
const GATHER_WINDOW: Duration = Duration::from_millis(25);

/// From so many entries in a window on, the next window has about as many.
const STEADY_ENTRIES: usize = 16;
/// How many times as many are read then, at most.
const STEADY_FACTOR: usize = 4;
/// After this long without a read more may be there.
const STEADY_MAX_AGE: Duration = Duration::from_millis(100);

/// How long durable entries wait for their acknowledgement. After a crash they are read once more, and are the same rows.
const ACKNOWLEDGE_INTERVAL: Duration = Duration::from_millis(100);

/// The pace of the commands.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The end of the window; absent: the next read may begin.
    until: Option<Instant>,
    flows: bool,
    /// Entries of the last answer, and when it came, where there were no more.
    last: Option<(usize, Instant)>,
    acknowledged_at: Option<Instant>,
}

impl Pace {
    /// Takes in an answer: how many entries it had, and whether more are there.
    pub(super) fn answered(&mut self, entries: usize, more: bool, now: Instant) {
        self.flows = entries > 0;
        self.last = (!more).then_some((entries, now));
        // All streams read together: then the thread is woken once for all of them.
        self.until = (self.flows && !more).then(|| next_tick(now, GATHER_WINDOW));
    }

    /// Until when entries gather.
    pub(super) fn gathers_until(&self) -> Option<Instant> {
        self.until
    }

    /// The window is over, or there is more urgent work.
    pub(super) fn end(&mut self) {
        self.until = None;
    }

    /// Entries to ask for without measuring them, which costs the server more than reading them: what has gathered is about as much as in
    /// the window before. `None`: it may be anything.
    pub(super) fn steady(&self, now: Instant) -> Option<usize> {
        let (entries, at) = self.last?;
        let is_steady = entries >= STEADY_ENTRIES && now.duration_since(at) <= STEADY_MAX_AGE;
        is_steady.then_some(STEADY_FACTOR * entries)
    }

    /// Whether durable entries are acknowledged now.
    pub(super) fn acknowledges(&self, now: Instant) -> bool {
        !self.flows || self.acknowledged_at.is_none_or(|at| now.duration_since(at) >= ACKNOWLEDGE_INTERVAL)
    }

    /// Entries are being acknowledged.
    pub(super) fn acknowledged(&mut self, now: Instant) {
        self.acknowledged_at = Some(now);
    }

    /// Whether the next read waits for an entry. While entries flow, a read that found none and waited would be answered with the first
    /// one alone.
    pub(super) fn waits(&self) -> bool {
        !self.flows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn entries_gather_while_they_flow_and_not_while_more_are_there() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert_eq!((pace.gathers_until(), pace.waits()), (None, true), "the first read");
        for (entries, more, gathers, waits) in
            [(1, true, false, false), (3, false, true, false), (512, true, false, false), (0, false, false, true)]
        {
            pace.answered(entries, more, now);
            assert_eq!((pace.gathers_until().is_some(), pace.waits()), (gathers, waits), "{entries}, {more}");
        }
        pace.answered(3, false, now);
        let until = pace.gathers_until().unwrap();
        assert!(until > now && until <= now + GATHER_WINDOW);
        pace.end();
        assert_eq!((pace.gathers_until(), pace.waits()), (None, false));
        assert!(pace.acknowledges(now));
        pace.acknowledged(now);
        let later = now + ACKNOWLEDGE_INTERVAL;
        assert!(!pace.acknowledges(later - Duration::from_millis(1)) && pace.acknowledges(later));
        pace.answered(0, false, now);
        assert!(pace.acknowledges(now), "nothing flows");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_gathered_is_known_while_entries_flow_steadily() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.steady(now), None, "the first read");
        for (entries, more, steady) in
            [(50, false, Some(200)), (16, false, Some(64)), (15, false, None), (50, true, None)]
        {
            pace.answered(entries, more, now);
            assert_eq!(pace.steady(now), steady, "{entries}, {more}");
        }
        pace.answered(50, false, now);
        assert_eq!(pace.steady(now + STEADY_MAX_AGE), Some(200));
        assert_eq!(pace.steady(now + STEADY_MAX_AGE + Duration::from_millis(1)), None, "it stood still");
    }
}
