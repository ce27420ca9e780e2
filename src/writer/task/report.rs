//! Reports of the task (progress, problems), and detection of changes that other processes made to the store.

use tokio::time::{Duration, Instant};

use super::Writer;
use crate::{
    store::Problem,
    writer::{
        PauseBarrier,
        ports::{Commit, DeadLetterSink},
    },
};

/// Between two checks of all runs because another process has changed the store, which may do so all the time.
const RECHECK_INTERVAL: Duration = Duration::from_millis(200);

impl<C: Commit, A: DeadLetterSink> Writer<C, A> {
    /// How far it is.
    pub(super) fn report(&self, at: u64) {
        self.ports.progress.send_if_modified(|progress| {
            let ahead = at > *progress;
            *progress = at.max(*progress);
            ahead
        });
        // While paused nothing is in the frontier; the first record that is held back is the oldest one.
        let oldest = self.frontier.oldest_received_at().or(self.waiting_received_at);
        self.ports.oldest_unstored.send_if_modified(|known| {
            let changed = *known != oldest;
            *known = oldest;
            changed
        });
        let paused = matches!(*self.ports.pause_barrier.borrow(), PauseBarrier::At(_));
        self.ports.metrics.writer_paused.set(i64::from(paused));
    }

    /// Detects changes by other processes; called before completions since then are confirmed.
    pub(super) fn detect_outside_changes(&mut self) {
        let changes = self.ports.store.outside_changes();
        if changes == self.outside_changes {
            return;
        }
        let now = Instant::now();
        if self.rechecked_at.is_none_or(|at| now >= at + RECHECK_INTERVAL) {
            (self.outside_changes, self.rechecked_at) = (changes, Some(now));
            self.runs.recheck_all(now);
        }
    }

    /// Reports the problem that holds the writer; one that needs an operator first.
    pub(super) fn report_problem(&self) {
        // Of equal ones the last: rows before runs, whose reads fail for another reason than their writes would.
        let held = [
            self.dead_letters.problem.as_ref(),
            self.deletions.problem.as_ref(),
            self.runs_breaker.problem(),
            self.rows_breaker.problem(),
        ];
        // With nothing to write, the store may know that it could not.
        let store = self.ports.store.problem();
        let problems = || store.as_ref().into_iter().chain(held.into_iter().flatten());
        let since = problems().map(|problem| problem.since).min();
        let worst = problems().max_by_key(|problem| problem.needs_attention);
        let problem = worst.zip(since).map(|(worst, since)| Problem { since, ..worst.clone() });
        let attention = problem.as_ref().is_some_and(|problem| problem.needs_attention);
        self.ports.metrics.store_needs_attention.set(i64::from(attention));
        self.ports.problem.send_if_modified(|reported: &mut Option<Problem>| {
            let changed = *reported != problem;
            *reported = problem;
            changed
        });
    }
}
