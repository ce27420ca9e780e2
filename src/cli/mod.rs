//! The command line: one file a subcommand.

mod allocator;
mod args;
mod ask;
mod backup;
mod cache;
mod cells;
mod check;
mod colour;
mod compare;
mod connect;
mod control;
mod curves;
mod deadletter;
mod demo;
mod doctor;
mod export;
mod field_names;
mod gaps;
mod global;
mod help;
mod import;
mod local_daemon;
mod lookup;
mod metrics;
mod ndjson;
mod output;
mod progress;
mod run;
mod run_changes;
mod run_deletion;
mod run_list;
mod run_table;
mod runs;
mod schema;
mod serve;
mod shell;
mod show;
mod sparkline;
mod spool;
mod status;
mod table;
mod tail;
mod token;
mod verdict;
mod width;

use clap::{ArgMatches, FromArgMatches, Parser, Subcommand};
use futures_util::future::LocalBoxFuture;

use self::{global::Global, local_daemon::LocalDaemon};
use crate::{
    config::{Problems, Settings},
    files,
    logging::{self, LevelHandle},
    store::BoxError,
};

/// Durable ingestion of cascade-correlation training telemetry: Redis Pub/Sub and Streams to Cassandra or SQLite.
#[derive(Debug, Parser)]
#[command(name = "cascor-ingest", version, propagate_version = true, max_term_width = HELP_WIDTH)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Heading of the flags of every subcommand, which the help of the program lists, and no other.
const SETTINGS: &str = "Settings";
/// Columns of the help on a terminal that is wider.
const HELP_WIDTH: usize = 120;

#[derive(Debug, Subcommand)]
enum Command {
    /// The daemon: receive, spool, store, keep the latest state.
    ///
    /// It receives what is published on `redis.training_channels`, and reads the Redis Streams of `redis.streams`: with a stream nothing is
    /// missed while no daemon runs, and daemons with the same `redis.group` share its entries. `cascor-ingest run --set
    /// 'redis.streams=["cascor:training:stream"]'`; `cascor-ingest doctor` examines the streams, their groups and the rights to read them.
    Run,
    /// The HTTP API alone, on the configured store and Redis: for machines that only read.
    ///
    /// Live events are those of `redis.training_channels` and `redis.streams`; it takes no entry of a stream from a daemon.
    Serve,
    /// Publish a growing cascade-correlation run, to try the daemon; with --stream on a Redis Stream.
    Demo(demo::Args),
    /// Read the configuration and report every problem.
    Check(check::Args),
    /// Examine servers, disk, limits and settings: what will fail, why, and the fix; exit status 1 at a fault.
    ///
    /// It works beside a running daemon and changes nothing, and says what the login may not look at. `doctor --listen 60s` listens
    /// longer to trainers, `doctor --json | jq '.findings[0]'` is the worst finding.
    Doctor(doctor::Args),
    /// The tables of the configured store.
    #[command(subcommand)]
    Schema(schema::Command),
    /// The status of the daemons.
    Status(status::Args),
    /// The newest runs.
    Runs(runs::RunsArgs),
    /// One run.
    Show(show::ShowArgs),
    /// Metrics of one run.
    Metrics(metrics::MetricsArgs),
    /// Gaps in what was received, and rows that a run lacks by `seq`; with --instance only of that daemon.
    Gaps(gaps::GapsArgs),
    /// Compare a field of several runs.
    Compare(compare::CompareArgs),
    /// Export whole runs to a file: CSV, JSON or NDJSON.
    Export(export::ExportArgs),
    /// Import messages (NDJSON) or tables of metrics (CSV) through a daemon; the same file twice gives the same rows.
    Import(import::ImportArgs),
    /// Follow the rows of a run.
    Tail(tail::TailArgs),
    /// Send a command to daemons or trainers.
    Control(control::Args),
    /// The durable log on disk.
    #[command(subcommand)]
    Spool(spool::Command),
    /// The latest-state keys in Redis.
    #[command(subcommand)]
    Cache(cache::Command),
    /// Rejected messages and rows.
    #[command(subcommand)]
    Deadletter(deadletter::Command),
    /// Write what the daemon keeps on this machine into one file: database, spool, dead letters, open runs. It may be running.
    Backup(backup::BackupArgs),
    /// Restore a backup into an empty state directory, while no daemon uses it.
    Restore(backup::RestoreArgs),
    /// Tokens of the HTTP API.
    #[command(subcommand)]
    Token(token::Command),
    /// Print the completions of a shell.
    Completions(shell::CompletionsArgs),
    /// Print the manual page, or write a page for each command.
    Man(shell::ManArgs),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(Problems),
    /// The arguments do not fit together.
    #[error("{0}")]
    Usage(String),
    /// An operation failed.
    #[error("{what}")]
    Failed {
        /// The operation.
        what: String,
        /// Its cause.
        #[source]
        error: BoxError,
    },
    /// The operation succeeded, with a negative answer.
    #[error("{0}")]
    NegativeAnswer(String),
    /// The reader of standard output has ended, as `head` does: not a failure.
    #[error("standard output is closed")]
    OutputClosed,
}

impl CliError {
    /// An operation and why it failed.
    pub fn failed(what: impl Into<String>, error: impl Into<BoxError>) -> Self {
        Self::Failed { what: what.into(), error: error.into() }
    }

    /// Writes it to standard error, in one line with its causes.
    pub fn print(&self) {
        output::error(&format!("cascor-ingest: {}", logging::Chain(self)));
    }

    /// 0 output closed, 1 failed, 2 usage, 78 configuration (as in `sysexits.h`).
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Config(_) => 78,
            Self::Usage(_) => 2,
            Self::Failed { .. } | Self::NegativeAnswer(_) => 1,
            Self::OutputClosed => 0,
        }
    }
}

/// Runs the command line.
///
/// # Errors
/// What failed; wrong arguments end the process here, with status 2.
pub fn run() -> Result<(), CliError> {
    files::protect_process();
    let matches = help::command().get_matches();
    let Cli { global, command } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    colour::choose(global.color);
    match execute(global, command, &matches) {
        // As if it had finished.
        Err(CliError::OutputClosed) => Ok(()),
        outcome => outcome,
    }
}

fn execute(global: Global, command: Command, matches: &ArgMatches) -> Result<(), CliError> {
    let listens = matches!(command, Command::Run | Command::Serve);
    if listens {
        allocator::reexec_with_malloc_threshold();
    }
    if let Command::Check(args) = &command {
        return check::run(&global, args);
    }
    if let Command::Doctor(args) = &command {
        return doctor::run(&global, args);
    }
    // These need no configuration.
    match &command {
        Command::Token(command) => return token::run(command, global.json),
        Command::Completions(args) => return shell::completions(args),
        Command::Man(args) => return shell::man(args),
        _ => {}
    }
    if global.instance.is_some()
        && let Some(instead) = ignored_instance(&command)
    {
        return Err(CliError::Usage(format!("--instance has no effect: {instead}")));
    }
    let (mut settings, levels) = global.settings(listens)?;
    let instead = asked_instead(&global, &command, matches, &settings);
    if let Some(daemon) = &instead {
        settings.client.url.clone_from(&daemon.url);
    } else if asks_daemon(matches, &settings) {
        global.refuse_settings_of_this_machine(matches!(command, Command::Gaps(_)))?;
    }
    files::share_with_group_of(&settings.state_dir);
    let outcome = execute_with(global, command, settings, levels);
    match (outcome, instead) {
        (Err(CliError::Failed { what, error }), Some(LocalDaemon { url, reason })) => {
            let what = format!("{reason}; the daemon at {url} was asked instead: {what}");
            Err(CliError::Failed { what, error })
        }
        (outcome, _) => outcome,
    }
}

fn execute_with(
    global: Global,
    command: Command,
    settings: Settings,
    levels: Option<LevelHandle>,
) -> Result<(), CliError> {
    match command {
        Command::Run => run::run(&settings, global.reload(), levels),
        Command::Demo(args) => block_on(demo::run(settings, args, global.json)),
        Command::Check(_) | Command::Doctor(_) | Command::Token(_) | Command::Completions(_) | Command::Man(_) => {
            Ok(())
        }
        Command::Schema(command) => block_on(schema::run(settings, command, global.json)),
        Command::Status(args) => block_on(status::run(settings, args.with_global(&global)?, global.json)),
        Command::Runs(args) => block_on(runs::run(settings, args, global.json)),
        Command::Show(args) => block_on(show::run(settings, args, global.json)),
        Command::Compare(args) => block_on(compare::run(settings, args, global.json)),
        Command::Export(args) => block_on(export::run(settings, args, global.json)),
        Command::Import(args) => block_on(import::run(settings, args, global.json)),
        Command::Tail(args) => block_on(tail::run(settings, args, global.json)),
        Command::Serve => serve::run(&settings),
        Command::Metrics(args) => block_on(metrics::run(settings, args, global.json)),
        Command::Gaps(args) => {
            let args = gaps::GapsArgs { instance: global.instance, ..args };
            block_on(gaps::run(settings, args, global.json))
        }
        Command::Control(args) => block_on(control::run(settings, args, global.json)),
        Command::Spool(command) => spool::run(&settings, command, global.json),
        Command::Cache(command) => block_on(cache::run(settings, command, global.json)),
        Command::Backup(args) => backup::back_up(&settings, &args, global.json),
        Command::Restore(args) => backup::restore(&settings, &args, global.json),
        Command::Deadletter(command) => deadletter::run(&settings, command, global.json),
    }
}

/// Why `--instance` would change nothing; `None` where the command uses the name.
fn ignored_instance(command: &Command) -> Option<&'static str> {
    match command {
        // The name is in the log of commands.
        Command::Runs(args) if args.changes() => None,
        Command::Runs(_)
        | Command::Show(_)
        | Command::Metrics(_)
        | Command::Compare(_)
        | Command::Export(_)
        | Command::Tail(_) => Some("runs are those of the store, whichever daemon has stored them"),
        Command::Import(_) => Some("a daemon is asked (--url), which has its own name"),
        Command::Control(_) => Some("--target NAME sends to one daemon"),
        Command::Cache(_) => Some("all daemons of a Redis share its keys"),
        Command::Demo(_) => Some("a trainer has no name of a daemon"),
        Command::Schema(_) => Some("all daemons of a store share its tables"),
        _ => None,
    }
}

/// Whether the command asks a daemon instead of the store and Redis.
fn asks_daemon(matches: &ArgMatches, settings: &Settings) -> bool {
    match url_argument(matches) {
        Some(url) => !url.unwrap_or(&settings.client.url).is_empty(),
        None => false,
    }
}

/// The daemon of this machine, where no other is named and this user may not use its files.
fn asked_instead(global: &Global, command: &Command, matches: &ArgMatches, settings: &Settings) -> Option<LocalDaemon> {
    let names_none = url_argument(matches) == Some(None) && settings.client.url.is_empty();
    // Dead letters are files, which HTTP does not give out; an import asks the daemon anyway.
    let is_remote = !matches!(command, Command::Deadletter(_) | Command::Import(_));
    let uses_store = !matches!(command, Command::Status(_) | Command::Control(_));
    if !names_none || !is_remote || global.names_settings() {
        return None;
    }
    local_daemon::instead_of_files(settings, uses_store)
}

/// The value of `--url` of a command that has this argument.
fn url_argument(matches: &ArgMatches) -> Option<Option<&String>> {
    let mut leaf = matches;
    while let Some((_, inner)) = leaf.subcommand() {
        leaf = inner;
    }
    leaf.try_get_one::<String>("url").ok()
}

/// A one-shot command waits for one server at a time: one thread is enough.
fn block_on(future: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    answer(future)?
}

/// What a one-shot command asks for.
fn answer<T>(future: impl Future<Output = T>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("failed to start", error))?;
    // Of one type: the runtime's code would be compiled for each.
    let future: LocalBoxFuture<'_, T> = Box::pin(future);
    Ok(runtime.block_on(future))
}

#[cfg(test)]
mod tests;
