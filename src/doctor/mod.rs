//! `doctor`: reads both servers, the disk, the configuration and the state, and says what will bite.
//!
//! It works beside a running daemon: it takes no lock, sets no key and subscribes on connections of its own. The only thing that it
//! writes is a temporary file, to measure the disk. Each area is examined on its own ([`Report`]); what the login may not read is a
//! finding of its own ([`Level::Unknown`]), never a guess.

mod cassandra;
mod configuration;
mod connect;
mod disk;
mod finding;
mod gaps;
mod http;
mod process;
mod redis;
mod spool;
mod sqlite;

use std::time::Duration;

pub use self::{
    configuration::invalid,
    connect::{Tried, connect},
    finding::{Finding, Level, Report},
};
use crate::{
    config::{Loaded, Settings},
    store::StoreKind,
};

/// How to examine.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long to listen on the training channels; zero: not at all.
    pub listen: Duration,
}

/// Examines everything that these settings name.
pub async fn examine(loaded: &Loaded, options: Options) -> Report {
    let settings = &loaded.settings;
    let mut report = Report::default();
    let redis = Box::pin(redis::examine(settings, options.listen));
    let (redis, store, gaps, machine) =
        tokio::join!(redis, examine_store(settings), gaps::examine(settings), examine_machine(settings));
    report.merge(configuration::examine(loaded));
    report.merge(redis);
    report.merge(store);
    report.merge(gaps);
    report.merge(machine);
    report.sort();
    report
}

async fn examine_store(settings: &Settings) -> Report {
    match settings.store.kind {
        StoreKind::Sqlite => Box::pin(sqlite::examine(settings)).await,
        StoreKind::Cassandra => Box::pin(cassandra::examine(settings)).await,
    }
}

/// Spool, disk, process and HTTP; on another thread, because a disk may be slow.
async fn examine_machine(settings: &Settings) -> Report {
    let settings = settings.clone();
    let examined = tokio::task::spawn_blocking(move || {
        let mut report = Report::default();
        let spool = spool::inspect(&settings);
        report.merge(disk::examine(&settings, &spool));
        report.merge(process::examine(&settings, spool.holder()));
        report.merge(http::examine(&settings, spool.holder()));
        report.merge(spool.report);
        report
    });
    examined.await.unwrap_or_else(|error| {
        let mut report = Report::default();
        report.push(
            Finding::unknown("disk", "disk, process and HTTP could not be looked at").evidence(error.to_string()),
        );
        report
    })
}

/// A number of bytes as people read it.
fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
    let (unit, size) = UNITS.into_iter().find(|(_, size)| count >= *size).unwrap_or(("B", 1));
    let value = count as f64 / size as f64;
    if value < 10.0 && size > 1 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}
