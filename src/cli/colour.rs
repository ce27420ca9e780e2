//! Colours of standard output.

use std::{env, sync::OnceLock};

use clap::ColorChoice;

use crate::{event::status, render::STALE, terminal};

static CHOICE: OnceLock<ColorChoice> = OnceLock::new();

/// Sets what `--color` says. The first call counts.
pub fn choose(choice: ColorChoice) {
    // Set once, before the command runs.
    let _ = CHOICE.set(choice);
}

/// Whether standard output is coloured: `auto` is for a terminal that knows colours, unless `NO_COLOR` is set.
pub fn is_on() -> bool {
    match CHOICE.get().copied().unwrap_or(ColorChoice::Never) {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
            terminal::stdout_is_terminal()
                && !is_set("NO_COLOR")
                && env::var_os("TERM").is_none_or(|term| term != "dumb")
        }
    }
}

/// The text in the colour of this status of a run.
pub fn of_status(status: &str, text: &str) -> String {
    let code = match status {
        status::RUNNING => 36,
        status::COMPLETED => 32,
        status::FAILED => 31,
        status::STOPPED => 33,
        STALE => 35,
        _ => return text.to_owned(),
    };
    if is_on() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}
