//! `GET /api/stream`: what happens, as server-sent events, collected for each client.
//!
//! | event | data |
//! | --- | --- |
//! | `hello` | `{"resumed", "live"}`; not resumed: what was missed is in the store; not live: nothing is heard here |
//! | `metrics` | `{"run_id", "rows": [...], "skipped"}`: rows as `/api/metrics/range` has them, oldest first |
//! | `topology` | the newest snapshot of a run; one that is large without its `topology_json` |
//! | `event` | `{"run_id", "rows": [...], "skipped"}`: starts, ends, units added; of states the newest |
//! | `activity` | `{"runs": [...]}`: which other runs said something, where `run_id` was given |
//! | `skipped` | `{"count"}`: messages that this client was too slow for |
//! | `receipt` | the answer to a command |
//! | `status` | the status object, once a second |
//!
//! An answer is at most one chunk each `http.stream_interval`, and is made when the client has taken the one before: a slow
//! client misses messages, is told how many, and holds up nobody. Its `id` names the place to come back to (`Last-Event-ID`).

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::IntoResponse,
};
use bytes::Bytes;
use hyper::body::Frame;
use serde_json::json;
use tokio::{
    sync::broadcast,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{
    ApiState,
    error::{ApiError, ApiResult},
    params::{Params, uuid},
};
use crate::{
    event::Kind,
    live::{LiveEvent, Subscriber},
};

/// How often a client's task looks for events.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Interval of the status.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Silence after which a comment says that the connection is alive.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// A stream ends after this long, and the client comes back: whoever may no longer read is found out then.
const MAX_AGE: Duration = Duration::from_secs(15 * 60);
/// A topology that is larger is not sent whole; the client asks for it.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// Events of one run in one chunk, at most; the newest stay.
const EVENTS_MAX: usize = 64;
/// Receipts in one chunk, at most.
const RECEIPTS_MAX: usize = 64;

/// `GET /api/stream`
pub async fn stream(State(state): State<ApiState>, headers: HeaderMap, params: Params) -> ApiResult {
    let params = params.allow_only(&["last_event_id"], &["run_id"])?;
    let runs = params.runs("run_id").into_iter().map(uuid).collect::<Result<Vec<_>, _>>()?;
    if runs.len() > state.config.runs {
        return Err(ApiError::bad_request(format!("`run_id` may be given {} times, at most", state.config.runs)));
    }
    let header = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let Some(subscriber) = state.live.subscribe(header.or(params.text("last_event_id")), state.reserved.streams) else {
        let detail = "too many streams are open (`http.streams`); close one, or ask for the newest values instead";
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, detail));
    };
    let body = StreamBody(Some(Box::pin(StreamClient::new(state, subscriber, runs).next())));
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    let keep = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // For proxies that gather answers before they pass them on.
    let buffering = (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(([kind, keep, buffering], Body::new(body)).into_response())
}

type NextChunk = Pin<Box<dyn Future<Output = Option<(Bytes, StreamClient)>> + Send>>;

/// A body whose next chunk is made when it is asked for.
struct StreamBody(Option<NextChunk>);

impl hyper::body::Body for StreamBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(next) = &mut self.0 else { return Poll::Ready(None) };
        match ready!(next.as_mut().poll(context)) {
            Some((chunk, client)) => {
                self.0 = Some(Box::pin(client.next()));
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            None => {
                self.0 = None;
                Poll::Ready(None)
            }
        }
    }
}

/// One client.
struct StreamClient {
    state: ApiState,
    subscriber: Subscriber,
    /// The runs that it wants; empty: all.
    runs: Vec<Uuid>,
    receipts: Option<broadcast::Receiver<Arc<str>>>,
    began: Instant,
    hello_sent: bool,
    items_sent: Option<Instant>,
    status_sent: Option<Instant>,
    last_sent_at: Instant,
}

impl StreamClient {
    fn new(state: ApiState, subscriber: Subscriber, runs: Vec<Uuid>) -> Self {
        let receipts = state.submitter.receipts();
        let began = Instant::now();
        Self {
            state,
            subscriber,
            runs,
            receipts,
            began,
            hello_sent: false,
            items_sent: None,
            status_sent: None,
            last_sent_at: began,
        }
    }

    /// The next chunk; `None` when the stream is over.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        loop {
            if self.subscriber.is_closed() || self.began.elapsed() > MAX_AGE {
                return None;
            }
            let mut chunk = String::new();
            self.write(&mut chunk);
            if !chunk.is_empty() {
                self.last_sent_at = Instant::now();
                return Some((chunk.into(), self));
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    fn write(&mut self, out: &mut String) {
        if !self.hello_sent {
            self.hello_sent = true;
            out.push_str("retry: 1000\n\n");
            event(out, "hello", &self.hello(), Some(&self.subscriber.resume_token()));
        }
        self.write_receipts(out);
        if self.items_sent.is_none_or(|at| at.elapsed() >= self.state.config.stream_interval) {
            self.write_items(out);
        }
        if self.status_sent.is_none_or(|at| at.elapsed() >= STATUS_INTERVAL) {
            self.status_sent = Some(Instant::now());
            event(out, "status", &(self.state.status)().to_string(), None);
        }
        if out.is_empty() && self.last_sent_at.elapsed() > HEARTBEAT_INTERVAL {
            out.push_str(": here\n\n");
        }
    }

    /// Where nothing is heard the client asks the store.
    fn hello(&self) -> String {
        json!({ "resumed": self.subscriber.resumed, "live": self.receipts.is_some() }).to_string()
    }

    fn write_receipts(&mut self, out: &mut String) {
        let Some(receipts) = &mut self.receipts else { return };
        for _ in 0..RECEIPTS_MAX {
            match receipts.try_recv() {
                Ok(receipt) => event(out, "receipt", &receipt, None),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => break,
            }
        }
    }

    fn write_items(&mut self, out: &mut String) {
        let drained = self.subscriber.drain();
        if drained.events.is_empty() && drained.skipped == 0 {
            return;
        }
        self.items_sent = Some(Instant::now());
        if drained.skipped > 0 {
            event(out, "skipped", &json!({ "count": drained.skipped }).to_string(), None);
        }
        let mut runs: BTreeMap<Uuid, RunEvents<'_>> = BTreeMap::new();
        let mut others = Vec::new();
        for item in &drained.events {
            let run_id = item.decided.run_id;
            if self.runs.is_empty() || self.runs.contains(&run_id) {
                runs.entry(run_id).or_default().add(item);
            } else if !others.contains(&run_id) {
                others.push(run_id);
            }
        }
        let points = self.state.config.stream_points / runs.len().max(1);
        for (run_id, run_events) in &runs {
            run_events.write(out, *run_id, points.max(1));
        }
        if !others.is_empty() {
            event(out, "activity", &json!({ "runs": others }).to_string(), None);
        }
        // After everything: only who has all of it goes on behind it.
        let _ = write!(out, "id: {}\nevent: seen\ndata: {{}}\n\n", self.subscriber.resume_token());
    }
}

/// What one run said since the last chunk.
#[derive(Default)]
struct RunEvents<'a> {
    metrics: Vec<&'a LiveEvent>,
    topology: Option<&'a LiveEvent>,
    state: Option<&'a LiveEvent>,
    events: Vec<&'a LiveEvent>,
    replaced: usize,
}

impl<'a> RunEvents<'a> {
    fn add(&mut self, item: &'a LiveEvent) {
        match item.kind {
            Kind::Metrics => self.metrics.push(item),
            Kind::Topology => self.replaced += usize::from(self.topology.replace(item).is_some()),
            Kind::State => self.replaced += usize::from(self.state.replace(item).is_some()),
            Kind::RunStart | Kind::RunEnd | Kind::Dataset | Kind::Other => self.events.push(item),
        }
    }

    fn write(&self, out: &mut String, run_id: Uuid, points: usize) {
        if !self.metrics.is_empty() {
            rows(out, "metrics", run_id, &downsample(&self.metrics, points), self.metrics.len());
        }
        if let Some(item) = self.topology {
            if item.bytes() > INLINE_BYTES_MAX {
                event(out, "topology", &json!({ "run_id": run_id, "topology_json": null }).to_string(), None);
            } else if let Some(json) = item.json() {
                event(out, "topology", json, None);
            }
        }
        let newest = &self.events[self.events.len().saturating_sub(EVENTS_MAX)..];
        let events: Vec<_> =
            newest.iter().copied().chain(self.state).filter(|item| item.bytes() <= INLINE_BYTES_MAX).collect();
        if !self.events.is_empty() || self.state.is_some() {
            let all = self.events.len() + usize::from(self.state.is_some()) + self.replaced;
            rows(out, "event", run_id, &events, all);
        }
    }
}

/// At most `most` of them, evenly, the last among them.
fn downsample<'a>(items: &[&'a LiveEvent], most: usize) -> Vec<&'a LiveEvent> {
    let step = items.len().div_ceil(most);
    items.iter().rev().step_by(step).rev().copied().collect()
}

fn rows(out: &mut String, name: &str, run_id: Uuid, items: &[&LiveEvent], all: usize) {
    let shown: Vec<_> = items.iter().filter_map(|item| item.json()).collect();
    let _ = write!(
        out,
        "event: {name}\ndata: {{\"run_id\":\"{run_id}\",\"skipped\":{},\"rows\":[{}]}}\n\n",
        all - shown.len(),
        shown.join(",")
    );
}

/// JSON has no line break that would end the data.
fn event(out: &mut String, name: &str, json: &str, id: Option<&str>) {
    if let Some(id) = id {
        let _ = writeln!(out, "id: {id}");
    }
    let _ = write!(out, "event: {name}\ndata: {json}\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Resolved;

    fn item(kind: Kind, n: usize) -> LiveEvent {
        let decided = Resolved {
            run_id: Uuid::from_u128(1),
            event_time: 5,
            received_at: 6,
            has_event_time: true,
            opened_run: false,
        };
        let payload = match kind {
            Kind::Metrics => format!("{{\"epoch\": {n}, \"loss\": 0.5}}"),
            _ => format!("{{\"type\": \"state\", \"epoch\": {n}}}"),
        };
        LiveEvent::new(kind, decided, "c".into(), payload.into())
    }

    #[test]
    fn what_is_left_out_is_counted_and_the_newest_stays() {
        let items: Vec<_> =
            (1..=10).map(|n| item(Kind::Metrics, n)).chain((1..=3).map(|n| item(Kind::State, n))).collect();
        let mut run_events = RunEvents::default();
        items.iter().for_each(|item| run_events.add(item));
        let mut out = String::new();
        run_events.write(&mut out, Uuid::from_u128(1), 4);
        let data: Vec<serde_json::Value> =
            out.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
        let epochs = |n: usize| -> Vec<_> {
            data[n]["rows"].as_array().unwrap().iter().map(|row| row["epoch"].as_u64().unwrap()).collect()
        };
        assert_eq!((epochs(0), data[0]["skipped"].as_u64()), (vec![1, 4, 7, 10], Some(6)));
        assert_eq!((epochs(1), data[1]["skipped"].as_u64()), (vec![3], Some(2)));
    }
}
