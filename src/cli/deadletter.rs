//! `deadletter`: messages and rows that were set aside, and why.

use super::CliError;
use crate::config::Settings;

/// What to see of them.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// The newest, with their reasons.
    List {
        /// At most this many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Only with this reason, such as `malformed_json`.
        #[arg(long)]
        reason: Option<String>,
    },
    /// One of them, with its bytes.
    Show {
        /// As `list` prints it.
        id: String,
    },
}

/// Reads the directory of dead letters.
pub fn run(settings: &Settings, command: &Command, json: bool) -> Result<(), CliError> {
    // INTEGRATE: the listing functions of `dead_letter`.
    let _ = (settings, json);
    Err(CliError::NotYet(match command {
        Command::List { .. } => "deadletter list",
        Command::Show { .. } => "deadletter show",
    }))
}
