//! What became of the lines of an import.

use serde::Serialize;
use serde_json::json;

use crate::cli::{CliError, output};

/// Refused lines that are listed; further ones are only counted.
const LISTED_MAX: usize = 20;
/// Longest reason that is listed, in characters.
const REASON_MAX: usize = 300;

/// Counts, and the first refused lines.
#[derive(Debug, Default)]
pub struct Report {
    /// The file that is being read.
    pub file: String,
    /// Rows and messages read.
    pub read: u64,
    /// Those that the daemon has accepted.
    pub accepted: u64,
    /// Runs that were ended.
    pub ended: u64,
    /// How.
    pub end_status: String,
    refused: u64,
    listed: Vec<RefusedLine>,
}

#[derive(Debug, Serialize)]
struct RefusedLine {
    file: String,
    line: u64,
    reason: String,
}

impl Report {
    /// Counts a refused line of the file that is being read.
    pub fn refuse(&mut self, line: u64, reason: &str) {
        self.refused += 1;
        if self.listed.len() < LISTED_MAX {
            let reason = reason.chars().take(REASON_MAX).collect();
            self.listed.push(RefusedLine { file: self.file.clone(), line, reason });
        }
    }

    /// Prints the counts, and on standard error the refused lines.
    ///
    /// # Errors
    /// When something was refused, or standard output cannot be written.
    pub fn print(&self, json: bool) -> Result<(), CliError> {
        let Self { read, accepted, refused, listed, ended, end_status, .. } = self;
        if json {
            output::json(&json!({
                "read": read, "accepted": accepted, "refused": refused, "ended": ended, "problems": listed,
            }))?;
        } else {
            for RefusedLine { file, line, reason } in listed {
                output::error(&format!("{file}, line {line}: {reason}"));
            }
            let left = refused.saturating_sub(listed.len() as u64);
            if left > 0 {
                output::error(&format!("... and {left} more"));
            }
            let ends = match ended {
                0 => String::new(),
                1 => format!("; 1 run ended as {end_status}"),
                runs => format!("; {runs} runs ended as {end_status}"),
            };
            output::line(&format!("read {read}, accepted {accepted}, refused {refused}{ends}"))?;
        }
        match refused {
            0 => Ok(()),
            _ => Err(CliError::NegativeAnswer(format!("{refused} of {read} were refused"))),
        }
    }
}
