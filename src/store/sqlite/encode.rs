//! Encodings of column values: times, maps, and numbers that JSON lacks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use rusqlite::{
    ToSql,
    types::{FromSql, FromSqlResult, ToSqlOutput, ValueRef},
};
use serde_json::{Map, Value, value::RawValue};

pub(super) use crate::store::dates::{day, month};
use crate::{
    event::{ColumnValue, SharedText, StoredValue},
    units::non_finite_name,
};

impl ToSql for SharedText {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        (**self).to_sql()
    }
}

impl ToSql for ColumnValue<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Int(value) => value.to_sql(),
            Self::BigInt(value) => value.to_sql(),
            Self::Double(value) => value.to_sql(),
            Self::Text(value) => value.to_sql(),
        }
    }
}

impl ToSql for StoredValue<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Column(value) => value.to_sql(),
            Self::Id(id) => Ok(ToSqlOutput::Owned(id.map(|id| id.to_string()).into())),
            Self::Time(value) => value.to_sql(),
            Self::Flag(value) => value.to_sql(),
            Self::Texts(texts) => Ok(ToSqlOutput::Owned(set(texts).into())),
            Self::Counts(map) => Ok(ToSqlOutput::Owned(counts(map).into())),
        }
    }
}

impl FromSql for SharedText {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        String::column_result(value).map(Into::into)
    }
}

fn named(name: &str) -> Option<f64> {
    match name {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// A map of numbers as a JSON object; `None` when it is empty.
pub(super) fn numbers(map: &BTreeMap<String, f64>) -> Option<String> {
    if map.is_empty() {
        return None;
    }
    let value = |value: &f64| match non_finite_name(*value) {
        Some(name) => Value::from(name),
        None => Value::from(*value),
    };
    let object: Map<String, Value> = map.iter().map(|(key, number)| (key.clone(), value(number))).collect();
    Some(Value::Object(object).to_string())
}

/// The inverse of [`numbers`]; values that are not numbers are skipped.
pub(super) fn read_numbers(json: Option<&str>) -> BTreeMap<String, f64> {
    let Some(Ok(object)) = json.map(serde_json::from_str::<BTreeMap<String, &RawValue>>) else {
        return BTreeMap::new();
    };
    object.into_iter().filter_map(|(key, value)| Some((key, read_number(value)?))).collect()
}

/// A number of [`numbers`]. Its text is parsed by the standard library, which is exact to the last bit; serde_json is not.
pub(super) fn read_number(json: &RawValue) -> Option<f64> {
    match json.get().strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(name) => named(name),
        None => json.get().parse().ok(),
    }
}

/// Counts as a JSON object; `None` when there are none.
pub(super) fn counts(map: &BTreeMap<String, i32>) -> Option<String> {
    (!map.is_empty()).then(|| serde_json::to_string(map).expect("text and numbers always serialise"))
}

/// The inverse of [`counts`].
pub(super) fn read_counts(json: Option<&str>) -> BTreeMap<String, i32> {
    json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

/// A set as a JSON array; `None` when it is empty.
pub(super) fn set(set: &BTreeSet<String>) -> Option<String> {
    (!set.is_empty()).then(|| serde_json::to_string(set).expect("text always serialises"))
}

/// The inverse of [`set`].
pub(super) fn read_set(json: Option<&str>) -> BTreeSet<String> {
    json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

/// The columns that hold NaN, as `{"column": "NaN"}`; `None`, without an allocation, if there are none.
pub(super) fn nan_columns<'a>(columns: impl IntoIterator<Item = (&'a str, Option<f64>)>) -> Option<String> {
    let mut json = String::new();
    for (name, _) in columns.into_iter().filter(|(_, value)| value.is_some_and(f64::is_nan)) {
        let opening = if json.is_empty() { '{' } else { ',' };
        let _ = write!(json, "{opening}\"{name}\":\"NaN\"");
    }
    if json.is_empty() {
        return None;
    }
    json.push('}');
    Some(json)
}

/// The value of a NULL column: NaN when `non_finite` names it.
pub(super) fn read_nan(stored: Option<f64>, column: &str, non_finite: Option<&Map<String, Value>>) -> Option<f64> {
    stored.or_else(|| named(non_finite?.get(column)?.as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_lacks_round_trip() {
        let map: BTreeMap<String, f64> =
            [("a", f64::INFINITY), ("b", f64::NEG_INFINITY), ("c", 1.5), ("d\"", f64::NAN)]
                .map(|(key, value)| (key.to_owned(), value))
                .into();
        let back = read_numbers(numbers(&map).as_deref());
        assert_eq!(format!("{back:?}"), format!("{map:?}"));
        assert_eq!(numbers(&BTreeMap::new()), None);
        let columns = [("x", Some(f64::NAN)), ("y", Some(1.0)), ("z", Some(f64::NAN))];
        assert_eq!(nan_columns(columns).as_deref(), Some(r#"{"x":"NaN","z":"NaN"}"#));
        assert_eq!(nan_columns([columns[1]]), None);
    }
}
