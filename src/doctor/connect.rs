//! `check --connect`: whether both servers can be reached and logged in to.

use serde::Serialize;

use super::sqlite;
use crate::{
    config::Settings,
    logging::Chain,
    redis::{self, redact},
    store::{StoreKind, cassandra::session},
};

/// What trying a server brought.
#[derive(Clone, Debug, Serialize)]
pub struct Tried {
    /// The server, and its address.
    pub server: String,
    /// Why it cannot be used; `None`: it can.
    pub error: Option<String>,
}

/// Tries Redis, then the store.
pub async fn connect(settings: &Settings) -> Vec<Tried> {
    let redis = redis::connect(&settings.redis).await;
    let server = format!("Redis at `{}`", redact(&settings.redis.url));
    vec![Tried { server, error: redis.err().map(|error| Chain(&error).to_string()) }, store(settings).await]
}

async fn store(settings: &Settings) -> Tried {
    match settings.store.kind {
        StoreKind::Sqlite => {
            let path = &settings.store.sqlite.path;
            // The daemon makes a file that is missing.
            let error = if path.exists() { sqlite::ping(settings).await.err() } else { None };
            let server = format!("SQLite file `{}`", path.display());
            Tried { server, error: error.map(|error| Chain(&error).to_string()) }
        }
        StoreKind::Cassandra => {
            let cassandra = &settings.store.cassandra;
            let opened = Box::pin(session::open(cassandra)).await;
            let server = format!("Cassandra at {}", cassandra.addresses().join(", "));
            Tried { server, error: opened.err().map(|failure| Chain(&failure).to_string()) }
        }
    }
}
