//! Numbers in maps of a metrics message: each is a field of its own, named by its path, so that it can be a column or be drawn.
//!
//! `{"data": {"train": {"loss": 0.4, "f1": 0.8}}}` has the fields `train.loss` and `train.f1`. Paths are counted from below the
//! sections that are looked into anyway. Beyond the bounds a number stays where it is, in `rest_json`.

use std::collections::HashSet;

use super::{
    field::{Destination, Field},
    items::Items,
    names::{self, ExpectedType, Section},
    value::{Raw, Value},
    write::write_text,
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
fn root_path(field: &Field<'_>) -> Option<(String, usize)> {
    match (&field.value, field.section) {
        (Value::Map(_), _) if is_configuration(&field.key) => None,
        (Value::Map(_), Section::Network) => Some((format!("{}.{}", Section::Network.name(), field.key), 2)),
        (Value::Map(_), _) => Some((field.key.to_string(), 1)),
        _ => None,
    }
}

/// The position of a number: the field of its map, and the index among the numbers of that map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Position {
    root: usize,
    number: usize,
}

/// The numbers of a message that are fields of their own.
#[derive(Clone, Debug, Default)]
pub(super) struct NestedNumbers {
    /// Those that their map need not hold as well.
    extracted: HashSet<Position>,
    /// Fields that hold one of these.
    roots: HashSet<usize>,
}

impl NestedNumbers {
    /// Appends a field for each number in the maps among `fields`; `None`: there are no maps.
    pub(super) fn append(fields: &mut Vec<Field<'_>>) -> Option<Self> {
        if !fields.iter().any(|field| matches!(field.value, Value::Map(_))) {
            return None;
        }
        // A path has a dot, so no other name can be equal to one.
        let taken = fields
            .iter()
            .filter(|field| field.value != Value::Null && field.key.contains('.'))
            .map(|field| field.key.to_string())
            .collect();
        let mut search =
            NestedSearch { taken, section: Section::Top, at: Position { root: 0, number: 0 }, found: Vec::new() };
        let mut nested = Self::default();
        for (root, field) in fields.iter().enumerate() {
            if let (Value::Map(raw), Some((text, levels))) = (&field.value, root_path(field)) {
                (search.section, search.at) = (field.section, Position { root, number: 0 });
                search.walk(&mut Items::of(raw), &NumberPath { text, levels });
            }
        }
        for found in search.found {
            // An integer that a double cannot hold stays in its map, too.
            if found.is_superseded || found.field.value.double().is_some_and(|x| found.field.value.is_exact(x)) {
                nested.extracted.insert(found.at);
                nested.roots.insert(found.at.root);
            }
            if !found.is_superseded {
                fields.push(found.field);
            }
        }
        Some(nested)
    }

    /// Appends the map of the field at `root` as JSON without the numbers that are held elsewhere; whether anything is left.
    /// `None`: it holds none of them, and nothing is appended.
    pub(super) fn write_rest(&self, field: &Field<'_>, root: usize, out: &mut String) -> Option<bool> {
        let Value::Map(raw) = &field.value else { return None };
        let (text, levels) = root_path(field).filter(|_| self.roots.contains(&root))?;
        let mut at = Position { root, number: 0 };
        Some(self.write_map(raw, &NumberPath { text, levels }, &mut at, out))
    }

    fn write_map(&self, raw: &Raw<'_>, path: &NumberPath, at: &mut Position, out: &mut String) -> bool {
        let start = out.len();
        // Whether the map lacks something that is held elsewhere, and whether it has anything of its own; `null` is nothing.
        let (mut lacks_any, mut has_any) = (false, false);
        out.push('{');
        let empty = out.len();
        let mut items = Items::of(raw);
        while let Some(name) = items.key() {
            let value = items.value();
            let inner = path.of_number(&name, &value);
            if inner.as_ref().is_some_and(|inner| is_measured(&inner.text, &value)) {
                let number = *at;
                at.number += 1;
                if self.extracted.contains(&number) {
                    lacks_any = true;
                    continue;
                }
            }
            let before = out.len();
            if before > empty {
                out.push(',');
            }
            write_text(out, &name);
            out.push(':');
            match (&value, inner) {
                (Value::Map(raw), Some(inner)) if !is_configuration(&name) => {
                    if !self.write_map(raw, &inner, at, out) {
                        lacks_any = true;
                        out.truncate(before);
                        continue;
                    }
                }
                _ => value.write_json(out),
            }
            has_any |= value != Value::Null;
        }
        if lacks_any && !has_any {
            out.truncate(start);
            return false;
        }
        out.push('}');
        true
    }
}

struct NumberPath {
    text: String,
    levels: usize,
}

impl NumberPath {
    /// The path of an entry of this map that may be a number or hold some, where that is within the bounds.
    fn of_number(&self, name: &str, value: &Value<'_>) -> Option<Self> {
        // A path is not made for every other value.
        let may_be = value.is_number() || matches!(value, Value::Map(_) | Value::Text(_));
        let fits = self.levels < LEVELS_MAX && self.text.len() + 1 + name.len() <= PATH_BYTES_MAX;
        (may_be && fits).then(|| Self { text: format!("{}.{name}", self.text), levels: self.levels + 1 })
    }
}

/// A number that was found.
struct NestedNumber<'a> {
    at: Position,
    field: Field<'a>,
    /// A later entry of the same map has the same name, and counts in its place.
    is_superseded: bool,
}

struct NestedSearch<'a> {
    taken: HashSet<String>,
    section: Section,
    /// The next number.
    at: Position,
    found: Vec<NestedNumber<'a>>,
}

impl<'a> NestedSearch<'a> {
    fn walk(&mut self, items: &mut Items<'a>, path: &NumberPath) {
        // The numbers of this very map.
        let mut own: Vec<usize> = Vec::new();
        while self.found.len() < NUMBERS_MAX
            && let Some(name) = items.key()
        {
            let value = items.value();
            let Some(inner) = path.of_number(&name, &value) else { continue };
            match &value {
                Value::Map(raw) if !is_configuration(&name) => self.walk(&mut Items::of(raw), &inner),
                value if is_measured(&inner.text, value) => {
                    let at = self.at;
                    self.at.number += 1;
                    if self.taken.contains(&inner.text) {
                        continue;
                    }
                    if let Some(earlier) = own.iter().find(|earlier| self.found[**earlier].field.key == inner.text) {
                        self.found[*earlier].is_superseded = true;
                    }
                    own.push(self.found.len());
                    let key = inner.text.into();
                    let field = Field {
                        section: self.section,
                        depth: 0,
                        key,
                        value: value.clone(),
                        destination: Destination::NoColumn,
                    };
                    self.found.push(NestedNumber { at, field, is_superseded: false });
                }
                _ => {}
            }
        }
    }
}

/// A number, or, where the path is a name of a column of numbers, what is read as one.
fn is_measured(path: &str, value: &Value<'_>) -> bool {
    let is_column =
        || names::lookup(path).is_some_and(|(field_id, _)| field_id.expected_type() == ExpectedType::Number);
    value.is_number() || (!value.is_container() && is_column() && value.double().is_some())
}
