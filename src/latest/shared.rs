//! Latest values that several daemons write, each from some of the events of a run: entries of a stream are shared by them.
//!
//! What is in Redis is merged by value: of one run the newer value stays, and the history has the objects of all. A daemon that reads
//! and then writes may undo what another has written in between; so each written value is looked at once more.

use std::collections::HashSet;

use fred::{
    clients::Client,
    error::Error as RedisError,
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Value},
};
use serde::Deserialize;

use crate::redis::{Link, Resource};

/// Where the end of a value begins: `_ingest` is its last member.
const TAIL_START: &str = "-1024";
/// What that member begins with.
const INGEST: &str = "\"_ingest\":";

/// Which of two values of one run is the newer: by time, then by `seq`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Order {
    pub(super) run_id: String,
    /// The order of these texts is that of the times.
    pub(super) received_at: String,
    published_at: Option<String>,
    seq: Option<i64>,
}

impl Order {
    /// Of a value, or of its end.
    pub(super) fn of(value: &str) -> Option<Self> {
        let (_, ingest) = value.rsplit_once(INGEST)?;
        serde_json::from_str(ingest.strip_suffix('}')?).ok()
    }

    fn time(&self) -> &str {
        self.published_at.as_deref().unwrap_or(&self.received_at)
    }

    /// Whether a value of the same run is at least as new.
    pub(super) fn yields_to(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.time(), other.time());
        self.run_id == other.run_id && (theirs > ours || (theirs == ours && other.seq >= self.seq))
    }
}

/// Drops the writes of values that yield to what is in Redis. Best effort: what cannot be read does not hold up a write.
pub(super) async fn drop_older<T>(
    client: &Client,
    link: &Link,
    writes: Vec<T>,
    key_and_value: impl Fn(&T) -> (&str, &str),
) -> Vec<T> {
    let pipeline = client.pipeline();
    for write in &writes {
        // Queued only: the reply comes with the pipeline's.
        let key = key_and_value(write).0;
        let command = CustomCommand::new_static("GETRANGE", ClusterHash::from(key), false);
        let _ = pipeline.custom::<(), _>(command, vec![key.to_owned(), TAIL_START.to_owned(), "-1".to_owned()]).await;
    }
    let found: Vec<Result<Value, RedisError>> = match writes.is_empty() {
        true => Vec::new(),
        false => pipeline.try_all().await,
    };
    let is_newer = |(write, found): &(T, Result<Value, RedisError>)| {
        let (key, value) = key_and_value(write);
        match found {
            Ok(tail) => {
                let theirs = tail.as_str().and_then(|tail| Order::of(&tail));
                !Order::of(value).zip(theirs).is_some_and(|(ours, theirs)| ours.yields_to(&theirs))
            }
            Err(error) => {
                link.acl().warn(error, Resource::Key(key));
                true
            }
        }
    };
    writes.into_iter().zip(found).filter(is_newer).map(|(write, _)| write).collect()
}

/// The objects of both histories, in the order of their times. `None`: the other has none that is not in ours.
pub(super) fn merge_objects<'a>(ours: &'a [String], theirs: &[&'a str]) -> Option<Vec<&'a str>> {
    let known: HashSet<&str> = ours.iter().map(String::as_str).collect();
    let new: Vec<&str> = theirs.iter().copied().filter(|object| !known.contains(object)).collect();
    if new.is_empty() {
        return None;
    }
    let mut all: Vec<(Option<Order>, &str)> =
        new.into_iter().chain(ours.iter().map(String::as_str)).map(|object| (Order::of(object), object)).collect();
    all.sort_by(|(one, text), (other, other_text)| {
        received(one).cmp(&received(other)).then_with(|| text.cmp(other_text))
    });
    Some(all.into_iter().map(|(_, object)| object).collect())
}

fn received(order: &Option<Order>) -> Option<(&str, Option<i64>)> {
    order.as_ref().map(|order| (order.received_at.as_str(), order.seq))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(run: &str, received: u32, published: Option<u32>, seq: Option<i64>) -> String {
        let published = published.map(|at| format!("2026-11-28T00:00:{at:02}.000000Z"));
        let ingest = serde_json::json!({
            "run_id": run, "received_at": format!("2026-11-28T00:00:{received:02}.000000Z"), "published_at": published,
            "seq": seq, "lag_ms": null, "instance": "a",
        });
        format!("{{\"epoch\":1,\"_ingest\":{ingest}}}")
    }

    #[test]
    fn of_one_run_the_newer_value_stays() {
        for (name, ours, theirs, yields) in [
            ("newer", value("r", 2, None, None), value("r", 1, None, None), false),
            ("older", value("r", 1, None, None), value("r", 2, None, None), true),
            ("the same", value("r", 1, None, None), value("r", 1, None, None), true),
            ("by its own time", value("r", 9, Some(1), None), value("r", 2, Some(2), None), true),
            ("by seq", value("r", 1, None, Some(7)), value("r", 1, None, Some(6)), false),
            ("another run", value("r", 1, None, None), value("s", 2, None, None), false),
        ] {
            let [ours, theirs] =
                [ours, theirs].map(|value| Order::of(&value[value.len().saturating_sub(300)..]).unwrap());
            assert_eq!(ours.yields_to(&theirs), yields, "{name}");
        }
        assert_eq!(Order::of("{}"), None);
        assert_eq!(Order::of(""), None);
    }

    #[test]
    fn the_history_has_the_objects_of_all_in_their_order() {
        let objects: Vec<_> = (0..4).map(|n| value("r", n, None, None)).collect();
        let ours = [objects[0].clone(), objects[2].clone()];
        let merged = merge_objects(&ours, &[&objects[1], &objects[2], &objects[3]]).unwrap();
        assert_eq!(merged, objects.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(merge_objects(&ours, &[&objects[2]]), None);
    }
}
