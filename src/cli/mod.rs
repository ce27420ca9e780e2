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

/// Above the flags of every subcommand, so that each one's own are seen first.
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
    /// Set any key: `--set spool.capacity=1GiB`.
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
    Run(run::Args),
    /// The HTTP API alone, on the configured store, with what is heard on Redis: for machines that only read.
    Serve(serve::Args),
    /// A training process to try it with: publishes a growing cascade-correlation run.
    Demo(demo::Args),
    /// Read the configuration and say everything that is wrong with it.
    Check(check::Args),
    /// The tables of the configured store.
    #[command(subcommand)]
    Schema(schema::Command),
    /// What the daemons say about themselves.
    Status(status::Args),
    /// The newest runs.
    Runs(runs::RunsArgs),
    /// One run.
    Show(show::ShowArgs),
    /// Metrics of one run.
    Metrics(metrics::MetricsArgs),
    /// What was missed, and what a run lacks by `seq`; with --instance only by that daemon.
    Gaps(gaps::GapsArgs),
    /// One field of several runs beside each other.
    Compare(compare::CompareArgs),
    /// Whole runs to a file: CSV, JSON or NDJSON.
    Export(export::ExportArgs),
    /// Rows of a run as they come.
    Tail(tail::TailArgs),
    /// Send a command, and wait for the receipts.
    Control(control::Args),
    /// The durable log on disk.
    #[command(subcommand)]
    Spool(spool::Command),
    /// The latest-state keys in Redis.
    #[command(subcommand)]
    Cache(cache::Command),
    /// Messages and rows set aside.
    #[command(subcommand)]
    Deadletter(deadletter::Command),
    /// Tokens of the HTTP side.
    #[command(subcommand)]
    Token(token::Command),
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The settings are wrong.
    #[error(transparent)]
    Config(Problems),
    /// The arguments do not fit together.
    #[error("{0}")]
    Usage(String),
    /// It was tried, and failed.
    #[error("{what}")]
    Failed {
        /// The operation.
        what: String,
        /// Its cause.
        #[source]
        error: BoxError,
    },
    /// It worked, and the answer is no.
    #[error("{0}")]
    NegativeAnswer(String),
    /// Not part of this build.
    #[error("`{0}` is not part of this build")]
    NotInThisBuild(&'static str),
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
            Self::Failed { .. } | Self::NegativeAnswer(_) | Self::NotInThisBuild(_) => 1,
        }
    }
}

/// Does what the command line says.
///
/// # Errors
/// What failed; wrong arguments end the process here, with status 2.
pub fn run() -> Result<(), CliError> {
    files::protect_process();
    let Cli { global, command } = Cli::parse();
    let listens = matches!(command, Command::Run(_) | Command::Serve(_));
    if listens {
        allocator::reexec_with_malloc_threshold();
    }
    if let Command::Check(args) = &command {
        return check::run(&global, args);
    }
    // It needs no configuration.
    if let Command::Token(command) = &command {
        return token::run(command, global.json);
    }
    let (settings, levels) = global.settings(listens)?;
    match command {
        Command::Run(_) => run::run(&settings, global.reload(), levels),
        Command::Demo(args) => block_on(demo::run(settings, args, global.json)),
        Command::Check(_) | Command::Token(_) => Ok(()),
        Command::Schema(command) => block_on(schema::run(settings, command, global.json)),
        Command::Status(args) => block_on(status::run(settings, args, global.json)),
        Command::Runs(args) => block_on(runs::run(settings, args, global.json)),
        Command::Show(args) => block_on(show::run(settings, args, global.json)),
        Command::Compare(args) => block_on(compare::run(settings, args, global.json)),
        Command::Export(args) => block_on(export::run(settings, args, global.json)),
        Command::Tail(args) => block_on(tail::run(settings, args, global.json)),
        Command::Serve(_) => serve::run(&settings),
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

    /// The settings, with the log installed and its first lines written.
    fn settings(&self, listens: bool) -> Result<(Settings, Option<LevelHandle>), CliError> {
        let load = if listens { config::load_to_listen } else { config::load };
        let loaded = load(&self.sources()).map_err(CliError::Config)?;
        // Fails only when a log is there already, which is as good.
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

/// Commands of people wait for one server at a time: one thread is enough.
fn block_on(future: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("failed to start", error))?;
    runtime.block_on(future)
}

#[cfg(test)]
mod tests;
