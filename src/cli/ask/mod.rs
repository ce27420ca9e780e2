//! Asking for what is stored: of the configured store directly, or of a daemon with `--url`. Both are the same questions and the
//! same answers, those of the HTTP API; without a daemon its router is asked within this process.

mod credentials;
mod remote;
mod url;

use std::{future::poll_fn, pin::Pin, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Request, Response},
};
use hyper::{body::Body as _, service::Service};
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::sync::Semaphore;

pub use self::credentials::Credentials;
use self::{
    remote::{DaemonClient, HttpResponse},
    url::Url,
};
use super::CliError;
use crate::{
    api::{self, AccessPolicy, ApiState, Submitter},
    app::stores,
    config::Settings,
    live::LiveFeed,
    memory::MemoryLimit,
    metrics::Metrics,
    store::Store,
};

/// Where to ask.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Target {
    /// Ask a daemon instead of the store: http://host:port, or https://
    #[arg(long, value_name = "URL", env = "CASCOR_INGEST_URL")]
    pub url: Option<String>,
    #[command(flatten)]
    pub credentials: Credentials,
}

/// Someone who answers.
pub enum QueryClient {
    /// The API over the store, within this process.
    InProcess(Box<Router>),
    /// A daemon.
    Daemon(Box<DaemonClient>),
}

/// An answer that arrives piece by piece.
pub enum QueryResponse {
    /// From within.
    InProcess(Box<Response<Body>>),
    /// From a daemon.
    Daemon(Box<HttpResponse>),
}

impl QueryClient {
    /// The one that `target` names, else the configured store.
    ///
    /// # Errors
    /// When the address is none, or Cassandra cannot be reached.
    pub async fn connect(settings: &Settings, target: &Target) -> Result<Self, CliError> {
        if let Some(url) = &target.url {
            let url = Url::parse(url).map_err(CliError::Usage)?;
            return Ok(Self::Daemon(Box::new(DaemonClient::new(url, &target.credentials, &settings.http)?)));
        }
        let store = stores::open_once(settings).await;
        let store = store.map_err(|error| CliError::failed("failed to reach the store", error))?;
        Ok(Self::in_process(store, &settings.http))
    }

    /// Of this store.
    pub fn in_process(store: Arc<dyn Store>, limits: &api::Config) -> Self {
        let metrics = Metrics::new();
        let state = ApiState {
            config: Arc::new(limits.clone()),
            access: AccessPolicy::Internal,
            missing: Arc::new(Vec::new),
            metrics: Arc::clone(&metrics),
            status: Arc::new(|| Value::Null),
            store,
            redis: None,
            latest: None,
            submitter: Submitter::default(),
            exports: Arc::new(Semaphore::new(1)),
            reserved: api::Reserved::default(),
            pages: Arc::default(),
            live: LiveFeed::new(0, 0),
            token_store: Arc::new(api::TokenStore::new(None, metrics)),
            memory: api::MemoryBudget::new(limits.memory, MemoryLimit::default()),
            compressions: Arc::new(Semaphore::new(0)),
        };
        Self::InProcess(Box::new(api::router(state)))
    }

    /// The answer to a GET.
    ///
    /// # Errors
    /// What the answer says, when it is no 2xx: 400 is a wrong argument, 404 a plain no.
    pub async fn get(&self, path: &str) -> Result<QueryResponse, CliError> {
        self.request("GET", path, String::new()).await
    }

    /// The same as JSON.
    ///
    /// # Errors
    /// As [`get`](Self::get), and when the answer breaks off.
    pub async fn json(&self, path: &str) -> Result<Value, CliError> {
        self.get(path).await?.json().await
    }

    /// The answer to a POST.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        self.request("POST", path, body.to_string()).await?.json().await
    }

    async fn request(&self, method: &str, path: &str, body: String) -> Result<QueryResponse, CliError> {
        let response = match self {
            Self::InProcess(router) => {
                let request = Request::builder().method(method).uri(path).body(Body::from(body));
                let request = request.map_err(|error| CliError::Usage(error.to_string()))?;
                let Ok(response) = TowerToHyperService::new((**router).clone()).call(request).await;
                QueryResponse::InProcess(Box::new(response))
            }
            Self::Daemon(daemon) => {
                QueryResponse::Daemon(Box::new(HttpResponse::send(daemon, method, path, &body).await?))
            }
        };
        match response.status() {
            200..=299 => Ok(response),
            status => {
                let body = response.bytes().await.unwrap_or_default();
                let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
                let detail = match (answer["detail"].as_str(), self) {
                    (Some(detail), _) => detail.to_owned(),
                    (None, Self::Daemon(daemon)) if daemon.wants_tls(status, &body) => {
                        format!("the server expects TLS; the address is probably https://{}", daemon.authority())
                    }
                    _ => format!("the answer is {status}"),
                };
                Err(match status {
                    400 => CliError::Usage(detail),
                    404 => CliError::NegativeAnswer(detail),
                    401 => CliError::failed(
                        "the daemon wants a token that it knows (--token-file, or the variable CASCOR_INGEST_TOKEN)",
                        detail,
                    ),
                    _ if method == "GET" => CliError::failed("failed to read", detail),
                    _ => CliError::failed("failed to change", detail),
                })
            }
        }
    }
}

impl QueryResponse {
    fn status(&self) -> u16 {
        match self {
            Self::InProcess(response) => response.status().as_u16(),
            Self::Daemon(remote) => remote.status,
        }
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// When it breaks off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CliError> {
        match self {
            Self::InProcess(response) => loop {
                let body = response.body_mut();
                match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
                    None => return Ok(None),
                    Some(Err(error)) => return Err(CliError::failed("failed to read the store", error)),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(bytes) => return Ok(Some(bytes)),
                        Err(frame) => {
                            if let Ok(trailers) = frame.into_trailers() {
                                *response.headers_mut() = trailers;
                            }
                        }
                    },
                }
            },
            Self::Daemon(remote) => remote.next().await,
        }
    }

    /// What came behind the body, once it has ended.
    pub fn trailers(&self) -> &HeaderMap {
        match self {
            Self::InProcess(response) => response.headers(),
            Self::Daemon(remote) => &remote.trailers,
        }
    }

    /// The whole body as JSON.
    ///
    /// # Errors
    /// When it breaks off, or is something else.
    pub async fn json(self) -> Result<Value, CliError> {
        let body = self.bytes().await?;
        serde_json::from_slice(&body).map_err(|error| CliError::failed("the answer is no JSON", error))
    }

    async fn bytes(mut self) -> Result<Vec<u8>, CliError> {
        let mut body = Vec::new();
        while let Some(bytes) = self.next().await? {
            body.extend_from_slice(&bytes);
        }
        Ok(body)
    }
}

/// A value of a query, escaped.
pub fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:".contains(&byte);
    text.bytes().fold(String::new(), |mut out, byte| {
        if plain(byte) {
            out.push(byte.into())
        } else {
            out.push_str(&format!("%{byte:02X}"))
        };
        out
    })
}
