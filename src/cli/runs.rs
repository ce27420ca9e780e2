//! `runs`: the list of runs, and changes of runs.

use super::{
    CliError,
    ask::{QueryClient, Target},
    field_names::FieldArgs,
    run_changes,
    run_list::{self, ListArgs},
    run_table,
};
use crate::config::Settings;

/// Arguments of `runs`.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RunsArgs {
    #[command(subcommand)]
    change: Option<run_changes::Change>,
    #[command(flatten)]
    pub list: ListArgs,
    #[command(flatten)]
    pub fields: FieldArgs,
    #[command(flatten)]
    pub target: Target,
}

impl RunsArgs {
    /// Whether a run is changed.
    pub fn changes(&self) -> bool {
        self.change.is_some()
    }
}

/// Lists runs, or changes one.
///
/// # Errors
/// As [`run_list::list`], and when the change is refused.
pub async fn run(settings: Settings, args: RunsArgs, json: bool) -> Result<(), CliError> {
    if let Some(change) = args.change {
        return run_changes::run(&settings, change, json).await;
    }
    let client = QueryClient::connect(&settings, &args.target).await?;
    run_list::list(&client, &args.list, json, |runs| run_table::print(runs, &args.fields)).await
}
