//! The state that handlers share.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use super::{
    auth::{AccessPolicy, Authenticator, Caller, TokenStore},
    certificate::Certificate,
    config::Config,
    memory_budget::MemoryBudget,
    remembered::Remembered,
    shared_pages::SharedPages,
    submit::Submitter,
};
use crate::{
    frame::SOURCE_HTTP,
    gap_reader::missing::Missing,
    live::LiveFeed,
    metrics::Metrics,
    redis::{LATEST_EXTRA, Link},
    store::Store,
    wire::Limits,
};

/// Makes the status object.
pub type StatusFn = Arc<dyn Fn() -> Value + Send + Sync>;

/// Lists what is missing for being ready.
pub type MissingFn = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// The state that handlers share.
#[derive(Clone)]
pub struct ApiState {
    /// Limits.
    pub config: Arc<Config>,
    /// The rule for requests without a token.
    pub access: AccessPolicy,
    /// For `/readyz`.
    pub missing: MissingFn,
    /// For `/metrics`, and to count requests.
    pub metrics: Arc<Metrics>,
    /// For `/api/status`; also called before a scrape, to refresh the gauges.
    pub status: StatusFn,
    /// The archive.
    pub store: Arc<dyn Store>,
    /// The connection to Redis; absent in a process without one.
    pub redis: Option<Link>,
    /// The latest-state keys; absent: latest values are read from the store.
    pub latest: Option<Latest>,
    /// For requests that change something.
    pub submitter: Submitter,
    /// The author of changes that no token stands for.
    pub process: ProcessAuthor,
    /// Live events, for streams.
    pub live: LiveFeed,
    /// Configured tokens and active sessions.
    pub token_store: Arc<TokenStore>,
    /// Permits for exports.
    pub exports: Arc<Semaphore>,
    /// Pages for probes and scrapers.
    pub pages: Arc<SharedPages>,
    /// What the rows of runs lack.
    pub missing_messages: Arc<Remembered<Missing>>,
    /// For TLS.
    pub certificate: Arc<Certificate>,
    /// Exports and streams that must stay free.
    pub reserved: Reserved,
    /// For answers made of stored rows, and for exports.
    pub memory: MemoryBudget,
    /// Permits for compressed answers.
    pub compressions: Arc<Semaphore>,
}

impl ApiState {
    /// The author of a change.
    pub fn author(&self, caller: &Caller) -> String {
        caller.name().or(self.process.user.as_deref()).unwrap_or(SOURCE_HTTP).to_owned()
    }

    /// The check of tokens and sessions.
    pub fn authenticator(&self) -> Authenticator {
        Authenticator {
            policy: self.access,
            config: Arc::clone(&self.config),
            token_store: Arc::clone(&self.token_store),
        }
    }
}

/// The author of changes that no token stands for.
#[derive(Clone, Debug, Default)]
pub struct ProcessAuthor {
    /// Name of the daemon (`instance`).
    pub instance: String,
    /// The person whose command this process is; absent in a server.
    pub user: Option<String>,
}

/// Exports and streams that requests without a token leave free for those with one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reserved {
    /// Of `http.exports`.
    pub exports: usize,
    /// Of `http.streams`.
    pub streams: usize,
}

/// The latest-state keys.
#[derive(Clone, Debug)]
pub struct Latest {
    /// The connection.
    pub link: Link,
    /// Prefix of the keys.
    pub prefix: String,
    /// Maximum size of the history.
    pub history_bytes: usize,
    /// Limits of a message, which bound the other values.
    pub limits: watch::Receiver<Limits>,
}

impl Latest {
    /// Maximum size of a value that this daemon writes.
    pub fn value_max(&self, subject: &str) -> usize {
        match subject {
            "history" => self.history_bytes,
            _ => self.limits.borrow().message.as_usize() + LATEST_EXTRA,
        }
    }
}
