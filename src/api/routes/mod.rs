//! The routes: one table ([`routes`]), and one file a resource.
//!
//! A new route is a handler in its resource's file, a line in the table, and an entry in `openapi.json`, which a test holds
//! against the table.

mod aggregates;
mod body;
mod compare;
mod control;
mod dataset;
mod edit_fields;
mod gaps;
mod growth;
mod health;
mod latest;
mod latest_value;
pub mod messages;
mod metrics_history;
mod metrics_range;
mod network_stats;
mod openapi;
mod rows;
mod run_changes;
mod run_cursor;
mod run_deletion;
mod run_edits;
mod run_list;
mod runs;
mod scan;
mod servers;
mod session;
mod stored_message;
mod weights;

use axum::{
    http::Method,
    routing::{MethodRouter, delete, get, patch, post},
};

use super::{auth::Scope, export, state::ApiState, stream};

/// One route.
pub struct Route {
    /// GET, POST, PATCH or DELETE.
    pub method: Method,
    /// As axum writes it: `/api/runs/{run_id}`.
    pub path: &'static str,
    /// The scope that a request needs.
    pub scope: Scope,
    /// Answers the request.
    pub handler: MethodRouter<ApiState>,
}

impl Route {
    /// Whether it has parameters in the query; its handler checks them.
    pub fn has_query(&self) -> bool {
        openapi::has_query(&self.method, self.path)
    }
}

/// The table of routes.
pub fn routes() -> Vec<Route> {
    let read = |path, handler| Route { method: Method::GET, path, scope: Scope::Read, handler };
    let open = |path, handler| Route { scope: Scope::Open, ..read(path, handler) };
    let admin = |path, handler| Route { method: Method::POST, path, scope: Scope::Admin, handler };
    let publish = |path, handler| Route { method: Method::POST, path, scope: Scope::Publish, handler };
    let sign_in = |method, handler| Route { method, path: "/api/session", scope: Scope::SignIn, handler };
    vec![
        open("/healthz", get(health::alive)),
        open("/readyz", get(health::ready)),
        open("/metrics", get(health::metrics)),
        read("/api/openapi.json", get(openapi::document)),
        read("/api/status", get(health::status)),
        read("/api/runs", get(run_list::list)),
        read("/api/runs/{run_id}", get(runs::detail)),
        read("/api/runs/{run_id}/topology", get(rows::topology)),
        read("/api/runs/{run_id}/events", get(rows::events)),
        read("/api/runs/{run_id}/aggregates", get(aggregates::aggregates)),
        read("/api/runs/{run_id}/growth", get(growth::growth)),
        read("/api/runs/{run_id}/gaps", get(gaps::gaps)),
        read("/api/gaps", get(gaps::all)),
        read("/api/compare", get(compare::compare)),
        read("/api/export", get(export::export)),
        read("/api/metrics/range", get(metrics_range::range)),
        read("/api/metrics", get(latest::metrics)),
        read("/api/topology", get(latest::topology)),
        read("/api/network/topology", get(latest::topology)),
        read("/api/history", get(latest::history)),
        read("/api/state", get(latest::state)),
        read("/api/metrics/history", get(metrics_history::history)),
        read("/api/dataset", get(dataset::dataset)),
        read("/api/network/stats", get(network_stats::network_stats)),
        read("/api/health", get(servers::daemon::health)),
        read("/api/v1/redis/status", get(servers::redis::status)),
        read("/api/v1/redis/metrics", get(servers::redis::metrics)),
        read("/api/v1/cassandra/status", get(servers::cassandra::status)),
        read("/api/v1/cassandra/metrics", get(servers::cassandra::metrics)),
        read("/api/stream", get(stream::stream)),
        sign_in(Method::POST, post(session::sign_in)),
        sign_in(Method::DELETE, delete(session::sign_out)),
        read("/api/session", get(session::current)),
        publish(messages::PATH, post(messages::publish)),
        admin("/api/control", post(control::control)),
        admin("/api/runs", post(run_changes::create)),
        admin("/api/runs/{run_id}/complete", post(run_changes::complete)),
        Route { method: Method::PATCH, ..admin("/api/runs/{run_id}", patch(run_edits::patch)) },
        Route { method: Method::DELETE, ..admin("/api/runs/{run_id}", delete(run_deletion::delete)) },
        admin("/api/runs/{run_id}/notes", post(run_edits::notes)),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::{control, openapi::DOCUMENT, routes, run_changes};

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

    #[test]
    fn the_document_lists_what_a_body_may_hold() {
        let document: Value = serde_json::from_str(&DOCUMENT).unwrap();
        for (path, names) in [
            ("/api/runs", run_changes::create_names()),
            ("/api/runs/{run_id}/complete", run_changes::complete_names()),
            ("/api/control", control::names()),
            ("/api/session", vec!["token"]),
        ] {
            let schema = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
            let listed: BTreeSet<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(listed, names.into_iter().collect(), "{path}");
            assert_eq!(schema["additionalProperties"], false, "{path}");
        }
    }
}
