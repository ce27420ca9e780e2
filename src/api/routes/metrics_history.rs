//! The newest metrics of a run, in the form that the panels of the field's existing dashboards read.
//!
//! The panels format values without checking that they exist, so the phase is always text, and the number of hidden units always a
//! number.

use axum::{extract::State, http::StatusCode, response::IntoResponse};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::latest_value::{self, cache_status};
use crate::{
    api::{
        error::{ApiError, ApiResult, json},
        memory_budget::{Reservation, SMALL_RESERVATION},
        params::Params,
        run_lookup,
        state::ApiState,
    },
    event::{MetricsRow, TopologyRow},
    render,
    store::RangeQuery,
};

#[derive(Serialize)]
struct History<'a> {
    history: Vec<HistoryItem<'a>>,
}

/// One row of metrics.
#[derive(Debug, Serialize)]
struct HistoryItem<'a> {
    epoch: Option<i64>,
    timestamp: Option<String>,
    phase: &'a str,
    metrics: Scores,
    network_topology: Layers,
    /// Names of the scores that are not finite, and therefore null.
    non_finite: Vec<&'static str>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Scores {
    loss: Option<f64>,
    accuracy: Option<f64>,
    val_loss: Option<f64>,
    val_accuracy: Option<f64>,
}

impl Scores {
    fn non_finite(&self) -> Vec<&'static str> {
        let Self { loss, accuracy, val_loss, val_accuracy } = *self;
        let named = [("loss", loss), ("accuracy", accuracy), ("val_loss", val_loss), ("val_accuracy", val_accuracy)];
        named
            .into_iter()
            .filter(|(_, value)| value.is_some_and(|value| !value.is_finite()))
            .map(|(name, _)| name)
            .collect()
    }
}

/// Sizes of the layers, as far as they are known.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Layers {
    input_units: Option<i64>,
    hidden_units: i64,
    output_units: Option<i64>,
}

/// `GET /api/metrics/history`
pub async fn history(State(state): State<ApiState>, params: Params) -> ApiResult {
    let params = params.allow_only(&["limit", "run_id"], &[])?;
    let limit = params.number("limit", 100, 1, state.config.page_rows)?;
    let named = run_lookup::optional_run(&state, &params).await?;
    let (status, answer) = match stored(&state, named, limit).await {
        Ok(answer) => ("MISS", answer),
        // While the store is away, Redis has the newest part.
        Err(error) if error.status() == StatusCode::SERVICE_UNAVAILABLE && named.is_none() => {
            match latest_value::read(&state, "history", None).await? {
                Some((_reservation, text)) => ("HIT", json(&History { history: of_redis(&read(&text), limit) })?),
                None => return Err(error),
            }
        }
        Err(error) => return Err(error),
    };
    Ok((cache_status(status), answer).into_response())
}

async fn stored(state: &ApiState, named: Option<Uuid>, limit: usize) -> ApiResult {
    let run_id = match run_lookup::newest(state, named).await {
        Ok(run_id) => run_id,
        // Nothing has been published yet: the history is empty.
        Err(error) if error.status() == StatusCode::NOT_FOUND && named.is_none() => {
            return json(&History { history: Vec::new() });
        }
        Err(error) => return Err(error),
    };
    let layers = layers(state, run_id).await?;
    let mut reservation = Reservation::reserve_page(&state.memory).await;
    let (mut rows, _) = reservation.page::<MetricsRow>(&*state.store, &RangeQuery::newest(run_id, limit)).await?;
    rows.reverse();
    reservation.json(&History { history: of_rows(&rows, layers) })
}

/// The sizes in the newest row, else in the newest topology, which may be large.
async fn layers(state: &ApiState, run_id: Uuid) -> Result<Layers, ApiError> {
    let query = RangeQuery::newest(run_id, 1);
    let mut reservation = Reservation::reserve(&state.memory, SMALL_RESERVATION).await;
    let (rows, _) = reservation.page::<MetricsRow>(&*state.store, &query).await?;
    let own = rows.first().map(|row| row_layers(row, Layers::default()));
    if own.is_none_or(|layers| layers.input_units.is_some()) {
        return Ok(own.unwrap_or_default());
    }
    let (rows, _) = reservation.page::<TopologyRow>(&*state.store, &query).await?;
    let Some(row) = rows.first() else { return Ok(Layers::default()) };
    Ok(Layers {
        input_units: row.input_size.map(i64::from),
        output_units: row.output_size.map(i64::from),
        hidden_units: 0,
    })
}

/// The sizes in a row, else those `known`. The sizes of input and output have no column.
fn row_layers(row: &MetricsRow, known: Layers) -> Layers {
    let extra = |names: [&str; 2]| {
        let number = names.iter().find_map(|name| row.extra.get(*name))?;
        (number.fract() == 0.0).then_some(*number as i64)
    };
    Layers {
        input_units: extra(["input_units", "input_size"]).or(known.input_units),
        // A network keeps its hidden units until one is added.
        hidden_units: row.columns.hidden_units.map_or(known.hidden_units, i64::from),
        output_units: extra(["output_units", "output_size"]).or(known.output_units),
    }
}

fn of_rows(rows: &[MetricsRow], known: Layers) -> Vec<HistoryItem<'_>> {
    let mut layers = Layers { hidden_units: 0, ..known };
    let mut items = Vec::new();
    for row in rows {
        layers = row_layers(row, layers);
        let metrics = Scores {
            loss: row.columns.train_loss,
            accuracy: row.columns.train_accuracy,
            val_loss: row.columns.val_loss,
            val_accuracy: row.columns.val_accuracy,
        };
        items.push(HistoryItem {
            epoch: row.columns.epoch.map(i64::from),
            timestamp: Some(render::time(row.key.timestamp)),
            phase: row.columns.phase.as_deref().unwrap_or_default(),
            metrics,
            network_topology: layers,
            non_finite: metrics.non_finite(),
        });
    }
    items
}

/// An object of the history in Redis. Other clients may write that key, so every value may have any type.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RedisObject {
    run_id: Value,
    epoch: Value,
    phase: Value,
    train_loss: Value,
    train_accuracy: Value,
    val_loss: Value,
    val_accuracy: Value,
    hidden_units: Value,
    input_units: Value,
    input_size: Value,
    output_units: Value,
    output_size: Value,
    #[serde(rename = "_ingest")]
    ingest: Ingest,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ingest {
    received_at: Value,
    published_at: Value,
}

fn read(text: &str) -> Vec<RedisObject> {
    serde_json::from_str(text).unwrap_or_default()
}

/// The newest objects of the run that the last one belongs to.
fn of_redis(objects: &[RedisObject], limit: usize) -> Vec<HistoryItem<'_>> {
    let Some(newest) = objects.last() else { return Vec::new() };
    // A number that is not finite is text in Redis.
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
    let (mut items, mut hidden_units) = (Vec::new(), 0);
    for object in objects.iter().filter(|object| object.run_id == newest.run_id) {
        hidden_units = object.hidden_units.as_i64().unwrap_or(hidden_units);
        let metrics = Scores {
            loss: number(&object.train_loss),
            accuracy: number(&object.train_accuracy),
            val_loss: number(&object.val_loss),
            val_accuracy: number(&object.val_accuracy),
        };
        let Ingest { received_at, published_at } = &object.ingest;
        items.push(HistoryItem {
            epoch: object.epoch.as_i64(),
            timestamp: published_at.as_str().or(received_at.as_str()).map(str::to_owned),
            phase: object.phase.as_str().unwrap_or_default(),
            metrics,
            network_topology: Layers {
                input_units: object.input_units.as_i64().or(object.input_size.as_i64()),
                hidden_units,
                output_units: object.output_units.as_i64().or(object.output_size.as_i64()),
            },
            non_finite: metrics.non_finite(),
        });
    }
    items.split_off(items.len().saturating_sub(limit))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_history_of_redis_is_that_of_the_newest_run() {
        let object = |run: &str, epoch: i64, more: Value| {
            let mut object = json!({"run_id": run, "epoch": epoch, "train_loss": 0.5, "_ingest": {"received_at": "r"}});
            object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            object
        };
        let objects = json!([
            object("a", 1, json!({"hidden_units": 2})),
            object("b", 9, json!({})),
            object("a", 2, json!({"train_loss": "NaN", "_ingest": {"published_at": "p", "received_at": "r"}})),
        ]);
        let objects = read(&objects.to_string());
        let items = serde_json::to_value(of_redis(&objects, 5)).unwrap();
        let epochs: Vec<_> = items.as_array().unwrap().iter().map(|item| item["epoch"].as_i64().unwrap()).collect();
        assert_eq!(epochs, [1, 2]);
        assert_eq!(items[1]["non_finite"], json!(["loss"]));
        assert_eq!((&items[1]["metrics"]["loss"], &items[1]["timestamp"]), (&Value::Null, &json!("p")));
        assert_eq!((&items[1]["network_topology"]["hidden_units"], &items[1]["phase"]), (&json!(2), &json!("")));
        assert_eq!(of_redis(&objects, 1).len(), 1);
        // Values of other clients.
        for text in ["7", "[7]", "{}", "nonsense", "[{\"epoch\": \"x\", \"phase\": 7}]"] {
            assert!(
                of_redis(&read(text), 5).iter().all(|item| item.epoch.is_none() && item.phase.is_empty()),
                "{text}"
            );
        }
    }
}
