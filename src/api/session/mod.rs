//! Sessions of people at a browser: kept in Redis under `<prefix>session:<id>`, so that every instance that has the same key
//! knows them.
//!
//! Trainers share our Redis, so nothing that is there is believed but for our signature ([`stored`]), with a key that never is
//! there ([`key`]). A session is of one token and ends with it: when its line is changed or taken out of the file. It also ends
//! 24 h after its last use, `http.session_lifetime` after it began, when it is signed out, when the same token begins more than
//! `http.sessions` of them, or when its key is deleted. What has ended stays so although a client of Redis writes the value back
//! ([`ledger`]). While Redis is away a session opens nothing, and the answer is 503.

mod cookie;
mod key;
mod ledger;
mod stored;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicI64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use axum::{
    Extension, Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::IntoResponse,
};
use fred::{
    clients::Client,
    interfaces::KeysInterface,
    types::{Expiration, SetOptions},
};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use tracing::warn;

pub use self::key::SessionKey;
use self::{
    ledger::{Entry, Ledger},
    stored::StoredSession,
};
use super::{
    ApiState, Config, Scope,
    audit::Refusal,
    client::ClientAddress,
    cors::is_trusted,
    error::{ApiError, ApiResult},
    tokens::{Token, TokenStore, constant_time_eq},
};
use crate::{
    redis::{Link, Resource, SMALL_VALUE, is_refusal},
    tls::{hex, random},
    units::{self, Micros},
};

/// How long a session lasts without being used.
const IDLE_TTL: Duration = Duration::from_secs(24 * 3_600);
/// How old the stored time of the last use may get.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is said that it cannot be stored.
const WARN_INTERVAL: Duration = Duration::from_secs(60);
/// How long Redis may take.
const REDIS_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the disk may.
const DISK_TIMEOUT: Duration = Duration::from_secs(1);
/// The header in which a page proves that a request is its own.
const CSRF_HEADER: &str = "x-csrf-token";

/// Where sessions are kept, and what they are signed with.
#[derive(Debug)]
pub struct Sessions {
    link: Link,
    prefix: String,
    key: SessionKey,
    lifetime: Duration,
    ledger: Arc<Mutex<Ledger>>,
    /// When it was last said that Redis takes no time of a last use.
    last_refresh_warning: AtomicI64,
    /// One after the other, so that the newest is what stays on disk.
    save_lock: Arc<tokio::sync::Mutex<()>>,
}

/// Somebody who is signed in.
#[derive(Clone, Debug)]
pub struct Session {
    /// The token that was given.
    pub token: Token,
    entry: Entry,
    expires: Micros,
    csrf: String,
}

fn micros(time: Duration) -> Micros {
    Micros::try_from(time.as_micros()).unwrap_or(Micros::MAX / 4)
}

fn redis_unavailable() -> ApiError {
    ApiError::unavailable("Redis does not answer, and sessions are kept there; use a token, or try again")
}

fn redis_denied() -> ApiError {
    ApiError::unavailable("Redis refuses to keep sessions, and the log says which permission is missing; use a token")
}

impl Sessions {
    /// Over this connection, under this key prefix.
    pub fn new(link: Link, key_prefix: &str, config: &Config, state_dir: &Path) -> Self {
        let key = SessionKey::load_or_create(config.session_key_file.as_deref(), state_dir);
        let lifetime = config.session_lifetime;
        let ledger = Arc::new(Mutex::new(Ledger::open(Some(state_dir), config.sessions, micros(lifetime))));
        ledger::watch(Arc::downgrade(&ledger));
        Self {
            link,
            prefix: format!("{key_prefix}session:"),
            key,
            lifetime,
            ledger,
            last_refresh_warning: AtomicI64::new(0),
            save_lock: Arc::default(),
        }
    }

    fn key(&self, id: &str) -> String {
        format!("{}{id}", self.prefix)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        ledger::lock(&self.ledger)
    }

    fn fingerprint(&self, token: &Token) -> String {
        stored::fingerprint(&self.key, token)
    }

    async fn with_timeout<T>(
        &self,
        question: impl Future<Output = Result<T, fred::error::Error>>,
    ) -> Result<T, ApiError> {
        timeout(REDIS_TIMEOUT, question).await.map_err(|_| redis_unavailable())?.map_err(|error| {
            // The missing permission is named in the log, and not to a client that has not signed in.
            self.link.acl().warn(&error, Resource::Key(&self.prefix));
            if is_refusal(&error) { redis_denied() } else { redis_unavailable() }
        })
    }

    async fn read(&self, id: &str) -> Result<Option<String>, ApiError> {
        let client = self.link.client().ok_or_else(redis_unavailable)?;
        self.with_timeout(self.link.read(&client, &self.key(id), SMALL_VALUE)).await
    }

    async fn write(&self, id: &str, value: &StoredSession) -> Result<(), ApiError> {
        let client = self.link.client().ok_or_else(redis_unavailable)?;
        self.with_timeout(self.set(&client, id, value, None)).await
    }

    /// Keeps the time of the last use, if Redis takes it.
    async fn refresh(&self, id: &str, value: &StoredSession) {
        let Some(client) = self.link.client() else { return };
        let error = match timeout(REDIS_TIMEOUT, self.set(&client, id, value, Some(SetOptions::XX))).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                self.link.acl().warn(&error, Resource::Key(&self.prefix));
                error.to_string()
            }
            Err(late) => late.to_string(),
        };
        let last = self.last_refresh_warning.load(Ordering::Relaxed);
        let due = value.used - last >= micros(WARN_INTERVAL);
        if due
            && self
                .last_refresh_warning
                .compare_exchange(last, value.used, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            warn!(
                error,
                "Redis does not take the time of a session's last use: sessions last as if they were not used"
            );
        }
    }

    async fn set(
        &self,
        client: &Client,
        id: &str,
        value: &StoredSession,
        only: Option<SetOptions>,
    ) -> Result<(), fred::error::Error> {
        let left = Duration::from_micros(u64::try_from(value.expires - value.used).unwrap_or(0)).min(IDLE_TTL);
        let expire = Some(Expiration::PX(i64::try_from(left.as_millis()).unwrap_or(1).max(1)));
        client.set::<(), _, _>(self.key(id), value.seal(&self.key, id), expire, only, false).await
    }

    /// A new session; also the cookie.
    async fn begin(&self, token: Token) -> Result<(Session, String), ApiError> {
        let (id, secret) = (hex(&random()), hex(&random()));
        let (now, fingerprint) = (units::now(), self.fingerprint(&token));
        let (issued, ended) = self.ledger().begin(&fingerprint, &id, now);
        self.save().await;
        let value = StoredSession {
            name: token.name.clone(),
            scope: token.scope.name().into(),
            token: fingerprint,
            secret: stored::secret(&self.key, &id, &secret),
            issued,
            expires: issued.saturating_add(micros(self.lifetime)),
            used: issued,
        };
        self.write(&id, &value).await?;
        for session in ended {
            // It has ended in any case; here its key does not wait to expire.
            let _ = self.delete(&session.id).await;
        }
        let cookie = format!("{id}.{secret}");
        let csrf = stored::csrf(&self.key, &id);
        Ok((Session { token, entry: Entry { issued, id }, expires: value.expires, csrf }, cookie))
    }

    /// The session that a request belongs to, if it is in force; being used, it lasts on.
    ///
    /// # Errors
    /// 503 while Redis cannot be asked.
    pub async fn find(&self, headers: &HeaderMap, keys: &TokenStore) -> Result<Option<Session>, ApiError> {
        let Some((id, secret)) = cookie::read(headers) else { return Ok(None) };
        let value = self.read(&id).await?;
        let Some(value) = value.and_then(|value| StoredSession::open(&value, &self.key, &id)) else { return Ok(None) };
        if !constant_time_eq(value.secret.as_bytes(), stored::secret(&self.key, &id, &secret).as_bytes()) {
            return Ok(None);
        }
        let now = units::now();
        let Some(token) = keys.find(|token| value.token == self.fingerprint(token)) else { return Ok(None) };
        let (entry, csrf) = (Entry { issued: value.issued, id: id.clone() }, stored::csrf(&self.key, &id));
        let session = Session { token, entry, expires: value.expires, csrf };
        if value.used.saturating_add(micros(IDLE_TTL)) <= now || !self.is_in_force(&session) {
            return Ok(None);
        }
        if now - value.used > micros(REFRESH_INTERVAL) {
            // Only where the key still is: a session that is signed out meanwhile stays out. A Redis that takes no writes (it is
            // full, or a replica) keeps nobody out: the session is in force until the time that is stored.
            self.refresh(&id, &StoredSession { used: now, ..value }).await;
        }
        Ok(Some(session))
    }

    /// Whether a session that was found has not ended since, as far as this process knows without Redis.
    pub fn is_in_force(&self, session: &Session) -> bool {
        session.expires > units::now() && !self.ledger().is_ended(&self.fingerprint(&session.token), &session.entry)
    }

    /// Ends the sessions of every token that is none of these.
    pub fn keep_only(&self, tokens: &[Token]) {
        let tokens: Vec<_> = tokens.iter().map(|token| self.fingerprint(token)).collect();
        self.ledger().keep_only(&tokens, units::now());
        let (done, wait) = mpsc::sync_channel(1);
        let (list, saving) = (Arc::clone(&self.ledger), Arc::clone(&self.save_lock));
        let saves = move || {
            let _one = saving.blocking_lock();
            ledger::save(&list);
            let _ = done.send(());
        };
        let started = thread::Builder::new().name("sessions".into()).spawn(saves);
        // Nobody waits for a disk that does not answer.
        if started.is_err() || wait.recv_timeout(DISK_TIMEOUT).is_err() {
            self.not_saved();
        }
    }

    fn not_saved(&self) {
        self.ledger().saved(None);
        warn!("the disk does not take the list of ended sessions; until it does, the list is of this process alone");
    }

    /// Keeps the ledger on disk. A disk that does not answer keeps nobody from signing in or out.
    async fn save(&self) {
        let saved = async {
            // Held until it is written, also when nobody waits any more: a disk that does not answer takes one thread.
            let one = Arc::clone(&self.save_lock).lock_owned().await;
            let list = Arc::clone(&self.ledger);
            let saves = move || {
                let _one = one;
                ledger::save(&list);
            };
            tokio::task::spawn_blocking(saves).await.is_ok()
        };
        if timeout(DISK_TIMEOUT, saved).await != Ok(true) {
            self.not_saved();
        }
    }

    async fn delete(&self, id: &str) -> Result<(), ApiError> {
        let client = self.link.client().ok_or_else(redis_unavailable)?;
        self.with_timeout(client.del::<(), _>(self.key(id))).await
    }

    async fn end(&self, session: &Session) -> Result<(), ApiError> {
        self.ledger().end(&self.fingerprint(&session.token), session.entry.clone(), units::now());
        self.save().await;
        self.delete(&session.entry.id).await
    }
}

impl Session {
    /// That a request which changes something comes from a page of ours, or of an origin that is listed.
    ///
    /// # Errors
    /// 403 when it does not prove it.
    pub fn verify_csrf(&self, headers: &HeaderMap, config: &Config) -> Result<(), ApiError> {
        let given =
            headers.get(CSRF_HEADER).is_some_and(|value| constant_time_eq(value.as_bytes(), self.csrf.as_bytes()));
        if given && is_trusted(config, headers) {
            return Ok(());
        }
        Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "the request does not prove that it comes from the dashboard (X-CSRF-Token)",
        ))
    }

    fn answer(&self) -> serde_json::Value {
        json!({ "name": self.token.name, "scope": self.token.scope.name(), "csrf": self.csrf, "sign_in": true })
    }
}

#[derive(Deserialize)]
struct SignInRequest {
    token: String,
}

/// `POST /api/session`
pub async fn sign_in(
    State(state): State<ApiState>,
    client: Option<Extension<ClientAddress>>,
    headers: HeaderMap,
    body: Bytes,
) -> ApiResult {
    let wrong = |_| ApiError::bad_request("the body must be {\"token\": \"...\"}");
    let request: SignInRequest = serde_json::from_slice(&body).map_err(wrong)?;
    if !state.token_store.has_tokens() {
        return Err(ApiError::bad_request("there are no tokens; see `http.tokens_file`"));
    }
    let client = client.map(|Extension(address)| address);
    let Some(token) = state.token_store.with_secret(request.token.trim()) else {
        return Err(state.token_store.wrong_token(client));
    };
    if token.scope == Scope::Publish {
        state.token_store.audit().refused(Refusal::Scope, Some(&token.name), client);
        let detail = format!("the token `{}` may only publish; there is nothing to sign in for", token.name);
        return Err(ApiError::new(StatusCode::FORBIDDEN, detail));
    }
    let (session, cookie) = state.token_store.sessions()?.begin(token).await?;
    state.token_store.audit().signed_in(&session.token.name, client);
    let answer = (StatusCode::CREATED, Json(session.answer())).into_response();
    Ok(cookie::set(answer, &headers, &cookie, i64::try_from(state.config.session_lifetime.as_secs()).unwrap_or(0)))
}

/// `GET /api/session`
pub async fn current(State(state): State<ApiState>, headers: HeaderMap) -> ApiResult {
    let session = match state.token_store.sessions() {
        Ok(sessions) if state.token_store.has_tokens() => sessions.find(&headers, &state.token_store).await?,
        _ => None,
    };
    let nobody = || json!({ "name": null, "scope": null, "csrf": null, "sign_in": state.token_store.has_tokens() });
    let keep = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(([keep], Json(session.map_or_else(nobody, |session| session.answer()))).into_response())
}

/// `DELETE /api/session`
pub async fn sign_out(State(state): State<ApiState>, headers: HeaderMap) -> ApiResult {
    let sessions = state.token_store.sessions()?;
    if let Some(session) = sessions.find(&headers, &state.token_store).await? {
        session.verify_csrf(&headers, &state.config)?;
        sessions.end(&session).await?;
        state.token_store.audit().signed_out(&session.token.name);
    }
    Ok(cookie::set(StatusCode::NO_CONTENT.into_response(), &headers, "", 0))
}
