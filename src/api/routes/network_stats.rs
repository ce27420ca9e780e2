//! The network of a run in numbers, in the form that the panels of the field's existing dashboards read.

use axum::extract::State;
use serde_json::{Value, json};

use super::weights::statistics;
use crate::{
    api::{
        error::{ApiError, ApiResult, json as json_answer},
        memory_budget::{Reservation, SMALL_RESERVATION},
        params::Params,
        run_lookup,
        state::ApiState,
    },
    event::{RunRow, TopologyRow},
    render,
    store::RangeQuery,
    wire,
};

/// `GET /api/network/stats`
pub async fn network_stats(State(state): State<ApiState>, params: Params) -> ApiResult {
    let (run, named) = run(&state, params).await?;
    let mut reservation = Reservation::reserve(&state.memory, SMALL_RESERVATION).await;
    let (mut rows, _) = reservation.page::<TopologyRow>(&*state.store, &RangeQuery::newest(run.run_id, 1)).await?;
    let row = rows.pop().ok_or_else(|| ApiError::not_found("No topology yet"))?;
    // Sorting a million weights takes a while, so not on the thread that serves requests.
    let made = tokio::task::spawn_blocking(move || stats(&run, named, &row)).await;
    let answer = made.map_err(|error| ApiError::unavailable(error.to_string()))?;
    drop(reservation);
    json_answer(&answer)
}

/// The activation function and the optimizer, as far as they are named.
#[derive(Clone, Default)]
struct ConfiguredNames {
    threshold_function: Option<String>,
    optimizer: Option<String>,
}

impl ConfiguredNames {
    fn of(config_json: &str) -> Self {
        let (threshold_function, optimizer) = wire::configured(config_json);
        Self { threshold_function, optimizer }
    }
}

fn stats(run: &RunRow, configured: ConfiguredNames, row: &TopologyRow) -> Value {
    let network = wire::network(&row.topology_json);
    let sizes = [row.input_size, row.hidden_units, row.output_size].map(|size| size.map_or(0, i64::from).max(0));
    let [input, hidden, output] = sizes;
    // Without listed connections, those of a cascade network of that size: each unit sees the inputs and the units before it.
    let cascade = hidden * input + hidden * (hidden - 1).max(0) / 2 + output * (input + hidden);
    let edges = network.connections.map_or(cascade, |listed| i64::try_from(listed).unwrap_or(i64::MAX));
    let nodes = network.nodes.map_or(input + hidden + output, |listed| i64::try_from(listed).unwrap_or(i64::MAX));
    json!({
        "run_id": run.run_id,
        "timestamp": render::time(row.key.timestamp),
        "threshold_function": network.threshold_function.or(configured.threshold_function),
        "optimizer": network.optimizer.or(configured.optimizer),
        "total_nodes": nodes,
        "total_edges": edges,
        "total_connections": edges,
        "weight_statistics": statistics(network.weights),
    })
}

/// The run that is named, else the one with the newest event; and the names in its configuration. The configuration may be large, and is
/// dropped before the request waits for memory.
async fn run(state: &ApiState, params: Params) -> Result<(RunRow, ConfiguredNames), ApiError> {
    let mut run = run_lookup::named_or_newest(state, params).await?;
    let configured = run.config_json.take().as_deref().map(ConfiguredNames::of).unwrap_or_default();
    Ok((run_lookup::without_large_fields(run), configured))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::event::EventKey;

    #[test]
    fn a_network_without_listed_connections_is_counted_by_its_size() {
        let key = EventKey { run_id: Uuid::nil(), timestamp: 0, event_id: 1 };
        let row = |json: &str, hidden: i32| TopologyRow {
            key,
            epoch: None,
            input_size: Some(2),
            output_size: Some(1),
            hidden_units: Some(hidden),
            total_parameters: None,
            topology_json: json.into(),
            weights_summary: None,
        };
        let configured = ConfiguredNames::of(r#"{"optimizer":{"name":"adam"},"activation":"tanh"}"#);
        for (json, hidden, nodes, edges) in [
            (r#"{"input_units":2}"#, 0, 3, 2),
            (r#"{"input_units":2}"#, 3, 6, 14),
            (r#"{"nodes":[1,2],"connections":[{"weight":1}]}"#, 3, 2, 1),
        ] {
            let stats = stats(&RunRow::default(), configured.clone(), &row(json, hidden));
            let counts = [&stats["total_nodes"], &stats["total_edges"], &stats["total_connections"]];
            assert_eq!(counts, [&json!(nodes), &json!(edges), &json!(edges)], "{json} {hidden}");
            assert_eq!((&stats["optimizer"], &stats["threshold_function"]), (&json!("adam"), &json!("tanh")));
        }
    }
}
