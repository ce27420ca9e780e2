//! The tokens in force. They come from a file, are kept as digests, and are compared in constant time.
//!
//! A line of the file is `name scope token`: a name for people, `read`, `publish` or `admin`, and the secret. Empty lines and lines
//! that begin with `#` are skipped. An error names the line, never its content.
//!
//! A configured file fails closed: a file without a valid line stops the start; while running, the previous tokens stay in force
//! until it is repaired, with an error in the log, in the status and in `/metrics`.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use axum::http::{HeaderMap, StatusCode, header};

use super::{
    audit::{Audit, Refusal},
    client_address::ClientAddress,
    scope::Scope,
    session::{Session, Sessions},
    throttle::Throttle,
    token::{Token, constant_time_eq},
    token_file::{TokensError, read},
};
use crate::{api::error::ApiError, metrics::Metrics, tls::sha256};

/// How many tokens there are of each scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs, reason = "the scopes, by name")]
pub struct Counts {
    pub read: usize,
    pub publish: usize,
    pub admin: usize,
}

/// Configured tokens and active sessions.
#[derive(Debug)]
pub struct TokenStore {
    loaded: RwLock<Loaded>,
    sessions: Option<Sessions>,
    failures: Throttle,
    audit: Audit,
}

/// The result of loading the file.
#[derive(Debug, Default)]
struct Loaded {
    tokens: Arc<Vec<Token>>,
    /// The file in force; until one could be read, the first that was configured.
    file: Option<PathBuf>,
    /// Why the last load failed, which left the tokens as they were.
    problem: Option<String>,
}

impl TokenStore {
    /// Without tokens.
    pub fn new(sessions: Option<Sessions>, metrics: Arc<Metrics>) -> Self {
        Self { loaded: RwLock::default(), sessions, failures: Throttle::default(), audit: Audit::new(metrics) }
    }

    /// Replaces the tokens by those of a file, and returns how many there are. Without a file there are none; once one was
    /// configured, doing without it needs a restart.
    ///
    /// # Errors
    /// As [`read`]; the previous tokens stay, and [`problem`](Self::problem) says why.
    pub fn load(&self, path: Option<&Path>) -> Result<Counts, TokensError> {
        let before = self.loaded().file.clone();
        if before.is_none() {
            // The file guards from now on, even if it cannot be read: no valid token is safer than no token needed.
            self.loaded_mut().file = path.map(Path::to_owned);
        }
        let read = match (path, before) {
            (Some(path), _) => read(path),
            (None, Some(path)) => Err(TokensError::Unset { path }),
            (None, None) => Ok(Vec::new()),
        };
        let problem = read.as_ref().err().map(ToString::to_string);
        self.audit.metrics().api_tokens_outdated.set(i64::from(problem.is_some()));
        self.loaded_mut().problem = problem;
        let tokens = read?;
        if let Some(sessions) = &self.sessions {
            sessions.keep_only(&tokens);
        }
        *self.loaded_mut() = Loaded { tokens: Arc::new(tokens), file: path.map(Path::to_owned), problem: None };
        let counts = self.counts();
        for (scope, n) in [(Scope::Read, counts.read), (Scope::Publish, counts.publish), (Scope::Admin, counts.admin)] {
            self.audit.metrics().api_tokens.of(scope.name()).set(i64::try_from(n).unwrap_or(i64::MAX));
        }
        Ok(counts)
    }

    /// Reloads the file in force, even when the rest of the configuration is invalid: a removed token must not stay valid.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn reload(&self) -> Result<Counts, TokensError> {
        let path = self.loaded().file.clone();
        self.load(path.as_deref())
    }

    /// Why the last load failed, if it did.
    pub fn problem(&self) -> Option<String> {
        self.loaded().problem.clone()
    }

    /// How many tokens are in force.
    pub fn counts(&self) -> Counts {
        let tokens = self.tokens();
        let of = |scope| tokens.iter().filter(|token| token.scope == scope).count();
        Counts { read: of(Scope::Read), publish: of(Scope::Publish), admin: of(Scope::Admin) }
    }

    fn tokens(&self) -> Arc<Vec<Token>> {
        Arc::clone(&self.loaded().tokens)
    }

    fn loaded(&self) -> RwLockReadGuard<'_, Loaded> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn loaded_mut(&self) -> RwLockWriteGuard<'_, Loaded> {
        self.loaded.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether tokens are configured, even if their file cannot be read and none is valid.
    pub fn has_tokens(&self) -> bool {
        self.loaded().file.is_some()
    }

    /// Whether this very token is in force.
    pub fn has(&self, token: &Token) -> bool {
        self.tokens().contains(token)
    }

    /// The token of this secret. Compares with all of them, so that the time tells nothing.
    pub fn with_secret(&self, secret: &str) -> Option<Token> {
        let digest = sha256(secret.as_bytes());
        self.tokens().iter().fold(None, |found, token| {
            if constant_time_eq(&token.digest, &digest) { Some(token.clone()) } else { found }
        })
    }

    /// The token in a request.
    ///
    /// # Errors
    /// 401 when the token is unknown.
    pub fn bearer(&self, headers: &HeaderMap) -> Result<Option<Token>, ApiError> {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
        let words = value.to_str().ok().and_then(|text| text.split_once(' '));
        let secret = words.filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer")).map(|(_, secret)| secret.trim());
        secret.and_then(|secret| self.with_secret(secret)).map(Some).ok_or_else(unknown_token)
    }

    /// Counts a wrong token against its address, and returns the answer: 401, or 429 after too many.
    pub fn wrong_token(&self, client: Option<ClientAddress>) -> ApiError {
        let address = client.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ClientAddress(address)| address);
        match self.failures.take(address) {
            Ok(()) => {
                self.audit.refused(Refusal::WrongToken, None, client);
                unknown_token()
            }
            Err(wait) => {
                self.audit.refused(Refusal::Throttled, None, client);
                let seconds = wait.as_secs() + 1;
                let detail = format!("too many wrong tokens from this address; try again in {seconds} s");
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, detail).with_retry_after(seconds)
            }
        }
    }

    /// The sessions.
    ///
    /// # Errors
    /// 503 in a process without Redis.
    pub fn sessions(&self) -> Result<&Sessions, ApiError> {
        self.sessions.as_ref().ok_or_else(|| ApiError::unavailable("there are no sessions without Redis"))
    }

    /// The session of a request, if it is in force.
    ///
    /// # Errors
    /// 503 without Redis, or while it cannot be asked.
    pub async fn find_session(&self, headers: &HeaderMap) -> Result<Option<Session>, ApiError> {
        self.sessions()?.find(headers, &self.tokens()).await
    }

    /// The audit.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }
}

fn unknown_token() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "the token is not one of `http.tokens_file`")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::api::auth::{token_file::tests::file, token_store::*};

    fn token_store() -> TokenStore {
        TokenStore::new(None, Metrics::new())
    }

    #[test]
    fn a_line_is_a_name_a_scope_and_a_secret() {
        let (_dir, path) = file(
            "# ours\n\nann admin 0123456789abcdef\n bob\tread   fedcba9876543210 \neve publish 00112233445566778\n",
        );
        let store = token_store();
        assert!(!store.has_tokens());
        assert_eq!(store.load(Some(&path)).unwrap(), Counts { read: 1, publish: 1, admin: 1 });
        let of = |secret: &str| store.with_secret(secret).map(|token| (token.name, token.scope));
        assert_eq!(of("0123456789abcdef"), Some(("ann".into(), Scope::Admin)));
        assert_eq!(of("fedcba9876543210"), Some(("bob".into(), Scope::Read)));
        assert_eq!((of("0123456789abcde"), of("")), (None, None));
        assert!(!format!("{store:?}").contains("0123456789abcdef"));
        assert!(token_store().load(None).is_ok(), "none is configured");
    }

    #[test]
    fn an_unusable_file_leaves_the_tokens_as_they_are_and_is_reported() {
        let (_dir, path) = file("ann admin 0123456789abcdef");
        let store = token_store();
        store.load(Some(&path)).unwrap();
        assert_eq!(store.problem(), None);
        for (text, why) in [("nonsense", "line 1"), ("", "no token"), ("# ann admin 0123456789abcdef\n\n", "no token")]
        {
            fs::write(&path, text).unwrap();
            for loaded in [store.load(Some(&path)), store.reload()] {
                assert!(loaded.unwrap_err().to_string().contains(why), "{text:?}");
            }
            assert!(store.problem().unwrap().contains(why), "{text:?}");
            assert_eq!(store.audit().metrics().api_tokens_outdated.get(), 1);
            assert!(store.with_secret("0123456789abcdef").is_some());
        }
        fs::remove_file(&path).unwrap();
        assert!(store.reload().is_err() && store.load(None).is_err(), "gone, or not configured any more");
        assert!(store.with_secret("0123456789abcdef").is_some());
        fs::write(&path, "bob read fedcba9876543210").unwrap();
        assert_eq!(store.reload().unwrap(), Counts { read: 1, ..Counts::default() });
        assert!(store.with_secret("0123456789abcdef").is_none() && store.problem().is_none());
        assert_eq!(store.audit().metrics().api_tokens_outdated.get(), 0);
    }

    #[test]
    fn a_configured_file_without_a_valid_line_fails_closed() {
        for text in [Some("nonsense"), Some(""), None] {
            let (_dir, path) = file("");
            text.map_or_else(|| fs::remove_file(&path), |text| fs::write(&path, text)).unwrap();
            let store = token_store();
            assert!(store.load(Some(&path)).is_err());
            assert!(store.has_tokens() && store.counts() == Counts::default(), "{text:?}");
            assert!(store.load(None).is_err() && store.has_tokens(), "taken out of the configuration");
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, "Bearer 0123456789abcdef".parse().unwrap())]);
            assert!(store.bearer(&headers).is_err());
            fs::write(&path, "ann admin 0123456789abcdef").unwrap();
            assert!(store.reload().is_ok() && store.bearer(&headers).is_ok(), "mended");
        }
        assert!(!token_store().has_tokens());
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_is_answered_with_429_and_does_not_lock_out_valid_tokens() {
        let (_dir, path) = file("ann admin 0123456789abcdef");
        let store = token_store();
        store.load(Some(&path)).unwrap();
        let guess = |last: u8| {
            let client = Some(ClientAddress(Ipv4Addr::new(10, 0, 0, last).into()));
            axum::response::IntoResponse::into_response(store.wrong_token(client)).status()
        };
        let answers: Vec<_> = (0..30).map(|_| guess(1)).collect();
        assert_eq!(answers.iter().filter(|status| **status == StatusCode::UNAUTHORIZED).count(), 20);
        assert_eq!(answers[29], StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(guess(2), StatusCode::UNAUTHORIZED, "another address");
        assert!(store.with_secret("0123456789abcdef").is_some());
    }
}
