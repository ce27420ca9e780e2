//! Writes the changed latest keys in one pipeline: at once after a silence, then at most every 100 ms; the history at most every
//! 250 ms, and every second while most of it changes each time.

mod write;

use std::{convert::Infallible, sync::Arc, time::Duration};

use fred::{clients::Client, error::Error as RedisError, interfaces::KeysInterface};
use tokio::time::{Instant, interval, sleep};

use super::{
    config::Config,
    history::{History, OBJECT_BYTES},
    name_conflict::NameConflict,
    render::Render,
    shared::drop_older,
    state::{LatestState, PendingWrite, Update},
};
use crate::{
    lifecycle::{Signal, next_tick},
    memory::{LARGE_VALUE, Reserved},
    metrics::Metrics,
    redis::{Link, Resource},
};

/// Between two writes of a key. The contract allows 50 ms; at 2,000 events/s twice the interval saves 1 µs of CPU per event, and the
/// live stream has each message.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// Between two writes of the history.
const HISTORY_INTERVAL: Duration = Duration::from_millis(250);
/// The same while most of it changes each time: no reader can follow, and rendering it is the largest cost here.
const HISTORY_INTERVAL_BUSY: Duration = Duration::from_secs(1);
/// Between two writes of the status key.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes written together. A value may be as large as a message, and is in memory twice until Redis has it.
const PIPELINE_BYTES: usize = 1 << 20;
/// The longest value of a key, as long as a message may be by default; of a longer one only the canonical fields are written. The
/// client keeps a buffer as long as its longest value.
const VALUE_BYTES_MAX: usize = 20 << 20;

/// What the flusher writes, and where to.
pub struct FlusherDeps {
    /// The latest values.
    pub latest_state: Arc<LatestState>,
    /// The connection to write on.
    pub link: Link,
    /// Makes the JSON of a value.
    pub render: Arc<dyn Render>,
    /// The name of this daemon.
    pub instance: String,
    /// Makes the JSON of `<prefix>ingest:<instance>`.
    pub status: Box<dyn Fn() -> String + Send + Sync>,
    /// Whether other daemons take some of the events of the same runs.
    pub shares_runs: bool,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Writes until told to stop.
///
/// # Errors
/// None: these keys are a cache.
pub async fn flusher(deps: FlusherDeps, mut stop: Signal) -> Result<(), Infallible> {
    let FlusherDeps { latest_state, link, render, instance, status, shares_runs, metrics } = deps;
    let config = latest_state.config();
    if !config.enabled {
        stop.stopped().await;
        return Ok(());
    }
    let history = History::new(config.history_objects, config.history_bytes.as_usize());
    let mut flusher = Flusher {
        latest_state,
        render,
        metrics,
        history,
        history_due: None,
        history_written: None,
        history_interval: HISTORY_INTERVAL,
        cleared: 0,
        history_adopted: false,
        shares_runs,
        history_again: false,
        reported_error: String::new(),
        link: link.clone(),
        stop: stop.clone(),
    };
    let mut connection = link.watch();
    connection.mark_changed();
    let status_interval = STATUS_INTERVAL.min(config.status_ttl / 3);
    let mut status_timer = interval(status_interval);
    let (mut rewrite_all, mut name_conflict) = (false, NameConflict::default());
    let mut pressure = flusher.latest_state.memory.pressure();
    loop {
        tokio::select! {
            biased;
            () = stop.stopped() => return Ok(()),
            changed = connection.changed() => {
                if changed.is_err() {
                    stop.stopped().await;
                    return Ok(());
                }
                // What was written to the old connection may be gone: the server may have restarted.
                rewrite_all = true;
                status_timer.reset_immediately();
            }
            _ = status_timer.tick() => {
                status_timer.reset_at(next_tick(Instant::now(), status_interval));
                flusher.latest_state.expire(Instant::now());
                flusher.write_status(&instance, status(), &mut name_conflict).await;
                continue;
            }
            () = flusher.latest_state.status_changed.notified() => status_timer.reset_immediately(),
            Ok(()) = pressure.changed() => {
                flusher.latest_state.drop_large();
                continue;
            }
            () = flusher.latest_state.changed.notified() => {}
            () = sleep_until_due(flusher.history_due) => {}
        }
        if let Some(client) = link.client() {
            flusher.flush(&client, std::mem::take(&mut rewrite_all)).await;
        } else {
            // The latest state keeps the newest values, and all of them are due at the reconnect.
            let _ = flusher.latest_state.take_changes(Instant::now(), false, false);
        }
        tokio::select! {
            biased;
            () = stop.stopped() => return Ok(()),
            () = sleep(FLUSH_INTERVAL) => {}
        }
    }
}

fn history_key(prefix: &str) -> String {
    format!("{prefix}history:latest")
}

async fn sleep_until_due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The value of a key, to be written.
struct ValueWrite {
    key: String,
    json: String,
    left: Duration,
    write: PendingWrite,
}

/// There is no memory for a value now.
struct NoMemory;

struct Flusher {
    latest_state: Arc<LatestState>,
    render: Arc<dyn Render>,
    metrics: Arc<Metrics>,
    history: History,
    history_due: Option<Instant>,
    history_written: Option<Instant>,
    history_interval: Duration,
    cleared: u64,
    /// Whether the history of the previous daemon was adopted.
    history_adopted: bool,
    /// See [`FlusherDeps::shares_runs`].
    shares_runs: bool,
    /// Whether the history is written once more: another daemon may have undone the last write.
    history_again: bool,
    reported_error: String,
    link: Link,
    stop: Signal,
}

impl Flusher {
    async fn flush(&mut self, client: &Client, rewrite_all: bool) {
        let latest_state = Arc::clone(&self.latest_state);
        let _writing = latest_state.write_lock.lock().await;
        let (config, now) = (latest_state.config(), Instant::now());
        let next = self.history_written.map_or(now, |written| written + self.history_interval);
        let changes = latest_state.take_changes(now, rewrite_all, rewrite_all || next <= now);
        self.history_due = changes.has_backlog.then_some(next);
        let busy = changes.history.len() > config.history_objects / 2;
        let grown = self.append_history(changes.history, changes.cleared) || !changes.deleted.is_empty();
        self.history.remove_runs(&changes.deleted);
        let mut write_history = rewrite_all || grown || self.history_again;
        if !std::mem::replace(&mut self.history_adopted, true) {
            self.adopt_history(client, &config).await;
        } else if self.shares_runs && write_history {
            let is_whole = self.merge_history(client, &config).await;
            write_history = rewrite_all || !changes.deleted.is_empty() || is_whole.map_or(grown, |is_whole| !is_whole);
        }
        // Another daemon may overwrite the history with an older copy: it is read again until it has all our objects, or is too old.
        let is_fresh = self.history.newest.is_some_and(|newest| now < newest + config.history_ttl);
        self.history_again = self.shares_runs && write_history && is_fresh;
        if self.history_again {
            self.history_due.get_or_insert(now + self.history_interval);
        }
        self.delete(client, changes.stale).await;
        let (mut writes, mut bytes) = (Vec::with_capacity(changes.writes.len()), 0);
        let mut reserved = Vec::new();
        for write in changes.writes {
            let payload = &write.update.payload;
            let canonical_only = match self.reserve(payload) {
                Ok(None) => false,
                Ok(Some(room)) => {
                    let canonical_only = room.bytes() == 0;
                    reserved.push(room);
                    canonical_only
                }
                Err(NoMemory) => {
                    latest_state.requeue(&write);
                    continue;
                }
            };
            let mut json = String::with_capacity(if canonical_only { 1 << 10 } else { payload.len() + 256 });
            self.render.render(payload, &write.update.decided, canonical_only, &mut json);
            let left = write.kind.ttl(&config).saturating_sub(now.duration_since(write.update.received));
            if !json.is_empty() {
                bytes += json.len();
                writes.push(ValueWrite { key: latest_state.key(write.kind, write.run), json, left, write });
            }
            if bytes > PIPELINE_BYTES {
                bytes = 0;
                self.set_values(client, std::mem::take(&mut writes)).await;
                reserved.clear();
            }
        }
        self.set_values(client, writes).await;
        if write_history && let Some(newest) = self.history.newest {
            self.history_written = Some(now);
            self.history_interval = if busy { HISTORY_INTERVAL_BUSY } else { HISTORY_INTERVAL };
            let left = config.history_ttl.saturating_sub(now.duration_since(newest));
            self.set(client, vec![(history_key(&latest_state.prefix), self.history.render(), left)]).await;
        }
    }

    /// Writes values; where other daemons write them, too, only those that are newer, and each is looked at once more.
    async fn set_values(&mut self, client: &Client, mut values: Vec<ValueWrite>) {
        if self.shares_runs {
            values = drop_older(client, &self.link, values, |value| (&value.key, &value.json)).await;
        }
        let mut written = Vec::new();
        let mut writes = Vec::with_capacity(values.len());
        for ValueWrite { key, json, left, write } in values {
            writes.push((key, json, left));
            written.push(write);
        }
        self.set(client, writes).await;
        if self.shares_runs {
            written.iter().for_each(|write| self.latest_state.requeue(write));
        }
    }

    /// Memory for the value that a large message becomes, once as text and once in the client's buffer; nothing where only its canonical
    /// fields are written.
    fn reserve(&self, payload: &[u8]) -> Result<Option<Reserved>, NoMemory> {
        if payload.len() < LARGE_VALUE {
            return Ok(None);
        }
        let memory = &self.latest_state.memory;
        // Before the text is measured, which is expensive: without room this is tried again and again.
        let mut room = memory.try_reserve(2 * payload.len()).ok_or(NoMemory)?;
        let text = self.render.text_bytes(payload);
        if text > VALUE_BYTES_MAX {
            room.shrink(0);
        } else if text > payload.len() {
            room.merge(memory.try_reserve(2 * (text - payload.len())).ok_or(NoMemory)?);
        }
        Ok(Some(room))
    }

    /// Takes in what other daemons have written into the history. Returns whether all of ours is there; `None`: it cannot be read.
    async fn merge_history(&mut self, client: &Client, config: &Config) -> Option<bool> {
        let found = self.read_history(client, config).await?;
        Some(found.is_some_and(|(array, newest)| self.history.merge(&array, newest)))
    }

    /// Adopts the history in Redis, so that readers do not see it begin anew with each daemon that takes over, nor alternate between a
    /// long and a short one of two daemons. Best effort.
    async fn adopt_history(&mut self, client: &Client, config: &Config) {
        if let Some(Some((array, newest))) = self.read_history(client, config).await {
            self.history.adopt(&array, newest);
        }
    }

    /// The history in Redis, if there is one, and when its newest object was received; `None`: it cannot be read.
    async fn read_history(&self, client: &Client, config: &Config) -> Option<Option<(String, Instant)>> {
        let key = history_key(&self.latest_state.prefix);
        let read = async {
            let millis: i64 = client.pttl(&key).await?;
            let array = self.link.read(client, &key, config.history_bytes.as_usize()).await?;
            Ok::<_, RedisError>(array.zip(u64::try_from(millis).ok()))
        };
        let found = read.await.inspect_err(|error| self.link.acl().warn(error, Resource::Key(&key))).ok()?;
        Some(found.map(|(array, left)| {
            // The lifetime counts from the newest object.
            let age = config.history_ttl.saturating_sub(Duration::from_millis(left));
            let now = Instant::now();
            (array, now.checked_sub(age).unwrap_or(now))
        }))
    }

    /// Renders the new objects of the history, once. Returns whether there were any.
    fn append_history(&mut self, updates: impl IntoIterator<Item = Arc<Update>>, cleared: u64) -> bool {
        if cleared != self.cleared {
            self.cleared = cleared;
            self.history.clear();
        }
        let mut grown = false;
        for update in updates {
            let mut json = String::new();
            self.render.render(&update.payload, &update.decided, update.payload.len() > OBJECT_BYTES, &mut json);
            if json.len() > OBJECT_BYTES {
                json.clear();
                self.render.render(&update.payload, &update.decided, true, &mut json);
            }
            if !json.is_empty() {
                self.history.push(json, update.received);
                grown = true;
            }
        }
        grown
    }
}
