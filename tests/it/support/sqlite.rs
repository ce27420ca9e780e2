//! Reading a store's file back with plain SQL.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, types::ValueRef};
use serde_json::{Map, Value};

/// Rows as objects, column by name; a blob is its length.
#[track_caller]
pub fn rows(file: &Path, sql: &str) -> Vec<Map<String, Value>> {
    try_rows(file, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// The single number that a query answers; 0 while there is no file or no table yet.
pub fn count(file: &Path, sql: &str) -> i64 {
    try_rows(file, sql).ok().and_then(|rows| rows.first()?.values().next()?.as_i64()).unwrap_or(0)
}

fn try_rows(file: &Path, sql: &str) -> rusqlite::Result<Vec<Map<String, Value>>> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    let mut statement = connection.prepare(sql)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let rows = statement.query_map([], |row| {
        names.iter().enumerate().map(|(at, name)| Ok((name.clone(), json(row.get_ref(at)?)))).collect()
    })?;
    rows.collect()
}

fn json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        // JSON has no infinity: as text, like everywhere else here.
        ValueRef::Real(number) if !number.is_finite() => number.to_string().into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
        ValueRef::Blob(bytes) => bytes.len().into(),
    }
}
