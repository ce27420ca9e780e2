//! Values of an answer as cells of a table.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    sparkline::listed,
    table::{self, Cell, Column},
};
use crate::render;

/// A column of a table, and the field of a row that it shows.
#[derive(Clone, Debug)]
pub struct FieldColumn {
    pub column: Column,
    pub name: &'static str,
    /// How the field is shown.
    pub cell: fn(&Value, &str) -> Cell,
}

impl FieldColumn {
    /// A column that shows a field.
    pub const fn new(name: &'static str, column: Column, cell: fn(&Value, &str) -> Cell) -> Self {
        Self { column, name, cell }
    }
}

/// The columns of a table.
pub fn columns(fields: &[FieldColumn]) -> Vec<Column> {
    fields.iter().map(|field| field.column.clone().of(field.name)).collect()
}

/// The cells of a row.
pub fn row(fields: &[FieldColumn], row: &Value) -> Vec<Cell> {
    fields.iter().map(|field| (field.cell)(row, field.name)).collect()
}

/// The text of a field.
pub fn text(object: &Value, field: &str) -> Cell {
    table::text(object[field].as_str())
}

/// A text that is useless when it is cut.
pub fn whole_text(object: &Value, field: &str) -> Cell {
    Cell::Whole(table::escaped(object[field].as_str().unwrap_or_default()))
}

/// The status of a run.
pub fn status(object: &Value, field: &str) -> Cell {
    table::status(object[field].as_str())
}

/// The beginning of the id in a field.
pub fn short_id(object: &Value, field: &str) -> Cell {
    table::short_id(object[field].as_str().unwrap_or_default())
}

/// A whole number.
pub fn count(object: &Value, field: &str) -> Cell {
    table::count(object[field].as_i64())
}

/// A number with a fraction, also one that JSON does not have.
pub fn number(object: &Value, field: &str) -> Cell {
    table::number(object[field].as_f64().or_else(|| non_finite(object, field)))
}

/// The number of a field that JSON does not have: the record names it beside its fields.
fn non_finite(object: &Value, field: &str) -> Option<f64> {
    match object["infinite"][field].as_str() {
        Some(infinity) => infinity.parse().ok(),
        None => listed(object, field).then_some(f64::NAN),
    }
}

/// A time.
pub fn moment(object: &Value, field: &str) -> Cell {
    table::moment(object[field].as_str().and_then(|text| render::parse_time(text).ok()))
}

/// A field of any type; a number that has no column of its own is in `extra`.
pub fn any(object: &Value, field: &str) -> Cell {
    let value = if object[field].is_null() { &object["extra"][field] } else { &object[field] };
    match value {
        Value::Null => number(object, field),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => table::count(Some(whole)),
            None => table::number(number.as_f64()),
        },
        Value::String(text) => match render::parse_time(text).ok().filter(|_| is_time(text)) {
            Some(at) => table::moment(Some(at)),
            None => table::text(Some(text)),
        },
        Value::Array(items) => table::text(Some(&joined(items))),
        other => table::text(Some(&other.to_string())),
    }
}

/// The fields of these records that have a value and are not among those shown; of `extra`, the names in it.
pub fn further(records: &[Value], shown: &[&str]) -> Vec<String> {
    let has_value = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    };
    let mut names = BTreeSet::new();
    for (name, value) in records.iter().filter_map(Value::as_object).flatten() {
        match value {
            Value::Object(extra) if name == "extra" => names.extend(extra.keys()),
            // Both name fields that are not finite; such a field shows that itself.
            _ if name == "non_finite" && value.is_array() => {}
            _ if name == "infinite" && value.is_object() => {}
            value if has_value(value) => _ = names.insert(name),
            _ => {}
        }
    }
    names.into_iter().filter(|name| !shown.contains(&name.as_str())).cloned().collect()
}

/// Whether this is a time as answers write it.
fn is_time(text: &str) -> bool {
    text.len() == "2026-11-20T10:15:00.000000Z".len() && text.ends_with('Z') && text.as_bytes()[10] == b'T'
}

/// A field with all its digits, also a number that JSON does not have.
pub fn whole_field(object: &Value, field: &str) -> Cell {
    match (&object[field], non_finite(object, field)) {
        (Value::Null, Some(number)) => Cell::Whole(table::exact(number)),
        (value, _) => whole(value),
    }
}

/// A value with all its digits, for a list of fields.
pub fn whole(value: &Value) -> Cell {
    match value {
        Value::Null => table::text(None),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Cell::Whole(whole.to_string()),
            None => Cell::Whole(number.as_f64().map(table::exact).unwrap_or_default()),
        },
        Value::String(text) => table::text(Some(text)),
        Value::Array(items) => table::text(Some(&joined(items))),
        other => table::text(Some(&other.to_string())),
    }
}

fn joined(items: &[Value]) -> String {
    let item = |item: &Value| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
    items.iter().map(item).collect::<Vec<_>>().join(", ")
}

/// The fields of an object and of those within it, by their paths: `optimizer.rate`.
pub fn flattened(path: &str, value: &Value, fields: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (name, value) in object {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flattened(&path, value, fields);
            }
        }
        other => fields.push((path.to_owned(), other.clone())),
    }
}

/// The keys of the configuration of a run, and their values.
pub fn configuration(run: &Value) -> Vec<(String, Value)> {
    let mut fields = Vec::new();
    if let Some(text) = run["config_json"].as_str() {
        match serde_json::from_str::<Value>(text) {
            Ok(config @ Value::Object(_)) => flattened("", &config, &mut fields),
            _ => fields.push(("config_json".into(), text.into())),
        }
    }
    fields
}

/// The texts in a list.
pub fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The objects in a list.
pub fn list<'a>(answer: &'a Value, field: &str) -> &'a [Value] {
    answer[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_has_a_value_and_no_column_is_named() {
        let rows = [
            json!({"run_id": "r", "epoch": 1, "seq": null, "extra": {"f1": 0.5, "nan": null}, "non_finite": ["nan"]}),
            json!({"run_id": "r", "epoch": 2, "tags": [], "note": "", "archived": false, "exact": true, "extra": {}}),
        ];
        assert_eq!(further(&rows, &["run_id", "epoch"]), ["exact", "f1", "nan"]);
        assert_eq!(further(&rows, &["exact", "f1", "nan"]), ["epoch", "run_id"]);
    }

    #[test]
    fn a_field_of_any_type_is_shown() {
        let row = json!({"epoch": 3, "f1": null, "extra": {"f1": 0.25}, "at": "2026-11-20T10:15:00.000000Z", "tags": ["a", "b"],
            "non_finite": ["loss", "norm"], "infinite": {"norm": "-Infinity"}});
        for (field, cell) in [
            ("epoch", table::count(Some(3))),
            ("f1", table::number(Some(0.25))),
            ("at", Cell::Whole("2026-11-20 10:15:00".into())),
            ("tags", table::text(Some("a, b"))),
            ("loss", Cell::Number("NaN".into())),
            ("norm", Cell::Number("-inf".into())),
            ("absent", Cell::Number(String::new())),
        ] {
            assert_eq!(any(&row, field), cell, "{field}");
        }
        assert_eq!(whole_field(&row, "loss"), Cell::Whole("NaN".into()));
        assert_eq!(whole_field(&row, "norm"), Cell::Whole("-inf".into()));
        assert_eq!(whole_field(&row, "epoch"), Cell::Whole("3".into()));
        let mut fields = Vec::new();
        flattened("", &json!({"a": {"b": 1, "c": {}}, "d": [1, 2]}), &mut fields);
        let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.b", "a.c", "d"]);
    }
}
