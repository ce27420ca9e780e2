//! Interleaves long reads with other reads, page by page.
//!
//! Cassandra often shares its cores with ingestion. A curve read in parallel to an HTTP page keeps two cores busy and delays
//! intake; in sequence both finish as soon.

use std::time::Duration;

use tokio::{sync::watch, task::yield_now, time::timeout};

/// Approximate rows between two yields; yields happen at the end of a server page.
pub(super) const YIELD_ROWS: usize = 1_000;
/// Maximum wait before the next page: about the duration of one page. A longer wait would starve a long curve while another
/// client reads continuously.
const NEXT_PAGE_TIMEOUT: Duration = Duration::from_millis(10);

/// Number of active page reads.
#[derive(Debug, Default)]
pub(super) struct ReadScheduler(watch::Sender<usize>);

/// Marks an active page read until it is dropped.
#[derive(Debug)]
pub(super) struct ReadGuard<'t>(&'t ReadScheduler);

impl ReadScheduler {
    /// Starts the first page, which for most reads is the only one; never waits.
    pub(super) fn start(&self) -> ReadGuard<'_> {
        self.0.send_modify(|reading| *reading += 1);
        ReadGuard(self)
    }

    /// Starts the next page when no other read is active, or after [`NEXT_PAGE_TIMEOUT`].
    pub(super) async fn next_page(&self) -> ReadGuard<'_> {
        // Reads that waited for the previous page are woken first.
        yield_now().await;
        let _ = timeout(NEXT_PAGE_TIMEOUT, self.0.subscribe().wait_for(|reading| *reading == 0)).await;
        self.start()
    }
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|reading| *reading -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{task::JoinSet, time::Instant};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_long_read_waits_for_other_reads_but_not_for_a_stalled_one() {
        let scheduler = ReadScheduler::default();
        let start = Instant::now();
        drop(scheduler.next_page().await);
        let (first, second) = (scheduler.start(), scheduler.start());
        assert_eq!(start.elapsed(), Duration::ZERO);
        drop(first);
        let (_, ()) = tokio::join!(scheduler.next_page(), async {
            tokio::time::sleep(NEXT_PAGE_TIMEOUT / 2).await;
            drop(second);
        });
        assert!((NEXT_PAGE_TIMEOUT / 2..NEXT_PAGE_TIMEOUT).contains(&start.elapsed()));
        let _hangs = scheduler.start();
        let start = Instant::now();
        scheduler.next_page().await;
        assert!(start.elapsed() >= NEXT_PAGE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn two_long_reads_alternate() {
        let scheduler = Arc::new(ReadScheduler::default());
        let read = async |scheduler: Arc<ReadScheduler>| {
            for _ in 0..10 {
                let guard = scheduler.next_page().await;
                assert_eq!(*scheduler.0.borrow(), 1);
                tokio::time::sleep(NEXT_PAGE_TIMEOUT * 2 / 3).await;
                drop(guard);
            }
        };
        let mut both = JoinSet::new();
        both.spawn(read(Arc::clone(&scheduler)));
        both.spawn(read(scheduler));
        both.join_all().await;
    }
}
