//! What a message says about its run.

use std::collections::BTreeSet;

use super::{dataset, message::Message, names::FieldId, value::Value};
use crate::event::{DatasetRow, Kind, Lifecycle, MetricColumns, Resolved, RunRow, RunUpdate};

/// The type of an event that adds notes and tags to a run, whatever its status.
pub const RUN_UPDATE: &str = "run_update";
/// The longest configuration, as JSON, that the row of a run holds. A longer one is in the event of the run's start, whole: the row
/// is read and written with every change of the run, many of them at once.
const CONFIG_BYTES_MAX: usize = 1 << 20;
/// The longest name of a dataset in the row of a run, by which stores index the row (Cassandra leaves one of 20 KB out of its index).
/// A longer one is in the event of the run's start.
const DATASET_NAME_BYTES_MAX: usize = 1 << 10;
/// Tags of a run, at most, and of one message; further tags stay in the events.
pub const TAGS_MAX: usize = 1_024;
/// The bytes of all tags of a message that become tags of its run.
pub const TAGS_BYTES_MAX: usize = 64 << 10;

/// What a message says about its run.
pub(super) fn run_update(message: &Message<'_>, resolved: &Resolved) -> RunUpdate {
    let lifecycle = match message.kind {
        Kind::RunStart => Some(Lifecycle::Start),
        Kind::RunEnd => Some(Lifecycle::End(message.outcome().status)),
        // A run without a start event begins with the event that opened it.
        _ => resolved.opened_run.then_some(Lifecycle::Start),
    };
    let mut values = Box::new(RunRow {
        run_id: resolved.run_id,
        run_name: message.run_name().map(str::to_owned),
        ..RunRow::default()
    });
    let columns = &message.columns.metric;
    if matches!(message.kind, Kind::Metrics | Kind::RunEnd) {
        set_finals(&mut values, columns);
    }
    if message.kind == Kind::Other && message.type_name() == RUN_UPDATE {
        annotate(message, &mut values);
    }
    values.total_hidden_units = columns.hidden_units;
    RunUpdate { event_time: resolved.event_time, lifecycle, values }
}

/// Takes the final values from the columns of metrics.
pub fn set_finals<T>(values: &mut RunRow, columns: &MetricColumns<T>) {
    values.final_epoch = columns.epoch;
    values.final_train_loss = columns.train_loss;
    values.final_train_accuracy = columns.train_accuracy;
    values.final_val_loss = columns.val_loss;
    values.final_val_accuracy = columns.val_accuracy;
}

/// What a run start says about its run, and the dataset it carries.
pub(super) fn start(message: &Message<'_>, values: &mut RunRow) -> Option<DatasetRow> {
    annotate(message, values);
    let text = |field_id| message.get(field_id).and_then(Value::text).map(|text| text.into_owned());
    values.created_by = text(FieldId::CreatedBy);
    values.config_json = message
        .get(FieldId::Config)
        .filter(|config| config.json_bytes() <= CONFIG_BYTES_MAX)
        .map(|config| config.to_json().into());
    let described = message.named("dataset").filter(|value| matches!(value, Value::Map(_)));
    let mut dataset = match (described, text(FieldId::DatasetName)) {
        (Some(map), _) => dataset::read(|name| map.get(name)).0,
        (None, name) => {
            name.and_then(|name| dataset::read(|key| (key == "name").then(|| Value::Text(name.clone().into()))).0)
        }
    };
    values.dataset_name = text(FieldId::DatasetName)
        .or_else(|| dataset.as_ref()?.name.clone())
        .filter(|name| name.len() <= DATASET_NAME_BYTES_MAX);
    values.dataset_size =
        message.get(FieldId::DatasetSize).and_then(dataset::column).or_else(|| dataset.as_ref()?.num_samples);
    if let Some(dataset) = &mut dataset {
        dataset.num_samples = dataset.num_samples.or(values.dataset_size);
    }
    dataset
}

/// The notes and tags of a run.
fn annotate(message: &Message<'_>, values: &mut RunRow) {
    values.notes = message.get(FieldId::Notes).and_then(Value::text).map(|text| text.into_owned());
    values.tags = match message.get(FieldId::Tags) {
        Some(tags @ Value::List(_)) => {
            let mut bytes = 0;
            let tags = tags.elements().take(TAGS_MAX).take_while(|tag| {
                bytes += tag.json_bytes();
                bytes <= TAGS_BYTES_MAX
            });
            tags.map(|tag| tag.text().map_or_else(|| tag.to_json(), |text| text.into_owned())).collect()
        }
        Some(tag) => tag.text().map(|text| text.into_owned()).into_iter().collect(),
        None => BTreeSet::new(),
    };
}
