//! The description of all of this, for programs: OpenAPI 3.1. Tests hold it against the table of routes and the real answers.

use std::sync::LazyLock;

use axum::{http::header, response::IntoResponse};
use serde_json::{Value, json};

use crate::event::{ColumnType, METRIC_COLUMNS};

/// The document.
pub static DOCUMENT: LazyLock<String> =
    LazyLock::new(|| with_metric_columns(include_str!("openapi.json")).expect("openapi.json is a valid document"));

/// `GET /api/openapi.json`
pub async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

/// The document with the columns of metrics, which the list in `event` declares. `None`: it has no schema of such a row.
fn with_metric_columns(document: &str) -> Option<String> {
    let mut document: Value = serde_json::from_str(document).ok()?;
    let row = document.pointer_mut("/components/schemas/MetricsRow")?;
    for column in &METRIC_COLUMNS {
        let json_type = match column.column_type {
            ColumnType::Int | ColumnType::BigInt => "integer",
            ColumnType::Double => "number",
            ColumnType::Text => "string",
        };
        row.pointer_mut("/properties")?
            .as_object_mut()?
            .insert(column.name.into(), json!({"type": [json_type, "null"]}));
        row.pointer_mut("/required")?.as_array_mut()?.push(column.name.into());
    }
    Some(document.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::routes;

    #[test]
    fn the_document_lists_every_route_with_its_scope_and_no_other() {
        let document: Value = serde_json::from_str(&DOCUMENT).unwrap();
        let listed: BTreeSet<_> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                let scope = |operation: &Value| operation["x-scope"].as_str().unwrap().to_owned();
                let methods = methods.as_object().unwrap().iter();
                methods.map(move |(method, operation)| (path.clone(), method.to_uppercase(), scope(operation)))
            })
            .collect();
        let routes: BTreeSet<_> = routes()
            .iter()
            .map(|route| (route.path.to_owned(), route.method.to_string(), route.scope.name().to_owned()))
            .collect();
        assert_eq!(listed, routes);
    }
}
