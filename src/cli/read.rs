//! `runs`, `show`, `metrics`, `compare`, `tail`, `gaps`: asks, and prints to standard output.

use super::{
    CliError, ask::QueryClient, compare::CompareArgs, export::ExportArgs, gaps::GapsArgs, metrics::MetricsArgs,
    runs::RunsArgs, show::ShowArgs, tail::TailArgs,
};
use crate::{app::stores, config::Settings, terminal};

/// How many rows to print.
///
/// # Errors
/// When it is no number, or none would be.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("at least 1".into()),
        parsed => parsed.map_err(|error| error.to_string()),
    }
}

/// Lists the newest runs, or tags one.
pub async fn runs(settings: Settings, args: RunsArgs, json: bool) -> Result<(), CliError> {
    super::runs::run(settings, args, json, &mut terminal::stdout()).await
}

/// Shows one run.
pub async fn show(settings: Settings, args: ShowArgs, json: bool) -> Result<(), CliError> {
    let client = QueryClient::connect(&settings, &args.target).await?;
    super::show::show(&client, &args, json, &mut terminal::stdout()).await
}

/// Prints metrics of one run.
pub async fn metrics(settings: Settings, args: MetricsArgs, json: bool) -> Result<(), CliError> {
    let client = QueryClient::connect(&settings, &args.target).await?;
    super::metrics::metrics(&client, &args, json, &mut terminal::stdout()).await
}

/// Compares runs.
pub async fn compare(settings: Settings, args: CompareArgs, json: bool) -> Result<(), CliError> {
    let client = QueryClient::connect(&settings, &args.target).await?;
    super::compare::compare(&client, &args, json, &mut terminal::stdout()).await
}

/// Exports runs.
pub async fn export(settings: Settings, args: ExportArgs, json: bool) -> Result<(), CliError> {
    let client = QueryClient::connect(&settings, &args.target).await?;
    super::export::export(&client, args, json).await
}

/// Follows a run.
pub async fn tail(settings: Settings, args: TailArgs, json: bool) -> Result<(), CliError> {
    let client = QueryClient::connect(&settings, &args.target).await?;
    super::tail::tail(&client, &args, json, &mut terminal::stdout()).await
}

/// Prints what was missed.
pub async fn gaps(settings: Settings, args: GapsArgs, json: bool) -> Result<(), CliError> {
    let store = stores::open_once(&settings).await;
    let store = store.map_err(|error| CliError::failed("failed to reach the store", error))?;
    super::gaps::gaps(store, &settings.http, args, json, &mut terminal::stdout()).await
}
