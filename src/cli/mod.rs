//! The command line: one file a subcommand.

mod allocator;
mod args;
mod ask;
mod cache;
mod cells;
mod check;
mod compare;
mod connect;
mod control;
mod curves;
mod deadletter;
mod demo;
mod export;
mod gaps;
mod lookup;
mod metrics;
mod ndjson;
mod output;
mod progress;
mod run;
mod runs;
mod schema;
mod serve;
mod show;
mod spark;
mod spool;
mod status;
mod table;
mod tail;
mod token;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    app::Reload,
    config::{self, ConfigSources, Problems, Settings},
    files,
    logging::{self, LevelHandle},
    store::BoxError,
};

/// Durable ingestion of cascade-correlation training telemetry: Redis Pub/Sub to Cassandra or SQLite.
#[derive(Debug, Parser)]
#[command(name = "cascor-ingest", version, propagate_version = true, max_term_width = 120)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Heading of the flags of every subcommand, which `--help` shows after the subcommand's own.
const SETTINGS: &str = "Settings";

/// Flags of every subcommand.
#[derive(Debug, Args)]
pub struct Global {
    /// Settings: TOML, or the YAML of an existing deployment (.yaml, .yml).
    #[arg(long, short, global = true, help_heading = SETTINGS, value_name = "FILE", env = "CASCOR_INGEST_CONFIG")]
    config: Option<PathBuf>,
    /// Print JSON, for programs.
    #[arg(long, global = true, display_order = 900)]
    json: bool,
    /// Set a key: `--set spool.capacity=1GiB`.
    #[arg(long, global = true, help_heading = SETTINGS, value_name = "KEY=VALUE", value_parser = args::pair)]
    set: Vec<(String, String)>,
    /// Name of this daemon among others (`instance`).
    #[arg(long, global = true, help_heading = SETTINGS, value_name = "NAME")]
    instance: Option<String>,
    /// Where the spool and the database are (`state_dir`).
    #[arg(long, global = true, help_heading = SETTINGS, value_name = "DIR")]
    state_dir: Option<String>,
    /// Where Redis is (`redis.url`).
    #[arg(long, global = true, help_heading = SETTINGS, value_name = "URL")]
    redis_url: Option<String>,
    /// Where rows are kept (`store.kind`): sqlite or cassandra.
    #[arg(long, global = true, help_heading = SETTINGS, value_name = "KIND")]
    store: Option<String>,
    /// How much to log (`log.level`): `info`, or `info,cascor_ingest::writer=debug`.
    #[arg(long, global = true, help_heading = SETTINGS, value_name = "LEVELS")]
    log_level: Option<String>,
    /// Shape of a log line (`log.format`): text or json.
    #[arg(long, global = true, help_heading = SETTINGS, value_name = "FORMAT")]
    log_format: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The daemon: receive, spool, store, keep the latest state.
    Run,
    /// The HTTP API alone, on the configured store and Redis: for machines that only read.
    Serve,
    /// Publish a growing cascade-correlation run, to try the daemon.
    Demo(demo::Args),
    /// Read the configuration and report every problem.
    Check(check::Args),
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
    /// Tokens of the HTTP API.
    #[command(subcommand)]
    Token(token::Command),
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
}

impl CliError {
    /// An operation and why it failed.
    pub fn failed(what: impl Into<String>, error: impl Into<BoxError>) -> Self {
        Self::Failed { what: what.into(), error: error.into() }
    }

    /// 1 failed, 2 usage, 78 configuration (as in `sysexits.h`).
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Config(_) => 78,
            Self::Usage(_) => 2,
            Self::Failed { .. } | Self::NegativeAnswer(_) => 1,
        }
    }
}

/// Runs the command line.
///
/// # Errors
/// What failed; wrong arguments end the process here, with status 2.
pub fn run() -> Result<(), CliError> {
    files::protect_process();
    let Cli { global, command } = Cli::parse();
    let listens = matches!(command, Command::Run | Command::Serve);
    if listens {
        allocator::reexec_with_malloc_threshold();
    }
    if let Command::Check(args) = &command {
        return check::run(&global, args);
    }
    // Needs no configuration.
    if let Command::Token(command) = &command {
        return token::run(command, global.json);
    }
    let (settings, levels) = global.settings(listens)?;
    match command {
        Command::Run => run::run(&settings, global.reload(), levels),
        Command::Demo(args) => block_on(demo::run(settings, args, global.json)),
        Command::Check(_) | Command::Token(_) => Ok(()),
        Command::Schema(command) => block_on(schema::run(settings, command, global.json)),
        Command::Status(args) => block_on(status::run(settings, args, global.json)),
        Command::Runs(args) => block_on(runs::run(settings, args, global.json)),
        Command::Show(args) => block_on(show::run(settings, args, global.json)),
        Command::Compare(args) => block_on(compare::run(settings, args, global.json)),
        Command::Export(args) => block_on(export::run(settings, args, global.json)),
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
        Command::Deadletter(command) => deadletter::run(&settings, command, global.json),
    }
}

impl Global {
    /// The sources that these flags name.
    fn sources(&self) -> ConfigSources {
        let named = [
            ("instance", &self.instance),
            ("state_dir", &self.state_dir),
            ("redis.url", &self.redis_url),
            ("store.kind", &self.store),
            ("log.level", &self.log_level),
            ("log.format", &self.log_format),
        ];
        let named = named.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text.clone()?)));
        ConfigSources::of_process(self.config.clone(), self.set.iter().cloned().chain(named).collect())
    }

    /// The settings; installs the log and writes the warnings.
    fn settings(&self, listens: bool) -> Result<(Settings, Option<LevelHandle>), CliError> {
        let load = if listens { config::load_to_listen } else { config::load };
        let loaded = load(&self.sources()).map_err(CliError::Config)?;
        // Fails only when a log is installed already.
        let levels = logging::install(&loaded.settings.log).ok();
        for warning in loaded.warnings {
            tracing::warn!(warning, "configuration");
        }
        Ok((loaded.settings, levels))
    }

    /// Reads the same sources again.
    fn reload(&self) -> Reload {
        let sources = self.sources();
        Box::new(move || {
            config::load_to_listen(&sources).map(|loaded| loaded.settings).map_err(|problems| problems.to_string())
        })
    }
}

/// A one-shot command waits for one server at a time: one thread is enough.
fn block_on(future: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("failed to start", error))?;
    runtime.block_on(future)
}

#[cfg(test)]
mod tests;
