//! `completions` and `man`: completions of a shell and manual pages, made from the definition of the arguments.

use std::path::PathBuf;

use clap_complete::Shell;
use clap_mangen::Man;

use super::{CliError, help, output};
use crate::files;

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Write a page for the program and for each command into this directory, such as /usr/local/share/man/man1, which is made
    /// if it is not there; absent: the page of the program to standard output.
    dir: Option<PathBuf>,
}

/// Prints the completions of a shell.
///
/// # Errors
/// When standard output cannot be written.
pub fn completions(args: &CompletionsArgs) -> Result<(), CliError> {
    let (mut command, mut script) = (help::visible(), Vec::new());
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    output::bytes(&script)
}

/// Prints the manual page, or writes all of them.
///
/// # Errors
/// When standard output or the directory cannot be written.
pub fn man(args: &ManArgs) -> Result<(), CliError> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        let rendered = Man::new(help::visible()).render(&mut page);
        rendered.map_err(|error| CliError::failed("failed to make the manual page", error))?;
        return output::bytes(&page);
    };
    let written = files::create_dir(dir).and_then(|()| clap_mangen::generate_to(help::visible(), dir));
    written
        .map_err(|error| CliError::failed(format!("failed to write manual pages into `{}`", dir.display()), error))?;
    output::line(&format!("manual pages are written into {}; read them with `man cascor-ingest`", dir.display()))
}
