//! `demo`: a training process to try the daemon with.

use super::CliError;
use crate::config::Settings;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Trains and publishes.
pub async fn run(_settings: Settings, _args: Args, _json: bool) -> Result<(), CliError> {
    Err(CliError::NotYet("demo"))
}
