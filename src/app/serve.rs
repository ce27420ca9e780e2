//! The API alone: reads of the configured store and of the latest keys, and what is heard on Redis, without a pipeline.

use std::{convert::Infallible, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tracing::info;

use super::{AppError, RECEIPTS, follow, http, signals, status::told, stores};
use crate::{
    api,
    config::Settings,
    lifecycle::{Signal, Tasks},
    live::Live,
    memory::MemoryLimit,
    metrics::Metrics,
    redis::Link,
    render,
    source::SourceStatus,
    store::{Problem, Store, StoreError},
    units,
};

/// How often the store is asked whether it answers, and how long it may take.
const PROBE: Duration = Duration::from_secs(2);

/// Whether the store answers, and what it says when it does not.
#[derive(Clone, Debug)]
struct Answers {
    yes: bool,
    problem: Option<Problem>,
}

/// Serves until a signal stops it.
///
/// # Errors
/// When it cannot start, or a part of it fails.
pub fn run(settings: &Settings) -> Result<(), AppError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("runtime")
        .enable_all()
        .build()
        .map_err(AppError::Start)?;
    let outcome = runtime.block_on(serve(settings));
    runtime.shutdown_timeout(Duration::from_millis(500));
    outcome
}

async fn serve(settings: &Settings) -> Result<(), AppError> {
    let started = Instant::now();
    let (stopper, stop) = Signal::new();
    let stopper = Arc::new(stopper);
    let reloads = signals::install(Arc::clone(&stopper)).map_err(AppError::Start)?;
    info!(version = env!("CARGO_PKG_VERSION"), instance = settings.instance, "serving the API alone");
    let (metrics, mut tasks) = (Metrics::new(), Tasks::new());
    let (store, upkeep) = stores::open_read_only(settings, &metrics, stop.clone());
    tasks.spawn("store", upkeep);
    let (link, upkeep) = Link::new(&settings.redis, stop.clone());
    let link = link.counted_in(&metrics);
    tasks.spawn("redis commands", upkeep);
    let (answers_out, answers) = watch::channel(Answers { yes: false, problem: None });
    tasks.spawn("probe", probe(Arc::clone(&store), answers_out, stop.clone()));

    let keys = http::keys(settings, &link, &metrics);
    tasks.spawn("reload", reload_tokens(reloads, Arc::clone(&keys), settings.clone(), stop.clone()));
    let live = Live::new(settings.http.stream_buffer.as_usize(), settings.http.streams);
    let (receipts, _) = broadcast::channel(RECEIPTS);
    let inlet = http::redis_submitter(settings, &link, receipts.clone());
    let (heard, listening) = follow::listen(settings, &live, &link, receipts, stop.clone()).map_err(AppError::Start)?;
    let seen = http::ApiInputs {
        memory: MemoryLimit::default(),
        status: status(settings, started, (&link, &heard.status), &answers, Arc::clone(&keys)),
        missing: Arc::new(move || {
            let missing = if answers.borrow().yes { None } else { Some("store does not answer".to_owned()) };
            missing.into_iter().collect()
        }),
        metrics,
        store,
        link,
        live: live.clone(),
        token_store: keys,
    };
    tasks.spawn("source", listening);
    tasks.spawn("live", heard.tell());
    tasks.spawn("http", api::run(http::api_state(settings, seen, inlet), stop.clone()));
    tasks.run(stopper, stop, settings.shutdown_grace).await.map_err(AppError::Ended)
}

/// SIGHUP: the tokens are read again; nothing else here changes while it runs.
async fn reload_tokens(
    mut asked: mpsc::Receiver<()>,
    keys: Arc<api::TokenStore>,
    settings: Settings,
    mut stop: Signal,
) -> Result<(), Infallible> {
    loop {
        tokio::select! {
            () = stop.stopped() => return Ok(()),
            Some(()) = asked.recv() => http::load_tokens(&keys, &settings),
        }
    }
}

/// Without a pipeline there is little to say.
fn status(
    settings: &Settings,
    started: Instant,
    (link, heard): (&Link, &SourceStatus),
    answers: &watch::Receiver<Answers>,
    keys: Arc<api::TokenStore>,
) -> api::StatusFn {
    let (instance, answers) = (settings.instance.clone(), answers.clone());
    let (link, heard) = (link.clone(), heard.clone());
    Arc::new(move || -> Value {
        let Answers { yes, problem } = answers.borrow().clone();
        json!({
            "instance": instance,
            "version": env!("CARGO_PKG_VERSION"),
            "phase": "serving",
            "ready": yes,
            "at": render::time(units::now()),
            "uptime_seconds": started.elapsed().as_secs(),
            "redis": {
                "connected": link.client().is_some(),
                "connections": heard.connections(),
                "unproven": heard.unconfirmed(),
            },
            "access": http::tokens_status(&keys),
            "store": { "connected": yes, "problem": problem.as_ref().map(told) },
        })
    })
}

async fn probe(
    store: Arc<dyn Store>,
    answers: watch::Sender<Answers>,
    mut stop: Signal,
) -> Result<(), std::convert::Infallible> {
    loop {
        let late = |_| Err(StoreError::Unavailable("no answer in time".into()));
        let answer = timeout(PROBE, store.ping()).await.unwrap_or_else(late);
        answers.send_modify(|answers| {
            let since = answers.problem.take().map_or_else(units::now, |problem| problem.since);
            answers.yes = answer.is_ok();
            answers.problem = answer.err().map(|error| Problem::of("reads", &error, since));
        });
        tokio::select! {
            () = stop.stopped() => return Ok(()),
            () = sleep(PROBE) => {}
        }
    }
}
