//! Queries, by the HTTP API: of a daemon with `--url`, else of the API's router within this process, on the configured store.

mod credentials;
mod remote;
#[cfg(test)]
mod tests;

use std::{future::poll_fn, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Request, Response, StatusCode, header},
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
use self::remote::{DaemonClient, Exchange};
use super::CliError;
use crate::{
    access,
    api::{self, AccessPolicy, ApiState, Submitter},
    app::stores,
    config::{Settings, Url},
    live::LiveFeed,
    memory::MemoryLimit,
    metrics::Metrics,
    store::{Store, StoreKind},
    tls::ServerTls,
};

/// What is escaped in a value of a query.
const QUERY_VALUE: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b':');

/// The details of answers about a run that does not exist, as clients know them.
const NO_SUCH_RUN: [&str; 2] = ["Run not found", "Invalid UUID"];

/// Where a query goes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Target {
    /// Ask the daemon at http://host:port or https://host, and no store, Redis or directory; absent: the one of `client.url`, or
    /// the one that listens at `http.listen` where this user may not use its files; empty: none.
    #[arg(long, value_name = "URL", env = "CASCOR_INGEST_URL")]
    pub url: Option<String>,
    #[command(flatten)]
    pub credentials: Credentials,
}

impl Target {
    /// The client of the daemon that is to be asked, if one is.
    ///
    /// # Errors
    /// When the address is invalid, when credentials are given without one, or when they cannot be used.
    pub fn daemon(&self, settings: &Settings) -> Result<Option<QueryClient>, CliError> {
        let url = self.url.as_ref().unwrap_or(&settings.client.url);
        if !url.is_empty() {
            let url = Url::parse(url).map_err(CliError::Usage)?;
            return Ok(Some(QueryClient::Daemon(Box::new(DaemonClient::new(url, &self.credentials, settings)?))));
        }
        match self.credentials.first_flag() {
            None => Ok(None),
            Some(flag) => Err(CliError::Usage(format!(
                "{flag} has no effect: no daemon is asked; name one by --url, CASCOR_INGEST_URL or `client.url`"
            ))),
        }
    }
}

/// The API that answers queries.
pub enum QueryClient {
    /// The API over the store, within this process.
    InProcess(Box<Router>),
    /// A daemon.
    Daemon(Box<DaemonClient>),
}

/// What became of messages.
pub struct Published {
    /// 200, 413 or 503.
    pub status: u16,
    /// When to try again what was not taken.
    pub retry_after: Duration,
    /// The body of the answer; null if it is no JSON.
    pub answer: Value,
}

/// An answer that arrives chunk by chunk.
pub struct QueryResponse {
    status: StatusCode,
    headers: HeaderMap,
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
        if let Some(daemon) = target.daemon(settings)? {
            return Ok(daemon);
        }
        let sqlite = &settings.store.sqlite.path;
        if settings.store.kind == StoreKind::Sqlite
            && let Some(problem) = access::problem(sqlite)
        {
            return Err(CliError::NegativeAnswer(problem));
        }
        if settings.store.kind == StoreKind::Sqlite && !sqlite.exists() {
            return Err(CliError::NegativeAnswer(format!(
                "there is no database `{}`: the daemon makes it when it is first started; if it is elsewhere, name its \
                 --state-dir",
                sqlite.display()
            )));
        }
        let store = stores::open_once(settings).await;
        let store = store.map_err(|error| CliError::failed("failed to reach the store", error))?;
        Ok(Self::in_process(store, settings))
    }

    /// The API over this store.
    pub fn in_process(store: Arc<dyn Store>, settings: &Settings) -> Self {
        let (metrics, limits) = (Metrics::new(), &settings.http);
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
            process: api::ProcessAuthor { instance: settings.instance.clone(), user: Some(user_name()) },
            exports: Arc::new(Semaphore::new(1)),
            reserved: api::Reserved::default(),
            pages: Arc::default(),
            missing_messages: Arc::default(),
            live: LiveFeed::new(0, 0),
            certificate: Arc::new(api::Certificate::new(&ServerTls::default(), Arc::clone(&metrics))),
            token_store: Arc::new(api::TokenStore::new(None, metrics)),
            memory: api::MemoryBudget::new(limits.memory, MemoryLimit::default()),
            compressions: Arc::new(Semaphore::new(0)),
        };
        Self::InProcess(Box::new(api::router(state)))
    }

    /// The answer to a GET.
    ///
    /// # Errors
    /// The detail of an answer that is no 2xx: 400 is a usage error, 404 and 409 are negative answers.
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

    /// The answer to a GET that names a run; `None` when there is no such run.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn find(&self, path: &str) -> Result<Option<Value>, CliError> {
        match self.get(path).await {
            Ok(response) => response.json().await.map(Some),
            Err(CliError::NegativeAnswer(detail) | CliError::Usage(detail)) if NO_SUCH_RUN.contains(&&*detail) => {
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// The answer to a POST.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        self.request("POST", path, body.to_string()).await?.json().await
    }

    /// The answer to a PATCH.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        self.request("PATCH", path, body.to_string()).await?.json().await
    }

    /// The answer to a DELETE.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn delete(&self, path: &str) -> Result<Value, CliError> {
        self.request("DELETE", path, String::new()).await?.json().await
    }

    /// Sends messages, one a line.
    ///
    /// # Errors
    /// As [`get`](Self::get), but for an answer that some are not taken (503 with a time to try again) or are too much at once (413).
    pub async fn publish(&self, messages: String) -> Result<Published, CliError> {
        let response = self.send("POST", api::MESSAGES_PATH, messages).await?;
        let status = response.status.as_u16();
        let retry_after = response.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = retry_after.map(Duration::from_secs);
        let body = response.bytes().await?;
        match (status, retry_after) {
            (200 | 413, _) | (503, Some(_)) => {
                let answer = serde_json::from_slice(&body).unwrap_or_default();
                Ok(Published { status, retry_after: retry_after.unwrap_or_default(), answer })
            }
            _ => Err(self.failure("POST", status, &body)),
        }
    }

    async fn request(&self, method: &str, path: &str, body: String) -> Result<QueryResponse, CliError> {
        let response = self.send(method, path, body).await?;
        match response.status.as_u16() {
            200..=299 => Ok(response),
            status => Err(self.failure(method, status, &response.bytes().await.unwrap_or_default())),
        }
    }

    /// The error of an answer with this status.
    fn failure(&self, method: &str, status: u16, body: &[u8]) -> CliError {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let detail = match (answer["detail"].as_str(), self) {
            (Some(detail), _) => detail.to_owned(),
            (None, Self::Daemon(daemon)) if daemon.wants_tls(status, body) => {
                format!("the server expects TLS; the address is probably https://{}", daemon.authority())
            }
            _ => format!("the answer is {status}"),
        };
        match status {
            400 => CliError::Usage(detail),
            404 | 409 => CliError::NegativeAnswer(detail),
            401 => {
                let problem = if let Self::Daemon(daemon) = self { daemon.tokens_problem() } else { None };
                CliError::failed(
                    "the daemon wants a token that it knows (--token-file, or the variable CASCOR_INGEST_TOKEN)",
                    problem.map_or(detail, str::to_owned),
                )
            }
            _ if method == "GET" => CliError::failed("failed to read", detail),
            _ => CliError::failed("failed to change", detail),
        }
    }

    async fn send(&self, method: &str, path: &str, body: String) -> Result<QueryResponse, CliError> {
        Ok(match self {
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
        })
    }
}

impl QueryResponse {
    fn new(response: Response<Body>, exchange: Option<Exchange>) -> Self {
        let (head, body) = response.into_parts();
        Self { status: head.status, headers: head.headers, body, trailers: HeaderMap::new(), exchange }
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

/// The user of this command: the name of the login session, else that of the user's number.
fn user_name() -> String {
    let named =
        ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let uid = rustix::process::getuid().as_raw();
    named.or_else(|| access::login_name(uid)).unwrap_or_else(|| format!("uid {uid}"))
}

/// A value of a query, or a part of a path, percent-encoded.
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, &QUERY_VALUE).to_string()
}
