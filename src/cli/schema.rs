//! `schema`: plan, create and verify the tables of the configured store.

use std::{path::PathBuf, time::Duration};

use super::CliError;
use crate::{config::Settings, units};

/// What to do with the tables.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Say what `apply` would do.
    Plan(Args),
    /// Create what is missing; safe to repeat, and when two run at once.
    Apply(Args),
    /// Name everything that is missing or differs; status 1 when there is anything.
    Verify(Args),
    /// Print the statements.
    Print(Args),
}

/// Arguments of every schema command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long to wait for the database.
    #[arg(long, default_value = "60s", value_parser = units::parse_duration)]
    pub wait: Duration,
    /// `SimpleStrategy:1` or `NetworkTopologyStrategy:dc1=3,dc2=2`.
    #[arg(long, default_value = "SimpleStrategy:1")]
    pub replication: String,
    /// Apply this folder of `.cql` files, in the order of their names, in place of our own tables.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Does it.
pub async fn run(settings: Settings, command: Command, json: bool) -> Result<(), CliError> {
    // INTEGRATE: the schema tool of the configured store.
    drop((settings, json));
    Err(CliError::NotYet(match command {
        Command::Plan(_) => "schema plan",
        Command::Apply(_) => "schema apply",
        Command::Verify(_) => "schema verify",
        Command::Print(_) => "schema print",
    }))
}
