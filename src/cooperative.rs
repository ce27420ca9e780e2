//! Yields the core periodically during CPU-heavy loops.
//!
//! A lower priority is not sufficient. Server kernels (`PREEMPT_NONE`) do not preempt and reschedule only once per tick (4 ms at
//! 250 Hz): intake would be delayed that long while a response is encoded. [Linux, sched(7)]

use std::thread;

/// Rows between two yields: about a tenth of a millisecond.
const YIELD_ROWS: u32 = 64;

/// Counts rows and yields every [`YIELD_ROWS`].
#[derive(Debug, Default)]
pub struct YieldEvery(u32);

impl YieldEvery {
    /// Counts one row; yields when due.
    pub fn tick(&mut self) {
        self.0 += 1;
        if self.0 == YIELD_ROWS {
            self.0 = 0;
            yield_core();
        }
    }
}

/// Yields the core to other threads; costs less than a microsecond when none is ready.
pub fn yield_core() {
    thread::yield_now();
}
