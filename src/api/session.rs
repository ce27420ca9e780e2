//! Sessions of people at a browser: kept in Redis under `<prefix>session:<id>`, so that every instance knows them.
//!
//! The cookie is `<id>.<secret>`; Redis holds a digest of the secret, so that whoever can list its keys cannot take a session
//! over. What was found out at the sign-in (which token, which scope) is kept with it and holds for as long as the token is in
//! the file: a token that is taken out takes its sessions along. A session ends 24 h after its last use, when it is signed out,
//! or when its key is deleted. While Redis is away nobody is let in by a session, and nobody is sent away either: 503.

use std::time::Duration;

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use fred::{interfaces::KeysInterface, types::Expiration};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Config, Sight,
    cors::is_trusted,
    error::{Answer, ApiError},
    tokens::{Keyring, Token, same},
};
use crate::{
    redis::{Link, Resource, SMALL_VALUE, is_refusal},
    tls::{hex, sha256},
};

/// How long a session lasts without being used.
const LASTS: i64 = 24 * 3_600;
/// How long Redis may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// The cookie's name.
const COOKIE: &str = "cascor_session";
/// The header in which a page proves that a request is its own.
const CSRF: &str = "x-csrf-token";

/// Where sessions are kept.
#[derive(Clone, Debug)]
pub struct Sessions {
    link: Link,
    prefix: String,
}

/// What Redis holds of one.
#[derive(Debug, Deserialize, Serialize)]
struct Kept {
    name: String,
    scope: String,
    secret: String,
    token: String,
    csrf: String,
}

/// Somebody who is signed in.
#[derive(Debug)]
pub struct Session {
    /// The token that was given.
    pub token: Token,
    id: String,
    csrf: String,
}

/// From the system's own source of chance.
fn chance() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

fn away() -> ApiError {
    ApiError::unavailable("Redis does not answer, and sessions are kept there; use a token, or try again")
}

fn forbidden() -> ApiError {
    ApiError::unavailable("Redis refuses to keep sessions, and the log says which permission is missing; use a token")
}

impl Sessions {
    /// Over this connection, under this key prefix.
    pub fn new(link: Link, key_prefix: &str) -> Self {
        Self { link, prefix: format!("{key_prefix}session:") }
    }

    fn key(&self, id: &str) -> String {
        format!("{}{id}", self.prefix)
    }

    async fn ask<T>(&self, question: impl Future<Output = Result<T, fred::error::Error>>) -> Result<T, ApiError> {
        timeout(PATIENCE, question).await.map_err(|_| away())?.map_err(|error| {
            // The missing permission is named in the log, and not to a client that has not signed in.
            self.link.acl().warn(&error, Resource::Key(&self.prefix));
            if is_refusal(&error) { forbidden() } else { away() }
        })
    }

    /// A new session; also the cookie.
    async fn begin(&self, token: Token) -> Result<(Session, String), ApiError> {
        let (id, secret, csrf) = (chance(), chance(), chance());
        let kept = Kept {
            name: token.name.clone(),
            scope: token.scope.name().into(),
            secret: hex(&sha256(secret.as_bytes())),
            token: hex(&token.digest),
            csrf: csrf.clone(),
        };
        let text = serde_json::to_string(&kept).expect("strings always serialise");
        let client = self.link.client().ok_or_else(away)?;
        let set = client.set::<(), _, _>(self.key(&id), text, Some(Expiration::EX(LASTS)), None, false);
        self.ask(set).await?;
        let cookie = format!("{id}.{secret}");
        Ok((Session { token, id, csrf }, cookie))
    }

    /// The session that a request belongs to, if it is in force; being used, it lasts on.
    ///
    /// # Errors
    /// 503 while Redis cannot be asked.
    pub async fn find(&self, headers: &HeaderMap, keys: &Keyring) -> Result<Option<Session>, ApiError> {
        let Some((id, secret)) = cookie(headers) else { return Ok(None) };
        let client = self.link.client().ok_or_else(away)?;
        let text = self.ask(self.link.read(&client, &self.key(&id), SMALL_VALUE)).await?;
        // Others may write to these keys: what is no session is none.
        let Some(kept) = text.and_then(|text| serde_json::from_str::<Kept>(&text).ok()) else { return Ok(None) };
        if !same(kept.secret.as_bytes(), hex(&sha256(secret.as_bytes())).as_bytes()) {
            return Ok(None);
        }
        let Some(token) = keys.with_hex(&kept.token) else { return Ok(None) };
        self.ask(client.expire::<(), _>(self.key(&id), LASTS, None)).await?;
        Ok(Some(Session { token, id, csrf: kept.csrf }))
    }

    async fn end(&self, session: &Session) -> Result<(), ApiError> {
        let client = self.link.client().ok_or_else(away)?;
        self.ask(client.del::<(), _>(self.key(&session.id))).await
    }
}

impl Session {
    /// That a request which changes something comes from a page of ours, or of an origin that is listed.
    ///
    /// # Errors
    /// 403 when it does not prove it.
    pub fn prove(&self, headers: &HeaderMap, config: &Config) -> Result<(), ApiError> {
        let given = headers.get(CSRF).is_some_and(|value| same(value.as_bytes(), self.csrf.as_bytes()));
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

/// Id and secret of the cookie; the id is part of a key, and looks like one of ours.
fn cookie(headers: &HeaderMap) -> Option<(String, String)> {
    let plain = |text: &str| (32..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('=')?.split_once('.'))
        .find(|(id, secret)| plain(id) && plain(secret))
        .map(|(id, secret)| (id.to_owned(), secret.to_owned()))
}

fn with_cookie(mut response: Response, value: &str, seconds: i64) -> Response {
    let text = format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict");
    response.headers_mut().extend(HeaderValue::try_from(text).map(|text| (header::SET_COOKIE, text)));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[derive(Deserialize)]
struct Given {
    token: String,
}

/// `POST /api/session`
pub async fn sign_in(State(sight): State<Sight>, body: Bytes) -> Answer {
    let wrong = |_| ApiError::bad("the body must be {\"token\": \"...\"}");
    let given: Given = serde_json::from_slice(&body).map_err(wrong)?;
    if !sight.keys.is_used() {
        return Err(ApiError::bad("there are no tokens; see `http.tokens_file`"));
    }
    let token = sight.keys.admit(given.token.trim())?;
    let (session, cookie) = sight.keys.sessions()?.begin(token).await?;
    let answer = (StatusCode::CREATED, Json(session.answer())).into_response();
    Ok(with_cookie(answer, &cookie, LASTS))
}

/// `GET /api/session`
pub async fn who(State(sight): State<Sight>, headers: HeaderMap) -> Answer {
    let session = match sight.keys.sessions() {
        Ok(sessions) if sight.keys.is_used() => sessions.find(&headers, &sight.keys).await?,
        _ => None,
    };
    let nobody = || json!({ "name": null, "scope": null, "csrf": null, "sign_in": sight.keys.is_used() });
    let keep = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(([keep], Json(session.map_or_else(nobody, |session| session.answer()))).into_response())
}

/// `DELETE /api/session`
pub async fn sign_out(State(sight): State<Sight>, headers: HeaderMap) -> Answer {
    let sessions = sight.keys.sessions()?;
    if let Some(session) = sessions.find(&headers, &sight.keys).await? {
        session.prove(&headers, &sight.config)?;
        sessions.end(&session).await?;
    }
    Ok(with_cookie(StatusCode::NO_CONTENT.into_response(), "", 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_our_cookie_becomes_a_key() {
        let (id, secret) = (chance(), chance());
        let read = |text: String| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, text.parse().unwrap());
            cookie(&headers)
        };
        assert_eq!(read(format!("a=b; {COOKIE}={id}.{secret}; c=d")), Some((id.clone(), secret.clone())));
        for wrong in [
            format!("{COOKIE}={id}"),
            format!("{COOKIE}=*.{secret}"),
            format!("x{COOKIE}={id}.{secret}"),
            format!("{COOKIE}=.{secret}"),
        ] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
    }
}
