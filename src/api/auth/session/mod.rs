//! Sessions of browsers, kept in Redis under `<prefix>session:<id>`, so that all instances with the same key accept them.
//!
//! Trainers write to the same Redis, so a value there counts only with our signature ([`stored`]), whose key is never in Redis
//! ([`key`]). A session belongs to one token and ends when the token's line is changed or removed. It also ends 24 h after its last
//! use, `http.session_lifetime` after it began, when it is signed out, when the same token begins more than `http.sessions` of
//! them, or when its key is deleted. An ended session stays ended even if a client of Redis writes its value back ([`ledger`]).
//! While Redis is away, requests with a session are answered with 503.

mod active;
pub mod cookie;
mod key;
mod ledger;
mod shared_ledger;
mod store;
mod stored;

pub use self::{active::Session, key::SessionKey, store::Sessions};
