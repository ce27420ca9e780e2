//! What a route needs, and what a token allows.

/// What a route is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// For probes and scrapers: always.
    Open,
    /// Where people sign in and out: needs no token yet.
    SignIn,
    /// Looks at data.
    Read,
    /// Hands over messages of training processes, and nothing else.
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
