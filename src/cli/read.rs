//! `runs`, `show`, `metrics`, `compare`, `tail`: asks, and prints to standard output.

use std::io;

use super::{
    CliError, ask::Asker, compare::CompareArgs, export::ExportArgs, metrics::MetricsArgs, runs::RunsArgs,
    show::ShowArgs, tail::TailArgs,
};
use crate::config::Settings;

/// Lists the newest runs, or tags one.
pub async fn runs(settings: Settings, args: RunsArgs, json: bool) -> Result<(), CliError> {
    super::runs::run(settings, args, json, &mut io::stdout()).await
}

/// Shows one run.
pub async fn show(settings: Settings, args: ShowArgs, json: bool) -> Result<(), CliError> {
    let asker = Asker::at(&settings, &args.place).await?;
    super::show::show(&asker, &args, json, &mut io::stdout()).await
}

/// Prints metrics of one run.
pub async fn metrics(settings: Settings, args: MetricsArgs, json: bool) -> Result<(), CliError> {
    let asker = Asker::at(&settings, &args.place).await?;
    super::metrics::metrics(&asker, &args, json, &mut io::stdout()).await
}

/// Compares runs.
pub async fn compare(settings: Settings, args: CompareArgs, json: bool) -> Result<(), CliError> {
    let asker = Asker::at(&settings, &args.place).await?;
    super::compare::compare(&asker, &args, json, &mut io::stdout()).await
}

/// Exports runs.
pub async fn export(settings: Settings, args: ExportArgs, json: bool) -> Result<(), CliError> {
    let asker = Asker::at(&settings, &args.place).await?;
    super::export::export(&asker, &args, json).await
}

/// Follows a run.
pub async fn tail(settings: Settings, args: TailArgs, json: bool) -> Result<(), CliError> {
    let asker = Asker::at(&settings, &args.place).await?;
    super::tail::tail(&asker, &args, json, &mut io::stdout()).await
}
