//! Dataset and network of a run, in the form that the panels of the field's existing dashboards read.

use std::collections::BTreeSet;

use axum::extract::State;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    ApiState,
    error::{ApiError, ApiResult},
    json,
    latest::{self, LATEST_BYTES},
    memory_budget::Reservation,
    params::Params,
    runs::find_by_id,
    weights::statistics,
};
use crate::{
    event::{DatasetRow, EventRow, Resolved, Row, RunRow, TopologyRow, dataset_id},
    render::{self, Json},
    store::RangeQuery,
    wire,
};

/// Among so many of a run's first events the one is looked for that names its dataset.
const FIRST_EVENTS: usize = 64;

/// `GET /api/dataset`
pub async fn dataset(State(state): State<ApiState>, params: Params) -> ApiResult {
    let (run, _) = run(&state, params).await?;
    let Some(name) = &run.dataset_name else { return Err(ApiError::not_found("No dataset yet")) };
    let stored = match state.store.dataset(dataset_id(name)).await? {
        Some(row) => Some(row),
        // One with an id of its own is not found by its name; the message that named it has it whole.
        None => announced(&state, run.run_id).await?,
    };
    let mut answer = match &stored {
        Some(row) => serde_json::to_value(Json(row)).unwrap_or_default(),
        // A run start may carry no more than a name.
        None => json!({ "num_samples": null, "num_features": null, "num_classes": null }),
    };
    answer["name"] = json!(name);
    if answer["num_samples"].is_null() {
        answer["num_samples"] = json!(run.dataset_size);
    }
    answer["dataset_name"] = json!(name);
    answer["run_id"] = json!(run.run_id);
    json(&answer)
}

/// The dataset that the start of a run carries.
async fn announced(state: &ApiState, run_id: Uuid) -> Result<Option<DatasetRow>, ApiError> {
    let mut reservation = Reservation::reserve_page(&state.memory).await;
    let query = RangeQuery { ascending: true, ..RangeQuery::newest(run_id, FIRST_EVENTS) };
    let (rows, _) = reservation.page::<EventRow>(&*state.store, &query).await?;
    Ok(rows.iter().rev().find_map(dataset_of))
}

fn dataset_of(event: &EventRow) -> Option<DatasetRow> {
    let payload = event.payload_json.as_bytes();
    let message = wire::decode_accepted(payload).ok()?;
    let (run_id, event_time) = (event.key.run_id, event.key.timestamp);
    let decided = Resolved { run_id, event_time, received_at: event_time, has_event_time: false, opened_run: false };
    wire::rows(&message, &decided, "", payload).rows.into_iter().find_map(|row| match row {
        Row::Dataset(row) => Some(row),
        _ => None,
    })
}

/// `GET /api/network/stats`
pub async fn network_stats(State(state): State<ApiState>, params: Params) -> ApiResult {
    let (run, named) = run(&state, params).await?;
    let mut reservation = Reservation::reserve(&state.memory, LATEST_BYTES).await;
    let (mut rows, _) = reservation.page::<TopologyRow>(&*state.store, &RangeQuery::newest(run.run_id, 1)).await?;
    let row = rows.pop().ok_or_else(|| ApiError::not_found("No topology yet"))?;
    // A million weights take a while to sort: not on the thread that answers requests.
    let made = tokio::task::spawn_blocking(move || stats(&run, named, &row)).await;
    let answer = made.map_err(|error| ApiError::unavailable(error.to_string()))?;
    drop(reservation);
    json(&answer)
}

/// The activation function and the optimizer, as far as they are named.
type ConfiguredNames = (Option<String>, Option<String>);

fn stats(run: &RunRow, configured: ConfiguredNames, row: &TopologyRow) -> Value {
    let network = wire::network(&row.topology_json);
    let (threshold_function, optimizer) = configured;
    let sizes = [row.input_size, row.hidden_units, row.output_size].map(|size| size.map_or(0, i64::from).max(0));
    let [input, hidden, output] = sizes;
    // A cascade network of that size, where no connections are listed: each unit sees the inputs and the units before it.
    let cascade = hidden * input + hidden * (hidden - 1).max(0) / 2 + output * (input + hidden);
    let edges = network.connections.map_or(cascade, |listed| i64::try_from(listed).unwrap_or(i64::MAX));
    let nodes = network.nodes.map_or(input + hidden + output, |listed| i64::try_from(listed).unwrap_or(i64::MAX));
    json!({
        "run_id": run.run_id,
        "timestamp": render::time(row.key.timestamp),
        "threshold_function": network.threshold_function.or(threshold_function),
        "optimizer": network.optimizer.or(optimizer),
        "total_nodes": nodes,
        "total_edges": edges,
        "total_connections": edges,
        "weight_statistics": statistics(network.weights),
    })
}

/// The run that is named, else the one that spoke last, and what its configuration names. The configuration may be large, and is
/// not kept while the request waits for memory.
async fn run(state: &ApiState, params: Params) -> Result<(RunRow, ConfiguredNames), ApiError> {
    let named = latest::requested_run(params)?;
    let mut run = find_by_id(state, latest::newest(state, named).await?).await?;
    let configured = run.config_json.take().as_deref().map(wire::configured).unwrap_or_default();
    Ok((RunRow { notes: None, tags: BTreeSet::new(), ..run }, configured))
}

#[cfg(test)]
mod tests {
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
        let configured = wire::configured(r#"{"optimizer":{"name":"adam"},"activation":"tanh"}"#);
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
