//! `serve`: the HTTP API alone.

use super::CliError;
use crate::{app, config::Settings};

/// Runs until a signal says stop.
pub fn run(settings: &Settings) -> Result<(), CliError> {
    if settings.http.listen.is_empty() {
        return Err(CliError::Usage("`http.listen` is empty: there is nothing to serve on".into()));
    }
    app::serve(settings).map_err(|error| CliError::failed("the server ended", error))
}
