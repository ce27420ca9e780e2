//! Values of an answer as cells of a table.

use comfy_table::Cell;
use serde_json::Value;

use super::{spark::listed, table};
use crate::render;

/// The text of a field.
pub fn text(object: &Value, field: &str) -> Cell {
    table::text(object[field].as_str())
}

/// A whole number.
pub fn count(object: &Value, field: &str) -> Cell {
    table::count(object[field].as_i64())
}

/// A number with a fraction; `NaN` also stands for an infinity: JSON has neither.
pub fn number(object: &Value, field: &str) -> Cell {
    let value = object[field].as_f64().or_else(|| listed(object, field).then_some(f64::NAN));
    table::number(value)
}

/// A time.
pub fn moment(object: &Value, field: &str) -> Cell {
    table::moment(object[field].as_str().and_then(|text| render::parse_time(text).ok()))
}

/// The objects in a list.
pub fn list<'a>(answer: &'a Value, field: &str) -> &'a [Value] {
    answer[field].as_array().map(Vec::as_slice).unwrap_or_default()
}
