//! Large latest values: few are kept, and none while memory is short.

use std::sync::Arc;

use super::state::{Inner, LatestState, PendingWrite, Update, ValueSlot};

impl LatestState {
    /// Puts back a value that cannot be written now, unless there is a newer one.
    pub(super) fn requeue(&self, write: &PendingWrite) {
        let mut state = self.lock();
        let slot = match write.run {
            None => Some(&mut state.slots[write.kind as usize]),
            Some(run) => state.runs.get_mut(&run).and_then(|run| run.slot(write.kind)),
        };
        if let Some(slot) = slot.filter(|slot| slot.value.as_ref().is_some_and(|held| Arc::ptr_eq(held, &write.update)))
        {
            slot.dirty = true;
            if !std::mem::replace(&mut state.dirty, true) {
                self.changed.notify_one();
            }
        }
    }

    /// Drops all large values, because memory is short. Written ones stay in Redis until their TTL.
    pub(super) fn drop_large(&self) {
        let mut state = self.lock();
        while let Some(oldest) = state.large.pop_front() {
            state.release(&oldest);
        }
    }
}

impl Inner {
    /// Keeps a large value, and drops the oldest ones beyond `bytes_max`, but never the newest. Returns how many keys were not written.
    pub(super) fn retain_large(&mut self, update: &Arc<Update>, bytes_max: usize) -> u64 {
        self.prune_replaced();
        self.large.push_back(Arc::clone(update));
        let mut skipped = 0;
        while self.large.len() > 1 && self.large.iter().map(|held| held.payload.len()).sum::<usize>() > bytes_max {
            let Some(oldest) = self.large.pop_front() else { break };
            skipped += self.release(&oldest);
        }
        skipped
    }

    fn release(&mut self, update: &Arc<Update>) -> u64 {
        let of_runs = self.runs.values_mut().flat_map(|run| [&mut run.metrics, &mut run.topology]);
        let mut skipped = 0;
        for slot in self.slots.iter_mut().chain(of_runs) {
            if slot.value.as_ref().is_some_and(|held| Arc::ptr_eq(held, update)) {
                skipped += u64::from(slot.dirty);
                *slot = ValueSlot::default();
            }
        }
        skipped
    }

    /// Drops values that no key has any more.
    pub(super) fn prune_replaced(&mut self) {
        self.large.retain(|held| Arc::strong_count(held) > 1);
    }
}
