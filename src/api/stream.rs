//! `GET /api/stream`: what happens, as server-sent events, gathered for each client.
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
//! An answer is at most one piece each `http.stream_interval`, and is made when the client has taken the one before: a slow
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
    Sight,
    error::{Answer, ApiError},
    params::{Params, uuid},
};
use crate::{
    event::Kind,
    live::{Item, Watcher},
    wire::Limits,
};

/// How often a client's task looks whether there is something.
const GLANCE: Duration = Duration::from_millis(20);
/// How often the status is sent.
const STATUS: Duration = Duration::from_secs(1);
/// Silence after which a comment says that the connection is alive.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A stream ends after this long, and the client comes back: whoever may no longer read is found out then.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// A topology that is larger is not sent whole; the client asks for it.
const LARGE: usize = 64 << 10;
/// Events of one run in one piece, at most; the newest stay.
const EVENTS: usize = 64;
/// Receipts in one piece, at most.
const RECEIPTS: usize = 64;

/// `GET /api/stream`
pub async fn stream(State(sight): State<Sight>, headers: HeaderMap, params: Params) -> Answer {
    let params = params.known(&["last_event_id"], &["run_id"])?;
    let runs = params.runs("run_id").into_iter().map(uuid).collect::<Result<Vec<_>, _>>()?;
    if runs.len() > sight.config.runs {
        return Err(ApiError::bad(format!("`run_id` may be given {} times, at most", sight.config.runs)));
    }
    let header = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let Some(watcher) = sight.live.watch(header.or(params.text("last_event_id")), sight.reserved.streams) else {
        let detail = "too many streams are open (`http.streams`); close one, or ask for the newest values instead";
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, detail));
    };
    let body = Pieces(Some(Box::pin(Viewer::new(sight, watcher, runs).next())));
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    let keep = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // For proxies that gather answers before they pass them on.
    let buffering = (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(([kind, keep, buffering], Body::new(body)).into_response())
}

type Next = Pin<Box<dyn Future<Output = Option<(Bytes, Viewer)>> + Send>>;

/// A body whose next piece is made when it is asked for.
struct Pieces(Option<Next>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(next) = &mut self.0 else { return Poll::Ready(None) };
        match ready!(next.as_mut().poll(context)) {
            Some((piece, viewer)) => {
                self.0 = Some(Box::pin(viewer.next()));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            None => {
                self.0 = None;
                Poll::Ready(None)
            }
        }
    }
}

/// One client.
struct Viewer {
    sight: Sight,
    watcher: Watcher,
    /// The runs that it wants; empty: all.
    runs: Vec<Uuid>,
    receipts: Option<broadcast::Receiver<Arc<str>>>,
    limits: Limits,
    began: Instant,
    greeted: bool,
    items_sent: Option<Instant>,
    status_sent: Option<Instant>,
    spoke: Instant,
}

impl Viewer {
    fn new(sight: Sight, watcher: Watcher, runs: Vec<Uuid>) -> Self {
        let receipts = sight.inlet.receipts();
        // Intake has accepted what is shown.
        let limits = Limits::NONE;
        let began = Instant::now();
        Self {
            sight,
            watcher,
            runs,
            receipts,
            limits,
            began,
            greeted: false,
            items_sent: None,
            status_sent: None,
            spoke: began,
        }
    }

    /// The next piece; `None` when the stream is over.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        loop {
            if self.watcher.is_over() || self.began.elapsed() > LONGEST {
                return None;
            }
            let mut piece = String::new();
            self.write(&mut piece);
            if !piece.is_empty() {
                self.spoke = Instant::now();
                return Some((piece.into(), self));
            }
            sleep(GLANCE).await;
        }
    }

    fn write(&mut self, out: &mut String) {
        if !self.greeted {
            self.greeted = true;
            out.push_str("retry: 1000\n\n");
            event(out, "hello", &self.hello(), Some(&self.watcher.place()));
        }
        self.write_receipts(out);
        if self.items_sent.is_none_or(|at| at.elapsed() >= self.sight.config.stream_interval) {
            self.write_items(out);
        }
        if self.status_sent.is_none_or(|at| at.elapsed() >= STATUS) {
            self.status_sent = Some(Instant::now());
            event(out, "status", &(self.sight.status)().to_string(), None);
        }
        if out.is_empty() && self.spoke.elapsed() > HEARTBEAT {
            out.push_str(": here\n\n");
        }
    }

    /// Where nothing is heard the client asks the store.
    fn hello(&self) -> String {
        json!({ "resumed": self.watcher.resumed, "live": self.receipts.is_some() }).to_string()
    }

    fn write_receipts(&mut self, out: &mut String) {
        let Some(receipts) = &mut self.receipts else { return };
        for _ in 0..RECEIPTS {
            match receipts.try_recv() {
                Ok(receipt) => event(out, "receipt", &receipt, None),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => break,
            }
        }
    }

    fn write_items(&mut self, out: &mut String) {
        let seen = self.watcher.take();
        if seen.items.is_empty() && seen.skipped == 0 {
            return;
        }
        self.items_sent = Some(Instant::now());
        if seen.skipped > 0 {
            event(out, "skipped", &json!({ "count": seen.skipped }).to_string(), None);
        }
        let mut runs: BTreeMap<Uuid, Gathered<'_>> = BTreeMap::new();
        let mut others = Vec::new();
        for item in &seen.items {
            let run_id = item.decided.run_id;
            if self.runs.is_empty() || self.runs.contains(&run_id) {
                runs.entry(run_id).or_default().add(item);
            } else if !others.contains(&run_id) {
                others.push(run_id);
            }
        }
        let points = self.sight.config.stream_points / runs.len().max(1);
        for (run_id, gathered) in &runs {
            gathered.write(out, *run_id, points.max(1), &self.limits);
        }
        if !others.is_empty() {
            event(out, "activity", &json!({ "runs": others }).to_string(), None);
        }
        // After everything: only who has all of it goes on behind it.
        let _ = write!(out, "id: {}\nevent: seen\ndata: {{}}\n\n", self.watcher.place());
    }
}

/// What one run said since the last piece.
#[derive(Default)]
struct Gathered<'a> {
    metrics: Vec<&'a Item>,
    topology: Option<&'a Item>,
    state: Option<&'a Item>,
    events: Vec<&'a Item>,
    replaced: usize,
}

impl<'a> Gathered<'a> {
    fn add(&mut self, item: &'a Item) {
        match item.kind {
            Kind::Metrics => self.metrics.push(item),
            Kind::Topology => self.replaced += usize::from(self.topology.replace(item).is_some()),
            Kind::State => self.replaced += usize::from(self.state.replace(item).is_some()),
            Kind::RunStart | Kind::RunEnd | Kind::Dataset | Kind::Other => self.events.push(item),
        }
    }

    fn write(&self, out: &mut String, run_id: Uuid, points: usize, limits: &Limits) {
        if !self.metrics.is_empty() {
            rows(out, "metrics", run_id, &thin(&self.metrics, points), self.metrics.len(), limits);
        }
        if let Some(item) = self.topology {
            if item.bytes() > LARGE {
                event(out, "topology", &json!({ "run_id": run_id, "topology_json": null }).to_string(), None);
            } else if let Some(json) = item.json(limits) {
                event(out, "topology", json, None);
            }
        }
        let newest = &self.events[self.events.len().saturating_sub(EVENTS)..];
        let events: Vec<_> = newest.iter().copied().chain(self.state).filter(|item| item.bytes() <= LARGE).collect();
        if !self.events.is_empty() || self.state.is_some() {
            let all = self.events.len() + usize::from(self.state.is_some()) + self.replaced;
            rows(out, "event", run_id, &events, all, limits);
        }
    }
}

/// At most `most` of them, evenly, the last among them.
fn thin<'a>(items: &[&'a Item], most: usize) -> Vec<&'a Item> {
    let step = items.len().div_ceil(most);
    items.iter().rev().step_by(step).rev().copied().collect()
}

fn rows(out: &mut String, name: &str, run_id: Uuid, items: &[&Item], all: usize, limits: &Limits) {
    let shown: Vec<_> = items.iter().filter_map(|item| item.json(limits)).collect();
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

    fn item(kind: Kind, n: usize) -> Item {
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
        Item::new(kind, decided, "c".into(), payload.into())
    }

    #[test]
    fn what_is_left_out_is_counted_and_the_newest_stays() {
        let items: Vec<_> =
            (1..=10).map(|n| item(Kind::Metrics, n)).chain((1..=3).map(|n| item(Kind::State, n))).collect();
        let mut gathered = Gathered::default();
        items.iter().for_each(|item| gathered.add(item));
        let mut out = String::new();
        gathered.write(&mut out, Uuid::from_u128(1), 4, &Limits::default());
        let data: Vec<serde_json::Value> =
            out.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
        let epochs = |n: usize| -> Vec<_> {
            data[n]["rows"].as_array().unwrap().iter().map(|row| row["epoch"].as_u64().unwrap()).collect()
        };
        assert_eq!((epochs(0), data[0]["skipped"].as_u64()), (vec![1, 4, 7, 10], Some(6)));
        assert_eq!((epochs(1), data[1]["skipped"].as_u64()), (vec![3], Some(2)));
    }
}
