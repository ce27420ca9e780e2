//! Commits confirmed positions to the spool.

use std::{sync::Arc, time::Duration};

use super::ports::Commit;
use crate::{spool, store::Store};

/// Commits to the spool; a store that may forget keeps the checkpoint behind.
pub struct SpoolCommit {
    committer: spool::Committer,
    view: spool::View,
    store: Arc<dyn Store>,
    linger: Duration,
}

impl SpoolCommit {
    /// `linger` is used while the store says that it may forget.
    pub fn new(committer: spool::Committer, view: spool::View, store: Arc<dyn Store>, linger: Duration) -> Self {
        Self { committer, view, store, linger }
    }
}

impl Commit for SpoolCommit {
    fn commit(&self, next: u64) {
        // Known only once the store is connected, so asked each time.
        self.committer.set_linger(if self.store.acks_may_be_lost() { self.linger } else { Duration::ZERO });
        self.committer.commit(next);
    }

    fn rollback_to_checkpoint(&self) -> u64 {
        // What lingers is forgotten when the reader goes back.
        self.view.committed()
    }
}
