//! `check`: every problem of the configuration; with `--connect` also whether both servers take a connection and the login.

use super::{CliError, Global, output};
use crate::{config, doctor, terminal::Escaped};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the result of all sources as TOML, with secrets hidden.
    #[arg(long)]
    print: bool,
    /// Also connect to Redis and to the store, log in, and report what fails.
    #[arg(long)]
    connect: bool,
}

/// Reads all sources and reports.
pub fn run(global: &Global, args: &Args) -> Result<(), CliError> {
    let loaded = match config::load_to_listen(&global.sources()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            if global.json {
                output::json(&serde_json::json!({"valid": false, "problems": problems.0, "warnings": []}))?;
            }
            return Err(CliError::Config(problems));
        }
    };
    let settings = &loaded.settings;
    let servers = if args.connect { Some(super::answer(doctor::connect(settings))?) } else { None };
    let failed = servers.iter().flatten().filter(|tried| tried.error.is_some()).count();
    let outcome = || match failed {
        0 => Ok(()),
        1 => Err(CliError::NegativeAnswer("a server cannot be used".into())),
        n => Err(CliError::NegativeAnswer(format!("{n} servers cannot be used"))),
    };
    if global.json {
        let settings = if args.print { serde_json::to_value(settings).ok() } else { None };
        output::json(&serde_json::json!({
            "valid": true, "problems": [], "warnings": loaded.warnings, "settings": settings, "servers": servers,
        }))?;
        return outcome();
    }
    for warning in &loaded.warnings {
        output::error(&format!("cascor-ingest: warning: {warning}"));
    }
    if args.print {
        let toml = settings.to_toml().map_err(|error| CliError::failed("failed to write the settings", error))?;
        output::line(toml.trim_end())?;
    } else {
        output::line("configuration is valid")?;
    }
    for tried in servers.iter().flatten() {
        let text = match &tried.error {
            None => format!("{}: can be used", tried.server),
            Some(error) => format!("{}: {error}", tried.server),
        };
        output::line(&Escaped(&text).to_string())?;
    }
    outcome()
}
