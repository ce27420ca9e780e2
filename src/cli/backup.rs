//! `backup` and `restore`: what a daemon keeps on this machine, in one file.

use std::path::PathBuf;

use serde_json::json;

use super::{CliError, output, progress::Bar, table};
use crate::{
    app::backup::{self, BackupError},
    config::Settings,
    render,
    store::StoreKind,
    words::counted,
};

const BACKUP_EXAMPLES: &str = "\
Examples:
  cascor-ingest backup /backup/cascor.backup               # the daemon may go on
  cascor-ingest backup /backup/cascor.backup --overwrite   # the old one is replaced once the new one is complete
  sqlite3 /backup/cascor.backup 'PRAGMA quick_check'       # a backup begins with the database

With Cassandra the tables are not in it: run `nodetool snapshot` on every node after the backup.";

const RESTORE_EXAMPLES: &str = "\
Examples:
  cascor-ingest restore /backup/cascor.backup                         # into an empty state directory
  cascor-ingest restore /backup/cascor.backup --state-dir /tmp/look   # beside the daemon, to look at it
  cascor-ingest restore /backup/cascor.backup --force                 # moves aside what is there";

/// Arguments of `backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub struct BackupArgs {
    /// The file to write, readable by its owner alone.
    file: PathBuf,
    /// Replace a file that exists.
    #[arg(long)]
    overwrite: bool,
}

/// Arguments of `restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = RESTORE_EXAMPLES)]
pub struct RestoreArgs {
    /// The backup.
    file: PathBuf,
    /// Move aside what is in the way; nothing is deleted.
    #[arg(long)]
    force: bool,
}

/// Makes a backup.
///
/// # Errors
/// When there is none then.
pub fn back_up(settings: &Settings, args: &BackupArgs, json: bool) -> Result<(), CliError> {
    output::require_directory_of(&args.file)?;
    let bar = Bar::new("backed up");
    let taken = backup::take(settings, &args.file, args.overwrite, &mut |done, total| bar.show(done, total))
        .map_err(|error| CliError::failed("no backup was made", error))?;
    drop(bar);
    let file = args.file.display().to_string();
    if json {
        return output::json(&json!({
            "file": file,
            "bytes": taken.bytes,
            "database_bytes": taken.database_bytes,
            "files": taken.files,
            "waiting": taken.waiting,
        }));
    }
    let database = taken.database_bytes.map(|bytes| bytes.to_string());
    show(&[
        ("file", Some(file)),
        ("bytes", Some(taken.bytes.to_string())),
        ("bytes of the database", database),
        ("other files", Some(taken.files.to_string())),
        ("waiting for the store", Some(taken.waiting.to_string())),
    ])?;
    match settings.store.kind {
        StoreKind::Sqlite => Ok(()),
        StoreKind::Cassandra => output::line(&format!(
            "the tables are in Cassandra, and not in this backup: run `nodetool snapshot {}` on every node now",
            settings.store.cassandra.keyspace
        )),
    }
}

/// Restores a backup.
///
/// # Errors
/// When nothing was restored, or not everything.
pub fn restore(settings: &Settings, args: &RestoreArgs, json: bool) -> Result<(), CliError> {
    let bar = Bar::new("restored");
    let restored =
        backup::restore(settings, &args.file, args.force, &mut |done, total| bar.show(done, total)).map_err(failed)?;
    drop(bar);
    let aside: Vec<_> = restored.moved_aside.iter().map(|path| path.display().to_string()).collect();
    let left = restored.left_in_spool.as_ref().map(|(records, path)| (*records, path.display().to_string()));
    if json {
        return output::json(&json!({
            "instance": restored.instance,
            "program": restored.program,
            "made_at": render::time(restored.created_at),
            "state_dir": settings.state_dir.display().to_string(),
            "waiting": restored.waiting,
            "moved_aside": aside,
            "left_in_spool": left.as_ref().map(|(records, _)| records),
        }));
    }
    show(&[
        ("instance", Some(restored.instance)),
        ("made by version", Some(restored.program)),
        ("made at", Some(render::time(restored.created_at))),
        ("state directory", Some(settings.state_dir.display().to_string())),
        ("waiting for the store", Some(restored.waiting.to_string())),
    ])?;
    aside.iter().try_for_each(|path| output::line(&format!("moved aside: {path}")))?;
    if let Some((records, path)) = left {
        let records = counted(records, "record was", "records were");
        output::line(&format!(
            "{records} not stored, and in {path}; `cascor-ingest spool drain {path}` stores what is there"
        ))?;
    }
    if !restored.has_database {
        output::line("the tables are in Cassandra, and were not in this backup: restore their snapshot as well")?;
    }
    output::line("start the daemon now: it stores what waits")
}

fn failed(error: BackupError) -> CliError {
    let what = match &error {
        BackupError::Write { .. } | BackupError::Aside { .. } => {
            "the restore was interrupted; the daemon does not start on what is there; run it again with --force"
        }
        _ => "nothing was restored",
    };
    CliError::failed(what, error)
}

fn show(fields: &[(&str, Option<String>)]) -> Result<(), CliError> {
    let fields: Vec<_> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), table::text(value.as_deref()))).collect();
    output::fields(&fields)
}
