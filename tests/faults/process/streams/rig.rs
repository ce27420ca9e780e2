//! A publisher that appends to a stream, what the stream and the table hold, and their comparison.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use cascor_ingest::event::EntryId;
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::{
    daemon::{Builder, Daemon},
    redis::Redis,
    resp::{Resp, Value},
    sqlite, wait_for,
};

/// The stream that is attacked.
pub const STREAM: &str = "cascor:training:stream";
/// Its group.
pub const GROUP: &str = "cascor-ingest";
/// The run of all entries.
pub const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
/// Entries a second.
pub const RATE: u64 = 2_000;
/// Time limit for everything to be stored after an attack.
pub const LIMIT: Duration = Duration::from_secs(300);
/// How long a publisher waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A daemon on the stream alone.
pub fn on(redis: &Redis) -> Builder {
    at(&redis.url())
}

/// The same, at an address.
pub fn at(url: &str) -> Builder {
    Daemon::at(url).set("redis.streams", format!("[{STREAM:?}]")).set("redis.training_channels", "[]")
}

/// Daemons of these names that share the stream and one table.
pub fn sharing(redis: &Redis, names: &[&str]) -> (TempDir, PathBuf, Vec<Daemon>) {
    let dir = TempDir::with_prefix("cascor-streams").unwrap();
    let database = dir.path().join("cascor.db");
    let prepare = |name: &&str| {
        let builder = on(redis).set("instance", format!("{name:?}")).set("redis.claim_after", "\"5s\"");
        builder.set("store.sqlite.path", format!("{database:?}")).prepare()
    };
    let daemons = names.iter().map(prepare).collect();
    (dir, database, daemons)
}

/// An entry: the time of its id, and its number.
pub type Entry = (i64, i64);

/// What a publisher has done.
#[derive(Debug, Default)]
pub struct Added {
    /// Entries that Redis has acknowledged.
    pub acknowledged: Vec<(EntryId, i64)>,
    /// Commands without an answer: their entries were sent again, so they may be there twice.
    pub unanswered: u64,
}

/// Appends numbered entries at a rate, to the first of the servers that is a primary. One that is refused or unanswered is sent again.
#[derive(Debug)]
pub struct Publisher {
    stop: Arc<AtomicBool>,
    number: Arc<AtomicU64>,
    thread: JoinHandle<Added>,
}

impl Publisher {
    /// Starts it.
    pub fn start(ports: &[u16], rate: u64) -> Self {
        let (stop, number) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (ports, stopped, counted) = (ports.to_vec(), Arc::clone(&stop), Arc::clone(&number));
        let thread = thread::spawn(move || add_until(&stopped, &ports, rate, &counted));
        Self { stop, number, thread }
    }

    /// Entries that were acknowledged by now.
    pub fn count(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// Stops it.
    pub fn finish(self) -> Added {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn add_until(stop: &AtomicBool, ports: &[u16], rate: u64, counted: &AtomicU64) -> Added {
    let (mut client, mut at) = (None, 0);
    let (begun, mut number, mut added) = (Instant::now(), 0, Added::default());
    while !stop.load(Ordering::Relaxed) {
        if number >= (begun.elapsed().as_secs_f64() * rate as f64) as i64 {
            thread::sleep(Duration::from_millis(5));
            continue;
        }
        let Some(connected) = client.as_mut() else {
            client = primary(ports[at]);
            if client.is_none() {
                at = (at + 1) % ports.len();
                thread::sleep(Duration::from_millis(20));
            }
            continue;
        };
        let message = format!(r#"{{"run_id":"{RUN}","epoch":{number},"loss":0.5}}"#);
        let words: [&[u8]; 5] = [b"XADD", STREAM.as_bytes(), b"*", b"data", message.as_bytes()];
        match Resp::command_bytes(connected, &words).map(|answer| answer.text().and_then(|id| id.parse().ok())) {
            Ok(Some(id)) => {
                added.acknowledged.push((id, number));
                number += 1;
                counted.store(number.unsigned_abs(), Ordering::Relaxed);
            }
            Ok(None) => client = None,
            Err(_) => {
                added.unanswered += 1;
                client = None;
            }
        }
    }
    added
}

/// A connection to a server that is no replica.
fn primary(port: u16) -> Option<Resp> {
    let mut client = Resp::connect(port).ok()?;
    client.set_timeout(ANSWER_TIMEOUT);
    match client.command_bytes(&[b"ROLE"]).ok()? {
        Value::Array(parts) if parts.first().and_then(Value::text).as_deref() == Some("master") => Some(client),
        _ => None,
    }
}

/// Everything that is in the stream.
pub fn entries(client: &mut Resp) -> Vec<Entry> {
    let (mut from, mut found) = ("-".to_owned(), Vec::new());
    loop {
        let Value::Array(page) = client.command(&["XRANGE", STREAM, &from, "+", "COUNT", "5000"]) else {
            panic!("XRANGE has no list");
        };
        for entry in &page {
            let Value::Array(parts) = entry else { panic!("{entry:?}") };
            let Value::Array(fields) = &parts[1] else { panic!("{entry:?}") };
            let id: EntryId = parts[0].text().unwrap().parse().unwrap();
            found.push((id.micros(), fields[1].json()["epoch"].as_i64().unwrap()));
            from = format!("({id}");
        }
        if page.is_empty() {
            return found;
        }
    }
}

/// The rows of a table.
pub fn rows(database: &Path) -> Vec<Entry> {
    let rows = sqlite::rows(database, "SELECT timestamp, epoch FROM training_metrics");
    rows.iter().map(|row| (row["timestamp"].as_i64().unwrap(), row["epoch"].as_i64().unwrap())).collect()
}

/// Entries that were counted as lost for this reason.
pub fn lost(database: &Path, reason: &str) -> i64 {
    sqlite::count(database, &format!("SELECT coalesce(sum(lost), 0) FROM ingest_gaps WHERE reason = '{reason}'"))
}

/// How two lists of entries differ: what the first has more often than the second.
pub fn more(of: &[Entry], than: &[Entry]) -> Vec<Entry> {
    let mut counts = BTreeMap::<Entry, i64>::new();
    of.iter().for_each(|entry| *counts.entry(*entry).or_default() += 1);
    than.iter().for_each(|entry| *counts.entry(*entry).or_default() -= 1);
    let more = counts.into_iter().filter(|(_, count)| *count > 0);
    more.flat_map(|(entry, count)| std::iter::repeat_n(entry, usize::try_from(count).unwrap())).collect()
}

/// Entries that are in a list more than once.
pub fn twice(of: &[Entry]) -> Vec<Entry> {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect()
}

/// The table holds what the stream holds, each entry once.
#[track_caller]
pub fn assert_same(what: &str, stored: &[Entry], stream: &[Entry]) {
    let (lost, twice) = (more(stream, stored), more(stored, stream));
    println!("{what}: {} entries, {} rows, {} lost, {} twice", stream.len(), stored.len(), lost.len(), twice.len());
    let first = |of: &[Entry]| of.iter().take(5).copied().collect::<Vec<_>>();
    assert!(lost.is_empty() && twice.is_empty(), "{what}: lost {:?}, twice {:?}", first(&lost), first(&twice));
}

/// Every acknowledged entry is in the stream: what Redis itself has lost is no fault of the daemon.
#[track_caller]
pub fn assert_kept(added: &Added, stream: &[Entry]) {
    let acknowledged: Vec<_> = added.acknowledged.iter().map(|(id, number)| (id.micros(), *number)).collect();
    let missing = more(&acknowledged, stream);
    assert!(missing.is_empty(), "Redis has lost {} of {} entries", missing.len(), acknowledged.len());
    let unacknowledged = stream.len() - acknowledged.len();
    assert!(unacknowledged as u64 <= added.unanswered, "{unacknowledged} entries more than were acknowledged");
}

/// What is called so in a list of names and values.
fn named<'a>(fields: &'a [Value], name: &str) -> Option<&'a Value> {
    let at = fields.iter().position(|field| field.text().as_deref() == Some(name))?;
    fields.get(at + 1)
}

/// Whether the group has read everything, and how many entries are pending. The server's own `lag` is wrong after trimming, and after it
/// has loaded an append-only file.
pub fn behind(client: &mut Resp) -> (bool, i64) {
    let Value::Array(stream) = client.command(&["XINFO", "STREAM", STREAM]) else { return (false, -1) };
    let Value::Array(groups) = client.command(&["XINFO", "GROUPS", STREAM]) else { return (false, -1) };
    let Some(Value::Array(group)) = groups.first() else { return (false, -1) };
    let newest = named(&stream, "last-generated-id").and_then(Value::text);
    let read = named(group, "last-delivered-id").and_then(Value::text);
    (newest.is_some() && newest == read, named(group, "pending").and_then(Value::integer).unwrap_or(-1))
}

/// Waits until the group has read and acknowledged everything.
#[track_caller]
pub fn wait_acknowledged(client: &mut Resp) {
    wait_for("everything to be acknowledged", LIMIT, || (behind(client) == (true, 0)).then_some(()));
}

/// Waits until so many rows are there.
#[track_caller]
pub fn wait_count(database: &Path, expected: usize) {
    let expected = i64::try_from(expected).unwrap();
    let mut found = 0;
    let start = Instant::now();
    while found < expected {
        assert!(start.elapsed() < LIMIT, "{found} of {expected} rows after {LIMIT:?}");
        thread::sleep(Duration::from_millis(100));
        found = sqlite::count(database, "SELECT count(*) FROM training_metrics");
    }
}

/// What `status` of a daemon says of the stream.
pub fn status(daemon: &Daemon) -> Json {
    daemon.get("/api/status").json()["redis"]["streams"][0].clone()
}

/// A number that looks random and is the same in each run.
pub fn random(seed: u64, below: u64) -> u64 {
    let mixed = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb) % below
}
