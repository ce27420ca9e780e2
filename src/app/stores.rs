//! The configured store: for the daemon, for the API alone, and for commands.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc};

use crate::{
    config::Settings,
    lifecycle::Signal,
    metrics::Metrics,
    store::{
        Retention, Store, StoreError, StoreKind,
        cassandra::{CassandraStore, Config},
        sqlite::{self, SqliteStore},
    },
};

/// Page size for one-shot commands, which share memory with no server.
const PAGE_ROWS: usize = 5_000;

/// Keeps a store's connection up; to be spawned beside its users.
pub type Upkeep = Pin<Box<dyn Future<Output = Result<(), Infallible>> + Send>>;

/// Opens the store. An absent server is no error: the store connects when it can.
pub fn open(settings: &Settings, metrics: &Arc<Metrics>, stop: Signal) -> (Arc<dyn Store>, Upkeep) {
    open_with(sqlite::open, settings, metrics, stop)
}

/// The same for a process that receives nothing: a file is never created by it, and only changed by people.
pub fn open_read_only(settings: &Settings, metrics: &Arc<Metrics>, stop: Signal) -> (Arc<dyn Store>, Upkeep) {
    open_with(sqlite::open_read_only, settings, metrics, stop)
}

fn open_with(
    open_sqlite: fn(&sqlite::Config, &Retention, Arc<Metrics>) -> SqliteStore,
    settings: &Settings,
    metrics: &Arc<Metrics>,
    mut stop: Signal,
) -> (Arc<dyn Store>, Upkeep) {
    let (store, metrics) = (&settings.store, Arc::clone(metrics));
    match store.kind {
        StoreKind::Sqlite => {
            let idle = async move {
                stop.stopped().await;
                Ok(())
            };
            (Arc::new(open_sqlite(&store.sqlite, &store.retention, metrics)), Box::pin(idle))
        }
        StoreKind::Cassandra => {
            let cassandra = CassandraStore::new(&store.cassandra, &store.retention, metrics);
            (Arc::clone(&cassandra) as Arc<dyn Store>, Box::pin(cassandra.run(stop)))
        }
    }
}

/// The same for one command: an absent server is an error at once.
///
/// # Errors
/// When Cassandra cannot be reached or does not fit.
pub async fn open_once(settings: &Settings) -> Result<Arc<dyn Store>, StoreError> {
    let store = &settings.store;
    match store.kind {
        StoreKind::Sqlite => Ok(Arc::new(sqlite::open_read_only(&store.sqlite, &store.retention, Metrics::new()))),
        StoreKind::Cassandra => {
            let config = Config { page_rows: store.cassandra.page_rows.max(PAGE_ROWS), ..store.cassandra.clone() };
            let cassandra = CassandraStore::new(&config, &store.retention, Metrics::new());
            cassandra.connect().await?;
            Ok(cassandra)
        }
    }
}
