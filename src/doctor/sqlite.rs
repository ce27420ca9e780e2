//! The SQLite file: whether it can be opened, and whether its tables fit.

use super::{Finding, Report};
use crate::{
    config::Settings,
    logging::Chain,
    metrics::Metrics,
    store::{Problem, Store, StoreError, sqlite},
    units,
};

const AREA: &str = "sqlite";

pub(super) async fn examine(settings: &Settings) -> Report {
    let mut report = Report::default();
    let path = &settings.store.sqlite.path;
    if !path.exists() {
        report.saw(format!("database `{}`: the first start makes it", path.display()));
        return report;
    }
    match ping(settings).await {
        Ok(()) => report.saw(format!("database `{}`: opens, and its tables fit", path.display())),
        Err(error) => {
            let problem = Problem::of("store", &error, units::now());
            let what = format!(
                "the database `{}` cannot be used: rows wait in the spool, and are lost once it is full",
                path.display()
            );
            let fix = problem
                .remedy
                .unwrap_or_else(|| "what the evidence says; a copy of the file is safe to try with".to_owned());
            report.push(Finding::stops(AREA, what).fix(fix).evidence(Chain(&error).to_string()));
        }
    }
    report
}

/// Opens the file for reading; it must exist.
pub(super) async fn ping(settings: &Settings) -> Result<(), StoreError> {
    let store = sqlite::open_read_only(&settings.store.sqlite, &settings.store.retention, Metrics::new());
    store.ping().await
}
