//! Size and position of rows, by which result pages are limited and continued.

use super::{ColumnValue, EventKey, EventRow, MetricsRow, RunRow, SharedText, TopologyRow};

/// Approximate bytes of every row.
pub(super) const ROW_OVERHEAD_BYTES: usize = 96;

/// Rows that may be megabytes long.
pub trait MemSize {
    /// Approximate bytes of the row in memory and on the wire.
    fn bytes(&self) -> usize;
}

/// Rows of an event table.
pub trait Keyed: MemSize {
    /// Position of the row in its run.
    fn key(&self) -> &EventKey;
}

/// Approximate bytes of these rows.
pub fn total_bytes<T: MemSize>(rows: &[T]) -> usize {
    rows.iter().map(T::bytes).sum()
}

pub(super) fn text(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, String::len)
}

fn shared(text: &Option<SharedText>) -> usize {
    text.as_ref().map_or(0, |text| text.len())
}

impl MemSize for MetricsRow {
    fn bytes(&self) -> usize {
        let extra: usize = self.extra.keys().map(|key| key.len() + 16).sum();
        let texts = self.columns.values().into_iter().filter_map(|value| match value {
            ColumnValue::Text(text) => text.map(str::len),
            ColumnValue::Int(_) | ColumnValue::BigInt(_) | ColumnValue::Double(_) => None,
        });
        ROW_OVERHEAD_BYTES + texts.sum::<usize>() + shared(&self.rest_json) + extra
    }
}

impl MemSize for TopologyRow {
    fn bytes(&self) -> usize {
        ROW_OVERHEAD_BYTES + self.topology_json.len() + text(&self.weights_summary)
    }
}

impl MemSize for EventRow {
    fn bytes(&self) -> usize {
        ROW_OVERHEAD_BYTES + self.r#type.len() + self.payload_json.len()
    }
}

impl Keyed for MetricsRow {
    fn key(&self) -> &EventKey {
        &self.key
    }
}

impl Keyed for TopologyRow {
    fn key(&self) -> &EventKey {
        &self.key
    }
}

impl Keyed for EventRow {
    fn key(&self) -> &EventKey {
        &self.key
    }
}

impl MemSize for RunRow {
    fn bytes(&self) -> usize {
        let texts = [&self.run_name, &self.status, &self.dataset_name, &self.notes, &self.created_by];
        let tags: usize = self.tags.iter().map(String::len).sum();
        2 * ROW_OVERHEAD_BYTES + texts.into_iter().map(text).sum::<usize>() + shared(&self.config_json) + tags
    }
}
