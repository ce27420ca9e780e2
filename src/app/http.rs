//! The inputs of the HTTP side of a process, and how its requests reach intake.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::{Semaphore, broadcast, watch};
use tracing::{error, info, warn};

use crate::{
    api::{
        self, AccessPolicy, ApiState, Certificate, Counts, IntakeHandle, Latest, MissingFn, Sessions, StatusFn,
        SubmitTargets, Submitter, TokenStore, TokensError,
    },
    config::Settings,
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
    /// Tokens, sessions and the certificate.
    pub access: Access,
    /// The status object.
    pub status: StatusFn,
    /// Why the process is not ready.
    pub missing: MissingFn,
}

/// The counters of a process that shows them.
pub fn metrics(settings: &Settings) -> Arc<Metrics> {
    let metrics = Metrics::with_former_label(settings.http.metrics_former_label);
    metrics.set_build_info(settings.store.kind.name());
    metrics
}

/// The parts of the API's access that are read from files, and again at SIGHUP.
#[derive(Clone)]
pub struct Access {
    /// Tokens and sessions.
    pub token_store: Arc<TokenStore>,
    /// For TLS.
    pub certificate: Arc<Certificate>,
}

/// The tokens and the certificate of the configuration, and the sessions in Redis.
pub fn access(settings: &Settings, link: &Link, metrics: &Arc<Metrics>) -> Access {
    let sessions = Sessions::new(link.clone(), &settings.redis.key_prefix, &settings.http, &settings.state_dir);
    let token_store = TokenStore::new(Some(sessions), Arc::clone(metrics));
    load_tokens(&token_store, settings);
    let certificate = Certificate::new(&settings.http.tls, Arc::clone(metrics));
    Access { token_store: Arc::new(token_store), certificate: Arc::new(certificate) }
}

/// Replaces the tokens by those of the file.
pub fn load_tokens(token_store: &TokenStore, settings: &Settings) {
    match token_store.load(settings.http.tokens_file.as_deref()) {
        Ok(counts) => log_loaded(counts),
        Err(error) => report_kept(token_store, &error),
    }
}

/// Reads tokens and certificate again.
pub fn reload_access(access: &Access, settings: &Settings) {
    load_tokens(&access.token_store, settings);
    if let Some(warning) = settings.http.network_warning() {
        warn!("{warning}");
    }
    access.certificate.reload();
}

/// Reads the file of tokens again, where the rest of the configuration cannot be used.
pub fn reload_tokens(token_store: &TokenStore) {
    match token_store.reload() {
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

/// Tokens and certificate in the status.
pub fn access_status(access: &Access) -> Value {
    let Access { token_store, certificate } = access;
    json!({
        "tokens": token_store.counts(),
        "problem": token_store.problem(),
        "tls": certificate.is_used(),
        "certificate_problem": certificate.problem(),
    })
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
        process: api::ProcessAuthor { instance: settings.instance.clone(), user: None },
        live: inputs.live,
        token_store: inputs.access.token_store,
        certificate: inputs.access.certificate,
        exports: Arc::new(Semaphore::new(settings.http.exports)),
        reserved: api::Reserved::default(),
        pages: Arc::default(),
        missing_messages: Arc::default(),
        memory: api::MemoryBudget::new(settings.http.memory, inputs.memory),
        compressions: Arc::new(Semaphore::new(settings.http.compressions)),
    }
}

/// Submits requests to the intake of this process; without one, by Redis.
pub fn submitter(
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
