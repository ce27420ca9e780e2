//! The objects of the latest-state keys: JSON that every client reads.

use std::{collections::HashSet, fmt::Write};

use uuid::Uuid;

use super::{
    message::{Field, Held, Message},
    names::Slot,
    time,
    value::{Value, put, write_double, write_text},
};
use crate::event::Decided;

/// Appends the message's own fields, flattened, with the canonical names and `_ingest`.
///
/// A canonical name holds the canonical value where there is one; of several own fields of one name the one that is looked up first
/// is shown. A list that counts as `hidden_units` is shown as `hidden_units_list`.
pub fn latest_json<'o>(message: &'o Message<'_>, decided: &Decided, instance: &str, out: &'o mut impl Write) {
    let mut object = Object::open(out);
    canonical(message, decided, &mut object);
    own(message, &mut object);
    ingest(message, decided, instance, object);
}

/// The same with the canonical fields only, for objects that would be too large for the history.
pub fn latest_json_canonical<'o>(message: &'o Message<'_>, decided: &Decided, instance: &str, out: &'o mut impl Write) {
    let mut object = Object::open(out);
    object.add("type", |out| write_text(out, message.type_name()));
    canonical(message, decided, &mut object);
    ingest(message, decided, instance, object);
}

/// Appends the same, but for `_ingest`, of a message that is stored as JSON, to an object that has members already: those `taken`.
pub fn append_stored<'o>(message: &'o Message<'_>, decided: &Decided, taken: &[&'o str], out: &'o mut impl Write) {
    let mut object = Object { names: taken.to_vec(), ..Object::open(out) };
    canonical(message, decided, &mut object);
    own(message, &mut object);
}

/// The message's own fields, flattened.
fn own<'o>(message: &'o Message<'_>, object: &mut Object<'o, impl Write>) {
    let mut order: Vec<&Field<'_>> = message.fields.iter().filter(|field| field.value != Value::Null).collect();
    order.sort_by_key(|field| (field.place, u8::MAX - field.depth));
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
    many: HashSet<&'o str>,
}

/// Names that are looked through one by one.
const FEW: usize = 48;

impl<'o, W: Write> Object<'o, W> {
    fn open(out: &'o mut W) -> Self {
        Self { out, names: Vec::with_capacity(24), many: HashSet::new() }
    }

    fn has(&self, name: &str) -> bool {
        if self.many.is_empty() { self.names.contains(&name) } else { self.many.contains(name) }
    }

    fn add(&mut self, name: &'o str, write: impl FnOnce(&mut W)) {
        // The last member is ours, whatever a producer calls its own.
        if name == "_ingest" || self.has(name) {
            return;
        }
        put(self.out, if self.names.is_empty() { "{" } else { "," });
        self.names.push(name);
        if self.names.len() >= FEW && self.many.is_empty() {
            self.many.extend(&self.names);
        } else if self.names.len() > FEW {
            self.many.insert(name);
        }
        write_text(self.out, name);
        put(self.out, ":");
        write(self.out);
    }

    fn integer(&mut self, slot: Slot, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.add(slot.name(), |out| {
                let _ = write!(out, "{value}");
            });
        }
    }

    fn double(&mut self, slot: Slot, value: Option<f64>) {
        if let Some(value) = value {
            self.add(slot.name(), |out| write_double(out, value));
        }
    }
}

fn canonical<'o>(message: &'o Message<'_>, decided: &Decided, object: &mut Object<'o, impl Write>) {
    let columns = &message.columns;
    object.add("run_id", |out| identifier(out, decided.run_id));
    if let Some(name) = message.run_name() {
        object.add("run_name", |out| write_text(out, name));
    }
    match message.get(Slot::Timestamp) {
        // As the producer wrote it: its readers expect no other form.
        Some(own) if decided.own_time => object.add("timestamp", |out| own.write_json(out)),
        _ => object.add("timestamp", |out| moment(out, decided.event_time)),
    }
    object.integer(Slot::Seq, columns.seq);
    object.integer(Slot::Epoch, columns.epoch);
    object.integer(Slot::Step, columns.step);
    // As the row has it: the whole part in the column, the number in `extra`.
    for (slot, name) in [(Slot::Epoch, "extra.epoch"), (Slot::Step, "extra.step")] {
        if let Some(field) = message.field(slot).filter(|field| field.held == Held::WholePart) {
            object.add(name, |out| write_double(out, field.value.double().unwrap_or(f64::NAN)));
        }
    }
    object.double(Slot::TrainLoss, columns.train_loss);
    object.double(Slot::TrainAccuracy, columns.train_accuracy);
    object.double(Slot::ValLoss, columns.val_loss);
    object.double(Slot::ValAccuracy, columns.val_accuracy);
    object.double(Slot::LearningRate, columns.learning_rate);
    object.integer(Slot::HiddenUnits, columns.hidden_units);
    if let Some(phase) = &columns.phase {
        object.add("phase", |out| write_text(out, phase));
    }
    object.integer(Slot::InputSize, columns.input_size);
    object.integer(Slot::OutputSize, columns.output_size);
    object.integer(Slot::TotalParameters, columns.total_parameters);
}

fn moment(out: &mut impl Write, micros: i64) {
    put(out, "\"");
    time::write(out, micros);
    put(out, "\"");
}

fn identifier(out: &mut impl Write, id: Uuid) {
    put(out, "\"");
    put(out, id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    put(out, "\"");
}

fn ingest(message: &Message<'_>, decided: &Decided, instance: &str, object: Object<'_, impl Write>) {
    let out = object.out;
    put(out, ",\"_ingest\":{\"run_id\":");
    identifier(out, decided.run_id);
    put(out, ",\"received_at\":");
    moment(out, decided.received_at);
    put(out, ",\"published_at\":");
    if decided.own_time {
        moment(out, decided.event_time);
    } else {
        put(out, "null");
    }
    put(out, ",\"seq\":");
    match message.seq() {
        Some(seq) => {
            let _ = write!(out, "{seq}");
        }
        None => put(out, "null"),
    }
    put(out, ",\"lag_ms\":");
    if decided.own_time {
        write_double(out, decided.received_at.saturating_sub(decided.event_time) as f64 / 1_000.0);
    } else {
        put(out, "null");
    }
    put(out, ",\"instance\":");
    write_text(out, instance);
    put(out, "}}");
}
