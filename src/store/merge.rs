//! How all backends update runs and datasets: present columns replace, absent columns keep the stored value. One exception: a
//! restarted run has no end, so `restarted_at` clears an `end_time` that the change does not carry.

use crate::event::{RunRow, StoredRow};

/// Applies the present columns of `change` to `row`.
pub fn apply(change: &RunRow, row: &mut RunRow) {
    if change.restarted_at.is_some() {
        (row.end_time, row.duration_seconds) = (None, None);
    }
    row.merge(change);
}
