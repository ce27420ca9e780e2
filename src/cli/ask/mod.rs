//! Queries, by the HTTP API: of a daemon with `--url`, else of the API's router within this process, on the configured store.

mod credentials;
mod remote;
#[cfg(test)]
mod tests;
mod url;

use std::{future::poll_fn, pin::Pin, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Request, Response, StatusCode},
};
use hyper::{
    body::{Body as _, Frame},
    service::Service,
};
use hyper_util::service::TowerToHyperService;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::sync::Semaphore;

pub use self::credentials::Credentials;
use self::{
    remote::{DaemonClient, Exchange},
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

/// What is escaped in a value of a query.
const QUERY_VALUE: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b':');

/// Where a query goes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Target {
    /// Ask a daemon instead of the store: http://host:port, or https://
    #[arg(long, value_name = "URL", env = "CASCOR_INGEST_URL")]
    pub url: Option<String>,
    #[command(flatten)]
    pub credentials: Credentials,
}

/// The API that answers queries.
pub enum QueryClient {
    /// The API over the store, within this process.
    InProcess(Box<Router>),
    /// A daemon.
    Daemon(Box<DaemonClient>),
}

/// An answer that arrives chunk by chunk.
pub struct QueryResponse {
    status: StatusCode,
    body: Body,
    trailers: HeaderMap,
    /// The connection to the daemon, if one answers.
    exchange: Option<Exchange>,
}

impl QueryClient {
    /// The daemon that `target` names, else the configured store.
    ///
    /// # Errors
    /// When the address is invalid, or the store cannot be reached.
    pub async fn connect(settings: &Settings, target: &Target) -> Result<Self, CliError> {
        if let Some(url) = &target.url {
            let url = Url::parse(url).map_err(CliError::Usage)?;
            return Ok(Self::Daemon(Box::new(DaemonClient::new(url, &target.credentials, &settings.http)?)));
        }
        let store = stores::open_once(settings).await;
        let store = store.map_err(|error| CliError::failed("failed to reach the store", error))?;
        Ok(Self::in_process(store, &settings.http))
    }

    /// The API over this store.
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
    /// The detail of an answer that is no 2xx: 400 is a usage error, 404 a negative answer.
    pub async fn get(&self, path: &str) -> Result<QueryResponse, CliError> {
        self.request("GET", path, String::new()).await
    }

    /// The answer to a GET, as JSON.
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
                QueryResponse::new(response, None)
            }
            Self::Daemon(daemon) => {
                let (response, exchange) = daemon.send(method, path, body).await?;
                QueryResponse::new(response.map(Body::new), Some(exchange))
            }
        };
        match response.status.as_u16() {
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
    fn new(response: Response<Body>, exchange: Option<Exchange>) -> Self {
        Self { status: response.status(), body: response.into_body(), trailers: HeaderMap::new(), exchange }
    }

    /// The next chunk of the body; `None` at its end.
    ///
    /// # Errors
    /// When it breaks off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CliError> {
        loop {
            let frame = next_frame(&mut self.body);
            let frame = match &mut self.exchange {
                Some(exchange) => exchange.drive(frame).await?,
                None => frame.await.map_err(|error| CliError::failed("failed to read the store", error))?,
            };
            match frame.map(Frame::into_data) {
                None => return Ok(None),
                Some(Ok(bytes)) => return Ok(Some(bytes)),
                Some(Err(frame)) => self.trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
    }

    /// The trailers, once the body has ended.
    pub fn trailers(&self) -> &HeaderMap {
        &self.trailers
    }

    /// The whole body as JSON.
    ///
    /// # Errors
    /// When it breaks off, or is no JSON.
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

async fn next_frame(body: &mut Body) -> Result<Option<Frame<Bytes>>, axum::Error> {
    poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await.transpose()
}

/// A value of a query, percent-encoded.
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, &QUERY_VALUE).to_string()
}
