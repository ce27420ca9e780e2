//! `deadletter`: messages and rows that were set aside, and why.

use serde_json::{Value, json};

use super::{CliError, output};
use crate::{
    config::Settings,
    dead_letter::{self, DeadLetterInfo, Filter},
    frame::Reason,
    logging::Untrusted,
    render,
};

/// What to see of them.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// The newest first, with their reasons.
    List {
        /// At most this many.
        #[arg(long, short = 'n', default_value_t = 100)]
        limit: usize,
        /// Only with this reason, such as `malformed_json`.
        #[arg(long, value_parser = reason)]
        reason: Option<Reason>,
        /// Only from this channel.
        #[arg(long)]
        channel: Option<String>,
    },
    /// One of them, with its bytes.
    Show {
        /// As `list` prints it.
        id: u64,
        /// Write the bytes that are kept, and nothing else, to standard output.
        #[arg(long)]
        raw: bool,
    },
}

/// Reads the directory of dead letters; a daemon may be using it.
pub fn run(settings: &Settings, command: &Command, json: bool) -> Result<(), CliError> {
    let dir = &settings.dead_letter.dir;
    let failed = |error| CliError::failed(format!("failed to read the dead letters in `{}`", dir.display()), error);
    match command {
        Command::List { limit, reason, channel } => {
            let filter = Filter { reason: *reason, channel: channel.clone(), limit: Some(*limit), ..Filter::default() };
            let mut letters = dead_letter::list(dir, &filter).map_err(failed)?;
            letters.reverse();
            if json {
                let letters: Vec<_> = letters.iter().map(value).collect();
                return output::json(&json!({ "count": letters.len(), "deadletters": letters }));
            }
            if letters.is_empty() {
                return output::line("no dead letters");
            }
            output::table(
                &["ID", "RECEIVED", "REASON", "CHANNEL", "BYTES", "DETAIL"],
                letters.iter().map(row).collect(),
            )
        }
        Command::Show { id, raw } => {
            let found = dead_letter::show(dir, *id).map_err(failed)?;
            let (info, bytes) = found.ok_or_else(|| CliError::No(format!("there is no dead letter {id}")))?;
            if *raw {
                return output::bytes(&bytes);
            }
            if json {
                let mut value = value(&info);
                value["text"] = String::from_utf8_lossy(&bytes).into();
                value["hex"] = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
                return output::json(&value);
            }
            output::table(&["ID", "RECEIVED", "REASON", "CHANNEL", "BYTES", "DETAIL"], vec![row(&info)])?;
            output::line(&format!("\n{}\n\nall {} bytes that are kept: --raw", Untrusted(&bytes), bytes.len()))
        }
    }
}

fn reason(text: &str) -> Result<Reason, String> {
    Reason::ALL
        .into_iter()
        .find(|reason| reason.as_str() == text)
        .ok_or_else(|| format!("one of {}", Reason::ALL.map(Reason::as_str).join(", ")))
}

fn row(letter: &DeadLetterInfo) -> Vec<String> {
    vec![
        letter.id.to_string(),
        render::time(letter.received_at),
        letter.reason.as_str().to_owned(),
        Untrusted(letter.channel.as_bytes()).to_string(),
        letter.length.to_string(),
        Untrusted(letter.detail.as_bytes()).to_string(),
    ]
}

fn value(letter: &DeadLetterInfo) -> Value {
    json!({
        "id": letter.id,
        "received_at": render::time(letter.received_at),
        "reason": letter.reason.as_str(),
        "detail": letter.detail,
        "channel": letter.channel,
        "length": letter.length,
        "kept": letter.kept,
        "hash": letter.hash,
        "offset": letter.offset,
    })
}
