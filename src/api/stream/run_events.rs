//! What one run reported since the last chunk.

use std::fmt::Write as _;

use serde_json::json;
use uuid::Uuid;

use super::format::event;
use crate::{event::Kind, live::LiveEvent};

/// A larger topology is not sent; the client fetches it.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// Maximum events of one run in one chunk; the newest stay.
const EVENTS_MAX: usize = 64;

/// What one run said since the last chunk.
#[derive(Default)]
pub struct RunEvents<'a> {
    metrics: Vec<&'a LiveEvent>,
    topology: Option<&'a LiveEvent>,
    state: Option<&'a LiveEvent>,
    events: Vec<&'a LiveEvent>,
    replaced: usize,
}

impl<'a> RunEvents<'a> {
    /// Adds an event.
    pub fn add(&mut self, item: &'a LiveEvent) {
        match item.kind {
            Kind::Metrics => self.metrics.push(item),
            Kind::Topology => self.replaced += usize::from(self.topology.replace(item).is_some()),
            Kind::State => self.replaced += usize::from(self.state.replace(item).is_some()),
            Kind::RunStart | Kind::RunEnd | Kind::Dataset | Kind::Other => self.events.push(item),
        }
    }

    /// Writes them as events of the stream, with at most `points` rows of metrics.
    pub fn write(&self, out: &mut String, run_id: Uuid, points: usize) {
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

/// At most `most` of them, evenly spaced, including the last.
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
    fn omitted_events_are_counted_and_the_newest_stay() {
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
