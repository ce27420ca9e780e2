//! `deadletter`: rejected messages and rows, and why they were rejected.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::{CliError, block_on, ndjson, output, progress::Bar};
use crate::{
    app::dead_letter_replay as replay,
    config::Settings,
    dead_letter::{self, DeadLetter, DeadLetterInfo, Filter, Reader},
    frame::{Reason, Rejection},
    logging::Untrusted,
    render, terminal,
    units::Micros,
};

const HEADERS: [&str; 6] = ["ID", "RECEIVED", "REASON", "CHANNEL", "BYTES", "DETAIL"];
/// Failures in the table of `replay`; `deadletter list` has them all.
const FAILED_SHOWN: usize = 20;

/// The subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List dead letters with their reasons, the newest first.
    List {
        /// At most this many.
        #[arg(long, short = 'n', default_value_t = 100, value_name = "N", value_parser = super::args::at_least_one)]
        limit: usize,
        #[command(flatten)]
        filters: FilterArgs,
    },
    /// Print one dead letter with its bytes.
    Show {
        /// Its id, as `list` prints it.
        id: u64,
        /// Write only the stored bytes to standard output.
        #[arg(long)]
        raw: bool,
    },
    /// Write dead letters as JSON, one a line, the oldest first.
    Export {
        #[command(flatten)]
        filters: FilterArgs,
        /// A new file; absent: standard output.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        permissions: output::Permissions,
    },
    /// Decode dead letters again, store those that are valid now, and drop these. A daemon may be running.
    Replay {
        #[command(flatten)]
        filters: FilterArgs,
        /// Ids, as `list` prints them; absent: all that match the filters.
        ids: Vec<u64>,
    },
    /// Drop dead letters for good. A daemon may be running.
    Drop {
        #[command(flatten)]
        filters: FilterArgs,
        /// Ids, as `list` prints them.
        ids: Vec<u64>,
        /// All dead letters.
        #[arg(long)]
        all: bool,
    },
}

/// Filters of every subcommand.
#[derive(Clone, Debug, clap::Args)]
pub struct FilterArgs {
    /// Only with this reason, such as `malformed_json`.
    #[arg(long, value_parser = reason)]
    reason: Option<Reason>,
    /// Only from this channel.
    #[arg(long)]
    channel: Option<String>,
    /// Only those received at this time or later.
    #[arg(long, value_name = "TIME", value_parser = render::parse_time)]
    since: Option<Micros>,
    /// Only those received at this time or earlier.
    #[arg(long, value_name = "TIME", value_parser = render::parse_time)]
    until: Option<Micros>,
}

impl FilterArgs {
    fn filter(self, ids: Vec<u64>, limit: Option<usize>) -> Filter {
        let Self { reason, channel, since, until } = self;
        Filter { reason, channel, since, until, limit, ids: ids.into_iter().collect() }
    }

    fn is_empty(&self) -> bool {
        self.reason.is_none() && self.channel.is_none() && self.since.is_none() && self.until.is_none()
    }
}

/// Runs a subcommand on the directory of dead letters, which a daemon may be using.
pub fn run(settings: &Settings, command: Command, json: bool) -> Result<(), CliError> {
    let dir = &settings.dead_letter.dir;
    let failed = |error| CliError::failed(format!("failed to use the dead letters in `{}`", dir.display()), error);
    match command {
        Command::List { limit, filters } => {
            let letters = dead_letter::list(dir, &filters.filter(Vec::new(), Some(limit))).map_err(failed)?;
            show_list(letters, json)
        }
        Command::Show { id, raw } => {
            let found = dead_letter::get(dir, id).map_err(failed)?;
            let (info, bytes) =
                found.ok_or_else(|| CliError::NegativeAnswer(format!("there is no dead letter {id}")))?;
            show_one(&info, &bytes, raw, json)
        }
        Command::Export { filters, output, permissions } => {
            let mut lines = ndjson::NdjsonWriter::to(output.as_deref(), permissions)?;
            let mut browser = Reader::open(dir, filters.filter(Vec::new(), None)).map_err(failed)?;
            loop {
                let letters = browser.next_entries().map_err(failed)?;
                if letters.is_empty() || !letters.iter().all(|letter| lines.put(&object(letter))) {
                    break;
                }
            }
            let count = lines.finish()?;
            if output.is_some() {
                terminal::print_notice(format_args!("{count} dead {} written", letters(count)));
            }
            Ok(())
        }
        Command::Replay { filters, ids } => block_on(replay(settings, filters.filter(ids, None), json)),
        Command::Drop { filters, ids, all } => {
            if all != (filters.is_empty() && ids.is_empty()) {
                return Err(CliError::Usage("name the dead letters, or filter them, or say --all".into()));
            }
            let found = dead_letter::list(dir, &filters.filter(ids, None)).map_err(failed)?;
            if !found.is_empty() {
                dead_letter::dropped::update(dir, found.iter().map(|info| info.id), []).map_err(failed)?;
            }
            let count = found.len() as u64;
            if json {
                return output::json(&json!({ "dropped": count }));
            }
            output::line(&format!("{count} dead {} dropped", letters(count)))
        }
    }
}

async fn replay(settings: &Settings, filter: Filter, json: bool) -> Result<(), CliError> {
    let bar = Bar::new("replayed");
    let replayed = replay::replay(settings, filter, |done, total| bar.show(done, total)).await;
    drop(bar);
    let replayed = replayed.map_err(|error| CliError::failed("failed to replay dead letters", error))?;
    let replay::Replayed { stored, failed, truncated: cut } = &replayed;
    if json {
        let failed: Vec<_> = failed
            .iter()
            .map(|(id, why)| json!({ "id": id, "reason": why.reason.as_str(), "detail": why.detail }))
            .collect();
        output::json(&json!({ "stored": stored, "failed": failed, "not_replayable": cut }))?;
    } else {
        output::line(&format!("{stored} dead {} stored", letters(*stored)))?;
        if *cut > 0 {
            output::line(&format!("{cut} cannot be replayed: not all of the message was kept"))?;
        }
        let row = |(id, why): &(u64, Rejection)| {
            vec![id.to_string(), why.reason.as_str().to_owned(), Untrusted(why.detail.as_bytes()).to_string()]
        };
        if !failed.is_empty() {
            output::table(&["FAILED", "REASON", "DETAIL"], failed.iter().take(FAILED_SHOWN).map(row).collect())?;
        }
    }
    match failed.len() as u64 {
        0 => Ok(()),
        count => Err(CliError::NegativeAnswer(format!("{count} dead {} failed again, and stay", letters(count)))),
    }
}

fn letters(count: u64) -> &'static str {
    if count == 1 { "letter" } else { "letters" }
}

fn show_list(mut letters: Vec<DeadLetterInfo>, json: bool) -> Result<(), CliError> {
    letters.reverse();
    if json {
        let letters: Vec<_> = letters.iter().map(value).collect();
        return output::json(&json!({ "count": letters.len(), "deadletters": letters }));
    }
    if letters.is_empty() {
        return output::line("no dead letters");
    }
    output::table(&HEADERS, letters.iter().map(row).collect())
}

fn show_one(info: &DeadLetterInfo, bytes: &[u8], raw: bool, json: bool) -> Result<(), CliError> {
    if raw {
        return output::bytes(bytes);
    }
    if json {
        let mut value = value(info);
        value["text"] = String::from_utf8_lossy(bytes).into();
        value["hex"] = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
        return output::json(&value);
    }
    output::table(&HEADERS, vec![row(info)])?;
    output::line(&format!("\n{}\n\nall {} bytes that are kept: --raw", Untrusted(bytes), bytes.len()))
}

fn object(letter: &DeadLetter) -> Map<String, Value> {
    let mut object = match value(&letter.info) {
        Value::Object(object) => object,
        _ => Map::new(),
    };
    ndjson::put_payload(&mut object, &letter.payload);
    object
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
