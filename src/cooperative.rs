//! Yields the core periodically during CPU-heavy loops.
//!
//! Being nice is not enough. The kernels of servers preempt nobody, and look once a tick (4 ms at 250 Hz) who should run: so long
//! intake would wait with a message in its hand while an answer is written. [Linux, sched(7), and `PREEMPT_NONE`]

use std::thread;

/// Rows between two yields: about a tenth of a millisecond.
const YIELD_ROWS: u32 = 64;

/// Counts rows.
#[derive(Debug, Default)]
pub struct YieldEvery(u32);

impl YieldEvery {
    /// One more row is done. Now and then, others may run.
    pub fn tick(&mut self) {
        self.0 += 1;
        if self.0 == YIELD_ROWS {
            self.0 = 0;
            yield_core();
        }
    }
}

/// Whoever waits for this core may have it; costs less than a microsecond where nobody does.
pub fn yield_core() {
    thread::yield_now();
}
