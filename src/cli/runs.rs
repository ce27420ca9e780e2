//! `runs`: the newest runs; tags and notes.

use clap::builder::NonEmptyStringValueParser;
use fred::interfaces::PubsubInterface;
use serde_json::{Value, json};

use super::{
    CliError,
    args::at_least_one,
    ask::{QueryClient, Target, escape},
    cells,
    connect::{connect, failed},
    lookup::{find_run, id},
    output, table,
};
use crate::{
    config::Settings,
    event::status,
    redis::{Resource, is_pattern},
    render::{self, STALE},
    units, wire,
};

/// Arguments of `runs`.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RunsArgs {
    #[command(subcommand)]
    change: Option<Change>,
    /// At most this many.
    #[arg(long, short = 'n', default_value_t = 20, value_name = "N", value_parser = at_least_one)]
    pub limit: usize,
    /// Only those: running, stale, completed, failed or stopped.
    #[arg(long, value_parser = [status::RUNNING, STALE, status::COMPLETED, status::FAILED, status::STOPPED])]
    pub status: Option<String>,
    /// Only on this dataset.
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<String>,
    /// Only those behind this cursor (`next` of the page before).
    #[arg(long, value_name = "CURSOR")]
    pub before: Option<String>,
    #[command(flatten)]
    pub target: Target,
}

/// What can be added to a run. It goes to the daemon as a message, so that it is merged like everything else about the run.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Change {
    /// Add tags to a run. What is added stays: a tag cannot be taken away.
    Tag {
        /// The run: its id or its name, or the beginning of either.
        run: String,
        /// The tags.
        #[arg(required = true, value_parser = NonEmptyStringValueParser::new())]
        tags: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Replace the notes of a run.
    Note {
        /// The run: its id or its name, or the beginning of either.
        run: String,
        /// The notes; not empty, as what is empty in a message changes nothing.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        text: String,
        #[command(flatten)]
        target: Target,
    },
}

/// Lists, or changes.
///
/// # Errors
/// As [`list`] and as the change is refused.
pub async fn run(settings: Settings, args: RunsArgs, json: bool) -> Result<(), CliError> {
    let (run, data, target) = match &args.change {
        None => {
            let client = QueryClient::connect(&settings, &args.target).await?;
            return list(&client, &args, json).await;
        }
        Some(Change::Tag { run, tags, target }) => (run, json!({ "tags": tags }), target),
        Some(Change::Note { run, text, target }) => (run, json!({ "notes": text }), target),
    };
    let client = QueryClient::connect(&settings, target).await?;
    let found = find_run(&client, run).await?;
    if target.url.is_some() {
        client.post(&format!("/api/runs/{}/notes", id(&found)), &data).await?;
    } else {
        publish(&settings, id(&found), &data).await?;
    }
    let answer = json!({ "run_id": id(&found), "sent": data });
    if json { output::json(&answer) } else { output::line(&format!("sent to the daemon for run {}", id(&found))) }
}

async fn publish(settings: &Settings, run_id: &str, data: &Value) -> Result<(), CliError> {
    let channels = &settings.redis.training_channels;
    let channel = channels.iter().find(|channel| !is_pattern(channel)).ok_or_else(|| {
        CliError::Usage("`redis.training_channels` names no channel without a pattern; use --url".into())
    })?;
    let now = render::time(units::now());
    let message = json!({ "type": wire::RUN_UPDATE, "run_id": run_id, "timestamp": now, "data": data });
    let client = connect(&settings.redis).await?;
    let listeners: i64 = client.publish(channel.as_str(), message.to_string()).await.map_err(|error| {
        failed(&settings.redis, format!("failed to publish on `{channel}`"), Resource::Channel(channel), error)
    })?;
    if listeners == 0 {
        return Err(CliError::NegativeAnswer(format!("no daemon listens on `{channel}`; nothing was changed")));
    }
    Ok(())
}

/// Lists the newest runs.
///
/// # Errors
/// When the cursor is none, or the store or the output fails.
pub async fn list(client: &QueryClient, args: &RunsArgs, json: bool) -> Result<(), CliError> {
    let mut path = format!("/api/runs?limit={}", args.limit);
    for (name, value) in [("status", &args.status), ("dataset", &args.dataset), ("before", &args.before)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", escape(value)));
        }
    }
    let answer = client.json(&path).await?;
    if json {
        return output::json(&answer);
    }
    let runs = cells::list(&answer, "runs");
    if runs.is_empty() {
        output::line(if answer["next"].is_null() { "no runs" } else { "none among those that were looked at" })?;
    } else {
        let headers = ["RUN", "NAME", "STATUS", "STARTED", "EPOCH", "LOSS", "BEST VAL ACC", "UNITS", "DATASET"];
        table::table(&headers, runs.iter().map(row).collect())?;
    }
    match answer["next"].as_str() {
        Some(cursor) => output::line(&format!("\nmore with --before {cursor}")),
        None => Ok(()),
    }
}

fn row(run: &Value) -> Vec<comfy_table::Cell> {
    vec![
        // Enough to name it: a shortened id is understood.
        table::text(id(run).get(..8)),
        cells::text(run, "run_name"),
        cells::text(run, "status"),
        cells::moment(run, "start_time"),
        cells::count(run, "final_epoch"),
        cells::number(run, "final_train_loss"),
        cells::number(run, "best_val_accuracy"),
        cells::count(run, "total_hidden_units"),
        cells::text(run, "dataset_name"),
    ]
}
