//! Sessions of people at a browser: kept in Redis under `<prefix>session:<id>`, so that every instance that has the same key
//! knows them.
//!
//! Trainers share our Redis, so nothing that is there is believed but for our signature ([`stored`]), with a key that never is
//! there ([`key`]). A session is of one token and ends with it: when its line is changed or taken out of the file. It also ends
//! 24 h after its last use, `http.session_lifetime` after it began, when it is signed out, when the same token begins more than
//! `http.sessions` of them, or when its key is deleted. What has ended stays so although a client of Redis writes the value back
//! ([`ledger`]). While Redis is away a session opens nothing, and the answer is 503.

mod active;
pub mod cookie;
mod key;
mod ledger;
mod shared_ledger;
mod store;
mod stored;

pub use self::{active::Session, key::SessionKey, store::Sessions};
