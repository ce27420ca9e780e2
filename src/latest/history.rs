//! The newest metrics objects, rendered once each, bounded in number and in bytes.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use uuid::Uuid;

use super::shared::{Order, merge_objects};
use crate::{render, units::Micros};

/// An object larger than this is kept with its canonical fields only.
pub(super) const OBJECT_BYTES: usize = 4 << 10;

/// How long deleted runs are remembered: another daemon learns of a deletion seconds later, and may write objects of the run until then.
const DELETIONS_KEPT: Micros = 3_600_000_000;
/// Deleted runs that are remembered, at most.
const DELETIONS_MAX: usize = 1_000;

/// Oldest first.
#[derive(Debug)]
pub(super) struct History {
    objects: VecDeque<String>,
    /// Deleted runs, and when they were deleted.
    deleted: HashMap<String, Micros>,
    bytes: usize,
    objects_max: usize,
    bytes_max: usize,
    /// When the newest was received: the lifetime of the whole counts from here.
    pub(super) newest: Option<Instant>,
}

impl History {
    pub(super) fn new(objects_max: usize, bytes_max: usize) -> Self {
        Self { objects: VecDeque::new(), deleted: HashMap::new(), bytes: 0, objects_max, bytes_max, newest: None }
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
            if ingest(object.get()).is_some_and(is_older) && !self.is_deleted(object.get()) {
                self.push(object.get().to_owned(), newest);
            }
        }
        for object in ours {
            self.push(object, until.unwrap_or(newest));
        }
    }

    /// Takes in the objects of an array that another daemon has written, except those of deleted runs. `newest`: when the last of them
    /// was received. Returns whether the array is the same as ours: it has all objects, and none of a deleted run.
    pub(super) fn merge(&mut self, array: &str, newest: Instant) -> bool {
        let Ok(found) = serde_json::from_str::<Vec<&RawValue>>(array) else { return false };
        let theirs: Vec<_> =
            found.iter().map(|object| object.get()).filter(|object| !self.is_deleted(object)).collect();
        let has_deleted = theirs.len() < found.len();
        let ours: Vec<_> = mem::take(&mut self.objects).into();
        let (objects, newest) = match merge_objects(&ours, &theirs) {
            Some(merged) => {
                let newest = self.newest.map_or(newest, |until| until.max(newest));
                (merged.into_iter().map(str::to_owned).collect(), newest)
            }
            None => (ours, self.newest.unwrap_or(newest)),
        };
        self.bytes = 0;
        for object in objects {
            self.push(object, newest);
        }
        let theirs: HashSet<&str> = theirs.into_iter().collect();
        !has_deleted && self.objects.iter().all(|object| theirs.contains(object.as_str()))
    }

    /// Removes the objects of runs that were received at or before a time, and takes none of them in any more.
    pub(super) fn remove_runs(&mut self, runs: &[(Uuid, Micros)]) {
        let Some(newest) = runs.iter().map(|(_, until)| *until).max() else { return };
        self.deleted.retain(|_, until| newest - *until < DELETIONS_KEPT);
        for (run_id, until) in runs {
            let known = self.deleted.entry(run_id.to_string()).or_insert(*until);
            *known = (*known).max(*until);
        }
        if self.deleted.len() > DELETIONS_MAX {
            let mut times: Vec<Micros> = self.deleted.values().copied().collect();
            times.sort_unstable_by(|a, b| b.cmp(a));
            self.deleted.retain(|_, until| *until >= times[DELETIONS_MAX - 1]);
        }
        let mut objects = mem::take(&mut self.objects);
        objects.retain(|object| !self.is_deleted(object));
        self.bytes = objects.iter().map(|object| object.len() + 1).sum();
        self.objects = objects;
    }

    fn is_deleted(&self, object: &str) -> bool {
        if self.deleted.is_empty() {
            return false;
        }
        let is_deleted = |of: Order| {
            let until = self.deleted.get(&of.run_id);
            until.is_some_and(|until| of.received_at <= render::time(*until))
        };
        Order::of(object).is_some_and(is_deleted)
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
    use std::time::Duration;

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
        history.remove_runs(&[(deleted, 2)]);
        let rest = format!("[{},{}]", object(other, 1), object(deleted, 3));
        assert_eq!(history.render(), rest);
        assert_eq!(history.bytes, history.render().len() - 1);
        // Another daemon has not read of the deletion yet, or this one has just been started.
        let before = format!("[{},{},{}]", object(deleted, 1), object(other, 1), object(deleted, 3));
        assert!(!history.merge(&before, Instant::now()), "it has to be written without them");
        assert_eq!(history.render(), rest);
        assert!(history.merge(&rest, Instant::now()));
        history.clear();
        history.adopt(&before, Instant::now());
        assert_eq!(history.render(), rest);
        // Forgotten in time.
        history.remove_runs(&[(other, DELETIONS_KEPT + 2)]);
        assert_eq!(history.deleted.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn merging_does_not_make_the_history_younger() {
        let (start, hour) = (Instant::now(), Duration::from_secs(3_600));
        let object = |n: u64| format!("{{\"_ingest\":{{\"run_id\":\"r\",\"received_at\":\"2026-11-21T00:00:0{n}\"}}}}");
        let mut history = History::new(10, 1_000);
        history.push(object(2), start);
        let ours = history.render();
        tokio::time::advance(hour).await;
        assert!(history.merge(&ours, Instant::now()), "nothing new");
        assert_eq!(history.newest, Some(start));
        assert!(!history.merge(&format!("[{}]", object(1)), start - Duration::from_secs(1)));
        assert_eq!(history.newest, Some(start));
        history.merge(&format!("[{}]", object(3)), start + hour / 2);
        assert_eq!(history.newest, Some(start + hour / 2));
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
