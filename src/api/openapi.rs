//! The description of all of this, for programs: OpenAPI 3.1. Tests hold it against the table of routes and the real answers.

use axum::{http::header, response::IntoResponse};

/// The document.
pub const DOCUMENT: &str = include_str!("openapi.json");

/// `GET /api/openapi.json`
pub async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::api::routes;

    #[test]
    fn the_document_lists_every_route_with_its_scope_and_no_other() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
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
