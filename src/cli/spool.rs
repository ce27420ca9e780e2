//! `spool`: shows the durable log, also while a daemon uses it; verifies, exports and drains one that is not in use.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{
    CliError, block_on,
    cells::{self, FieldColumn},
    ndjson,
    output::{self, Told},
    progress::Bar,
    table::{self, Cell, Column},
};
use crate::{
    access,
    app::offline_drain::{self, Drained, OfflineDrainError, OrphanSpool},
    config::Settings,
    dead_letter::DeadLetterError,
    event::split_source,
    frame::RejectedMessage,
    render,
    spool::{self, Record, RecordKind, Report, SpoolError},
    terminal,
};

/// Columns of the segments.
static COLUMNS: [FieldColumn; 5] = [
    FieldColumn::new("name", Column::key("SEGMENT"), cells::whole_text),
    FieldColumn::new("first", Column::ranked("FIRST", 2), cells::count),
    FieldColumn::new("bytes", Column::ranked("BYTES", 1), cells::count),
    FieldColumn::new("records", Column::ranked("RECORDS", 3), cells::count),
    FieldColumn::new("damaged_bytes", Column::key("DAMAGED"), damaged),
];

/// The subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Segments, sizes and pending records; also of a spool in use.
    Status(Args),
    /// Check every record of a spool that is not in use; exit status 1 if one is damaged.
    Verify(Args),
    /// Write the records of a spool that is not in use as JSON, one a line.
    Export(ExportArgs),
    /// Write the pending records of a spool that is not in use to the configured store, and empty it; exit status 1 if one is lost.
    Drain(DrainArgs),
}

/// Arguments of `status` and `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its directory; absent: the configured one.
    dir: Option<PathBuf>,
}

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// Its directory; absent: the configured one.
    dir: Option<PathBuf>,
    /// A new file; absent: standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    permissions: output::Permissions,
    /// Only pending records.
    #[arg(long)]
    pending: bool,
}

/// Arguments of `drain`.
#[derive(Debug, clap::Args)]
pub struct DrainArgs {
    /// Its directory.
    dir: PathBuf,
    /// Name of the daemon it belonged to; absent: the name in the spool, which a `quarantine/` lacks.
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// Directory of its dead letters; absent: `deadletter` beside the spool; for the configured spool `deadletter.dir`; for a
    /// `quarantine/` whose daemon runs, `deadletter` in it.
    #[arg(long, value_name = "DIR")]
    deadletter: Option<PathBuf>,
}

/// Runs a subcommand on the directory of the log.
pub fn run(settings: &Settings, command: Command, json: bool) -> Result<(), CliError> {
    let dir = match &command {
        Command::Status(args) | Command::Verify(args) => args.dir.as_ref(),
        Command::Export(args) => args.dir.as_ref(),
        Command::Drain(args) => Some(&args.dir),
    };
    if let Some(problem) = access::problem_in(dir.unwrap_or(&settings.spool.dir)) {
        return Err(CliError::NegativeAnswer(problem));
    }
    match command {
        Command::Status(args) => status(&args.dir.unwrap_or_else(|| settings.spool.dir.clone()), json),
        Command::Verify(args) => verify(&args.dir.unwrap_or_else(|| settings.spool.dir.clone()), json),
        Command::Export(args) => {
            let dir = args.dir.clone().unwrap_or_else(|| settings.spool.dir.clone());
            export(&dir, &args)
        }
        Command::Drain(args) => block_on(drain(settings, args, json)),
    }
}

fn status(dir: &Path, json: bool) -> Result<(), CliError> {
    show(&spool::inspect(dir).map_err(failed(dir))?, json, false)
}

fn verify(dir: &Path, json: bool) -> Result<(), CliError> {
    require_unlocked(dir)?;
    let report = spool::verify(dir).map_err(failed(dir))?;
    require_unlocked(dir)?;
    let shown = show(&report, json, true);
    // A reader that has seen enough does not make a damaged spool sound.
    require_sound(&report).and(shown)
}

fn export(dir: &Path, args: &ExportArgs) -> Result<(), CliError> {
    require_unlocked(dir)?;
    let from = if args.pending { spool::inspect(dir).map_err(failed(dir))?.committed.unwrap_or(0) } else { 0 };
    let mut lines = ndjson::NdjsonWriter::to(args.output.as_deref(), args.permissions)?;
    let report = spool::read(dir, &mut |record| record.offset < from || lines.put(&object(record)));
    let report = report.map_err(failed(dir))?;
    let count = lines.finish()?;
    require_unlocked(dir)?;
    if args.output.is_some() {
        terminal::print_notice(format_args!("{count} {} written", records(count)));
    }
    require_sound(&report)
}

async fn drain(settings: &Settings, args: DrainArgs, json: bool) -> Result<(), CliError> {
    let DrainArgs { dir, owner, deadletter } = args;
    require_unlocked(&dir)?;
    let absolute = dir.canonicalize().unwrap_or_else(|_| dir.clone());
    let quarantine = absolute.file_name().is_some_and(|name| name == spool::QUARANTINE);
    // A quarantine is below its spool, and shares the dead letters of that spool.
    let spool_dir = if quarantine { absolute.parent().unwrap_or(&absolute) } else { &absolute };
    let configured = settings.spool.dir.canonicalize().ok();
    let is_configured = configured.as_ref() == Some(&absolute);
    let is_of_configured = configured.as_deref() == Some(spool_dir);
    let default_dir = || match spool_dir.parent() {
        Some(parent) if !is_of_configured => parent.join("deadletter"),
        _ => settings.dead_letter.dir.clone(),
    };
    let is_explicit = deadletter.is_some();
    let mut dead_letters = deadletter.unwrap_or_else(default_dir);
    let drain = async |dead_letters: &Path| {
        let (dir, dead_letters) = (dir.clone(), dead_letters.to_owned());
        let bar = Bar::new("drained");
        let orphan = OrphanSpool { dir, owner: owner.clone(), dead_letters, daemon_returns: is_configured, quarantine };
        offline_drain::drain(settings, orphan, |done, total| bar.show(done, total)).await
    };
    let mut drained = drain(&dead_letters).await;
    if let Err(OfflineDrainError::DeadLetters(DeadLetterError::Locked { .. })) = drained
        && quarantine
        && !is_explicit
    {
        // Its daemon holds them while it runs; the drain need not wait for that.
        dead_letters = absolute.join("deadletter");
        drained = drain(&dead_letters).await;
    }
    let drained = drained.map_err(|error| match error {
        OfflineDrainError::DeadLetters(error @ DeadLetterError::Locked { .. }) => {
            CliError::NegativeAnswer(format!("{error}: stop it first, or say with --deadletter where else they go"))
        }
        error => CliError::failed(format!("failed to drain the spool in `{}`", dir.display()), error),
    })?;
    show_drained(&drained, &dead_letters, is_configured, json)?;
    match drained.unreadable {
        0 => Ok(()),
        lost => Err(CliError::NegativeAnswer(format!("{lost} {} could not be read", records(lost)))),
    }
}

fn show_drained(drained: &Drained, dead_letters: &Path, is_configured: bool, json: bool) -> Result<(), CliError> {
    if json {
        return output::json(&json!({
            "records": drained.records,
            "stored": drained.stored,
            "unreadable": drained.unreadable,
            "elsewhere": drained.not_in_spool,
            "dead_letters": drained.dead_letters,
            "dead_letters_in": dead_letters.display().to_string(),
        }));
    }
    let left = if is_configured { "the daemon removes the files when it is started" } else { "the spool is empty" };
    let Drained { records: all, stored, not_in_spool: elsewhere, dead_letters: letters, .. } = *drained;
    output::line(&format!("{stored} of {all} {} stored; {left}", records(all)))?;
    if elsewhere > 0 {
        output::line(&format!(
            "not in this directory, but between the quarantined records: {elsewhere} {}",
            records(elsewhere)
        ))?;
    }
    match letters {
        0 => Ok(()),
        letters => output::line(&format!("dead letters in {}: {letters}", dead_letters.display())),
    }
}

/// In a spool in use, records being written look torn, and removed ones look lost.
fn require_unlocked(dir: &Path) -> Result<(), CliError> {
    match spool::inspect(dir).map_err(failed(dir))?.holder {
        None => Ok(()),
        Some(holder) => Err(CliError::NegativeAnswer(format!(
            "spool `{}` is in use by process {holder}: stop it first, or ask it with `spool status`",
            dir.display()
        ))),
    }
}

fn require_sound(report: &Report) -> Result<(), CliError> {
    match (report.is_sound(), report.lost) {
        (true, _) => Ok(()),
        (false, 0) => Err(CliError::NegativeAnswer("the spool is damaged, but no record is lost".into())),
        (false, lost) => {
            Err(CliError::NegativeAnswer(format!("{lost} {} lost; all others are readable", records(lost))))
        }
    }
}

fn records(count: u64) -> &'static str {
    if count == 1 { "record" } else { "records" }
}

fn failed(dir: &Path) -> impl Fn(SpoolError) -> CliError {
    move |error| match error {
        SpoolError::Absent { .. } => CliError::NegativeAnswer(error.to_string()),
        error => CliError::failed(format!("failed to read the spool in `{}`", dir.display()), error),
    }
}

fn object(record: &Record<'_>) -> Map<String, Value> {
    let decided = &record.decided;
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| _ = object.insert(name.to_owned(), value);
    put("offset", record.offset.into());
    let kind = match record.kind {
        RecordKind::Event => "event",
        RecordKind::Rejected => "rejected",
        RecordKind::Control => "control",
        RecordKind::Gap => "gap",
        RecordKind::Receipt => "receipt",
    };
    put("kind", kind.into());
    put("received_at", render::time(decided.received_at).into());
    put("event_time", render::time(decided.event_time).into());
    put("run_id", (!decided.run_id.is_nil()).then(|| decided.run_id.to_string()).into());
    let (channel, entry) = split_source(record.channel);
    put("channel", channel.into());
    if let Some(entry) = entry {
        put("entry", entry.to_string().into());
    }
    let rejected = if record.kind == RecordKind::Rejected { RejectedMessage::decode(record.payload) } else { None };
    if let Some((rejected, _)) = &rejected {
        put("reason", rejected.rejection.reason.as_str().into());
        put("detail", rejected.rejection.detail.as_str().into());
        put("length", rejected.length.into());
    }
    ndjson::put_payload(&mut object, rejected.map_or(record.payload, |(_, payload)| payload));
    object
}

fn show(report: &Report, json: bool, verified: bool) -> Result<(), CliError> {
    let value = serde_json::to_value(report).map_err(|error| CliError::failed("failed to print", error))?;
    if json {
        return output::json(&value);
    }
    let text = |value: Option<String>| table::text(Some(value.as_deref().unwrap_or("-")));
    let number = |value: u64| table::text(Some(&value.to_string()));
    let mut fields = vec![
        ("id", text(report.id.map(|id| id.to_string()))),
        ("instance", text(report.owner.clone())),
        ("held by", text(report.holder.clone())),
        ("committed", text(report.committed.map(|offset| offset.to_string()))),
        ("checkpoint damaged", text(Some(report.checkpoint_damaged.to_string()))),
        ("end", number(report.end)),
        ("waiting for the store", number(report.pending)),
        ("bytes", number(report.bytes)),
        ("quarantined bytes", number(report.quarantine_bytes)),
    ];
    if verified {
        let span = |(first, last)| format!("{} … {}", render::time(first), render::time(last));
        fields.extend([
            ("records", number(report.records)),
            ("lost", number(report.lost)),
            ("torn bytes at the end", number(report.torn_bytes)),
            ("received", text(report.received.map(span))),
        ]);
    }
    output::fields(&fields.into_iter().map(|(name, cell)| (name.to_owned(), cell)).collect::<Vec<_>>())?;
    output::line("")?;
    let columns = if verified { &COLUMNS[..] } else { &COLUMNS[..3] };
    // Without verification nothing is known of the records, and a header that is not valid is an error before.
    let told = Told { elsewhere: &["records", "damaged_bytes", "header_valid"], shown_by: "--json shows them" };
    output::records(columns, cells::list(&value, "segments"), &told)
}

/// Bytes of a segment that are not part of a record.
fn damaged(segment: &Value, field: &str) -> Cell {
    match segment["header_valid"].as_bool() {
        Some(false) => table::count(Some("header")),
        _ => cells::count(segment, field),
    }
}
