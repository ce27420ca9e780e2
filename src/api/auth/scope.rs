//! Scopes: what a route needs, and what a token allows.

use crate::words::words;

words! {
    /// What a route needs, or a token allows.
    pub enum Scope(name) {
        /// Needs no token: probes and scrapers.
        Open "open",
        /// Signing in and out; needs no token.
        SignIn "sign_in",
        /// Reads data.
        Read "read",
        /// Publishes messages of training processes, and nothing else.
        Publish "publish",
        /// Changes something.
        Admin "admin",
    }
}
