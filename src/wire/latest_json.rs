//! The objects of the latest-state keys: JSON that every client reads.

use std::{collections::HashSet, fmt::Write};

use uuid::Uuid;

use super::{
    field::{Destination, Field},
    message::Message,
    names::FieldId,
    topology::{self, Computed},
    value::Value,
    write::{put, write_display, write_double, write_moment, write_text},
};
use crate::event::{ColumnValue, Kind, METRIC_COLUMNS, Resolved};

/// Appends the message's own fields, flattened, with the canonical names and `_ingest`.
///
/// A canonical name holds the canonical value where there is one; of several own fields of one name the one that is looked up first
/// is shown. A list that counts as `hidden_units` is shown as `hidden_units_list`.
pub fn latest_json<'o>(message: &'o Message<'_>, resolved: &Resolved, instance: &str, out: &'o mut impl Write) {
    let mut object = Object::open(out);
    canonical_fields(message, resolved, &mut object);
    own_fields(message, &mut object);
    append_ingest(message, resolved, instance, object);
}

/// The same with the canonical fields only, for objects that would be too large for the history.
pub fn latest_json_canonical<'o>(
    message: &'o Message<'_>,
    resolved: &Resolved,
    instance: &str,
    out: &'o mut impl Write,
) {
    let mut object = Object::open(out);
    object.add("type", |out| write_text(out, message.type_name()));
    canonical_fields(message, resolved, &mut object);
    append_ingest(message, resolved, instance, object);
}

/// Appends the same, but for `_ingest`, of a message that is stored as JSON, to an object that has members already: those `taken`.
pub fn append_stored<'o>(message: &'o Message<'_>, resolved: &Resolved, taken: &[&'o str], out: &'o mut impl Write) {
    let mut object = Object { names: taken.to_vec(), ..Object::open(out) };
    canonical_fields(message, resolved, &mut object);
    own_fields(message, &mut object);
}

/// The message's own fields, flattened.
fn own_fields<'o>(message: &'o Message<'_>, object: &mut Object<'o, impl Write>) {
    let mut order: Vec<&Field<'_>> = message.fields.iter().filter(|field| field.value != Value::Null).collect();
    order.sort_by_key(|field| (field.section, u8::MAX - field.depth));
    for field in order {
        if field.key == "hidden_units" && matches!(field.value, Value::List(_)) {
            object.add("hidden_units_list", |out| field.value.write_json(out));
        }
        object.add(&field.key, |out| field.value.write_json(out));
    }
}

/// A JSON object in the making; the first value of a name stays.
struct Object<'o, W> {
    out: &'o mut W,
    /// The names so far. Few, as a rule: looking through them is cheaper than hashing.
    names: Vec<&'o str>,
    /// The same, once they are many.
    name_set: HashSet<&'o str>,
}

/// Names that are looked through one by one.
const LINEAR_SEARCH_MAX: usize = 48;

impl<'o, W: Write> Object<'o, W> {
    fn open(out: &'o mut W) -> Self {
        Self { out, names: Vec::with_capacity(24), name_set: HashSet::new() }
    }

    fn has(&self, name: &str) -> bool {
        if self.name_set.is_empty() { self.names.contains(&name) } else { self.name_set.contains(name) }
    }

    fn add(&mut self, name: &'o str, write: impl FnOnce(&mut W)) {
        // The last member is ours, whatever a producer calls its own.
        if name == "_ingest" || self.has(name) {
            return;
        }
        put(self.out, if self.names.is_empty() { "{" } else { "," });
        self.names.push(name);
        if self.names.len() >= LINEAR_SEARCH_MAX && self.name_set.is_empty() {
            self.name_set.extend(&self.names);
        } else if self.names.len() > LINEAR_SEARCH_MAX {
            self.name_set.insert(name);
        }
        write_text(self.out, name);
        put(self.out, ":");
        write(self.out);
    }

    fn integer(&mut self, field_id: FieldId, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.add(field_id.name(), |out| write_display(out, value));
        }
    }
}

fn canonical_fields<'o>(message: &'o Message<'_>, resolved: &Resolved, object: &mut Object<'o, impl Write>) {
    let columns = &message.columns;
    object.add("run_id", |out| write_uuid(out, resolved.run_id));
    if let Some(name) = message.run_name() {
        object.add("run_name", |out| write_text(out, name));
    }
    object.add("timestamp", |out| write_moment(out, resolved.event_time));
    // First, as the contract shows it.
    object.integer(FieldId::Seq, columns.metric.seq);
    for (column, value) in METRIC_COLUMNS.iter().zip(columns.metric.values()) {
        match value {
            ColumnValue::Int(Some(value)) => object.add(column.name, |out| write_display(out, value)),
            ColumnValue::BigInt(Some(value)) => object.add(column.name, |out| write_display(out, value)),
            ColumnValue::Double(Some(value)) => object.add(column.name, |out| write_double(out, value)),
            ColumnValue::Text(Some(text)) => object.add(column.name, |out| write_text(out, text)),
            _ => {}
        }
    }
    // As the row has it: the whole part in the column, the number in `extra`.
    for (field_id, name) in [(FieldId::Epoch, "extra.epoch"), (FieldId::Step, "extra.step")] {
        if let Some(field) = message.field(field_id).filter(|field| field.destination == Destination::WholePart) {
            object.add(name, |out| write_double(out, field.value.double().unwrap_or(f64::NAN)));
        }
    }
    object.integer(FieldId::InputSize, columns.input_size);
    object.integer(FieldId::OutputSize, columns.output_size);
    if message.kind() == Kind::Topology && !object.has(FieldId::WeightsSummary.name()) {
        let Computed { total_parameters, weights_summary } = topology::computed(message);
        object.integer(FieldId::TotalParameters, total_parameters);
        if let Some(summary) = weights_summary {
            object.add(FieldId::WeightsSummary.name(), |out| write_text(out, &summary));
        }
    } else {
        object.integer(FieldId::TotalParameters, columns.total_parameters);
    }
}

fn write_uuid(out: &mut impl Write, id: Uuid) {
    put(out, "\"");
    put(out, id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    put(out, "\"");
}

fn append_ingest(message: &Message<'_>, resolved: &Resolved, instance: &str, object: Object<'_, impl Write>) {
    let out = object.out;
    put(out, ",\"_ingest\":{\"run_id\":");
    write_uuid(out, resolved.run_id);
    put(out, ",\"received_at\":");
    write_moment(out, resolved.received_at);
    put(out, ",\"published_at\":");
    if resolved.has_event_time {
        write_moment(out, resolved.event_time);
    } else {
        put(out, "null");
    }
    put(out, ",\"seq\":");
    match message.seq() {
        Some(seq) => write_display(out, seq),
        None => put(out, "null"),
    }
    put(out, ",\"lag_ms\":");
    if resolved.has_event_time {
        write_double(out, resolved.received_at.saturating_sub(resolved.event_time) as f64 / 1_000.0);
    } else {
        put(out, "null");
    }
    put(out, ",\"instance\":");
    write_text(out, instance);
    put(out, "}}");
}
