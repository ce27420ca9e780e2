//! The caller of a request.

use super::{session::Session, token::Token, token_store::TokenStore};
use crate::frame::SOURCE_HTTP;

/// The token or session of a request, as an extension of it.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The token of the request or of its session; absent: admitted without a token.
    pub token: Option<Token>,
    /// Its session.
    pub session: Option<Session>,
}

impl Caller {
    /// The source in `control_log`; messages from Redis never have such a source.
    pub fn source(&self) -> String {
        self.token.as_ref().map_or_else(|| SOURCE_HTTP.to_owned(), |token| format!("{SOURCE_HTTP}:{}", token.name))
    }

    /// The name of its token.
    pub fn name(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.name.as_str())
    }

    /// Whether its token and session are still in force, as far as is known without Redis.
    pub fn is_in_force(&self, keys: &TokenStore) -> bool {
        let session = |session| keys.sessions().is_ok_and(|sessions| sessions.is_in_force(session));
        self.token.as_ref().is_none_or(|token| keys.has(token)) && self.session.as_ref().is_none_or(session)
    }
}
