//! The API without a pipeline: reads the store and the latest keys, and shows what is published on Redis.

use std::{convert::Infallible, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tracing::info;

use super::{
    build::RedisHandles, channels::RECEIPTS, error::AppError, http, live_mirror, live_streams, signals,
    status::problem_json, stores,
};
use crate::{
    api,
    config::Settings,
    lifecycle::{Signal, Tasks},
    live::LiveFeed,
    memory::MemoryLimit,
    redis::Link,
    render,
    store::{Problem, Store, StoreError},
    units,
};

/// How often the store is asked whether it answers, and how long it may take.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// Whether the store answers, and its problem if not.
#[derive(Clone, Debug)]
struct StoreHealth {
    reachable: bool,
    problem: Option<Problem>,
}

/// Serves until a signal stops it.
///
/// # Errors
/// When it cannot start, or a part of it fails.
pub fn run(settings: &Settings) -> Result<(), AppError> {
    super::block_on(1, serve(settings))
}

async fn serve(settings: &Settings) -> Result<(), AppError> {
    let started = Instant::now();
    let (stopper, stop) = Signal::new();
    let stopper = Arc::new(stopper);
    let reloads = signals::install(Arc::clone(&stopper)).map_err(AppError::Start)?;
    let dashboard = api::dashboard_url(&settings.http);
    info!(version = env!("CARGO_PKG_VERSION"), instance = settings.instance, dashboard, "serving the API alone");
    let (metrics, mut tasks) = (http::metrics(settings), Tasks::new());
    let (store, upkeep) = stores::open_read_only(settings, &metrics, stop.clone());
    tasks.spawn("store", upkeep);
    let (link, upkeep) = Link::new(&settings.redis, stop.clone());
    let link = link.counted_in(&metrics);
    tasks.spawn("redis commands", upkeep);
    let (health_out, health) = watch::channel(StoreHealth { reachable: false, problem: None });
    tasks.spawn("probe", probe(Arc::clone(&store), health_out, stop.clone()));

    let access = http::access(settings, &link, &metrics);
    tasks.spawn("reload", reload_access(reloads, access.clone(), settings.clone(), stop.clone()));
    let live = LiveFeed::new(settings.http.stream_buffer.as_usize(), settings.http.streams);
    let (receipts, _) = broadcast::channel(RECEIPTS);
    let limits = watch::channel(settings.limits.clone()).1;
    let memory = MemoryLimit::default();
    let feed = live_streams::StreamFeed { live: &live, memory: &memory };
    let streams = live_streams::run(settings, &feed, &link, &limits, stop.clone());
    let submitter = http::submitter(settings, &link, receipts.clone(), limits, None);
    let (mirror, listening) =
        live_mirror::listen(settings, &live, &link, receipts, stop.clone()).map_err(AppError::Start)?;
    let redis = RedisHandles { status: mirror.status.clone(), streams: Default::default(), link: link.clone() };
    let inputs = http::ApiInputs {
        memory,
        status: status(settings, started, redis, &health, access.clone()),
        missing: Arc::new(move || {
            let missing = if health.borrow().reachable { None } else { Some("store does not answer".to_owned()) };
            missing.into_iter().collect()
        }),
        metrics,
        store,
        link,
        live: live.clone(),
        access,
    };
    tasks.spawn("source", listening);
    tasks.spawn("live", mirror.run());
    tasks.spawn("live streams", streams);
    let listening = api::Listening::new(&settings.http.listen);
    tasks.spawn("http", api::run(http::api_state(settings, inputs, submitter), listening, stop.clone()));
    tasks.run(stopper, stop, settings.shutdown_grace).await.map_err(AppError::Ended)
}

/// SIGHUP: reads tokens and certificate again; no other setting changes while it runs.
async fn reload_access(
    mut asked: mpsc::Receiver<()>,
    access: http::Access,
    settings: Settings,
    mut stop: Signal,
) -> Result<(), Infallible> {
    loop {
        tokio::select! {
            () = stop.stopped() => return Ok(()),
            Some(()) = asked.recv() => http::reload_access(&access, &settings),
        }
    }
}

/// The status object of a process without a pipeline.
fn status(
    settings: &Settings,
    started: Instant,
    redis: RedisHandles,
    health: &watch::Receiver<StoreHealth>,
    access: http::Access,
) -> api::StatusFn {
    let (instance, health) = (settings.instance.clone(), health.clone());
    Arc::new(move || -> Value {
        let StoreHealth { reachable, problem } = health.borrow().clone();
        json!({
            "instance": instance,
            "version": env!("CARGO_PKG_VERSION"),
            "phase": "serving",
            "ready": reachable,
            "at": render::time(units::now()),
            "uptime_seconds": started.elapsed().as_secs(),
            "redis": {
                "connected": redis.link.client().is_some(),
                "connections": redis.status.connections(),
                "unproven": redis.status.unconfirmed(),
            },
            "access": http::access_status(&access),
            "store": { "connected": reachable, "problem": problem.as_ref().map(problem_json) },
        })
    })
}

async fn probe(
    store: Arc<dyn Store>,
    health: watch::Sender<StoreHealth>,
    mut stop: Signal,
) -> Result<(), std::convert::Infallible> {
    loop {
        let late = |_| Err(StoreError::Unavailable("no answer in time".into()));
        let answer = timeout(PROBE_INTERVAL, store.ping()).await.unwrap_or_else(late);
        health.send_modify(|health| {
            let since = health.problem.take().map_or_else(units::now, |problem| problem.since);
            health.reachable = answer.is_ok();
            health.problem = answer.err().map(|error| Problem::of("reads", &error, since));
        });
        tokio::select! {
            () = stop.stopped() => return Ok(()),
            () = sleep(PROBE_INTERVAL) => {}
        }
    }
}
