//! `spool`: what is in the durable log, without disturbing the daemon that holds it.

use std::path::PathBuf;

use super::{CliError, output};
use crate::{
    config::Settings,
    render,
    spool::{self, Report},
};

/// What to know about the log.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Segments, sizes and the committed offset; works on a spool in use.
    Status(Args),
    /// Read every record and check it; status 1 when one is bad. On a spool in use, what is being written may look torn.
    Verify(Args),
}

/// Which log.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its directory; absent: the configured one.
    dir: Option<PathBuf>,
}

/// Reads the log's directory.
pub fn run(settings: &Settings, command: &Command, json: bool) -> Result<(), CliError> {
    let (Command::Status(args) | Command::Verify(args)) = command;
    let dir = args.dir.as_ref().unwrap_or(&settings.spool.dir);
    let failed = |error| CliError::failed(format!("failed to read the spool in `{}`", dir.display()), error);
    let report = match command {
        Command::Status(_) => spool::inspect(dir),
        Command::Verify(_) => spool::verify(dir),
    };
    let report = report.map_err(failed)?;
    let verified = matches!(command, Command::Verify(_));
    if json {
        let value = serde_json::to_value(&report).map_err(|error| CliError::failed("failed to print", error))?;
        output::json(&value)?;
    } else {
        print(&report, verified)?;
    }
    if verified && !report.is_sound() {
        return Err(CliError::No(format!("{} records are lost; the rest is read as always", report.lost)));
    }
    Ok(())
}

fn print(report: &Report, verified: bool) -> Result<(), CliError> {
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let mut rows = vec![
        vec!["id".into(), text(report.id.map(|id| id.to_string()))],
        vec!["held by".into(), text(report.holder.clone())],
        vec!["committed".into(), text(report.committed.map(|offset| offset.to_string()))],
        vec!["bytes".into(), report.bytes.to_string()],
        vec!["quarantined bytes".into(), report.quarantine_bytes.to_string()],
    ];
    if verified {
        rows.extend([
            vec!["records".into(), report.records.to_string()],
            vec!["waiting for the store".into(), report.pending.to_string()],
            vec!["lost".into(), report.lost.to_string()],
            vec!["torn bytes at the end".into(), report.torn_bytes.to_string()],
            vec![
                "received".into(),
                text(report.received.map(|(first, last)| format!("{} … {}", render::time(first), render::time(last)))),
            ],
        ]);
    }
    output::table(&["SPOOL", ""], rows)?;
    let segments = report
        .segments
        .iter()
        .map(|segment| {
            let mut row = vec![segment.name.clone(), segment.first.to_string(), segment.bytes.to_string()];
            if verified {
                row.push(segment.records.to_string());
                row.push(if segment.header_valid { segment.damaged_bytes.to_string() } else { "header".into() });
            }
            row
        })
        .collect();
    let headers = ["SEGMENT", "FIRST", "BYTES", "RECORDS", "DAMAGED"];
    output::table(if verified { &headers } else { &headers[..3] }, segments)
}
