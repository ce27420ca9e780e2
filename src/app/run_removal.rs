//! Removes deleted runs from what this process remembers of runs: open runs and latest keys.

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::{
    frame::IntakeItem,
    latest::LatestState,
    lifecycle::Signal,
    redis::Link,
    store::Deletions,
    units::{self, Micros},
};

/// Latest keys are not searched for runs that were deleted longer ago: they have expired.
const LATEST_LIFETIME_MAX: Micros = 3_600_000_000;

/// What is told of deleted runs.
pub(super) struct RunRemoval {
    /// From the writer.
    pub(super) deletions: watch::Receiver<Deletions>,
    /// Closes open runs; weak, because intake drains until every sender is dropped.
    pub(super) to_intake: mpsc::WeakSender<IntakeItem>,
    pub(super) latest_state: Arc<LatestState>,
    pub(super) link: Link,
}

impl RunRemoval {
    /// Until stopped.
    pub(super) async fn run(mut self, mut stop: Signal) -> Result<(), Infallible> {
        let mut removed = HashMap::new();
        loop {
            tokio::select! {
                () = stop.stopped() => return Ok(()),
                changed = self.deletions.changed() => if changed.is_err() {
                    stop.stopped().await;
                    return Ok(());
                },
            }
            let deletions = self.deletions.borrow_and_update().clone();
            for (run_id, deleted_at) in &deletions {
                if removed.get(run_id) == Some(deleted_at) {
                    continue;
                }
                if let Some(to_intake) = self.to_intake.upgrade() {
                    let _ = to_intake.send(IntakeItem::CloseDeletedRun(*run_id, *deleted_at)).await;
                }
                if units::now() - deleted_at > LATEST_LIFETIME_MAX {
                    continue;
                }
                info!(%run_id, "run was deleted; its open run and its latest keys are removed");
                if let Err(error) = self.latest_state.remove_run(*run_id, *deleted_at, &self.link).await {
                    warn!(%run_id, error, "latest keys of a deleted run are left to expire");
                }
            }
            removed = deletions;
        }
    }
}
