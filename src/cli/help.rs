//! The definition of the command line as `--help`, completions and manual pages show it.

use clap::{Arg, Command, CommandFactory};

use super::{Cli, HELP_WIDTH, SETTINGS};

/// Follows the help of each subcommand.
const SETTINGS_ARE_ELSEWHERE: &str =
    "Settings (--config, --set, --state-dir, --redis-url, --store, ...): see `cascor-ingest --help`.";

/// The command line. The settings are flags of every subcommand, but only the help of the program lists them.
pub fn command() -> Command {
    let command = Cli::command();
    let settings = settings(&command);
    command.mut_subcommands(refer_to_settings).after_help(settings)
}

/// The same with all flags visible, from which completions and manual pages are made.
pub fn visible() -> Command {
    Cli::command().mut_args(|arg| if is_setting(&arg) { arg.hide(false) } else { arg })
}

fn is_setting(arg: &Arg) -> bool {
    arg.get_help_heading() == Some(SETTINGS)
}

fn refer_to_settings(command: Command) -> Command {
    let examples = command.get_after_help().map(|examples| format!("{examples}\n\n")).unwrap_or_default();
    command.mut_subcommands(refer_to_settings).after_help(format!("{examples}{SETTINGS_ARE_ELSEWHERE}"))
}

/// The settings as a part of the help.
fn settings(command: &Command) -> String {
    let settings = command.get_arguments().filter(|arg| is_setting(arg));
    let settings = settings.map(|arg| arg.clone().hide(false).global(false).help_heading(None::<&str>));
    let mut list = Command::new("settings")
        .disable_help_flag(true)
        .max_term_width(HELP_WIDTH)
        .help_template("{options}")
        .args(settings);
    format!("{SETTINGS} (of every command; a later source wins: file, environment, flags):\n{}", list.render_help())
}
