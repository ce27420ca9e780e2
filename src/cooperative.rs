//! Yields the core periodically during CPU-heavy loops.
//!
//! A low priority is not enough. Kernels of servers do not preempt a running thread before their tick (4 ms at 250 Hz): so long a
//! received message would wait for intake while a response is written. [Linux, sched(7), and `PREEMPT_NONE`]

use std::thread;

/// Rows between two yields: about a tenth of a millisecond.
const YIELD_ROWS: u32 = 64;

/// Counts rows.
#[derive(Debug, Default)]
pub struct YieldEvery(u32);

impl YieldEvery {
    /// Counts a row, and yields after every [`YIELD_ROWS`].
    pub fn tick(&mut self) {
        self.0 += 1;
        if self.0 == YIELD_ROWS {
            self.0 = 0;
            yield_core();
        }
    }
}

/// Lets a waiting thread run on this core; costs less than a microsecond when none waits.
pub fn yield_core() {
    thread::yield_now();
}
