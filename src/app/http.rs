//! What the HTTP side of a process sees, and how its requests reach intake.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::sync::{Semaphore, broadcast, mpsc, watch};

use crate::{
    api::{self, Access, Ends, Inlet, Latest, MissingFn, Sight, StatusFn, ToIntake},
    config::Settings,
    frame::Arrival,
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
    /// The status object.
    pub status: StatusFn,
    /// What is missing for being ready.
    pub missing: MissingFn,
}

/// The sight of the routes.
pub fn sight(settings: &Settings, seen: Seen, inlet: Inlet) -> Sight {
    let latest = Latest { link: seen.link, prefix: settings.redis.key_prefix.clone() };
    Sight {
        config: Arc::new(settings.http.clone()),
        access: Access::at(&settings.http.listen),
        missing: seen.missing,
        metrics: seen.metrics,
        status: seen.status,
        store: seen.store,
        latest: settings.latest.enabled.then_some(latest),
        inlet,
        exports: Arc::new(Semaphore::new(settings.http.exports)),
        memory: api::budget(settings.http.memory),
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
    let intake = ToIntake { queue, receipts, instance: settings.instance.clone(), created };
    through(settings, link, limits, Some(intake))
}

/// The way of a process without a pipeline: by Redis.
pub fn by_redis(settings: &Settings, link: &Link) -> Inlet {
    through(settings, link, watch::channel(settings.limits.clone()).1, None)
}

fn through(settings: &Settings, link: &Link, limits: watch::Receiver<Limits>, intake: Option<ToIntake>) -> Inlet {
    let plain = |channels: &[String]| channels.iter().find(|channel| !is_pattern(channel)).cloned();
    Inlet::new(Ends {
        training: plain(&settings.redis.training_channels),
        control: plain(&settings.redis.control_channels),
        link: link.clone(),
        limits,
        intake,
    })
}
