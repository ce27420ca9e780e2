//! `token`: makes tokens of the HTTP API.

use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{CliError, output};
use crate::{
    api::{is_name, read_tokens},
    files,
    tls::{hex, random},
};

/// The subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print a new line for `http.tokens_file`: `NAME SCOPE TOKEN`. The token is random and is stored nowhere.
    New(NewArgs),
    /// Make a file of tokens with one admin token, unless the file is there; print the token to sign in with.
    Ensure(EnsureArgs),
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

/// Arguments of `token ensure`.
#[derive(Debug, clap::Args)]
pub struct EnsureArgs {
    /// The file, for `http.tokens_file`.
    file: PathBuf,
    /// Name of the person or program of a new token.
    #[arg(default_value = "admin")]
    name: String,
}

/// Runs a subcommand.
pub fn run(command: &Command, json: bool) -> Result<(), CliError> {
    match command {
        Command::New(NewArgs { name, scope }) => {
            let token = new_token(name)?;
            if json {
                return output::json(&json!({ "name": name, "scope": scope, "token": token }));
            }
            output::line(&format!("{name} {scope} {token}"))
        }
        Command::Ensure(EnsureArgs { file, name }) => ensure(file, name, json),
    }
}

fn new_token(name: &str) -> Result<String, CliError> {
    if !is_name(name) {
        let detail = "a name has 1 to 64 bytes, no blanks and no control characters, and does not begin with `#`";
        return Err(CliError::Usage(detail.into()));
    }
    Ok(hex(&random()))
}

fn ensure(file: &Path, name: &str, json: bool) -> Result<(), CliError> {
    let failed = |error| CliError::failed(format!("failed to make `{}`", file.display()), error);
    let line = format!("{name} admin {}\n", new_token(name)?);
    let is_new = match files::create_new(file, files::FILE_MODE) {
        Ok(mut created) => created.write_all(line.as_bytes()).and_then(|()| created.sync_all()).map(|()| true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && !file.is_symlink() => Ok(false),
        Err(error) => Err(error),
    }
    .map_err(failed)?;
    let unusable = |error| CliError::failed("the file of tokens is there, but cannot be used", error);
    read_tokens(file).map_err(unusable)?;
    let text = fs::read_to_string(file).map_err(failed)?;
    let admin = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [name, "admin", token] if is_name(name) => Some((name.to_owned(), token.to_owned())),
        _ => None,
    };
    let Some((name, token)) = text.lines().find_map(admin) else {
        return Err(CliError::NegativeAnswer(format!("`{}` has no token with the scope `admin`", file.display())));
    };
    if json {
        return output::json(
            &json!({ "file": file.display().to_string(), "new": is_new, "name": name, "token": token }),
        );
    }
    output::line(&format!("sign in to the dashboard as `{name}` with this token: {token}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_of_tokens_is_made_once_and_its_token_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        ensure(&file, "ann", false).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("ann admin "), "{text}");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        ensure(&file, "bob", false).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }

    #[test]
    fn a_file_that_no_one_could_sign_in_with_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for (n, (text, reason)) in [
            ("", "cannot be used"),
            ("ann admin short", "cannot be used"),
            ("ann read 0123456789abcdef\n", "no token with the scope"),
        ]
        .into_iter()
        .enumerate()
        {
            let file = dir.path().join(n.to_string());
            fs::write(&file, text).unwrap();
            let error = ensure(&file, "ann", false).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
            assert_eq!(fs::read_to_string(&file).unwrap(), text, "unchanged");
        }
    }
}
