//! `doctor`: what will bite, with the fix and the evidence, in order of harm.

use std::time::Duration;

use serde_json::json;

use super::{CliError, Global, output};
use crate::{
    config,
    doctor::{self, Finding, Level, Options, Report},
    logging,
    terminal::Escaped,
    units,
};

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long to listen to what trainers publish; 0s: not at all.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = units::parse_duration)]
    listen: Duration,
}

/// Examines what the settings name, and prints the findings.
///
/// # Errors
/// When there is a fault.
pub fn run(global: &Global, args: &Args) -> Result<(), CliError> {
    let report = match config::load(&global.sources()) {
        Ok(loaded) => {
            // Fails only when a log is installed already.
            let _ = logging::install(&loaded.settings.log);
            super::answer(doctor::examine(&loaded, Options { listen: args.listen }))?
        }
        Err(problems) => doctor::invalid(&problems),
    };
    let [faults, unknown, advice] = [Level::Fault, Level::Unknown, Level::Advice].map(|level| report.count(level));
    if global.json {
        output::json(&json!({
            "faults": faults, "unknown": unknown, "advice": advice, "findings": report.findings, "looked_at": report.looked_at,
        }))?;
    } else {
        print(&report)?;
        let noun = if faults == 1 { "fault" } else { "faults" };
        output::line(&format!("\n{faults} {noun}, {unknown} not looked at, {advice} advice"))?;
    }
    match faults {
        0 => Ok(()),
        1 => Err(CliError::NegativeAnswer("doctor found a fault".into())),
        _ => Err(CliError::NegativeAnswer(format!("doctor found {faults} faults"))),
    }
}

fn print(report: &Report) -> Result<(), CliError> {
    for Finding { level, area, what, fix, evidence, .. } in &report.findings {
        let level = match level {
            Level::Fault => "FAULT",
            Level::Unknown => "UNKNOWN",
            Level::Advice => "ADVICE",
        };
        output::line(&format!("{level} {area}: {}", Escaped(what)))?;
        for (name, text) in [("fix", fix), ("evidence", evidence)] {
            if let Some(text) = text {
                output::line(&format!("  {name}: {}", Escaped(text)))?;
            }
        }
    }
    output::line("looked at:")?;
    report.looked_at.iter().try_for_each(|seen| output::line(&format!("  {}", Escaped(seen))))
}
