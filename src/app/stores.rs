//! The configured store: for the daemon, for the API alone, and for commands.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc};

use crate::{
    config::Settings,
    lifecycle::Signal,
    metrics::Metrics,
    store::{
        Store, StoreError, StoreKind,
        cassandra::{CassandraStore, Config},
        sqlite,
    },
};

/// Page size for one-shot commands, which share memory with no server.
const PAGE_ROWS: usize = 5_000;

/// Keeps a store's connection up; to be spawned beside its users.
pub type Upkeep = Pin<Box<dyn Future<Output = Result<(), Infallible>> + Send>>;

/// Opens the store. An absent server is no error: the store connects when it can.
pub fn open(settings: &Settings, metrics: &Arc<Metrics>, stop: Signal) -> (Arc<dyn Store>, Upkeep) {
    let store = &settings.store;
    match store.kind {
        StoreKind::Sqlite => {
            let sqlite = sqlite::open(&store.sqlite, &store.retention, Arc::clone(metrics));
            (Arc::new(sqlite), idle(stop))
        }
        StoreKind::Cassandra => cassandra(settings, metrics, stop),
    }
}

/// The same for a process that only reads: a file is never created or changed by it.
pub fn open_read_only(settings: &Settings, metrics: &Arc<Metrics>, stop: Signal) -> (Arc<dyn Store>, Upkeep) {
    match settings.store.kind {
        StoreKind::Sqlite => {
            let sqlite = sqlite::open_read_only(&settings.store.sqlite, Arc::clone(metrics));
            (Arc::new(sqlite), idle(stop))
        }
        StoreKind::Cassandra => cassandra(settings, metrics, stop),
    }
}

/// The same for one command: an absent server is an error at once.
///
/// # Errors
/// When Cassandra cannot be reached or does not fit.
pub async fn open_once(settings: &Settings) -> Result<Arc<dyn Store>, StoreError> {
    let store = &settings.store;
    match store.kind {
        StoreKind::Sqlite => Ok(Arc::new(sqlite::open_read_only(&store.sqlite, Metrics::new()))),
        StoreKind::Cassandra => {
            let config = Config { page_rows: store.cassandra.page_rows.max(PAGE_ROWS), ..store.cassandra.clone() };
            let cassandra = CassandraStore::new(&config, &store.retention, Metrics::new());
            cassandra.connect().await?;
            Ok(cassandra)
        }
    }
}

fn cassandra(settings: &Settings, metrics: &Arc<Metrics>, stop: Signal) -> (Arc<dyn Store>, Upkeep) {
    let store = &settings.store;
    let cassandra = CassandraStore::new(&store.cassandra, &store.retention, Arc::clone(metrics));
    (Arc::clone(&cassandra) as Arc<dyn Store>, Box::pin(cassandra.run(stop)))
}

fn idle(mut stop: Signal) -> Upkeep {
    Box::pin(async move {
        stop.stopped().await;
        Ok(())
    })
}
