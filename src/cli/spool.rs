//! `spool`: what is in the durable log, without disturbing the daemon that holds it.

use super::CliError;
use crate::config::Settings;

/// What to know about the log.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Segments, offsets and what waits for the store.
    Status,
    /// Read every record and check it; status 1 when one is bad.
    Verify,
}

/// Reads the log's directory.
pub fn run(settings: &Settings, command: &Command, json: bool) -> Result<(), CliError> {
    // INTEGRATE: `spool::inspect(&settings.spool)` and `spool::verify(&settings.spool)`.
    let _ = (settings, json);
    Err(CliError::NotYet(match command {
        Command::Status => "spool status",
        Command::Verify => "spool verify",
    }))
}
