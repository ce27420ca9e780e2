//! Others first: work of many milliseconds lets whoever waits for its core have it in between.
//!
//! Being nice is not enough. The kernels of servers preempt nobody, and look once a tick (4 ms at 250 Hz) who should run: so long
//! intake would wait with a message in its hand while an answer is written. [Linux, sched(7), and `PREEMPT_NONE`]

use std::thread;

/// Rows between two looks: about a tenth of a millisecond.
const ROWS: u32 = 64;

/// Counts rows.
#[derive(Debug, Default)]
pub struct Courtesy(u32);

impl Courtesy {
    /// One more row is done. Now and then, others may run.
    pub fn row(&mut self) {
        self.0 += 1;
        if self.0 == ROWS {
            self.0 = 0;
            after_you();
        }
    }
}

/// Whoever waits for this core may have it; costs less than a microsecond where nobody does.
pub fn after_you() {
    thread::yield_now();
}
