//! `run`: the daemon.

use super::CliError;
use crate::config::Settings;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs until a signal says stop.
pub fn run(settings: Settings, _args: &Args) -> Result<(), CliError> {
    // INTEGRATE: `app::run(settings)` on a runtime of several threads.
    drop(settings);
    Err(CliError::NotYet("run"))
}
