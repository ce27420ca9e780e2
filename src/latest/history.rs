//! The newest metrics objects, rendered once each, bounded in number and in bytes.

use std::{
    collections::{HashSet, VecDeque},
    mem,
};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use uuid::Uuid;

use super::shared::merge_objects;
use crate::{render, units::Micros};

/// An object larger than this is kept with its canonical fields only.
pub(super) const OBJECT_BYTES: usize = 4 << 10;

/// Oldest first.
#[derive(Debug)]
pub(super) struct History {
    objects: VecDeque<String>,
    bytes: usize,
    objects_max: usize,
    bytes_max: usize,
    /// When the newest was received: the lifetime of the whole counts from here.
    pub(super) newest: Option<Instant>,
}

impl History {
    pub(super) fn new(objects_max: usize, bytes_max: usize) -> Self {
        Self { objects: VecDeque::new(), bytes: 0, objects_max, bytes_max, newest: None }
    }

    pub(super) fn push(&mut self, object: String, received: Instant) {
        // Includes the comma; and the brackets of the array.
        self.bytes += object.len() + 1;
        self.objects.push_back(object);
        self.newest = Some(received);
        while self.objects.len() > self.objects_max || self.bytes + 1 > self.bytes_max {
            let Some(oldest) = self.objects.pop_front() else { break };
            self.bytes -= oldest.len() + 1;
        }
    }

    /// Prepends the objects of an array that another daemon has written, so that readers keep the history.
    /// Only objects received before the first one here. `newest`: when the last of them was received.
    pub(super) fn adopt(&mut self, array: &str, newest: Instant) {
        let Ok(theirs) = serde_json::from_str::<Vec<&RawValue>>(array) else { return };
        let first = self.objects.front().and_then(|object| ingest(object)).map(|of| of.received_at);
        let (ours, until) = (mem::take(&mut self.objects), self.newest);
        self.bytes = 0;
        for object in theirs {
            let is_older = |of: Ingest| first.as_ref().is_none_or(|first| of.received_at < *first);
            if ingest(object.get()).is_some_and(is_older) {
                self.push(object.get().to_owned(), newest);
            }
        }
        for object in ours {
            self.push(object, until.unwrap_or(newest));
        }
    }

    /// Takes in the objects of an array that another daemon has written. `newest`: when the last of them was received. Returns whether
    /// the array has all objects already.
    pub(super) fn merge(&mut self, array: &str, newest: Instant) -> bool {
        let Ok(theirs) = serde_json::from_str::<Vec<&RawValue>>(array) else { return false };
        let theirs: Vec<_> = theirs.into_iter().map(RawValue::get).collect();
        let ours: Vec<_> = mem::take(&mut self.objects).into();
        let merged = merge_objects(&ours, &theirs);
        let newest = self.newest.map_or(newest, |until| until.max(newest));
        let objects = merged.map_or_else(|| ours.clone(), |merged| merged.into_iter().map(str::to_owned).collect());
        self.bytes = 0;
        for object in objects {
            self.push(object, newest);
        }
        let theirs: HashSet<&str> = theirs.into_iter().collect();
        self.objects.iter().all(|object| theirs.contains(object.as_str()))
    }

    /// Removes the objects of a run that were received at or before a time.
    pub(super) fn remove_run(&mut self, run_id: Uuid, until: Micros) {
        let (run_id, until) = (run_id.to_string(), render::time(until));
        let of_run = |object: &str| ingest(object).is_some_and(|of| of.run_id == run_id && of.received_at <= until);
        self.objects.retain(|object| !of_run(object));
        self.bytes = self.objects.iter().map(|object| object.len() + 1).sum();
    }

    pub(super) fn clear(&mut self) {
        self.objects.clear();
        (self.bytes, self.newest) = (0, None);
    }

    /// The JSON array.
    pub(super) fn render(&self) -> String {
        let mut array = String::with_capacity(self.bytes + 2);
        array.push('[');
        for (n, object) in self.objects.iter().enumerate() {
            if n > 0 {
                array.push(',');
            }
            array.push_str(object);
        }
        array.push(']');
        array
    }
}

/// `_ingest` of an object.
#[derive(Deserialize)]
struct Ingest {
    #[serde(default)]
    run_id: String,
    /// When the message was received; the order of these texts is that of the times.
    received_at: String,
}

fn ingest(object: &str) -> Option<Ingest> {
    #[derive(Deserialize)]
    struct Object {
        _ingest: Ingest,
    }
    serde_json::from_str(object).ok().map(|object: Object| object._ingest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_objects_make_room() {
        for (name, objects_max, bytes_max, expected) in [
            ("number", 2, 1_000, "[{\"n\":2},{\"n\":3}]"),
            ("bytes", 100, 10, "[{\"n\":3}]"),
            ("nothing fits", 100, 3, "[]"),
        ] {
            let mut history = History::new(objects_max, bytes_max);
            for n in 1..=3 {
                history.push(format!("{{\"n\":{n}}}"), Instant::now());
            }
            let array = history.render();
            assert_eq!(array, expected, "{name}");
            assert!(array.len() <= bytes_max, "{name}");
        }
    }

    #[test]
    fn the_objects_of_a_deleted_run_go() {
        let (deleted, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let object = |run: Uuid, at: Micros| {
            format!("{{\"_ingest\":{{\"run_id\":\"{run}\",\"received_at\":\"{}\"}}}}", render::time(at))
        };
        let mut history = History::new(10, 1_000);
        for (run, at) in [(deleted, 1), (other, 1), (deleted, 2), (deleted, 3)] {
            history.push(object(run, at), Instant::now());
        }
        history.remove_run(deleted, 2);
        assert_eq!(history.render(), format!("[{},{}]", object(other, 1), object(deleted, 3)));
        assert_eq!(history.bytes, history.render().len() - 1);
    }

    #[test]
    fn the_history_of_another_daemon_comes_first() {
        let object = |n: u64| format!("{{\"_ingest\":{{\"received_at\":\"2026-11-21T00:00:0{n}\"}}}}");
        let array = |range: &[u64]| format!("[{}]", range.iter().map(|n| object(*n)).collect::<Vec<_>>().join(","));
        for (name, ours, theirs, expected) in [
            ("both", &[3, 4][..], array(&[1, 2, 3, 4]), array(&[2, 3, 4])),
            ("only theirs", &[], array(&[1, 2]), array(&[1, 2])),
            ("only ours", &[3], "[]".into(), array(&[3])),
            ("no array", &[3], "gone".into(), array(&[3])),
            ("not ours", &[], "[{\"n\":1}, 7]".into(), "[]".into()),
        ] {
            let mut history = History::new(3, 1_000);
            let start = Instant::now();
            ours.iter().for_each(|n| history.push(object(*n), start));
            history.adopt(&theirs, start);
            assert_eq!(history.render(), expected, "{name}");
            assert_eq!(history.bytes, history.objects.iter().map(|object| object.len() + 1).sum::<usize>(), "{name}");
        }
    }
}
