//! Compares the server's schema with the schema that the statements create.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use super::{
    SchemaError,
    model::{Column, Object, OptionValue, Table},
    server::{Row, Server},
};

/// A missing or different object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Object, such as `keyspace cascor`, `table cascor.training_runs`, `column cascor.training_runs.status`, `option ..`, `index
    /// ..`.
    pub object: String,
    /// The expected value.
    pub expected: String,
    /// The value found; `None`: missing.
    pub found: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            None if self.expected.is_empty() => write!(f, "{} is missing", self.object),
            None => write!(f, "{} is missing ({})", self.object, self.expected),
            Some(found) => write!(f, "{} is {found}, not {}", self.object, self.expected),
        }
    }
}

fn missing(object: String, expected: &str) -> Difference {
    Difference { object, expected: expected.to_owned(), found: None }
}

/// Whether the object exists, regardless of its properties.
pub(super) async fn exists(server: &Server, object: &Object) -> Result<bool, SchemaError> {
    Ok(match object {
        Object::Keyspace { name, .. } => server.keyspace(name).await?.is_some(),
        Object::Table(table) => server.table(&table.keyspace, &table.name).await?.is_some(),
        Object::Index { keyspace, table, column, .. } => server.indexed(keyspace, table).await?.contains(column),
        Object::Column(table) => {
            let actual = server.columns(&table.keyspace, &table.name).await?;
            table.columns.iter().all(|column| actual.contains_key(&column.name))
        }
    })
}

/// Missing or different objects. The replication of a keyspace is compared only when it was given.
pub(super) async fn differences(
    server: &Server,
    object: &Object,
    replication_given: bool,
) -> Result<Vec<Difference>, SchemaError> {
    match object {
        Object::Keyspace { name, replication } => {
            let Some(row) = server.keyspace(name).await? else {
                return Ok(vec![missing(format!("keyspace {name}"), "")]);
            };
            if !replication_given {
                return Ok(Vec::new());
            }
            let expected = OptionValue::Map(replication.clone());
            let found = option("replication", &expected, row.get("replication"));
            Ok(found
                .map(|d| Difference { object: format!("replication of keyspace {name}"), ..d })
                .into_iter()
                .collect())
        }
        Object::Column(table) => {
            let actual = server.columns(&table.keyspace, &table.name).await?;
            Ok(table.columns.iter().flat_map(|column| of_column(table, column, actual.get(&column.name))).collect())
        }
        Object::Table(table) => {
            let Some(row) = server.table(&table.keyspace, &table.name).await? else {
                return Ok(vec![missing(format!("table {}.{}", table.keyspace, table.name), "")]);
            };
            let mut all = Vec::new();
            let actual = server.columns(&table.keyspace, &table.name).await?;
            for column in &table.columns {
                all.extend(of_column(table, column, actual.get(&column.name)));
            }
            for (name, expected) in &table.options {
                // Comments are not compared.
                if name != "comment" {
                    all.extend(option(name, expected, row.get(name)).map(|d| Difference {
                        object: format!("option {name} of table {}.{}", table.keyspace, table.name),
                        ..d
                    }));
                }
            }
            Ok(all)
        }
        Object::Index { keyspace, table, column, .. } => {
            if server.indexed(keyspace, table).await?.contains(column) {
                return Ok(Vec::new());
            }
            Ok(vec![missing(format!("index on {keyspace}.{table} ({column})"), "")])
        }
    }
}

fn of_column(table: &Table, column: &Column, actual: Option<&Row>) -> Vec<Difference> {
    let place = format!("{}.{}.{}", table.keyspace, table.name, column.name);
    let Some(row) = actual else { return vec![missing(format!("column {place}"), &column.kind)] };
    let mut all = Vec::new();
    let kind = row.get("type").and_then(Value::as_str).unwrap_or_default();
    if kind != column.kind {
        all.push(Difference {
            object: format!("type of column {place}"),
            expected: column.kind.clone(),
            found: Some(kind.to_owned()),
        });
    }
    let role = role(row);
    if role != column.role {
        all.push(Difference {
            object: format!("role of column {place}"),
            expected: column.role.clone(),
            found: Some(role),
        });
    }
    all
}

fn role(row: &Row) -> String {
    let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
    let position = row.get("position").and_then(Value::as_i64).unwrap_or(-1) + 1;
    match text("kind") {
        "partition_key" => format!("partition key {position}"),
        "clustering" => format!("clustering key {position} {}", text("clustering_order").to_lowercase()),
        other => other.to_owned(),
    }
}

/// Compares options of the text with those of the server; keys that only the server has are its defaults.
fn option(name: &str, expected: &OptionValue, actual: Option<&Value>) -> Option<Difference> {
    let shown = |text: String| Difference { object: name.to_owned(), expected: show(expected), found: Some(text) };
    let Some(actual) = actual else { return Some(missing(name.to_owned(), &show(expected))) };
    match expected {
        OptionValue::One(text) => {
            let found = plain(actual);
            let equal = match (text.parse::<f64>(), found.parse::<f64>()) {
                (Ok(a), Ok(b)) => a == b,
                _ => *text == found,
            };
            (!equal).then(|| shown(found))
        }
        OptionValue::Map(map) => {
            let equal = |(key, value): (&String, &String)| {
                actual.get(key).map(plain).is_some_and(|found| same(key, value, &found))
            };
            (!map.iter().all(equal)).then(|| shown(actual.to_string()))
        }
    }
}

fn same(key: &str, expected: &str, found: &str) -> bool {
    if key != "class" {
        return expected == found;
    }
    // The server reports the full Java class name. A cluster upgraded from 4.1 keeps the strategy it was created with.
    let short = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let keeps = |name: &str| matches!(name, "UnifiedCompactionStrategy" | "LeveledCompactionStrategy");
    let (expected, found) = (short(expected), short(found));
    expected == found || (keeps(&expected) && keeps(&found))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn show(value: &OptionValue) -> String {
    match value {
        OptionValue::One(text) => text.clone(),
        OptionValue::Map(map) => serde_json::to_string::<BTreeMap<_, _>>(map).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_compared_by_what_they_mean() {
        let map = |pairs: &[(&str, &str)]| {
            OptionValue::Map(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let class = map(&[("class", "SizeTieredCompactionStrategy")]);
        for (expected, actual, equal) in [
            (OptionValue::One("864000".into()), "864000", true),
            (OptionValue::One("0.50".into()), "0.5", true),
            (OptionValue::One("864000".into()), "10", false),
            (class.clone(), r#"{"class":"org.x.SizeTieredCompactionStrategy","min_threshold":"4"}"#, true),
            (class, r#"{"class":"org.x.LeveledCompactionStrategy"}"#, false),
            (map(&[("class", "UnifiedCompactionStrategy")]), r#"{"class":"o.LeveledCompactionStrategy"}"#, true),
            (map(&[("replication_factor", "3")]), r#"{"class":"x","replication_factor":"1"}"#, false),
        ] {
            assert_eq!(option("o", &expected, Some(&json(actual))).is_none(), equal, "{expected:?} {actual}");
        }
    }

    #[test]
    fn a_difference_reads_as_a_sentence() {
        let difference =
            Difference { object: "type of column k.t.c".into(), expected: "int".into(), found: Some("text".into()) };
        assert_eq!(difference.to_string(), "type of column k.t.c is text, not int");
        assert_eq!(missing("table k.t".into(), "").to_string(), "table k.t is missing");
        assert_eq!(missing("column k.t.c".into(), "int").to_string(), "column k.t.c is missing (int)");
    }
}
