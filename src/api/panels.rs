//! What the panels of the field's existing dashboards ask for: history, dataset and network of the run that spoke last.
//!
//! Their readers format what they find without looking whether it is there: a phase is always text and a count of units always a
//! number here.

use axum::{
    extract::State,
    http::{HeaderName, HeaderValue},
    response::IntoResponse,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    Sight,
    error::{Answer, ApiError},
    json,
    latest::{self, LATEST_BYTES},
    params::{Params, uuid},
    room::Room,
    runs::find_by_id,
    weights::statistics,
};
use crate::{
    event::{DatasetRow, Decided, EventRow, MetricsRow, Row, RunRow, TopologyRow, dataset_id},
    render::{self, Json},
    store::RangeQuery,
    wire,
};

/// Among so many of a run's first events the one is looked for that names its dataset.
const FIRST_EVENTS: usize = 64;

/// Sizes of a network's layers, as far as they are known.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    input: Option<i64>,
    output: Option<i64>,
}

/// `GET /api/metrics/history`
pub async fn history(State(sight): State<Sight>, params: Params) -> Answer {
    let params = params.known(&["limit", "run_id"], &[])?;
    let limit = params.number("limit", 100, 1, sight.config.page_rows)?;
    let named = params.text("run_id").map(uuid).transpose()?;
    let (status, items) = match stored_history(&sight, named, limit).await {
        Ok(items) => ("MISS", items),
        // The store is away: what Redis has is the newest part of the same.
        Err(error) if error.is_unavailable() && named.is_none() => match latest::newest_history(&sight).await? {
            Some(objects) => ("HIT", of_objects(&objects, limit)),
            None => return Err(error),
        },
        Err(error) => return Err(error),
    };
    let cache = (HeaderName::from_static("x-cache-status"), HeaderValue::from_static(status));
    Ok(([cache], json(&json!({ "history": items }))?).into_response())
}

async fn stored_history(sight: &Sight, named: Option<Uuid>, limit: usize) -> Result<Vec<Value>, ApiError> {
    let run_id = match latest::newest(sight, named).await {
        Ok(run_id) => run_id,
        // Nothing has been published yet, which is no error of the one who looks.
        Err(error) if error.is_not_found() && named.is_none() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut room = Room::of(&sight.memory).await;
    let (mut rows, _) = room.page::<MetricsRow>(&*sight.store, &RangeQuery::newest(run_id, limit)).await?;
    rows.reverse();
    let own = |row: &MetricsRow| Sizes {
        input: extra(row, &["input_units", "input_size"]),
        output: extra(row, &["output_units", "output_size"]),
    };
    let newest = rows.last().map(own).unwrap_or_default();
    // Only one that does not say it itself needs the snapshot of its network, which may be large.
    let sizes = if newest.input.is_some() || rows.is_empty() { newest } else { snapshot_sizes(sight, run_id).await? };
    drop(room);
    let mut units = 0;
    let item = |row: &MetricsRow| {
        // A network keeps its units until one is added; without a word of them it has none.
        units = row.hidden_units.unwrap_or(units);
        let own = own(row);
        let fields = [
            ("loss", row.train_loss),
            ("accuracy", row.train_accuracy),
            ("val_loss", row.val_loss),
            ("val_accuracy", row.val_accuracy),
        ];
        let lost = fields.iter().filter(|(_, value)| value.is_some_and(|value| !value.is_finite()));
        // What is not finite is null.
        let metrics: Map<String, Value> = fields.iter().map(|(name, value)| ((*name).into(), json!(value))).collect();
        json!({
            "epoch": row.epoch,
            "timestamp": render::time(row.key.timestamp),
            "phase": row.phase.as_deref().unwrap_or_default(),
            "metrics": metrics,
            "network_topology": {
                "input_units": own.input.or(sizes.input),
                "hidden_units": units,
                "output_units": own.output.or(sizes.output),
            },
            "non_finite": lost.map(|(name, _)| *name).collect::<Vec<_>>(),
        })
    };
    Ok(rows.iter().map(item).collect())
}

/// A whole number in `extra`.
fn extra(row: &MetricsRow, names: &[&str]) -> Option<i64> {
    let number = names.iter().find_map(|name| row.extra.get(*name))?;
    (number.fract() == 0.0).then_some(*number as i64)
}

async fn snapshot_sizes(sight: &Sight, run_id: Uuid) -> Result<Sizes, ApiError> {
    let mut room = Room::for_bytes(&sight.memory, LATEST_BYTES).await;
    let (rows, _) = room.page::<TopologyRow>(&*sight.store, &RangeQuery::newest(run_id, 1)).await?;
    Ok(rows.first().map_or_else(Sizes::default, |row| Sizes {
        input: row.input_size.map(i64::from),
        output: row.output_size.map(i64::from),
    }))
}

/// The same of the objects of the history in Redis: those of the run that the newest belongs to.
fn of_objects(objects: &[Value], limit: usize) -> Vec<Value> {
    let Some(newest) = objects.last() else { return Vec::new() };
    let same: Vec<&Value> = objects.iter().filter(|object| object["run_id"] == newest["run_id"]).collect();
    let mut units = 0;
    let item = |object: &&Value| {
        units = object["hidden_units"].as_i64().unwrap_or(units);
        let names = [
            ("loss", "train_loss"),
            ("accuracy", "train_accuracy"),
            ("val_loss", "val_loss"),
            ("val_accuracy", "val_accuracy"),
        ];
        // There what is not finite is text.
        let lost = names.iter().filter(|(_, column)| object[*column].is_string()).map(|(name, _)| *name);
        let received = &object["_ingest"];
        let number = |column: &str| json!(object[column].as_f64());
        let metrics: Map<String, Value> = names.iter().map(|(name, column)| ((*name).into(), number(column))).collect();
        json!({
            "epoch": object["epoch"],
            "timestamp": received["published_at"].as_str().or(received["received_at"].as_str()),
            "phase": object["phase"].as_str().unwrap_or_default(),
            "metrics": metrics,
            "network_topology": {
                "input_units": object["input_units"].as_i64().or(object["input_size"].as_i64()),
                "hidden_units": units,
                "output_units": object["output_units"].as_i64().or(object["output_size"].as_i64()),
            },
            "non_finite": lost.collect::<Vec<_>>(),
        })
    };
    same[same.len().saturating_sub(limit)..].iter().map(item).collect()
}

/// `GET /api/dataset`
pub async fn dataset(State(sight): State<Sight>, params: Params) -> Answer {
    let run = run(&sight, params).await?;
    let Some(name) = &run.dataset_name else { return Err(ApiError::not_found("No dataset yet")) };
    let stored = match sight.store.dataset(dataset_id(name)).await? {
        Some(row) => Some(row),
        // One with an id of its own is not found by its name; the message that named it has it whole.
        None => announced(&sight, run.run_id).await?,
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
async fn announced(sight: &Sight, run_id: Uuid) -> Result<Option<DatasetRow>, ApiError> {
    let mut room = Room::of(&sight.memory).await;
    let query = RangeQuery { ascending: true, ..RangeQuery::newest(run_id, FIRST_EVENTS) };
    let (rows, _) = room.page::<EventRow>(&*sight.store, &query).await?;
    Ok(rows.iter().rev().find_map(dataset_of))
}

fn dataset_of(event: &EventRow) -> Option<DatasetRow> {
    let payload = event.payload_json.as_bytes();
    let message = wire::decode_accepted(payload).ok()?;
    let (run_id, event_time) = (event.key.run_id, event.key.timestamp);
    let decided = Decided { run_id, event_time, received_at: event_time, own_time: false, opened: false };
    wire::rows(&message, &decided, "", payload).rows.into_iter().find_map(|row| match row {
        Row::Dataset(row) => Some(row),
        _ => None,
    })
}

/// `GET /api/network/stats`
pub async fn network_stats(State(sight): State<Sight>, params: Params) -> Answer {
    let run = run(&sight, params).await?;
    let mut room = Room::for_bytes(&sight.memory, LATEST_BYTES).await;
    let (mut rows, _) = room.page::<TopologyRow>(&*sight.store, &RangeQuery::newest(run.run_id, 1)).await?;
    let row = rows.pop().ok_or_else(|| ApiError::not_found("No topology yet"))?;
    // A million weights take a while to sort: not on the thread that answers everybody.
    let made = tokio::task::spawn_blocking(move || stats(&run, &row)).await;
    let answer = made.map_err(|error| ApiError::unavailable(error.to_string()))?;
    drop(room);
    json(&answer)
}

fn stats(run: &RunRow, row: &TopologyRow) -> Value {
    let network = wire::network(&row.topology_json);
    let (threshold_function, optimizer) = run.config_json.as_deref().map(wire::configured).unwrap_or_default();
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

/// The run that is named, else the one that spoke last.
async fn run(sight: &Sight, params: Params) -> Result<RunRow, ApiError> {
    let named = latest::given(params)?;
    find_by_id(sight, latest::newest(sight, named).await?).await
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
        let run = RunRow {
            config_json: Some(r#"{"optimizer":{"name":"adam"},"activation":"tanh"}"#.into()),
            ..RunRow::default()
        };
        for (json, hidden, nodes, edges) in [
            (r#"{"input_units":2}"#, 0, 3, 2),
            (r#"{"input_units":2}"#, 3, 6, 14),
            (r#"{"nodes":[1,2],"connections":[{"weight":1}]}"#, 3, 2, 1),
        ] {
            let stats = stats(&run, &row(json, hidden));
            let counts = [&stats["total_nodes"], &stats["total_edges"], &stats["total_connections"]];
            assert_eq!(counts, [&json!(nodes), &json!(edges), &json!(edges)], "{json} {hidden}");
            assert_eq!((&stats["optimizer"], &stats["threshold_function"]), (&json!("adam"), &json!("tanh")));
        }
    }

    #[test]
    fn the_history_of_redis_is_that_of_the_newest_run() {
        let object = |run: &str, epoch: i64, more: Value| {
            let mut object = json!({"run_id": run, "epoch": epoch, "train_loss": 0.5, "_ingest": {"received_at": "r"}});
            object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            object
        };
        let objects = [
            object("a", 1, json!({"hidden_units": 2})),
            object("b", 9, json!({})),
            object("a", 2, json!({"train_loss": "NaN", "_ingest": {"published_at": "p", "received_at": "r"}})),
        ];
        let items = of_objects(&objects, 5);
        assert_eq!(items.iter().map(|item| item["epoch"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(items[1]["non_finite"], json!(["loss"]));
        assert_eq!((&items[1]["metrics"]["loss"], &items[1]["timestamp"]), (&Value::Null, &json!("p")));
        assert_eq!((&items[1]["network_topology"]["hidden_units"], &items[1]["phase"]), (&json!(2), &json!("")));
        assert_eq!(of_objects(&objects, 1).len(), 1);
    }
}
