//! Deletes latest keys by command: all of them, or those of a deleted run.

use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;

use super::{
    LatestKind,
    state::{LatestState, Update, ValueSlot},
};
use crate::{
    redis::{self, Link, Resource},
    units::Micros,
};

/// How long a deletion may take.
const DELETE_TIMEOUT: Duration = Duration::from_secs(2);

impl LatestState {
    /// Forgets all values and deletes their keys, by name. Returns how many were there.
    ///
    /// # Errors
    /// Why Redis did not delete them; the values are forgotten all the same, and the keys expire.
    pub async fn clear(&self, link: &Link) -> Result<u64, String> {
        self.delete(link, || self.reset()).await
    }

    /// Forgets what was received of a run at or before `until`, and deletes its keys. The history is written again without it.
    ///
    /// # Errors
    /// As [`clear`](Self::clear).
    pub async fn remove_run(&self, run_id: Uuid, until: Micros, link: &Link) -> Result<(), String> {
        let deleted = self.delete(link, || self.forget_run(run_id, until)).await;
        self.changed.notify_one();
        deleted.map(drop)
    }

    /// Deletes the keys that are `forgotten`, with no write under way.
    async fn delete(&self, link: &Link, forgotten: impl Fn() -> Vec<String>) -> Result<u64, String> {
        let deleted = async {
            let _writing = self.write_lock.lock().await;
            let keys = forgotten();
            let Some(first) = keys.first().cloned() else { return Ok(0) };
            let Some(client) = link.client() else { return Err("Redis is not connected".to_owned()) };
            redis::delete(&client, keys).await.map_err(|error| link.acl().explain(&error, Resource::Key(&first)))
        };
        match timeout(DELETE_TIMEOUT, deleted).await {
            Ok(deleted) => deleted,
            Err(_) => {
                forgotten();
                Err("Redis did not answer in time".into())
            }
        }
    }

    /// Returns the names of the run's keys.
    fn forget_run(&self, run_id: Uuid, until: Micros) -> Vec<String> {
        let of_run = |update: &Update| update.decided.run_id == run_id && update.decided.received_at <= until;
        let mut state = self.lock();
        let mut keys = Vec::new();
        for kind in LatestKind::ALL {
            let slot = &mut state.slots[kind as usize];
            if slot.value.as_deref().is_some_and(of_run) {
                *slot = ValueSlot::default();
                keys.push(self.key(kind, None));
            }
        }
        if let Some(run) = state.runs.get_mut(&run_id) {
            for (kind, slot) in run.all() {
                if slot.value.as_deref().is_none_or(of_run) {
                    *slot = ValueSlot::default();
                    keys.push(self.key(kind, Some(run_id)));
                }
            }
        }
        state.history_backlog.retain(|update| !of_run(update));
        state.history_backlog_bytes = state.history_backlog.iter().map(|update| update.payload.len()).sum();
        state.deleted.push((run_id, until));
        state.dirty = true;
        keys
    }
}
