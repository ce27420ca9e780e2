//! Long reads let others go first, piece by piece.
//!
//! Cassandra often runs on the cores that ingestion runs on. A curve beside a page keeps two cores busy, and intake waits for one
//! of them with a message in its hand; one behind the other they are done as soon.

use std::time::Duration;

use tokio::{sync::watch, task::yield_now, time::timeout};

/// Rows after which others go first, about: where a page of the server ends.
pub(super) const PIECE: usize = 1_000;
/// How long a piece waits: about as long as a page takes. More would make a curve of many pieces last for ever beside a reader who
/// never rests.
const PATIENCE: Duration = Duration::from_millis(10);

/// How many read.
#[derive(Debug, Default)]
pub(super) struct Turns(watch::Sender<usize>);

/// One of those, while it lives.
#[derive(Debug)]
pub(super) struct Turn<'t>(&'t Turns);

impl Turns {
    /// To read the first piece, which for most is all: it waits for nobody.
    pub(super) fn begin(&self) -> Turn<'_> {
        self.0.send_modify(|reading| *reading += 1);
        Turn(self)
    }

    /// To read the next: when nobody reads, or after [`PATIENCE`].
    pub(super) async fn go_on(&self) -> Turn<'_> {
        // Whoever has waited for the last piece to end is asked first.
        yield_now().await;
        let _ = timeout(PATIENCE, self.0.subscribe().wait_for(|reading| *reading == 0)).await;
        self.begin()
    }
}

impl Drop for Turn<'_> {
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
        let turns = Turns::default();
        let start = Instant::now();
        drop(turns.go_on().await);
        let (first, second) = (turns.begin(), turns.begin());
        assert_eq!(start.elapsed(), Duration::ZERO);
        drop(first);
        let (_, ()) = tokio::join!(turns.go_on(), async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(second);
        });
        assert!((PATIENCE / 2..PATIENCE).contains(&start.elapsed()));
        let _hangs = turns.begin();
        let start = Instant::now();
        turns.go_on().await;
        assert!(start.elapsed() >= PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_long_reads_none_reads_beside_the_other() {
        let turns = Arc::new(Turns::default());
        let read = async |turns: Arc<Turns>| {
            for _ in 0..10 {
                let turn = turns.go_on().await;
                assert_eq!(*turns.0.borrow(), 1);
                tokio::time::sleep(PATIENCE * 2 / 3).await;
                drop(turn);
            }
        };
        let mut both = JoinSet::new();
        both.spawn(read(Arc::clone(&turns)));
        both.spawn(read(turns));
        both.join_all().await;
    }
}
