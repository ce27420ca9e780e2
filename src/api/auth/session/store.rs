//! Where sessions are kept: in Redis, signed; what has ended is in the ledger.

use std::{
    path::Path,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use axum::http::HeaderMap;
use fred::{
    clients::Client,
    interfaces::KeysInterface,
    types::{Expiration, SetOptions},
};
use tokio::time::timeout;
use tracing::warn;

use super::{
    active::Session,
    cookie,
    key::SessionKey,
    ledger::Entry,
    shared_ledger::SharedLedger,
    stored::{self, StoredSession},
};
use crate::{
    api::{
        auth::token::{Token, constant_time_eq},
        config::Config,
        error::ApiError,
    },
    redis::{Link, Resource, SMALL_VALUE, is_refusal},
    tls::{hex, random},
    units::{self, Micros},
};

/// How long a session lasts without being used.
const IDLE_TTL: Duration = Duration::from_secs(24 * 3_600);
/// Maximum age of the stored time of last use.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// Interval of the warning that Redis does not store it.
const WARN_INTERVAL: Duration = Duration::from_secs(60);
/// How long Redis may take.
const REDIS_TIMEOUT: Duration = Duration::from_millis(500);

/// Where sessions are kept, and what they are signed with.
#[derive(Debug)]
pub struct Sessions {
    link: Link,
    /// Whether this server speaks TLS.
    tls: bool,
    prefix: String,
    key: SessionKey,
    lifetime: Duration,
    ledger: SharedLedger,
    /// When a failure to store a time of last use was last logged.
    last_refresh_warning: AtomicI64,
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
        let ledger = SharedLedger::open(state_dir, config.sessions, micros(lifetime));
        Self {
            link,
            tls: config.tls.files().is_some(),
            prefix: format!("{key_prefix}session:"),
            key,
            lifetime,
            ledger,
            last_refresh_warning: AtomicI64::new(0),
        }
    }

    fn key(&self, id: &str) -> String {
        format!("{}{id}", self.prefix)
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

    /// Stores the time of last use; a failure is logged, and otherwise ignored.
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

    /// Begins a session. Returns it, and the value of its cookie.
    ///
    /// # Errors
    /// 503 while Redis cannot be asked.
    pub async fn begin(&self, token: Token) -> Result<(Session, String), ApiError> {
        let (id, secret) = (hex(&random()), hex(&random()));
        let (now, fingerprint) = (units::now(), self.fingerprint(&token));
        let (issued, ended) = self.ledger.lock().begin(&fingerprint, &id, now);
        self.ledger.save().await;
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
            // The ledger has ended it already; deleting the key frees its memory now.
            let _ = self.delete(&session.id).await;
        }
        let cookie = format!("{id}.{secret}");
        let csrf = stored::csrf(&self.key, &id);
        Ok((Session { token, entry: Entry { issued, id }, expires: value.expires, csrf }, cookie))
    }

    /// The session of a request, if it is in force; its time of last use is refreshed.
    ///
    /// # Errors
    /// 503 while Redis cannot be asked.
    pub async fn find(&self, headers: &HeaderMap, tokens: &[Token]) -> Result<Option<Session>, ApiError> {
        let Some((id, secret)) = cookie::read(headers, self.tls) else { return Ok(None) };
        let value = self.read(&id).await?;
        let Some(value) = value.and_then(|value| StoredSession::open(&value, &self.key, &id)) else { return Ok(None) };
        if !constant_time_eq(value.secret.as_bytes(), stored::secret(&self.key, &id, &secret).as_bytes()) {
            return Ok(None);
        }
        let now = units::now();
        let Some(token) = tokens.iter().find(|token| value.token == self.fingerprint(token)).cloned() else {
            return Ok(None);
        };
        let (entry, csrf) = (Entry { issued: value.issued, id: id.clone() }, stored::csrf(&self.key, &id));
        let session = Session { token, entry, expires: value.expires, csrf };
        if value.used.saturating_add(micros(IDLE_TTL)) <= now || !self.is_in_force(&session) {
            return Ok(None);
        }
        if now - value.used > micros(REFRESH_INTERVAL) {
            // Only if the key still exists, so that a session signed out meanwhile stays out. If Redis takes no writes (it is full,
            // or a replica), the session stays in force as stored.
            self.refresh(&id, &StoredSession { used: now, ..value }).await;
        }
        Ok(Some(session))
    }

    /// Whether a session is still in force, as far as this process knows without Redis.
    pub fn is_in_force(&self, session: &Session) -> bool {
        session.expires > units::now()
            && !self.ledger.lock().is_ended(&self.fingerprint(&session.token), &session.entry)
    }

    /// Ends the sessions of all other tokens.
    pub fn keep_only(&self, tokens: &[Token]) {
        let tokens: Vec<_> = tokens.iter().map(|token| self.fingerprint(token)).collect();
        self.ledger.lock().keep_only(&tokens, units::now());
        self.ledger.save_blocking();
    }

    async fn delete(&self, id: &str) -> Result<(), ApiError> {
        let client = self.link.client().ok_or_else(redis_unavailable)?;
        self.with_timeout(client.del::<(), _>(self.key(id))).await
    }

    /// Signs a session out.
    ///
    /// # Errors
    /// 503 while Redis cannot be asked.
    pub async fn end(&self, session: &Session) -> Result<(), ApiError> {
        self.ledger.lock().end(&self.fingerprint(&session.token), session.entry.clone(), units::now());
        self.ledger.save().await;
        self.delete(&session.entry.id).await
    }
}
