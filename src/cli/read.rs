//! `runs`, `show`, `metrics`, `gaps`: opens the configured store for those who only read.

use std::{io, sync::Arc};

use super::{CliError, gaps::GapsArgs, metrics::MetricsArgs, runs::RunsArgs, show::ShowArgs};
use crate::{
    config::Settings,
    metrics::Metrics,
    store::{Store, StoreKind, cassandra::CassandraStore, sqlite},
};

/// The store, never created or changed by this.
async fn open(settings: &Settings) -> Result<Arc<dyn Store>, CliError> {
    match settings.store.kind {
        StoreKind::Sqlite => Ok(Arc::new(sqlite::open_read_only(&settings.store.sqlite, Metrics::new()))),
        StoreKind::Cassandra => {
            let store = CassandraStore::new(&settings.store.cassandra, &settings.store.retention, Metrics::new());
            store.connect().await.map_err(|error| CliError::failed("failed to reach Cassandra", error))?;
            Ok(store)
        }
    }
}

/// Lists the newest runs.
pub async fn runs(settings: Settings, args: RunsArgs, json: bool) -> Result<(), CliError> {
    let store = open(&settings).await?;
    super::runs::runs(&*store, args, json, &mut io::stdout().lock()).await
}

/// Shows one run.
pub async fn show(settings: Settings, args: ShowArgs, json: bool) -> Result<(), CliError> {
    let store = open(&settings).await?;
    super::show::show(&*store, args, json, &mut io::stdout().lock()).await
}

/// Prints metrics of one run.
pub async fn metrics(settings: Settings, args: MetricsArgs, json: bool) -> Result<(), CliError> {
    let store = open(&settings).await?;
    super::metrics::metrics(&*store, args, json, &mut io::stdout().lock()).await
}

/// Prints what was missed.
pub async fn gaps(settings: Settings, args: GapsArgs, json: bool) -> Result<(), CliError> {
    let store = open(&settings).await?;
    super::gaps::gaps(&*store, args, json, &mut io::stdout().lock()).await
}
