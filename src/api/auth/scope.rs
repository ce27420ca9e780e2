//! Scopes: what a route needs, and what a token allows.

/// What a route needs, or a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Needs no token: probes and scrapers.
    Open,
    /// Signing in and out; needs no token.
    SignIn,
    /// Reads data.
    Read,
    /// Publishes messages of training processes, and nothing else.
    Publish,
    /// Changes something.
    Admin,
}

impl Scope {
    /// As tokens name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::SignIn => "sign_in",
            Self::Read => "read",
            Self::Publish => "publish",
            Self::Admin => "admin",
        }
    }
}
