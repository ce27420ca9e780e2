//! What the HTTP side of a process sees, and how its requests reach intake.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tracing::{debug, warn};

use crate::{
    api::{self, Access, Ends, Inlet, Keyring, Latest, MissingFn, Sessions, Sight, StatusFn, ToIntake},
    config::Settings,
    frame::Arrival,
    live::Live,
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
    /// Tokens and sessions.
    pub keys: Arc<Keyring>,
    /// The status object.
    pub status: StatusFn,
    /// What is missing for being ready.
    pub missing: MissingFn,
}

/// The tokens of the configuration, and the sessions in Redis.
pub fn keys(settings: &Settings, link: &Link) -> Arc<Keyring> {
    let keys = Keyring::new(Sessions::new(link.clone(), &settings.redis.key_prefix));
    load_tokens(&keys, settings);
    Arc::new(keys)
}

/// Takes the tokens of the file in place of those before.
pub fn load_tokens(keys: &Keyring, settings: &Settings) {
    match keys.load(settings.http.tokens_file.as_deref()) {
        Ok(0) if Access::at(&settings.http.listen) == Access::Network && !settings.http.listen.is_empty() => {
            warn!(
                "`http.listen` is not a loopback address and there are no tokens: only /healthz, /readyz and /metrics answer"
            );
        }
        Ok(tokens) => debug!(tokens, "tokens are loaded"),
        // The configuration was checked a moment ago.
        Err(error) => warn!(%error, "tokens are not loaded; those before stay"),
    }
}

/// The sight of the routes.
pub fn sight(settings: &Settings, seen: Seen, inlet: Inlet) -> Sight {
    let latest = Latest { link: seen.link.clone(), prefix: settings.redis.key_prefix.clone() };
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
        memory: api::Memory::new(settings.http.memory),
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
