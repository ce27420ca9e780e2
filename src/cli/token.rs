//! `token`: lines of the file of tokens.

use serde_json::json;

use super::{CliError, output};
use crate::{
    api::is_name,
    tls::{hex, random},
};

/// What is done.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print a new line for `http.tokens_file`: `NAME SCOPE TOKEN`. The token is random, and is kept nowhere else.
    New(NewArgs),
}

/// What the token is for.
#[derive(Debug, clap::Args)]
pub struct NewArgs {
    /// Name of the person or program, as the log and `control_log` will have it.
    name: String,
    /// What it opens: `read` looks at everything, `publish` hands over messages of training and nothing else, `admin` may do
    /// everything.
    #[arg(value_parser = ["read", "publish", "admin"])]
    scope: String,
}

/// Does it.
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
