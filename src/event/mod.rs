//! Events: the kinds of event, the rows they become, and the ids that make a replay idempotent.
//!
//! Rows are plain values. Their keys and contents depend only on the message, the channel and the decisions that intake stored
//! with it ([`Resolved`]); nothing here reads a clock or a configuration.

mod entry;
mod labels;
mod metrics_columns;
mod run_edit;
mod size;
mod stored_row;
mod text;

use std::collections::BTreeMap;

use sha1_smol::Sha1;
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

pub(crate) use self::metrics_columns::metric_columns;
use self::size::{ROW_OVERHEAD_BYTES, text};
pub use self::{
    entry::{EntryId, NoEntryId, entry_source, split_source},
    labels::{extra_label, extra_name},
    metrics_columns::{ColumnType, ColumnValue, Drawn, METRIC_COLUMNS, MetricColumn, MetricColumns, ReadColumns},
    run_edit::EditedRun,
    size::{Keyed, MemSize, total_bytes},
    stored_row::{
        ControlRow, DatasetRow, EventRow, GapRow, ReadStored, RunEdit, RunRow, StoredColumn, StoredRow, StoredType,
        StoredValue, TopologyRow,
    },
    text::{Guard, SharedText},
};
use crate::{units::Micros, words::words};

/// Namespace of every derived UUID.
pub const NAMESPACE: Uuid = Uuid::from_u128(0xf0c8_53b7_6794_4685_b2f5_4301_9da8_836b);

/// Kind of a training message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Losses, accuracies and other numbers of one epoch or step.
    Metrics,
    /// A snapshot of the network.
    Topology,
    /// Start of a run.
    RunStart,
    /// End of a run.
    RunEnd,
    /// A description of a dataset.
    Dataset,
    /// State of the trainer.
    State,
    /// Any other type, such as `cascade_add`.
    Other,
}

/// Decisions of intake, stored beside the message's bytes, so that a replay does not repeat them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The run of the event.
    pub run_id: Uuid,
    /// Event time: the message's own time if usable, else the time of receipt.
    pub event_time: Micros,
    /// Time of receipt.
    pub received_at: Micros,
    /// Whether `event_time` is the message's own.
    pub has_event_time: bool,
    /// Whether this event opened an implicit run (one without a start message).
    pub opened_run: bool,
}

/// The key shared by the event tables: partition `run_id`, then `timestamp` and `event_id`, newest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey {
    /// Partition.
    pub run_id: Uuid,
    /// Event time. Cassandra keeps milliseconds; the microseconds within one are in `event_id`.
    pub timestamp: Micros,
    /// See [`event_id`].
    pub event_id: i64,
}

impl EventKey {
    /// Position of the row in its run; the cursor for the rows after it.
    pub fn cursor(&self) -> (Micros, i64) {
        (self.timestamp, self.event_id)
    }
}

/// A row of `training_metrics`.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsRow {
    /// Its key.
    pub key: EventKey,
    /// The columns of one value.
    pub columns: MetricColumns,
    /// Numbers that have no column, by name.
    pub extra: BTreeMap<String, f64>,
    /// The remaining fields of the message, as a JSON object.
    pub rest_json: Option<SharedText>,
}

/// An immutable row; repeating its write changes nothing.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "one per table")]
pub enum Row {
    Metrics(MetricsRow),
    Topology(TopologyRow),
    Event(EventRow),
    Dataset(DatasetRow),
    Control(ControlRow),
    Gap(GapRow),
}

words! {
    /// The tables that take immutable rows.
    #[derive(PartialOrd, Ord)]
    #[allow(missing_docs, reason = "one per table")]
    pub enum Table(name) {
        Metrics "training_metrics",
        Topology "network_topology",
        Events "training_events",
        Datasets "dataset_info",
        Control "control_log",
        Gaps "ingest_gaps",
    }
}

/// The partition of a row; rows of one partition form a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Partition {
    /// Id of a run or dataset.
    Id(Uuid),
    /// A UTC day, in days since the epoch.
    Day(i64),
}

/// Microseconds in a UTC day.
pub const DAY: Micros = 86_400_000_000;

impl Row {
    /// The table and partition of the row.
    pub fn destination(&self) -> (Table, Partition) {
        match self {
            Self::Metrics(row) => (Table::Metrics, Partition::Id(row.key.run_id)),
            Self::Topology(row) => (Table::Topology, Partition::Id(row.key.run_id)),
            Self::Event(row) => (Table::Events, Partition::Id(row.key.run_id)),
            Self::Dataset(row) => (Table::Datasets, Partition::Id(row.dataset_id)),
            Self::Control(row) => (Table::Control, Partition::Day(row.timestamp.div_euclid(DAY))),
            Self::Gap(row) => (Table::Gaps, Partition::Day(row.started_at.div_euclid(DAY))),
        }
    }

    /// The text that may be as long as a message.
    pub fn text_mut(&mut self) -> Option<&mut SharedText> {
        match self {
            Self::Metrics(row) => row.rest_json.as_mut(),
            Self::Topology(row) => Some(&mut row.topology_json),
            Self::Event(row) => Some(&mut row.payload_json),
            Self::Dataset(_) | Self::Control(_) | Self::Gap(_) => None,
        }
    }

    /// Approximate bytes of the row in memory and on the wire.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Metrics(row) => row.bytes(),
            Self::Topology(row) => row.bytes(),
            Self::Event(row) => row.bytes(),
            Self::Dataset(row) => {
                ROW_OVERHEAD_BYTES
                    + [&row.name, &row.description, &row.file_path, &row.checksum].into_iter().map(text).sum::<usize>()
                    + row.class_distribution.keys().map(|key| key.len() + 8).sum::<usize>()
            }
            Self::Control(row) => ROW_OVERHEAD_BYTES + row.payload_json.len() + row.command.len(),
            Self::Gap(row) => ROW_OVERHEAD_BYTES + row.reason.len() + row.source.len(),
        }
    }
}

impl RunRow {
    /// Position of the run among all runs, newest first, if it has one.
    pub fn cursor(&self) -> Option<(Micros, Uuid)> {
        Some((self.start_time?, self.run_id))
    }
}

/// Change of a run by one event; the writer merges it, by value, into the run's row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunUpdate {
    /// Event time.
    pub event_time: Micros,
    /// Status change; only start and end events have one.
    pub lifecycle: Option<Lifecycle>,
    /// Values of the event. Only these columns are used: `run_id`, `run_name`, `dataset_*`, `config_json`, `final_*`, `total_*`,
    /// `notes`, `tags`, `created_by`; `best_*` are derived from `final_val_accuracy` and `final_epoch`.
    pub values: Box<RunRow>,
}

/// Status change of a run by a start or end event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// `running`.
    Start,
    /// `completed`, `failed` or `stopped`.
    End(&'static str),
}

/// The statuses that are stored.
pub mod status {
    #![allow(missing_docs, reason = "the values of the contract, by name")]
    pub const RUNNING: &str = "running";
    pub const COMPLETED: &str = "completed";
    pub const FAILED: &str = "failed";
    pub const STOPPED: &str = "stopped";
}

/// `(microseconds within the millisecond << 43) | low 43 bits of XXH3-64(channel ‖ 0x00 ‖ payload)`: below 2^53, so that a JSON
/// number holds it exactly, and ordered by time within one millisecond. Of a stream see [`entry_source`].
pub fn event_id(event_time: Micros, channel: &str, payload: &[u8]) -> i64 {
    let mut hash = Xxh3::new();
    hash.update(channel.as_bytes());
    hash.update(&[0]);
    hash.update(payload);
    let low = (hash.digest() & ((1 << 43) - 1)).cast_signed();
    (event_time.rem_euclid(1_000) << 43) | low
}

/// The time of an event in microseconds, from the stored milliseconds and its id.
pub fn restore_micros(millis: i64, event_id: i64) -> Micros {
    millis.saturating_mul(1_000).saturating_add((event_id >> 43).clamp(0, 999))
}

/// UUID of a run with a text id: the text itself if it is a UUID, else derived from it.
pub fn run_id_from_text(text: &str) -> Uuid {
    Uuid::try_parse(text.trim()).unwrap_or_else(|_| Uuid::new_v5(&NAMESPACE, text.as_bytes()))
}

/// UUID of a run without an id: derived from channel, time and bytes of the message that opens it.
pub fn implicit_run_id(channel: &str, event_time: Micros, payload: &[u8]) -> Uuid {
    // Same result as `Uuid::new_v5`, which would need a copy of the payload.
    let mut hash = Sha1::new();
    for part in [NAMESPACE.as_bytes(), channel.as_bytes(), &[0], event_time.to_string().as_bytes(), &[0], payload] {
        hash.update(part);
    }
    let [first @ .., _, _, _, _] = hash.digest().bytes();
    uuid::Builder::from_sha1_bytes(first).into_uuid()
}

/// UUID of a dataset that has only a name.
pub fn dataset_id(name: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("dataset:{name}").as_bytes())
}

/// UUID of a gap: the same gap reported twice is one row.
pub fn gap_id(instance: &str, source: &str, channel: Option<&str>, reason: &str, started_at: Micros) -> Uuid {
    let time = started_at.to_string();
    let name = [instance, source, channel.unwrap_or(""), reason, &time].join("\0");
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_fit_a_double_and_keep_the_microsecond() {
        let time = 1_763_633_700_123_456;
        let id = event_id(time, "cascor:training", b"{}");
        assert!((0..1 << 53).contains(&id));
        assert_eq!(restore_micros(time.div_euclid(1_000), id), time);
        assert_ne!(id, event_id(time, "cascor:other", b"{}"), "the channel is part of the id");
        assert!(id < event_id(time + 1, "cascor:training", b"{}"), "ordered within the millisecond");
    }

    #[test]
    fn a_run_without_an_id_has_a_version_5_uuid() {
        let expected = Uuid::new_v5(&NAMESPACE, b"cascor:training\x001763633700123456\x00{}");
        assert_eq!(implicit_run_id("cascor:training", 1_763_633_700_123_456, b"{}"), expected);
    }

    #[test]
    fn a_run_id_that_is_not_a_uuid_is_derived_from_its_text() {
        let id = Uuid::from_u128(7);
        assert_eq!(run_id_from_text(&id.to_string().to_uppercase()), id);
        assert_eq!(run_id_from_text("spiral-7"), Uuid::new_v5(&NAMESPACE, b"spiral-7"));
    }
}
