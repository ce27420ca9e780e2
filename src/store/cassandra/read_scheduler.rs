//! Long reads let others go first, piece by piece.
//!
//! Cassandra often runs on the cores that ingestion runs on. A curve beside a page keeps two cores busy, and intake waits for one
//! of them with a message in its hand; one behind the other they are done as soon.

use std::time::Duration;

use tokio::{sync::watch, task::yield_now, time::timeout};

/// Rows after which others go first, about: where a page of the server ends.
pub(super) const YIELD_ROWS: usize = 1_000;
/// How long a piece waits: about as long as a page takes. More would make a curve of many pieces last for ever beside a reader who
/// never rests.
const NEXT_PAGE_TIMEOUT: Duration = Duration::from_millis(10);

/// How many read.
#[derive(Debug, Default)]
pub(super) struct ReadScheduler(watch::Sender<usize>);

/// One of those, while it lives.
#[derive(Debug)]
pub(super) struct ReadGuard<'t>(&'t ReadScheduler);

impl ReadScheduler {
    /// To read the first piece, which for most is all: it waits for nobody.
    pub(super) fn start(&self) -> ReadGuard<'_> {
        self.0.send_modify(|reading| *reading += 1);
        ReadGuard(self)
    }

    /// To read the next: when nobody reads, or after [`NEXT_PAGE_TIMEOUT`].
    pub(super) async fn next_page(&self) -> ReadGuard<'_> {
        // Whoever has waited for the last piece to end is asked first.
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
    async fn a_long_read_waits_for_others_but_not_for_one_that_hangs() {
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
    async fn of_two_long_reads_none_reads_beside_the_other() {
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
