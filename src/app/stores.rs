//! The configured store, for the daemon and for commands that read.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc};

use crate::{
    config::Settings,
    lifecycle::Signal,
    metrics::Metrics,
    store::{Store, StoreKind, cassandra::CassandraStore, sqlite},
};

/// What keeps a store's connection up; to be spawned beside its users.
pub type Upkeep = Pin<Box<dyn Future<Output = Result<(), Infallible>> + Send>>;

/// Opens the store. An absent server is no error: the store connects when it can.
pub fn open(settings: &Settings, metrics: &Arc<Metrics>, stop: Signal) -> (Arc<dyn Store>, Upkeep) {
    let store = &settings.store;
    match store.kind {
        StoreKind::Sqlite => {
            let sqlite = sqlite::open(&store.sqlite, &store.retention, Arc::clone(metrics));
            (Arc::new(sqlite), idle(stop))
        }
        StoreKind::Cassandra => {
            let cassandra = CassandraStore::new(&store.cassandra, &store.retention, Arc::clone(metrics));
            (Arc::clone(&cassandra) as Arc<dyn Store>, Box::pin(cassandra.run(stop)))
        }
    }
}

fn idle(mut stop: Signal) -> Upkeep {
    Box::pin(async move {
        stop.stopped().await;
        Ok(())
    })
}
