//! The check of a request's token or session against the scope of its route.
//!
//! A token of `http.tokens_file` opens what its scope allows, from anywhere; so does a session that was
//! opened with one, and then a request that changes something must prove that it comes from the dashboard. Without either, the
//! [`AccessPolicy`] decides.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode, header};

use super::{
    audit::Refusal, caller::Caller, origin::target, policy::AccessPolicy, scope::Scope, token::Token,
    token_store::TokenStore,
};
use crate::api::{config::Config, error::ApiError};

/// What the check needs.
#[derive(Clone)]
pub struct Authenticator {
    /// The rule for requests without a token.
    pub policy: AccessPolicy,
    /// Hosts and origins.
    pub config: Arc<Config>,
    /// Tokens and sessions.
    pub token_store: Arc<TokenStore>,
}

/// A refused request.
pub struct Refused {
    /// The answer.
    pub error: ApiError,
    /// The reason, for the audit.
    pub why: Refusal,
    /// Name of its token.
    pub name: Option<String>,
}

impl Refused {
    fn new(why: Refusal, error: ApiError) -> Self {
        Self { error, why, name: None }
    }

    /// Of a request with a valid token that is not enough.
    fn for_token(token: &Token, why: Refusal) -> impl FnOnce(ApiError) -> Self {
        let name = Some(token.name.clone());
        move |error| Self { error, why, name }
    }
}

impl Authenticator {
    /// The caller of an admitted request. `Err` with 503: the session cannot be looked up now.
    pub async fn check(&self, scope: Scope, headers: &HeaderMap) -> Result<Caller, Refused> {
        if scope == Scope::Open || self.policy == AccessPolicy::Internal {
            return Ok(Caller::default());
        }
        target::check_trusted(&self.config, headers).map_err(|error| Refused::new(Refusal::Origin, error))?;
        // Without configured tokens, a token that is sent is ignored.
        let tokens = self.token_store.has_tokens();
        let wrong = |error| Refused::new(Refusal::WrongToken, error);
        if tokens && let Some(token) = self.token_store.bearer(headers).map_err(wrong)? {
            if scope != Scope::SignIn {
                require_scope(&token, scope).map_err(Refused::for_token(&token, Refusal::Scope))?;
            }
            return Ok(Caller { token: Some(token), session: None });
        }
        let refused = match self.policy.without_token(scope, tokens, headers, &self.config) {
            Ok(()) => return Ok(Caller::default()),
            Err(refused) => refused,
        };
        let why = if refused.status() == StatusCode::FORBIDDEN { Refusal::Origin } else { Refusal::Anonymous };
        // Redis is asked only where it decides.
        let unknown = |error| Refused::new(Refusal::Anonymous, error);
        if tokens
            && scope != Scope::SignIn
            && let Some(session) = self.token_store.find_session(headers).await.map_err(unknown)?
        {
            let token = session.token.clone();
            require_scope(&token, scope).map_err(Refused::for_token(&token, Refusal::Scope))?;
            if scope != Scope::Read {
                session.verify_csrf(headers, &self.config).map_err(Refused::for_token(&token, Refusal::Origin))?;
            }
            return Ok(Caller { token: Some(token), session: Some(session) });
        }
        Err(Refused::new(why, refused))
    }

    /// Whether a request carries a token that is in force; with `sessions` (which asks Redis) or a session.
    pub async fn is_authenticated(&self, headers: &HeaderMap, sessions: bool) -> bool {
        if !self.token_store.has_tokens() {
            return false;
        }
        if headers.contains_key(header::AUTHORIZATION) {
            return self.token_store.bearer(headers).is_ok_and(|token| token.is_some());
        }
        sessions && self.token_store.find_session(headers).await.is_ok_and(|session| session.is_some())
    }
}

fn require_scope(token: &Token, scope: Scope) -> Result<(), ApiError> {
    if token.scope == scope || token.scope == Scope::Admin {
        return Ok(());
    }
    let only = if token.scope == Scope::Publish { "publish" } else { "read" };
    let detail = format!("the token `{}` may only {only}", token.name);
    Err(ApiError::new(StatusCode::FORBIDDEN, detail))
}
