//! How large a row is, and where it is: what pages of rows end by.

use super::{EventKey, EventRow, MetricsRow, RunRow, SharedText, TopologyRow};

/// What every row takes, roughly.
pub(super) const ROW: usize = 96;

/// Rows of which one may be megabytes.
pub trait Weigh {
    /// Roughly how many bytes the row takes in memory and on the wire.
    fn bytes(&self) -> usize;
}

/// Rows of an event table.
pub trait Placed: Weigh {
    /// Where the row is.
    fn key(&self) -> &EventKey;
}

/// What these rows take, in bytes.
pub fn weight<T: Weigh>(rows: &[T]) -> usize {
    rows.iter().map(T::bytes).sum()
}

pub(super) fn text(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, String::len)
}

fn shared(text: &Option<SharedText>) -> usize {
    text.as_ref().map_or(0, |text| text.len())
}

impl Weigh for MetricsRow {
    fn bytes(&self) -> usize {
        let extra: usize = self.extra.keys().map(|key| key.len() + 16).sum();
        ROW + text(&self.phase) + shared(&self.rest_json) + extra
    }
}

impl Weigh for TopologyRow {
    fn bytes(&self) -> usize {
        ROW + self.topology_json.len() + text(&self.weights_summary)
    }
}

impl Weigh for EventRow {
    fn bytes(&self) -> usize {
        ROW + self.r#type.len() + self.payload_json.len()
    }
}

impl Placed for MetricsRow {
    fn key(&self) -> &EventKey {
        &self.key
    }
}

impl Placed for TopologyRow {
    fn key(&self) -> &EventKey {
        &self.key
    }
}

impl Placed for EventRow {
    fn key(&self) -> &EventKey {
        &self.key
    }
}

impl Weigh for RunRow {
    fn bytes(&self) -> usize {
        let texts = [&self.run_name, &self.status, &self.dataset_name, &self.notes, &self.created_by];
        let tags: usize = self.tags.iter().map(String::len).sum();
        2 * ROW + texts.into_iter().map(text).sum::<usize>() + shared(&self.config_json) + tags
    }
}
