//! `deadletter`: rejected messages and rows, and why they were rejected.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::{
    CliError,
    args::moment,
    ask::{QueryClient, Target},
    block_on,
    cells::{self, FieldColumn},
    ndjson,
    output::{self, Told},
    progress::Bar,
    table::Column,
};
use crate::{
    access,
    app::dead_letter_replay as replay,
    config::Settings,
    dead_letter::{self, DeadLetter, DeadLetterInfo, Filter, Reader},
    frame::{Reason, Rejection},
    logging::Untrusted,
    render, spool, terminal,
    units::Micros,
};

static COLUMNS: [FieldColumn; 6] = [
    FieldColumn::new("id", Column::key("ID"), cells::count),
    FieldColumn::new("received_at", Column::ranked("RECEIVED (UTC)", 3), cells::moment),
    FieldColumn::new("reason", Column::key("REASON"), cells::whole_text),
    FieldColumn::new("channel", Column::ranked("CHANNEL", 2), cells::text),
    FieldColumn::new("length", Column::ranked("BYTES", 4), cells::count),
    FieldColumn::new("detail", Column::long("DETAIL", 1), cells::text),
];
/// The order in which one dead letter is described.
const ORDER: [&str; 9] = ["id", "received_at", "reason", "detail", "channel", "length", "kept", "hash", "offset"];
/// Failures in the table of `replay`; `deadletter list` has them all.
const FAILED_SHOWN: usize = 20;

/// The subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List dead letters with their reasons, the newest first.
    List {
        /// At most this many.
        #[arg(long, short = 'n', default_value_t = 100, value_name = "N", value_parser = super::args::at_least_one, allow_negative_numbers = true)]
        limit: usize,
        #[command(flatten)]
        filters: FilterArgs,
        #[command(flatten)]
        target: Target,
    },
    /// Print one dead letter with its bytes.
    Show {
        /// Its id, as `list` prints it.
        id: u64,
        /// Write only the stored bytes to standard output.
        #[arg(long)]
        raw: bool,
        #[command(flatten)]
        target: Target,
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
        #[command(flatten)]
        target: Target,
    },
    /// Decode dead letters again, store those that are valid now, and drop these. A daemon may be running.
    Replay {
        #[command(flatten)]
        filters: FilterArgs,
        /// Ids, as `list` prints them; absent: all that match the filters.
        ids: Vec<u64>,
        #[command(flatten)]
        target: Target,
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
        #[command(flatten)]
        target: Target,
    },
}

/// Filters of every subcommand.
#[derive(Clone, Debug, clap::Args)]
pub struct FilterArgs {
    /// Only with this reason, such as `malformed_json`.
    #[arg(long)]
    reason: Option<Reason>,
    /// Only from this channel.
    #[arg(long)]
    channel: Option<String>,
    /// Only those received at this time or later; `1h`: in the last hour.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Micros>,
    /// Only those received at this time or earlier; `1h`: more than an hour ago.
    #[arg(long, value_name = "TIME", value_parser = moment)]
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

impl Command {
    fn target(&self) -> &Target {
        match self {
            Self::List { target, .. }
            | Self::Show { target, .. }
            | Self::Export { target, .. }
            | Self::Replay { target, .. }
            | Self::Drop { target, .. } => target,
        }
    }
}

/// Runs a subcommand on the directory of dead letters, which a daemon may be using.
pub fn run(settings: &Settings, command: Command, json: bool) -> Result<(), CliError> {
    if let Some(daemon) = command.target().daemon(settings)? {
        block_on(require_local(settings, &daemon))?;
    }
    let dir = &settings.dead_letter.dir;
    if let Some(problem) = access::problem_in(dir).or_else(|| access::problem(&settings.spool.dir)) {
        return Err(CliError::NegativeAnswer(problem));
    }
    if matches!(command, Command::Replay { .. } | Command::Drop { .. }) && access::is_read_only(dir) {
        return Err(CliError::NegativeAnswer(format!("{}: run this as root (sudo)", access::read_only(dir))));
    }
    if !dir.is_dir() && !settings.spool.dir.is_dir() {
        return Err(CliError::NegativeAnswer(format!(
            "there are no dead letters in `{}`: the daemon makes that directory when it is first started; if it is elsewhere, \
             name its --state-dir",
            dir.display()
        )));
    }
    let failed = |error| CliError::failed(format!("failed to use the dead letters in `{}`", dir.display()), error);
    match command {
        Command::List { limit, filters, .. } => {
            let letters = dead_letter::list(dir, &filters.filter(Vec::new(), Some(limit))).map_err(failed)?;
            show_list(letters, json)
        }
        Command::Show { id, raw, .. } => {
            let found = dead_letter::get(dir, id).map_err(failed)?;
            let (info, bytes) =
                found.ok_or_else(|| CliError::NegativeAnswer(format!("there is no dead letter {id}")))?;
            show_one(&info, &bytes, raw, json)
        }
        Command::Export { filters, output, permissions, .. } => {
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
        Command::Replay { filters, ids, .. } => block_on(replay(settings, filters.filter(ids, None), json)),
        Command::Drop { filters, ids, all, .. } => {
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

/// Refuses a daemon whose directories are not those of these settings: its HTTP API does not give dead letters out. The id of its
/// spool tells.
async fn require_local(settings: &Settings, daemon: &QueryClient) -> Result<(), CliError> {
    let status = daemon.json("/api/status").await?;
    let local = spool::inspect(&settings.spool.dir).ok().and_then(|report| report.id);
    if local.is_some_and(|local| status["spool"]["id"] == local.to_string()) {
        return Ok(());
    }
    let name = output::cell(status.get("instance"));
    let Some(count) = status["counters"]["dead_letters"].as_u64() else {
        return Err(CliError::NegativeAnswer(format!(
            "`{name}` only answers HTTP: it receives nothing, and has no dead letters"
        )));
    };
    Err(CliError::NegativeAnswer(format!(
        "`{name}` has {count} dead {}, which cannot be read or changed by HTTP: run this command on the machine of its process {}, \
         with --url \"\" and its configuration",
        letters(count),
        output::cell(status.get("process")),
    )))
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
    let letters: Vec<_> = letters.iter().map(value).collect();
    if json {
        return output::json(&json!({ "count": letters.len(), "deadletters": letters }));
    }
    if letters.is_empty() {
        return output::line("no dead letters");
    }
    let shown_by = "`deadletter show ID` or --json shows them";
    output::records(&COLUMNS, &letters, &Told { elsewhere: &[], shown_by })
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
    let letter = value(info);
    let field = |name: &&str| (name.replace('_', " "), cells::whole(&letter[*name]));
    output::fields(&ORDER.iter().map(field).filter(|(_, cell)| !cell.is_empty()).collect::<Vec<_>>())?;
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

fn value(letter: &DeadLetterInfo) -> Value {
    let mut value = json!({
        "id": letter.id,
        "received_at": render::time(letter.received_at),
        "reason": letter.reason.as_str(),
        "detail": letter.detail,
        "channel": letter.channel,
        "length": letter.length,
        "kept": letter.kept,
        "hash": letter.hash,
        "offset": letter.offset,
    });
    if let Some(entry) = &letter.entry {
        value["entry"] = json!(entry);
    }
    value
}
