//! `runs`, `show`, `metrics`: what the store holds.

use uuid::Uuid;

use super::CliError;
use crate::config::Settings;

/// Arguments of `runs`.
#[derive(Debug, clap::Args)]
pub struct RunsArgs {
    /// At most this many.
    #[arg(long, default_value_t = 20)]
    pub limit: usize,
    /// Only running, completed, failed or stopped ones.
    #[arg(long)]
    pub status: Option<String>,
    /// Only on this dataset.
    #[arg(long)]
    pub dataset: Option<String>,
}

/// Arguments of `show`.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The run.
    pub run: Uuid,
}

/// Arguments of `metrics`.
#[derive(Debug, clap::Args)]
pub struct MetricsArgs {
    /// The run.
    pub run: Uuid,
    /// At most this many, the newest.
    #[arg(long, default_value_t = 50)]
    pub limit: usize,
    /// The oldest first.
    #[arg(long)]
    pub ascending: bool,
}

/// Lists the newest runs.
pub async fn runs(settings: Settings, args: RunsArgs, json: bool) -> Result<(), CliError> {
    // INTEGRATE: open the store, `store.runs(..)`.
    drop((settings, args, json));
    Err(CliError::NotYet("runs"))
}

/// Shows one run.
pub async fn show(settings: Settings, args: ShowArgs, json: bool) -> Result<(), CliError> {
    // INTEGRATE: open the store, `store.read_run(..)`.
    drop((settings, args, json));
    Err(CliError::NotYet("show"))
}

/// Prints metrics of one run.
pub async fn metrics(settings: Settings, args: MetricsArgs, json: bool) -> Result<(), CliError> {
    // INTEGRATE: open the store, `store.metrics(..)`.
    drop((settings, args, json));
    Err(CliError::NotYet("metrics"))
}
