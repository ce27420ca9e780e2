//! What a message says of a dataset: its row, and whether the row says all of it.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use uuid::Uuid;

use super::{
    message::Message,
    names::{FieldId, Section},
    rejection::invalid,
    time,
    value::{Number, Value},
};
use crate::{
    event::{self, DatasetRow},
    frame::Rejection,
};

/// The names of all classes of a dataset's row, at most.
const CLASSES_BYTES_MAX: usize = 1 << 20;

/// A whole number of a column.
pub(super) fn column(value: &Value<'_>) -> Option<i32> {
    match value.number() {
        Number::Int(n) => i32::try_from(n).ok(),
        _ => None,
    }
}

/// A dataset message can only be a row when it names its dataset.
pub(super) fn check(message: &Message<'_>) -> Result<(), Rejection> {
    match of_message(message, false).0 {
        Some(_) => Ok(()),
        None => Err(invalid("dataset_id", &Value::Null)),
    }
}

/// The row of a dataset message, and whether it says all that the message says.
pub(super) fn of_message(message: &Message<'_>, has_event_time: bool) -> (Option<DatasetRow>, bool) {
    let described = message.named("dataset").filter(|value| matches!(value, Value::Map(_)));
    let (row, used) = match described {
        Some(map) => read(|name| map.get(name)),
        None => read(|name| message.named(name).cloned()),
    };
    // Of two values of one name the row has one.
    let is_only =
        |name: &str| message.fields.iter().filter(|field| field.key == name && field.value != Value::Null).count() == 1;
    let whole = described.is_none()
        && message.fields.iter().enumerate().all(|(at, field)| {
            field.value == Value::Null
                || (field.section == Section::Top && field.key == "type")
                || message.is_assigned(FieldId::RunId, at)
                || (has_event_time && message.is_assigned(FieldId::Timestamp, at))
                || (used.contains(&&*field.key) && is_only(&field.key))
        });
    (row, whole)
}

/// Reads a dataset through `get`; also which of the fields it could use.
pub(super) fn read<'a>(get: impl Fn(&str) -> Option<Value<'a>>) -> (Option<DatasetRow>, Vec<&'static str>) {
    let mut used = Vec::new();
    let text = |names: &[&'static str], used: &mut Vec<&'static str>| {
        names.iter().find_map(|name| {
            let text = get(name)?.text()?.into_owned();
            used.push(*name);
            Some(text)
        })
    };
    let count = |names: &[&'static str], used: &mut Vec<&'static str>| {
        names.iter().find_map(|name| {
            let count = column(&get(name)?)?;
            used.push(*name);
            Some(count)
        })
    };
    let name = text(&["name", "dataset_name", "dataset"], &mut used);
    let id = text(&["dataset_id"], &mut used);
    let dataset_id = match (&id, &name) {
        (Some(id), _) => Uuid::try_parse(id.trim()).unwrap_or_else(|_| event::dataset_id(id)),
        (None, Some(name)) => event::dataset_id(name),
        (None, None) => return (None, used),
    };
    let classes = get("class_distribution");
    let class_distribution: BTreeMap<String, i32> = classes
        .iter()
        .flat_map(Value::entries)
        .filter_map(|(class, count)| Some((class.into_owned(), column(&count)?)))
        .collect();
    let is_whole = matches!(classes, Some(Value::Map(raw)) if raw.len == class_distribution.len());
    // Longer names are in the event, which has the message whole.
    let fits = class_distribution.keys().map(String::len).sum::<usize>() <= CLASSES_BYTES_MAX;
    let class_distribution = if fits { class_distribution } else { BTreeMap::new() };
    if is_whole && fits {
        used.push("class_distribution");
    }
    let created_at = get("created_at").and_then(|value| time::read(&value, &TimeZone::UTC));
    used.extend(created_at.map(|_| "created_at"));
    let row = DatasetRow {
        dataset_id,
        name,
        description: text(&["description"], &mut used),
        num_samples: count(&["num_samples", "dataset_size"], &mut used),
        num_features: count(&["num_features"], &mut used),
        num_classes: count(&["num_classes"], &mut used),
        class_distribution,
        created_at,
        file_path: text(&["file_path"], &mut used),
        checksum: text(&["checksum"], &mut used),
    };
    (Some(row), used)
}
