//! The inputs of the HTTP side of a process, and how its requests reach intake.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tracing::{error, info, warn};

use crate::{
    api::{
        self, AccessPolicy, ApiState, Counts, IntakeHandle, Latest, MissingFn, Sessions, StatusFn, SubmitTargets,
        Submitter, TokenStore, TokensError,
    },
    config::Settings,
    frame::IntakeItem,
    live::LiveFeed,
    memory::MemoryLimit,
    metrics::Metrics,
    redis::{Link, is_pattern},
    store::Store,
    wire::Limits,
};

/// The inputs of the HTTP side of a process.
pub struct ApiInputs {
    /// Its counters.
    pub metrics: Arc<Metrics>,
    /// The archive.
    pub store: Arc<dyn Store>,
    /// For the latest values.
    pub link: Link,
    /// The live feed.
    pub live: LiveFeed,
    /// Budget of answers.
    pub memory: MemoryLimit,
    /// Tokens and sessions.
    pub token_store: Arc<TokenStore>,
    /// The status object.
    pub status: StatusFn,
    /// Why the process is not ready.
    pub missing: MissingFn,
}

/// The tokens of the configuration, and the sessions in Redis.
pub fn token_store(settings: &Settings, link: &Link, metrics: &Arc<Metrics>) -> Arc<TokenStore> {
    let sessions = Sessions::new(link.clone(), &settings.redis.key_prefix, &settings.http, &settings.state_dir);
    let token_store = TokenStore::new(Some(sessions), Arc::clone(metrics));
    load_tokens(&token_store, settings);
    Arc::new(token_store)
}

/// Replaces the tokens by those of the file.
pub fn load_tokens(token_store: &TokenStore, settings: &Settings) {
    report_load(token_store, token_store.load(settings.http.tokens_file.as_deref()), settings);
}

/// Reads the file of tokens again, where the rest of the configuration cannot be used.
pub fn reload_tokens(token_store: &TokenStore) {
    match token_store.reload() {
        Ok(counts) => log_loaded(counts),
        Err(error) => report_kept(token_store, &error),
    }
}

fn report_load(token_store: &TokenStore, outcome: Result<Counts, TokensError>, settings: &Settings) {
    match outcome {
        Ok(counts)
            if counts == Counts::default()
                && AccessPolicy::at(&settings.http.listen) == AccessPolicy::Network
                && !settings.http.listen.is_empty() =>
        {
            warn!(
                "`http.listen` is not a loopback address and there are no tokens: only /healthz, /readyz and /metrics answer"
            );
        }
        Ok(counts) => log_loaded(counts),
        Err(error) => report_kept(token_store, &error),
    }
}

fn log_loaded(counts: Counts) {
    let Counts { read, publish, admin } = counts;
    if counts != Counts::default() {
        info!(read, publish, admin, "tokens are loaded");
    }
}

fn report_kept(token_store: &TokenStore, error: &TokensError) {
    if token_store.counts() == Counts::default() {
        error!(%error, "the tokens cannot be loaded: what needs a token is refused until the file is mended and loaded again");
        return;
    }
    error!(%error, "the tokens cannot be loaded; those of before stay in force");
}

/// Tokens in the status.
pub fn tokens_status(token_store: &TokenStore) -> Value {
    json!({ "tokens": token_store.counts(), "problem": token_store.problem() })
}

/// The state of the routes.
pub fn api_state(settings: &Settings, inputs: ApiInputs, submitter: Submitter) -> ApiState {
    let latest = Latest {
        link: inputs.link.clone(),
        prefix: settings.redis.key_prefix.clone(),
        history_bytes: settings.latest.history_bytes.as_usize(),
        limits: submitter.limits().unwrap_or_else(|| watch::channel(settings.limits.clone()).1),
    };
    ApiState {
        config: Arc::new(settings.http.clone()),
        access: AccessPolicy::at(&settings.http.listen),
        missing: inputs.missing,
        metrics: inputs.metrics,
        status: inputs.status,
        store: inputs.store,
        redis: Some(inputs.link),
        latest: settings.latest.enabled.then_some(latest),
        submitter,
        live: inputs.live,
        token_store: inputs.token_store,
        exports: Arc::new(Semaphore::new(settings.http.exports)),
        reserved: api::Reserved::default(),
        pages: Arc::default(),
        memory: api::MemoryBudget::new(settings.http.memory, inputs.memory),
        compressions: Arc::new(Semaphore::new(settings.http.compressions)),
    }
}

/// Submits the requests of a daemon to its own intake.
pub fn intake_submitter(
    settings: &Settings,
    link: &Link,
    queue: mpsc::WeakSender<IntakeItem>,
    receipts: broadcast::Sender<Arc<str>>,
    limits: watch::Receiver<Limits>,
) -> Submitter {
    let created = Mutex::new(VecDeque::new());
    let intake = IntakeHandle { queue, instance: settings.instance.clone(), created };
    submitter_with(settings, link, receipts, limits, Some(intake))
}

/// Submits the requests of a process without a pipeline by Redis.
pub fn redis_submitter(settings: &Settings, link: &Link, receipts: broadcast::Sender<Arc<str>>) -> Submitter {
    submitter_with(settings, link, receipts, watch::channel(settings.limits.clone()).1, None)
}

fn submitter_with(
    settings: &Settings,
    link: &Link,
    receipts: broadcast::Sender<Arc<str>>,
    limits: watch::Receiver<Limits>,
    intake: Option<IntakeHandle>,
) -> Submitter {
    let plain = |channels: &[String]| channels.iter().find(|channel| !is_pattern(channel)).cloned();
    Submitter::new(SubmitTargets {
        training: plain(&settings.redis.training_channels),
        control: plain(&settings.redis.control_channels),
        link: link.clone(),
        limits,
        receipts,
        intake,
    })
}
