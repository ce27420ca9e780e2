//! `check`: every problem of the configuration, without connecting to a server.

use super::{CliError, Global, output};
use crate::{config, terminal};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the result of all sources as TOML, with secrets hidden.
    #[arg(long)]
    print: bool,
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
    if global.json {
        let settings = if args.print { serde_json::to_value(settings).ok() } else { None };
        return output::json(&serde_json::json!({
            "valid": true, "problems": [], "warnings": loaded.warnings, "settings": settings,
        }));
    }
    for warning in &loaded.warnings {
        terminal::print_notice(format_args!("cascor-ingest: warning: {warning}"));
    }
    if args.print {
        let toml = settings.to_toml().map_err(|error| CliError::failed("failed to write the settings", error))?;
        return output::line(toml.trim_end());
    }
    output::line("configuration is valid")
}
