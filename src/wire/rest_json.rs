//! JSON text of a message: whole, and what no column holds of it.

use std::collections::BTreeSet;

use super::{field::Field, message::Message, value::Encoded, write::write_text};
use crate::memory::LARGE_VALUE;

/// A JSON object in the making.
#[derive(Default)]
pub(super) struct RestJson {
    json: String,
    names: BTreeSet<String>,
}

impl RestJson {
    /// Nothing yet of this message.
    pub(super) fn of(message: &Message<'_>) -> Self {
        Self { json: json_buffer(message.root), ..Self::default() }
    }

    /// Adds a field; one whose name is taken is told apart by its section.
    pub(super) fn add(&mut self, field: &Field<'_>) {
        self.open(field);
        field.value.write_json(&mut self.json);
    }

    /// Adds a field of metrics. A map is added without the numbers that `extra` or a column holds, where anything is left of it then.
    pub(super) fn add_field(&mut self, message: &Message<'_>, at: usize) {
        let field = &message.fields[at];
        let Some(nested) = &message.nested else { return self.add(field) };
        let (before, name) = (self.json.len(), self.open(field));
        match nested.write_rest(field, at, &mut self.json) {
            None => field.value.write_json(&mut self.json),
            Some(true) => {}
            Some(false) => {
                self.json.truncate(before);
                self.names.remove(&name);
            }
        }
    }

    /// Appends the name of a field, which is returned; its value comes next.
    fn open(&mut self, field: &Field<'_>) -> String {
        self.json.push(if self.json.is_empty() { '{' } else { ',' });
        let mut name = field.key.to_string();
        while !self.names.insert(name.clone()) {
            name = format!("{}.{name}", field.section.name());
        }
        write_text(&mut self.json, &name);
        self.json.push(':');
        name
    }

    /// The object, if anything was added.
    pub(super) fn finish(mut self) -> Option<String> {
        if self.json.is_empty() {
            return None;
        }
        self.json.push('}');
        Some(self.json)
    }
}

/// An empty text with room for the JSON of this message, where that is long: one that grows asks for twice what it needs.
pub(super) fn json_buffer(root: Encoded<'_>) -> String {
    let bytes = match root {
        Encoded::Json(text) => text.len(),
        Encoded::Pack(bytes) => bytes.len(),
    };
    if bytes < LARGE_VALUE { String::new() } else { String::with_capacity(super::json_bytes(root) + LARGE_VALUE) }
}

/// A message as JSON that every reader takes.
pub(super) fn root_json(root: Encoded<'_>, is_strict_json: bool) -> String {
    match root {
        Encoded::Json(text) if is_strict_json => text.to_owned(),
        source => {
            let mut json = json_buffer(source);
            super::value::Raw { encoded: source, len: 0 }.write_json(&mut json);
            json
        }
    }
}
