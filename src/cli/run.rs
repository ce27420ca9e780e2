//! `run`: the daemon.

use super::CliError;
use crate::{
    app::{self, Reload},
    config::Settings,
    logging::LevelHandle,
};

/// Runs until a signal says stop.
pub fn run(settings: &Settings, reload: Reload, levels: Option<LevelHandle>) -> Result<(), CliError> {
    app::run(settings, reload, levels).map_err(|error| CliError::failed("the daemon ended", error))
}
