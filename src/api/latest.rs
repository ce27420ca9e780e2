//! The newest values: from Redis, else from the store, and the answer says which (`X-Cache-Status`).

use std::time::Duration;

use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use fred::interfaces::KeysInterface;
use uuid::Uuid;

use super::{
    Sight,
    error::{Answer, ApiError},
    params::{Params, uuid},
    room::Room,
};
use crate::{
    event::{MetricsRow, RunRow, TopologyRow},
    render::{Json, JsonRows},
    store::{RangeQuery, RunsQuery, Store},
};

/// How long Redis may take; then the store is asked.
const PATIENCE: Duration = Duration::from_millis(500);
/// Among how many of the newest runs the one is looked for that spoke last.
const NEWEST: usize = 32;
/// Objects of a history from the store, as many as the key holds by default.
const HISTORY: usize = 512;
/// Room for a latest value, with its text: most need far less.
const LATEST_BYTES: usize = 2 << 20;

/// `GET /api/metrics`
pub async fn metrics(State(sight): State<Sight>, params: Params) -> Answer {
    let run_id = given(params)?;
    let mut room = Room::for_bytes(&sight, LATEST_BYTES).await?;
    if let Some(value) = cached(&sight, &mut room, "metrics", run_id).await {
        return Ok(answer("HIT", room, value));
    }
    let run = newest(&*sight.store, run_id).await?;
    let (rows, _) = room.page::<MetricsRow>(&sight, RangeQuery::newest(run, 1)).await?;
    let row = rows.first().ok_or_else(|| ApiError::not_found("No metrics yet"))?;
    Ok(answer("MISS", room, text(&Json(row))))
}

/// `GET /api/topology`, `GET /api/network/topology`
pub async fn topology(State(sight): State<Sight>, params: Params) -> Answer {
    let run_id = given(params)?;
    let mut room = Room::for_bytes(&sight, LATEST_BYTES).await?;
    if let Some(value) = cached(&sight, &mut room, "topology", run_id).await {
        return Ok(answer("HIT", room, value));
    }
    let run = newest(&*sight.store, run_id).await?;
    let (rows, _) = room.page::<TopologyRow>(&sight, RangeQuery::newest(run, 1)).await?;
    let row = rows.first().ok_or_else(|| ApiError::not_found("No topology yet"))?;
    Ok(answer("MISS", room, text(&Json(row))))
}

/// `GET /api/history`
pub async fn history(State(sight): State<Sight>, params: Params) -> Answer {
    params.known(&[], &[])?;
    let mut room = Room::of(&sight).await?;
    if let Some(value) = cached(&sight, &mut room, "history", None).await {
        return Ok(answer("HIT", room, value));
    }
    let run = newest(&*sight.store, None).await?;
    let query = RangeQuery::newest(run, HISTORY);
    let (mut rows, _) = room.page::<MetricsRow>(&sight, query).await?;
    rows.reverse();
    Ok(answer("MISS", room, text(&JsonRows(&rows))))
}

fn given(params: Params) -> Result<Option<Uuid>, ApiError> {
    params.known(&["run_id"], &[])?.text("run_id").map(uuid).transpose()
}

/// The value of a key, counted as a hit or a miss.
async fn cached(sight: &Sight, room: &mut Room, subject: &str, run_id: Option<Uuid>) -> Option<String> {
    let read = async {
        let latest = sight.latest.as_ref()?;
        let client = latest.link.client()?;
        let key = match run_id {
            Some(run_id) => format!("{}{subject}:{run_id}:latest", latest.prefix),
            None => format!("{}{subject}:latest", latest.prefix),
        };
        let mut value: Option<String> = client.get(&key).await.ok()?;
        if value.as_ref().is_some_and(|value| !room.may_keep(value.len())) {
            drop(value.take());
            room.wait().await;
            value = client.get(&key).await.ok()?;
        }
        // Others may write to these keys; what is no JSON is no value.
        value.filter(|value| serde_json::from_str::<serde::de::IgnoredAny>(value).is_ok())
    };
    let value = tokio::time::timeout(PATIENCE, read).await.ok().flatten();
    if value.is_some() {
        sight.metrics.api_latest_hits.inc()
    } else {
        sight.metrics.api_latest_misses.inc()
    };
    value
}

/// The run that spoke last, unless one is named.
async fn newest(store: &dyn Store, named: Option<Uuid>) -> Result<Uuid, ApiError> {
    if let Some(run_id) = named {
        return Ok(run_id);
    }
    let runs = store.runs(&RunsQuery { limit: NEWEST, ..RunsQuery::default() }).await?;
    let spoke = |run: &&RunRow| run.last_event_time.or(run.start_time);
    Ok(runs.iter().max_by_key(spoke).ok_or_else(ApiError::no_run)?.run_id)
}

fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("rows always serialise")
}

fn answer(status: &'static str, room: Room, body: String) -> Response {
    let cache = (HeaderName::from_static("x-cache-status"), HeaderValue::from_static(status));
    // Whoever is between must not keep what is newest.
    let keep = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    ([cache, keep], room.text(body.into_bytes())).into_response()
}
