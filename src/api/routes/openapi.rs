//! The OpenAPI 3.1 document. Tests compare it with the table of routes, and with real answers.

use std::sync::LazyLock;

use axum::{
    http::{Method, header},
    response::IntoResponse,
};
use serde_json::{Value, json};

use crate::event::{ColumnType, METRIC_COLUMNS};

/// The document.
pub static DOCUMENT: LazyLock<String> =
    LazyLock::new(|| with_metric_columns(include_str!("openapi.json")).expect("openapi.json is a valid document"));

static PATHS: LazyLock<Value> = LazyLock::new(|| {
    let document: Value = serde_json::from_str(&DOCUMENT).expect("the document was serialised");
    document["paths"].clone()
});

/// `GET /api/openapi.json`
pub async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

/// Whether the document lists parameters in the query of a route.
pub fn has_query(method: &Method, path: &str) -> bool {
    let parameters = &PATHS[path][method.as_str().to_lowercase()]["parameters"];
    parameters.as_array().into_iter().flatten().any(|parameter| parameter["in"] == "query")
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
