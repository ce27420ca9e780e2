//! `schema`: plan, create and verify the tables of the configured store.

use std::{fmt::Display, path::PathBuf, time::Duration};

use serde_json::json;

use super::{CliError, output};
use crate::{
    config::Settings,
    metrics::Metrics,
    schema::{CassandraSchema, Options, Replication},
    store::{Store, StoreKind, sqlite},
    units,
    words::counted,
};

/// The subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print what `apply` would do.
    Plan(Args),
    /// Create what is missing; safe to repeat and to run twice at once.
    Apply(Args),
    /// List what is missing or differs; exit status 1 if anything does.
    Verify(Args),
    /// Print the statements.
    Print(Args),
}

/// Arguments of every schema command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long to wait for the database.
    #[arg(long, default_value = "60s", value_parser = units::parse_duration)]
    pub wait: Duration,
    /// `SimpleStrategy:1` or `NetworkTopologyStrategy:dc1=3,dc2=2`; absent: `store.cassandra.replication`, which a cluster of one
    /// node does not need.
    #[arg(long)]
    pub replication: Option<Replication>,
    /// Apply this folder of `.cql` files, in the order of their names, instead of our tables.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Runs a subcommand on the configured store.
pub async fn run(settings: Settings, command: Command, json: bool) -> Result<(), CliError> {
    match settings.store.kind {
        StoreKind::Cassandra => on_cassandra(&settings, command, json).await,
        StoreKind::Sqlite => on_sqlite(&settings, command, json).await,
    }
}

async fn on_cassandra(settings: &Settings, command: Command, json: bool) -> Result<(), CliError> {
    let (Command::Plan(args) | Command::Apply(args) | Command::Verify(args) | Command::Print(args)) = &command;
    let options = Options { replication: args.replication.clone(), wait: args.wait, dir: args.dir.clone() };
    let tool = CassandraSchema::new(&settings.store.cassandra, options);
    match command {
        Command::Plan(_) => {
            let plan = tool.plan().await.map_err(|error| CliError::failed("failed to plan the schema", error))?;
            let steps: Vec<_> = plan.steps.iter().map(|step| step.text.clone()).collect();
            let differences = texts(&plan.differences);
            if json {
                return output::json(
                    &json!({ "server": plan.server, "statements": steps, "differences": differences }),
                );
            }
            output::line(&format!("-- {}", plan.server))?;
            if steps.is_empty() {
                output::line("-- nothing to do")?;
            }
            steps.iter().try_for_each(|step| output::line(&format!("{step};")))?;
            differences.iter().try_for_each(|text| output::line(&format!("-- `apply` cannot change: {text}")))
        }
        Command::Apply(_) => {
            let tell = |statement: &crate::schema::Statement| {
                if !json {
                    // A closed pipe does not stop the statements.
                    let _ = output::line(&format!("{};", statement.text));
                }
            };
            let applied =
                tool.apply(&tell).await.map_err(|error| CliError::failed("failed to apply the schema", error))?;
            let statements = counted(applied.steps.len() as u64, "statement", "statements");
            report_done(json, &format!("{}: {statements} applied, verified", applied.server))
        }
        Command::Verify(_) => {
            let found = tool.verify().await.map_err(|error| CliError::failed("failed to verify the schema", error))?;
            report_differences(json, &texts(&found), "`cascor-ingest schema plan` says what `apply` would do")
        }
        Command::Print(_) => {
            let text = tool.print().map_err(|error| CliError::failed("failed to print the schema", error))?;
            output::line(&text)
        }
    }
}

/// The daemon sets up SQLite by itself; `apply` does the same, and the others look.
async fn on_sqlite(settings: &Settings, command: Command, json: bool) -> Result<(), CliError> {
    let path = settings.store.sqlite.path.display();
    let (Command::Plan(args) | Command::Apply(args) | Command::Verify(args) | Command::Print(args)) = &command;
    if args.dir.is_some() || args.replication.is_some() {
        return Err(CliError::Usage("`--dir` and `--replication` are for Cassandra; set `store.kind`".into()));
    }
    match command {
        Command::Print(_) => sqlite::migrations().try_for_each(|(_, text)| output::line(text)),
        Command::Apply(_) => {
            let store = sqlite::open(&settings.store.sqlite, &settings.store.retention, Metrics::new());
            store.ping().await.map_err(|error| CliError::failed(format!("failed to set up `{path}`"), error))?;
            report_done(json, &format!("{path}: set up"))
        }
        Command::Plan(_) | Command::Verify(_) => {
            let store = sqlite::open_read_only(&settings.store.sqlite, &settings.store.retention, Metrics::new());
            let found: Vec<String> = match store.ping().await {
                Ok(()) => Vec::new(),
                Err(error) => vec![crate::logging::Chain(&error).to_string()],
            };
            let remedy =
                "`cascor-ingest schema apply` makes what is missing, and so does the first `cascor-ingest run`";
            report_differences(json, &found, remedy)
        }
    }
}

fn texts<T: Display>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn report_done(json: bool, text: &str) -> Result<(), CliError> {
    if json { output::json(&json!({ "done": text })) } else { output::line(text) }
}

fn report_differences(json: bool, differences: &[String], remedy: &str) -> Result<(), CliError> {
    if json {
        output::json(&json!({ "differences": differences }))?;
    } else {
        differences.iter().try_for_each(|text| output::line(text))?;
    }
    match differences.len() {
        0 if json => Ok(()),
        0 => output::line("the schema is as it should be"),
        n => {
            let differences = counted(n as u64, "difference", "differences");
            Err(CliError::NegativeAnswer(format!("{differences}; {remedy}")))
        }
    }
}
