//! One client of a stream.

use std::{collections::BTreeMap, convert::Infallible, fmt::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::json;
use tokio::{
    sync::broadcast,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{format::event, run_events::RunEvents};
use crate::{api::state::ApiState, live::Subscriber};

/// Interval at which a client's events are polled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Interval of the status.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Silence after which a comment says that the connection is alive.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum age of a stream; the client reconnects, and is checked again.
const MAX_AGE: Duration = Duration::from_secs(15 * 60);
/// Maximum receipts in one chunk.
const RECEIPTS_MAX: usize = 64;

/// One client.
pub struct StreamClient {
    state: ApiState,
    subscriber: Subscriber,
    /// The requested runs; empty: all.
    runs: Vec<Uuid>,
    receipts: Option<broadcast::Receiver<Arc<str>>>,
    began: Instant,
    /// Whether events were live, as the client was told last.
    live_sent: Option<bool>,
    items_sent: Option<Instant>,
    status_sent: Option<Instant>,
    last_sent_at: Instant,
}

impl StreamClient {
    /// A client that has got nothing so far.
    pub fn new(state: ApiState, subscriber: Subscriber, runs: Vec<Uuid>) -> Self {
        let receipts = state.submitter.receipts();
        let began = Instant::now();
        Self {
            state,
            subscriber,
            runs,
            receipts,
            began,
            live_sent: None,
            items_sent: None,
            status_sent: None,
            last_sent_at: began,
        }
    }

    /// The next chunk; `None` when the stream is over.
    pub async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            if self.subscriber.is_closed() || self.began.elapsed() > MAX_AGE {
                return None;
            }
            let mut chunk = String::new();
            self.write(&mut chunk);
            if !chunk.is_empty() {
                self.last_sent_at = Instant::now();
                return Some((Ok(chunk.into()), self));
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    fn write(&mut self, out: &mut String) {
        self.write_hello(out);
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

    /// A client without live events polls the store, so it is told when that changes.
    fn write_hello(&mut self, out: &mut String) {
        let live = self.receipts.is_some() && self.state.live.is_live();
        let is_first = self.live_sent.is_none();
        if self.live_sent.replace(live) == Some(live) {
            return;
        }
        if is_first {
            out.push_str("retry: 1000\n\n");
        }
        let hello = json!({
            "resumed": self.subscriber.resumed || !is_first,
            "live": live,
            "max_runs": self.state.config.max_runs,
            "stale_after_seconds": self.state.config.stale_after.as_secs_f64(),
        });
        event(out, "hello", &hello.to_string(), Some(&self.subscriber.resume_token()));
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
        // Last, so that a client that has received only a part of the chunk resumes before it.
        let _ = write!(out, "id: {}\nevent: seen\ndata: {{}}\n\n", self.subscriber.resume_token());
    }
}
