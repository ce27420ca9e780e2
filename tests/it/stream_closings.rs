//! Closings of the open runs of streams, and what they ask of Redis: intake with a stand-in for it.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use cascor_ingest::{
    event::EntryId,
    frame::{Frame, IntakeItem},
    intake::{Exchanged, Intake, IntakeDeps, RunSharing, ShareError},
    metrics::Metrics,
    runs::OpenRun,
    source::queue,
    spool,
};
use serde_json::{Value as Json, json};
use tokio::{sync::mpsc, time::Instant};
use uuid::Uuid;

use crate::{second_source::deps_of, support::wait_until};

const LIMIT: Duration = Duration::from_secs(20);
const SECOND: i64 = 1_000_000;
const STREAMS: [&str; 4] = ["one", "two", "three", "four"];
/// As many as one group takes.
const DELETIONS: u128 = 1_000;

/// What Redis has, and what it was asked for.
#[derive(Default)]
struct Contents {
    is_away: bool,
    runs: HashMap<String, String>,
    reads: usize,
    writes: usize,
}

/// A stand-in for Redis.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Contents>>);

impl Shared {
    /// With this run open in each stream.
    fn with_run(run_id: Uuid, opened_at: i64) -> Self {
        let shared = Self::default();
        let json = json!({"run_id": run_id, "opened_at": opened_at}).to_string();
        shared.0.lock().unwrap().runs = STREAMS.map(|stream| (stream.to_owned(), json.clone())).into();
        shared
    }

    fn run(&self, stream: &str) -> Json {
        serde_json::from_str(&self.0.lock().unwrap().runs[stream]).unwrap()
    }

    fn asked(&self) -> (usize, usize) {
        let contents = self.0.lock().unwrap();
        (contents.reads, contents.writes)
    }
}

impl RunSharing for Shared {
    fn fetch(&mut self, _channel: &str) -> Option<OpenRun> {
        None
    }

    fn publish(&mut self, _channel: &str, _open: &OpenRun) {}

    fn forget(&mut self, _channel: &str) {}

    fn fetch_shared(&mut self, stream: &str) -> Result<Option<String>, ShareError> {
        let mut contents = self.0.lock().unwrap();
        contents.reads += 1;
        if contents.is_away { Err(ShareError::Unavailable) } else { Ok(contents.runs.get(stream).cloned()) }
    }

    fn exchange(&mut self, stream: &str, before: Option<&str>, new: &str) -> Result<Exchanged, ShareError> {
        let mut contents = self.0.lock().unwrap();
        contents.writes += 1;
        let found = contents.runs.get(stream).cloned();
        if contents.is_away {
            return Err(ShareError::Unavailable);
        }
        if found.as_deref() != before {
            return Ok(Exchanged::Other(found));
        }
        contents.runs.insert(stream.to_owned(), new.to_owned());
        Ok(Exchanged::Done)
    }
}

/// Intake, which finds `items` in its queue, and ends once the sender is dropped.
fn start(
    dir: &Path,
    shared: &Shared,
    items: impl IntoIterator<Item = IntakeItem>,
) -> (JoinHandle<()>, mpsc::Sender<IntakeItem>) {
    let metrics = Metrics::new();
    let config = spool::Config { dir: dir.join("spool"), ..spool::Config::default() };
    let spool = spool::open(&config, Arc::clone(&metrics)).unwrap();
    let (items_out, queued) = mpsc::channel(1_024);
    for item in items {
        items_out.try_send(item).unwrap();
    }
    let deps = IntakeDeps {
        streams: STREAMS.map(Arc::from).to_vec(),
        sharing: Box::new(shared.clone()),
        return_bytes: Box::new(|_| {}),
        ..deps_of(dir, spool.appender, queue(1, 1).2, &metrics)
    };
    let intake = Intake::new(deps, &spool.recovery);
    let thread = thread::spawn(move || intake.run(queued, mpsc::channel(1).1));
    (thread, items_out)
}

/// Metrics without a run id.
fn entry(stream: &str, at: i64) -> IntakeItem {
    IntakeItem::Frames(vec![Frame {
        channel: stream.into(),
        payload: Bytes::from_static(b"{\"epoch\":1,\"loss\":0.5}"),
        received_at: at,
        received: Instant::now(),
        control: false,
        entry: Some(EntryId { millis: u64::try_from(at / 1_000).unwrap(), sequence: 0 }),
    }])
}

fn deletions(at: i64) -> impl Iterator<Item = IntakeItem> {
    (1..=DELETIONS).map(move |n| IntakeItem::CloseDeletedRun(Uuid::from_u128(n), at))
}

#[test]
fn deletions_of_other_runs_ask_for_the_open_run_of_a_stream_once() {
    let dir = tempfile::tempdir().unwrap();
    let shared = Shared::with_run(Uuid::from_u128(DELETIONS + 1), SECOND);
    let (intake, items) = start(dir.path(), &shared, deletions(2 * SECOND));
    drop(items);
    intake.join().unwrap();
    assert_eq!(shared.asked(), (STREAMS.len(), 0));
    // Where it is among them, it is closed, and in a stream where it has started again since it is not.
    let dir = tempfile::tempdir().unwrap();
    let shared = Shared::with_run(Uuid::from_u128(7), SECOND);
    let again = json!({"run_id": Uuid::from_u128(7), "opened_at": 3 * SECOND}).to_string();
    shared.0.lock().unwrap().runs.insert("two".into(), again);
    let (intake, items) = start(dir.path(), &shared, deletions(2 * SECOND));
    drop(items);
    intake.join().unwrap();
    assert_eq!(shared.asked(), (STREAMS.len(), STREAMS.len() - 1));
    let closed = STREAMS.map(|stream| shared.run(stream)["closed_at"].as_i64());
    assert_eq!(closed, [Some(2 * SECOND), None, Some(2 * SECOND), Some(2 * SECOND)]);
}

#[test]
fn a_reset_behind_many_deletions_closes_the_runs_once_redis_answers_again() {
    let dir = tempfile::tempdir().unwrap();
    let open = Uuid::from_u128(DELETIONS + 1);
    let shared = Shared::with_run(open, SECOND);
    shared.0.lock().unwrap().is_away = true;
    let told = deletions(2 * SECOND).chain([IntakeItem::CloseRuns(3 * SECOND)]);
    let (intake, items) = start(dir.path(), &shared, told);
    // Its answer does not come: it is asked once in a group.
    wait_until("Redis was asked", LIMIT, || shared.asked().0 > 0);
    items.blocking_send(entry("one", 4 * SECOND)).unwrap();
    wait_until("the entry asks as well", LIMIT, || shared.asked().0 > 1);
    assert_eq!(shared.asked(), (2, 0));
    shared.0.lock().unwrap().is_away = false;
    items.blocking_send(entry("one", 5 * SECOND)).unwrap();
    drop(items);
    intake.join().unwrap();
    let run = shared.run("one");
    assert_eq!(run["opened_at"], 5 * SECOND, "{run}");
    let before = &run["former"][0];
    assert_eq!((&before["run_id"], &before["closed_at"]), (&json!(open), &json!(3 * SECOND)), "{run}");
}
