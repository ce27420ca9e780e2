//! `runs delete`: in the store, or by a daemon (`--url`).

use std::io::{self, BufRead, IsTerminal, Write};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::{
    CliError,
    ask::{QueryClient, Target, escape},
    lookup::{described, id, name},
    output,
};
use crate::{config::Settings, event::status};

/// Deletions at once. One takes ten seconds on Cassandra, however many there are.
const AT_ONCE: usize = 8;

/// Arguments of `runs delete`.
#[derive(Clone, Debug, clap::Args)]
pub struct DeleteArgs {
    /// The runs: whole ids or names.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Delete runs that are running, too: what their trainers send later begins them anew.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    target: Target,
}

/// Deletes runs with all of their rows.
///
/// # Errors
/// When a run is not found or is running, or the deletion is not confirmed (then none is deleted); when a deletion is refused.
pub async fn run(settings: &Settings, args: DeleteArgs, json: bool) -> Result<(), CliError> {
    let client = QueryClient::connect(settings, &args.target).await?;
    let mut found = Vec::new();
    for run in &args.runs {
        let answer = client.find(&format!("/api/runs/{}?limit=0&count=none", escape(run))).await?;
        let none = || CliError::NegativeAnswer(format!("no run has the whole id or name `{run}`; nothing was deleted"));
        found.push(answer.ok_or_else(none)?["run"].take());
    }
    if let Some(running) = found.iter().find(|run| !args.force && run["status"] == status::RUNNING) {
        return Err(CliError::NegativeAnswer(format!(
            "{} is running: what its trainer sends later would begin it anew; --force deletes it all the same; nothing was deleted",
            described(running)
        )));
    }
    if !args.yes {
        found.iter().try_for_each(confirm)?;
    }
    let force = if args.force { "true" } else { "false" };
    let delete = async |run: &Value| client.delete(&format!("/api/runs/{}?force={force}", id(run))).await;
    let outcomes: Vec<_> = stream::iter(&found).map(delete).buffered(AT_ONCE).collect().await;
    let (mut deleted, mut failed) = (Vec::new(), Vec::new());
    for (run, outcome) in found.iter().zip(outcomes) {
        match outcome {
            Ok(_) if json => deleted.push(json!({ "run_id": id(run), "deleted": true })),
            Ok(_) => output::line(&format!("deleted: {}", described(run)))?,
            Err(error) => {
                let reason = error.to_string().replace("`force=true`", "--force");
                failed.push(format!("{} was not deleted: {reason}", described(run)));
            }
        }
    }
    if json {
        output::json(&json!({ "runs": deleted, "count": deleted.len() }))?;
    }
    if failed.is_empty() { Ok(()) } else { Err(CliError::NegativeAnswer(failed.join("\n"))) }
}

/// Asks for the name of a run, or, where it has none, for its id.
fn confirm(run: &Value) -> Result<(), CliError> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(CliError::Usage(
            "this is no terminal, so that the deletion cannot be confirmed here: give --yes".into(),
        ));
    }
    let wanted = name(run).unwrap_or(id(run));
    let asked =
        write!(io::stderr(), "This deletes {} with all of its rows. Type its name to confirm: ", described(run));
    let mut typed = String::new();
    asked
        .and_then(|()| io::stderr().flush())
        .and_then(|()| io::stdin().lock().read_line(&mut typed))
        .map_err(|error| CliError::failed("failed to ask for confirmation", error))?;
    let typed = typed.trim_end_matches(['\n', '\r']);
    if typed == wanted || typed == id(run) {
        return Ok(());
    }
    Err(CliError::NegativeAnswer("that is not its name; nothing was deleted".into()))
}
