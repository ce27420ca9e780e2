//! `runs rename`, `archive`, `unarchive`, `tag`, `untag` and `note`: changes of runs, straight in the store, or by a daemon (`--url`).

use clap::builder::NonEmptyStringValueParser;
use serde_json::{Value, json};

use super::{
    CliError,
    ask::{QueryClient, Target},
    cells,
    field_names::listed,
    lookup::{described, find_run, id},
    output,
    run_deletion::{self, DeleteArgs},
};
use crate::config::Settings;

/// Changes of runs. No message of a trainer undoes them.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Change {
    /// Give a run another name; its published name finds it, too.
    Rename {
        /// The run: its id or name, or the beginning of either.
        run: String,
        /// The name; empty: the published one again.
        name: String,
        #[command(flatten)]
        target: Target,
    },
    /// Leave runs out of lists.
    Archive(Runs),
    /// List archived runs again.
    Unarchive(Runs),
    /// Add tags to a run.
    Tag(Tags),
    /// Remove tags from a run.
    Untag(Tags),
    /// Delete runs with all of their rows.
    Delete(DeleteArgs),
    /// Replace the notes of a run.
    Note {
        /// The run: its id or name, or the beginning of either.
        run: String,
        /// The notes; empty: none.
        text: String,
        #[command(flatten)]
        target: Target,
    },
}

/// Several runs.
#[derive(Clone, Debug, clap::Args)]
pub struct Runs {
    /// The runs: ids or names, or the beginning of either.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,
    #[command(flatten)]
    target: Target,
}

/// Tags of a run.
#[derive(Clone, Debug, clap::Args)]
pub struct Tags {
    /// The run: its id or name, or the beginning of either.
    run: String,
    /// The tags.
    #[arg(required = true, value_name = "TAG", value_parser = NonEmptyStringValueParser::new())]
    tags: Vec<String>,
    #[command(flatten)]
    target: Target,
}

/// Makes a change.
///
/// # Errors
/// When a run is not found (then none is changed), or the change is refused.
pub async fn run(settings: &Settings, change: Change, json: bool) -> Result<(), CliError> {
    let (runs, target, body, done) = match change {
        Change::Rename { run, name, target } => (vec![run], target, json!({ "name": name }), "renamed"),
        Change::Archive(Runs { runs, target }) => (runs, target, json!({ "archived": true }), "archived"),
        Change::Unarchive(Runs { runs, target }) => (runs, target, json!({ "archived": false }), "no longer archived"),
        Change::Tag(Tags { run, tags, target }) => (vec![run], target, json!({ "add_tags": tags }), "tagged"),
        Change::Untag(Tags { run, tags, target }) => (vec![run], target, json!({ "remove_tags": tags }), "untagged"),
        Change::Delete(args) => return run_deletion::run(settings, args, json).await,
        Change::Note { run, text, target } => (vec![run], target, json!({ "notes": text }), "noted"),
    };
    let client = QueryClient::connect(settings, &target).await?;
    let mut found = Vec::new();
    for run in &runs {
        found.push(find_run(&client, run).await?);
    }
    if let Some(removed) = body.get("remove_tags") {
        found.iter().try_for_each(|run| require_tags(run, cells::texts(removed)))?;
    }
    let mut changed = Vec::new();
    for run in &found {
        changed.push(client.patch(&format!("/api/runs/{}", id(run)), &body).await?["run"].take());
    }
    if json {
        return output::json(&json!({ "runs": changed, "count": changed.len() }));
    }
    changed.iter().try_for_each(|run| output::line(&format!("{done}: {}", described(run))))
}

/// Refuses tags that the run does not have: a misspelt tag would seem to be removed.
fn require_tags(run: &Value, tags: Vec<&str>) -> Result<(), CliError> {
    let present = cells::texts(&run["tags"]);
    let absent: Vec<&str> = tags.into_iter().filter(|tag| !present.contains(tag)).collect();
    let noun = match absent.len() {
        0 => return Ok(()),
        1 => "tag",
        _ => "tags",
    };
    let run = described(run);
    let absent = listed(absent.into_iter());
    Err(CliError::NegativeAnswer(match present.is_empty() {
        true => format!("{run} has no {noun} {absent}: it has no tags"),
        false => format!("{run} has no {noun} {absent}; its tags: {}", listed(present.into_iter())),
    }))
}
