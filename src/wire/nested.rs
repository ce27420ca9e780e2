//! Numbers in maps of a metrics message: each is a field of its own, named by its path, so that it can be a column or be drawn.
//!
//! `{"data": {"train": {"loss": 0.4, "f1": 0.8}}}` has the fields `train.loss` and `train.f1`. Paths are counted from below the
//! places that are looked into anyway. Beyond the bounds a number stays where it is, in `rest_json`.

use std::collections::HashSet;

use super::{
    message::{Field, Held},
    names::{self, Place, Takes},
    value::{Items, Raw, Value, write_text},
};

/// Names in a path.
const LEVELS_MAX: usize = 4;
/// Length of a path.
const PATH_BYTES_MAX: usize = 256;
/// Numbers of one message that are fields of their own.
const NUMBERS_MAX: usize = 512;

/// Whether the numbers below this name describe a run, and are not measured.
fn is_configuration(name: &str) -> bool {
    matches!(name, "config" | "params" | "hyperparameters")
}

/// The path that the numbers in a field's map begin with, and its names; `None`: they are no fields.
fn root(field: &Field<'_>) -> Option<(String, usize)> {
    match (&field.value, field.place) {
        (Value::Map(_), _) if is_configuration(&field.key) => None,
        (Value::Map(_), Place::Network) => Some((format!("{}.{}", Place::Network.name(), field.key), 2)),
        (Value::Map(_), _) => Some((field.key.to_string(), 1)),
        _ => None,
    }
}

/// Appends a field for each number in the maps among `fields`.
pub(super) fn gather(fields: &mut Vec<Field<'_>>) {
    if !fields.iter().any(|field| matches!(field.value, Value::Map(_))) {
        return;
    }
    let flat = fields.len();
    // A path has a dot, so no other name can be equal to one.
    let taken: HashSet<String> = fields
        .iter()
        .filter(|field| field.value != Value::Null && field.key.contains('.'))
        .map(|field| field.key.to_string())
        .collect();
    let mut found = Numbers { taken, fields: Vec::new() };
    for field in &fields[..flat] {
        if let (Value::Map(raw), Some((path, levels))) = (&field.value, root(field)) {
            let from = found.fields.len();
            found.walk(&mut Items::of(raw), Path { text: path, levels }, field.place);
            found.merge_duplicates(from);
        }
    }
    fields.append(&mut found.fields);
}

struct Path {
    text: String,
    levels: usize,
}

impl Path {
    /// This path with one more name, where it is within the bounds.
    fn with(&self, name: &str) -> Option<Self> {
        let fits = self.levels < LEVELS_MAX && self.text.len() + 1 + name.len() <= PATH_BYTES_MAX;
        fits.then(|| Self { text: format!("{}.{name}", self.text), levels: self.levels + 1 })
    }
}

struct Numbers<'a> {
    taken: HashSet<String>,
    fields: Vec<Field<'a>>,
}

impl<'a> Numbers<'a> {
    fn walk(&mut self, items: &mut Items<'a>, path: Path, place: Place) {
        while self.fields.len() < NUMBERS_MAX
            && let Some(name) = items.key()
        {
            let value = items.value();
            // Only such values can be a number, or hold some: a path is not made for every other.
            if !(value.is_number() || matches!(value, Value::Map(_) | Value::Text(_))) {
                continue;
            }
            let Some(path) = path.with(&name) else { continue };
            match &value {
                Value::Map(raw) if !is_configuration(&name) => self.walk(&mut Items::of(raw), path, place),
                value if is_measured(&path.text, value) && !self.taken.contains(&path.text) => {
                    let key = path.text.into();
                    self.fields.push(Field { place, depth: 0, key, value: value.clone(), held: Held::NoColumn });
                }
                _ => {}
            }
        }
    }

    /// The last number of a path counts, as the last entry of a name does.
    fn merge_duplicates(&mut self, from: usize) {
        let mut later: HashSet<String> = HashSet::new();
        for at in (from..self.fields.len()).rev() {
            if !later.insert(self.fields[at].key.to_string()) {
                self.fields.remove(at);
            }
        }
    }
}

/// A number, or, where the path is a name of a column of numbers, what is read as one.
fn is_measured(path: &str, value: &Value<'_>) -> bool {
    let is_column = || names::meaning(path).is_some_and(|(slot, _)| slot.takes() == Takes::Number);
    value.is_number() || (!value.is_container() && is_column() && value.double().is_some())
}

/// The numbers of a message that are held elsewhere whole, so that their maps need not hold them again.
#[derive(Default)]
pub(super) struct HeldNumbers<'m> {
    paths: HashSet<&'m str>,
    /// The maps around them.
    maps: HashSet<&'m str>,
}

impl<'m> HeldNumbers<'m> {
    /// Of these paths.
    pub(super) fn new(paths: impl Iterator<Item = &'m str>) -> Self {
        let mut held = Self::default();
        for path in paths {
            held.paths.insert(path);
            held.maps.extend(path.match_indices('.').map(|(at, _)| &path[..at]));
        }
        held
    }

    /// Appends the value of a field as JSON without what is held; whether anything is left. A map that holds nothing of it stays
    /// as it is; in others `null` is absent.
    pub(super) fn write_rest(&self, field: &Field<'_>, out: &mut String) -> bool {
        match (&field.value, root(field)) {
            (Value::Map(raw), Some((text, levels))) if self.maps.contains(text.as_str()) => {
                self.write_map(raw, &Path { text, levels }, out)
            }
            _ => {
                field.value.write_json(out);
                true
            }
        }
    }

    fn holds(&self, path: &str, value: &Value<'_>) -> bool {
        self.paths.contains(path) && is_measured(path, value)
    }

    fn write_map(&self, raw: &Raw<'_>, path: &Path, out: &mut String) -> bool {
        let start = out.len();
        out.push('{');
        let empty = out.len();
        let mut items = Items::of(raw);
        while let Some(name) = items.key() {
            let value = items.value();
            let inner = path.with(&name);
            if value == Value::Null || inner.as_ref().is_some_and(|inner| self.holds(&inner.text, &value)) {
                continue;
            }
            let before = out.len();
            if before > empty {
                out.push(',');
            }
            write_text(out, &name);
            out.push(':');
            let is_left = match (&value, inner) {
                (Value::Map(raw), Some(inner)) if self.maps.contains(inner.text.as_str()) => {
                    self.write_map(raw, &inner, out)
                }
                _ => {
                    value.write_json(out);
                    true
                }
            };
            if !is_left {
                out.truncate(before);
            }
        }
        if out.len() == empty {
            out.truncate(start);
            return false;
        }
        out.push('}');
        true
    }
}
