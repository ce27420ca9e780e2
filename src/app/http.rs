//! What the HTTP side of a process sees, and how its requests reach intake.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tracing::{error, info, warn};

use crate::{
    api::{
        self, Access, Counts, Ends, Inlet, Keyring, Latest, MissingFn, Sessions, Sight, StatusFn, ToIntake, TokensError,
    },
    config::Settings,
    frame::Arrival,
    live::Live,
    memory::MemoryLimit,
    metrics::Metrics,
    redis::{Link, is_pattern},
    store::Store,
    wire::Limits,
};

/// What a process has to show.
pub struct Seen {
    /// Its counters.
    pub metrics: Arc<Metrics>,
    /// The archive.
    pub store: Arc<dyn Store>,
    /// For the latest values.
    pub link: Link,
    /// What happens now.
    pub live: Live,
    /// For answers.
    pub memory: MemoryLimit,
    /// Tokens and sessions.
    pub keys: Arc<Keyring>,
    /// The status object.
    pub status: StatusFn,
    /// What is missing for being ready.
    pub missing: MissingFn,
}

/// The tokens of the configuration, and the sessions in Redis.
pub fn keys(settings: &Settings, link: &Link, metrics: &Arc<Metrics>) -> Arc<Keyring> {
    let sessions = Sessions::new(link.clone(), &settings.redis.key_prefix, &settings.http, &settings.state_dir);
    let keys = Keyring::new(Some(sessions), Arc::clone(metrics));
    load_tokens(&keys, settings);
    Arc::new(keys)
}

/// Takes the tokens of the file in place of those before.
pub fn load_tokens(keys: &Keyring, settings: &Settings) {
    told(keys, keys.load(settings.http.tokens_file.as_deref()), settings);
}

/// Reads the file of tokens again although the rest of the configuration cannot be used.
pub fn reload_tokens(keys: &Keyring) {
    match keys.reload() {
        Ok(counts) => loaded(counts),
        Err(error) => kept(keys, &error),
    }
}

fn told(keys: &Keyring, outcome: Result<Counts, TokensError>, settings: &Settings) {
    match outcome {
        Ok(counts)
            if counts == Counts::default()
                && Access::at(&settings.http.listen) == Access::Network
                && !settings.http.listen.is_empty() =>
        {
            warn!(
                "`http.listen` is not a loopback address and there are no tokens: only /healthz, /readyz and /metrics answer"
            );
        }
        Ok(counts) => loaded(counts),
        Err(error) => kept(keys, &error),
    }
}

fn loaded(counts: Counts) {
    let Counts { read, publish, admin } = counts;
    if counts != Counts::default() {
        info!(read, publish, admin, "tokens are loaded");
    }
}

fn kept(keys: &Keyring, error: &TokensError) {
    if keys.counts() == Counts::default() {
        error!(%error, "the tokens cannot be loaded: what needs a token is refused until the file is mended and loaded again");
        return;
    }
    error!(%error, "the tokens cannot be loaded; those of before stay in force");
}

/// What the status says of tokens.
pub fn tokens_status(keys: &Keyring) -> Value {
    json!({ "tokens": keys.counts(), "problem": keys.problem() })
}

/// The sight of the routes.
pub fn sight(settings: &Settings, seen: Seen, inlet: Inlet) -> Sight {
    let latest = Latest {
        link: seen.link.clone(),
        prefix: settings.redis.key_prefix.clone(),
        history_bytes: settings.latest.history_bytes.as_usize(),
        limits: inlet.limits().unwrap_or_else(|| watch::channel(settings.limits.clone()).1),
    };
    Sight {
        config: Arc::new(settings.http.clone()),
        access: Access::at(&settings.http.listen),
        missing: seen.missing,
        metrics: seen.metrics,
        status: seen.status,
        store: seen.store,
        redis: Some(seen.link),
        latest: settings.latest.enabled.then_some(latest),
        inlet,
        live: seen.live,
        keys: seen.keys,
        exports: Arc::new(Semaphore::new(settings.http.exports)),
        reserved: api::Reserved::default(),
        pages: Arc::default(),
        memory: api::Memory::new(settings.http.memory, seen.memory),
        compressions: Arc::new(Semaphore::new(settings.http.compressions)),
    }
}

/// The way of a daemon's requests: into its own intake.
pub fn inlet(
    settings: &Settings,
    link: &Link,
    queue: mpsc::WeakSender<Arrival>,
    receipts: broadcast::Sender<Arc<str>>,
    limits: watch::Receiver<Limits>,
) -> Inlet {
    let created = Mutex::new(VecDeque::new());
    let intake = ToIntake { queue, instance: settings.instance.clone(), created };
    through(settings, link, receipts, limits, Some(intake))
}

/// The way of a process without a pipeline: by Redis.
pub fn by_redis(settings: &Settings, link: &Link, receipts: broadcast::Sender<Arc<str>>) -> Inlet {
    through(settings, link, receipts, watch::channel(settings.limits.clone()).1, None)
}

fn through(
    settings: &Settings,
    link: &Link,
    receipts: broadcast::Sender<Arc<str>>,
    limits: watch::Receiver<Limits>,
    intake: Option<ToIntake>,
) -> Inlet {
    let plain = |channels: &[String]| channels.iter().find(|channel| !is_pattern(channel)).cloned();
    Inlet::new(Ends {
        training: plain(&settings.redis.training_channels),
        control: plain(&settings.redis.control_channels),
        link: link.clone(),
        limits,
        receipts,
        intake,
    })
}
