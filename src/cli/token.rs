//! `token`: prints a line for the file of tokens.

use serde_json::json;

use super::{CliError, output};
use crate::{
    api::is_name,
    tls::{hex, random},
};

/// The subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print a new line for `http.tokens_file`: `NAME SCOPE TOKEN`. The token is random and is stored nowhere.
    New(NewArgs),
}

/// Arguments of `token new`.
#[derive(Debug, clap::Args)]
pub struct NewArgs {
    /// Name of the person or program, for the log and `control_log`.
    name: String,
    /// `read` permits reading, `publish` only submitting training messages, `admin` everything.
    #[arg(value_parser = ["read", "publish", "admin"])]
    scope: String,
}

/// Runs a subcommand.
pub fn run(command: &Command, json: bool) -> Result<(), CliError> {
    let Command::New(NewArgs { name, scope }) = command;
    if !is_name(name) {
        let detail = "a name has 1 to 64 bytes, no blanks and no control characters, and does not begin with `#`";
        return Err(CliError::Usage(detail.into()));
    }
    let token = hex(&random());
    if json {
        return output::json(&json!({ "name": name, "scope": scope, "token": token }));
    }
    output::line(&format!("{name} {scope} {token}"))
}
