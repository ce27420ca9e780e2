//! The newest values: from Redis, else from the store, and the answer says which (`X-Cache-Status`).

use std::{fmt, io, time::Duration};

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use fred::error::Error as RedisError;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::{
    ApiState,
    chunked::{self, ChunkWriter},
    error::{ApiError, ApiResult},
    memory_budget::Reservation,
    params::{Params, uuid},
    rows,
};
use crate::{
    event::{EventKey, EventRow, Kind, MetricsRow, Resolved, RunRow, TopologyRow, total_bytes},
    memory::LARGE_VALUE,
    redis::{self, Resource, Unusable, ValueLookup},
    render::{Json, JsonRows},
    store::{BoxFuture, RangeQuery, RunsQuery},
    wire::{self, Message},
};

/// How long Redis may take for an answer; then the store is asked.
const REDIS_TIMEOUT: Duration = Duration::from_millis(500);
/// Among how many of the newest runs the one is looked for that spoke last.
const RECENT_RUNS: usize = 32;
/// Of so many of a run's newest events the state is looked for.
const STATE_EVENT_ROWS: usize = 256;
/// Objects of a history from the store, as many as the key holds by default.
const HISTORY_ROWS: usize = 512;
/// How often a value is asked for that grows while it is read.
const READ_ATTEMPTS_MAX: usize = 3;
/// Memory for a latest value, with its text: most need far less.
pub const LATEST_BYTES: usize = 2 << 20;
/// What a value from Redis may have without a reservation: no more than a connection is handed at once anyway.
const UNRESERVED_BYTES_MAX: usize = 64 << 10;

/// `GET /api/metrics`
pub async fn metrics(State(state): State<ApiState>, params: Params) -> ApiResult {
    let run_id = requested_run(params)?;
    if let Some(hit) = cached(&state, "metrics", run_id).await? {
        return Ok(hit);
    }
    let mut reservation = Reservation::reserve(&state.memory, LATEST_BYTES).await;
    let run = newest(&state, run_id).await?;
    let (rows, _) = reservation.page::<MetricsRow>(&*state.store, &RangeQuery::newest(run, 1)).await?;
    let row = rows.first().ok_or_else(|| ApiError::not_found("No metrics yet"))?;
    Ok(answer("MISS", Some(reservation), text(&Json(row))))
}

/// `GET /api/topology`, `GET /api/network/topology`
pub async fn topology(State(state): State<ApiState>, params: Params) -> ApiResult {
    let run_id = requested_run(params)?;
    if let Some(hit) = cached(&state, "topology", run_id).await? {
        return Ok(hit);
    }
    let mut reservation = Reservation::reserve(&state.memory, LATEST_BYTES).await;
    let run = newest(&state, run_id).await?;
    let (store, query) = (&*state.store, RangeQuery::newest(run, 1));
    let read = || -> BoxFuture<'_, _> { Box::pin(rows::page::<TopologyRow>(store, query.clone())) };
    let (rows, _) = reservation.read_rows_within(read, |(rows, _)| total_bytes(rows)).await?;
    let row = rows.into_iter().next().ok_or_else(|| ApiError::not_found("No topology yet"))?;
    Ok(made(reservation, move |out| write_topology(row, out)))
}

/// The row, with the fields of its message beside its columns, so that it is read like the value in Redis. Of a large one
/// `topology_json` is empty where the fields say the same.
fn write_topology<W: fmt::Write + io::Write>(mut row: TopologyRow, out: &mut W) {
    let json = row.topology_json.clone();
    let message = wire::decode_accepted(json.as_bytes()).ok();
    if message.is_some() && json.len() >= LARGE_VALUE {
        row.topology_json = "".into();
    }
    let columns = [
        "run_id",
        "timestamp",
        "event_id",
        "epoch",
        "input_size",
        "output_size",
        "hidden_units",
        "total_parameters",
        "topology_json",
        "weights_summary",
        "input_units",
        "output_units",
    ];
    let sizes = format!(",\"input_units\":{},\"output_units\":{}", json!(row.input_size), json!(row.output_size));
    let more = message.as_ref().map(|message| Stored { message, key: &row.key, taken: &columns });
    write_row(&Json(&row), &sizes, more, out);
}

/// A message that is stored as JSON, of which a row has some fields already.
struct Stored<'a> {
    message: &'a Message<'a>,
    key: &'a EventKey,
    taken: &'a [&'a str],
}

/// A row as JSON, with members more: those of a text, and those of its message.
fn write_row<W: fmt::Write + io::Write>(row: &impl Serialize, members: &str, more: Option<Stored<'_>>, out: &mut W) {
    chunked::write_json(Unclosed { out: &mut *out, last: None }, row);
    let _ = fmt::Write::write_str(out, members);
    if let Some(Stored { message, key, taken }) = more {
        let (run_id, event_time) = (key.run_id, key.timestamp);
        let decided =
            Resolved { run_id, event_time, received_at: event_time, has_event_time: false, opened_run: false };
        wire::append_stored(message, &decided, taken, out);
    }
    let _ = fmt::Write::write_str(out, "}");
}

/// Writes everything but the last byte: an object that goes on.
struct Unclosed<W> {
    out: W,
    last: Option<u8>,
}

impl<W: io::Write> io::Write for Unclosed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some((last, before)) = bytes.split_last() else { return Ok(0) };
        self.out.write_all(self.last.replace(*last).as_slice())?;
        self.out.write_all(before)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `GET /api/state`
pub async fn state(State(state): State<ApiState>, params: Params) -> ApiResult {
    let run_id = requested_run(params)?;
    // Redis keeps the newest value of all runs, and none for each run.
    if run_id.is_none()
        && let Some(hit) = cached(&state, "state", None).await?
    {
        return Ok(hit);
    }
    let mut reservation = Reservation::reserve_page(&state.memory).await;
    let run = newest(&state, run_id).await?;
    let (store, query) = (&*state.store, RangeQuery::newest(run, STATE_EVENT_ROWS));
    let read = || -> BoxFuture<'_, _> { Box::pin(rows::page::<EventRow>(store, query.clone())) };
    let (rows, _) = reservation.read_rows_within(read, |(rows, _)| total_bytes(rows)).await?;
    let row = rows.into_iter().find(is_state).ok_or_else(|| ApiError::not_found("No state yet"))?;
    Ok(made(reservation, move |out| write_state(&row, out)))
}

fn write_state<W: fmt::Write + io::Write>(row: &EventRow, out: &mut W) {
    let message = wire::decode_accepted(row.payload_json.as_bytes()).ok();
    let columns = ["run_id", "timestamp", "event_id", "type", "epoch", "payload_json"];
    let more = message.as_ref().map(|message| Stored { message, key: &row.key, taken: &columns });
    write_row(&Json(row), "", more, out);
}

fn is_state(row: &EventRow) -> bool {
    let message = wire::decode_accepted(row.payload_json.as_bytes());
    message.is_ok_and(|message| matches!(message.kind(), Kind::State | Kind::RunStart | Kind::RunEnd))
}

/// The history in Redis, if it has one, with the memory that a large one was given.
pub async fn newest_history(state: &ApiState) -> Result<Option<(Option<Reservation>, String)>, ApiError> {
    value(state, "history", None).await
}

/// `GET /api/history`
pub async fn history(State(state): State<ApiState>, params: Params) -> ApiResult {
    params.allow_only(&[], &[])?;
    if let Some(hit) = cached(&state, "history", None).await? {
        return Ok(hit);
    }
    let mut reservation = Reservation::reserve_page(&state.memory).await;
    let run = newest(&state, None).await?;
    let query = RangeQuery::newest(run, HISTORY_ROWS);
    let (mut rows, _) = reservation.page::<MetricsRow>(&*state.store, &query).await?;
    rows.reverse();
    Ok(answer("MISS", Some(reservation), text(&JsonRows(&rows))))
}

/// The run that a request names, where it may name none.
pub fn requested_run(params: Params) -> Result<Option<Uuid>, ApiError> {
    params.allow_only(&["run_id"], &[])?.text("run_id").map(uuid).transpose()
}

/// The answer from Redis, counted as a hit or a miss.
async fn cached(state: &ApiState, subject: &str, run_id: Option<Uuid>) -> Result<Option<Response>, ApiError> {
    let value = value(state, subject, run_id).await?;
    if value.is_some() {
        state.metrics.api_latest_hits.inc()
    } else {
        state.metrics.api_latest_misses.inc()
    };
    Ok(value.map(|(reservation, value)| answer("HIT", reservation, value)))
}

/// The value of a key, and the memory that a large one needs. How large it is is asked first: what Redis has is not kept waiting by
/// those who wait for the store, and the memory is there before the value is; a large one waits for its memory as rows do.
async fn value(
    state: &ApiState,
    subject: &str,
    run_id: Option<Uuid>,
) -> Result<Option<(Option<Reservation>, String)>, ApiError> {
    let Some(latest) = state.latest.as_ref() else { return Ok(None) };
    let Some(client) = latest.link.client() else { return Ok(None) };
    let key = match run_id {
        Some(run_id) => format!("{}{subject}:{run_id}:latest", latest.prefix),
        None => format!("{}{subject}:latest", latest.prefix),
    };
    let (link, max) = (&latest.link, latest.value_max(subject));
    let refused = |error: &RedisError| link.acl().warn(error, Resource::Key(&key));
    for _ in 0..READ_ATTEMPTS_MAX {
        let length =
            with_timeout(redis::value_length(&client, &key, max), refused).await.unwrap_or(ValueLookup::Absent);
        let Some(bytes) = link.usable(&key, length) else { break };
        let reservation = if bytes > UNRESERVED_BYTES_MAX {
            Some(Reservation::reserve_value(&state.memory, bytes).await)
        } else {
            None
        };
        let fits = reservation.as_ref().map_or(UNRESERVED_BYTES_MAX, Reservation::bytes).min(max);
        match with_timeout(redis::value_range(&client, &key, fits), refused).await {
            // It has grown meanwhile.
            Some(ValueLookup::Unusable(Unusable::TooLarge(_))) => {}
            found => {
                let value = link.usable(&key, found.unwrap_or(ValueLookup::Absent));
                // Others may write to these keys; what is no JSON is no value.
                let json = value.filter(|value| serde_json::from_str::<serde::de::IgnoredAny>(value).is_ok());
                return Ok(json.map(|value| (reservation, value)));
            }
        }
    }
    Ok(None)
}

/// What Redis answers in time; what it refuses is logged.
async fn with_timeout<T>(
    answer: impl Future<Output = Result<T, RedisError>>,
    refused: impl FnOnce(&RedisError),
) -> Option<T> {
    tokio::time::timeout(REDIS_TIMEOUT, answer).await.ok()?.inspect_err(refused).ok()
}

/// The run that spoke last, unless one is named.
pub async fn newest(state: &ApiState, named: Option<Uuid>) -> Result<Uuid, ApiError> {
    if let Some(run_id) = named {
        return Ok(run_id);
    }
    let _read_permit = state.memory.read_permit().await;
    let (mut query, mut last_active) = (RunsQuery { limit: RECENT_RUNS, ..RunsQuery::default() }, Vec::new());
    loop {
        let runs = state.store.runs(&query).await?.rows;
        last_active.extend(runs.iter().map(|run| (run.last_event_time.or(run.start_time), run.run_id)));
        let filled = query.is_filled(&runs);
        query.before = runs.last().and_then(RunRow::cursor);
        if !filled || query.before.is_none() || last_active.len() >= RECENT_RUNS {
            break;
        }
    }
    Ok(last_active.iter().max_by_key(|(at, _)| at).ok_or_else(ApiError::run_not_found)?.1)
}

fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("rows always serialise")
}

/// Where an answer is from; nothing between may keep what is newest.
fn head(status: &'static str) -> [(HeaderName, HeaderValue); 2] {
    [
        (HeaderName::from_static("x-cache-status"), HeaderValue::from_static(status)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]
}

fn answer(status: &'static str, reservation: Option<Reservation>, body: String) -> Response {
    let answer = match reservation {
        Some(reservation) => reservation.text(body.into_bytes()),
        None => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
    };
    (head(status), answer).into_response()
}

/// The answer from the store that `write` writes while it is sent.
fn made(reservation: Reservation, write: impl FnOnce(&mut ChunkWriter<Bytes>) + Send + 'static) -> Response {
    (head("MISS"), chunked::json(reservation, write)).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn row(topology_json: &str) -> TopologyRow {
        TopologyRow {
            key: EventKey { run_id: Uuid::nil(), timestamp: 1, event_id: 2 },
            epoch: Some(7),
            input_size: Some(2),
            output_size: Some(1),
            hidden_units: None,
            total_parameters: None,
            topology_json: topology_json.into(),
            weights_summary: None,
        }
    }

    fn topology(row: TopologyRow) -> Vec<u8> {
        let (sender, mut chunks) = tokio::sync::mpsc::channel::<Bytes>(1_000);
        let mut out = ChunkWriter::new(sender);
        write_topology(row, &mut out);
        out.flush_blocking();
        drop(out);
        std::iter::from_fn(|| chunks.blocking_recv()).flatten().collect()
    }

    #[test]
    fn a_large_network_whose_fields_cannot_be_read_keeps_its_text() {
        let text = format!("[{}1]", "1,".repeat(LARGE_VALUE));
        let network: Value = serde_json::from_slice(&topology(row(&text))).unwrap();
        assert_eq!(network["topology_json"], text);
    }

    #[test]
    fn a_network_has_its_fields_and_a_large_one_has_them_once() {
        for (connections, twice) in [(3, true), (60_000, false)] {
            let links: Vec<_> = (0..connections).map(|n| json!({"from": n, "to": 0, "weight": 0.25})).collect();
            let message = json!({"type": "topology", "input_size": 2, "connections": links}).to_string();
            let text = topology(row(&message));
            assert!(twice || text.len() < message.len() + LARGE_VALUE / 4, "{connections} connections: {}", text.len());
            let network: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(network["topology_json"], if twice { message.as_str() } else { "" });
            assert_eq!(network["connections"].as_array().unwrap().len(), connections);
            let columns = (&network["epoch"], &network["input_size"], &network["output_units"]);
            assert_eq!(columns, (&json!(7), &json!(2), &json!(1)));
        }
    }
}
