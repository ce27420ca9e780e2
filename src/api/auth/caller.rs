//! Who makes a request.

use super::{session::Session, token::Token, token_store::TokenStore};
use crate::frame::SOURCE_HTTP;

/// The token or session of a request, as an extension of it.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The token that it brings, or that its session is of; absent: it was let in without.
    pub token: Option<Token>,
    /// Its session.
    pub session: Option<Session>,
}

impl Caller {
    /// As `control_log` names it. Nothing that comes by Redis has such a name.
    pub fn source(&self) -> String {
        self.token.as_ref().map_or_else(|| SOURCE_HTTP.to_owned(), |token| format!("{SOURCE_HTTP}:{}", token.name))
    }

    /// The name of its token.
    pub fn name(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.name.as_str())
    }

    /// Whether the token, and the session, that let it in still would, as far as is known without asking Redis.
    pub fn is_in_force(&self, keys: &TokenStore) -> bool {
        let session = |session| keys.sessions().is_ok_and(|sessions| sessions.is_in_force(session));
        self.token.as_ref().is_none_or(|token| keys.has(token)) && self.session.as_ref().is_none_or(session)
    }
}
