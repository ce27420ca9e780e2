//! `show RUN`: everything about one run, with its newest metrics and events.

use serde_json::Value;

use super::{
    CliError,
    ask::{QueryClient, Target},
    cells,
    curves::print_curves,
    lookup::{find_run, id},
    metrics, output, table,
};
use crate::config::Settings;

/// Points of a curve in one line.
const SPARKLINE_WIDTH: usize = 60;

/// Arguments of `show`.
#[derive(Clone, Debug, clap::Args)]
pub struct ShowArgs {
    /// The run: its id or its name, or the beginning of either.
    pub run: String,
    /// How many of its newest metrics and events; absent: 10, with --json 1000 metrics.
    #[arg(long, short = 'n', value_name = "N")]
    pub limit: Option<usize>,
    #[command(flatten)]
    pub target: Target,
}

/// Shows one run.
///
/// # Errors
/// When there is no such run, or the store or the output fails.
pub async fn run(settings: Settings, args: ShowArgs, json: bool) -> Result<(), CliError> {
    let client = QueryClient::connect(&settings, &args.target).await?;
    let run_id = id(&find_run(&client, &args.run).await?).to_owned();
    let limit = args.limit.unwrap_or(if json { 1_000 } else { 10 });
    let answer = client.json(&format!("/api/runs/{run_id}?limit={limit}")).await?;
    if json {
        return output::json(&answer);
    }
    print_run(&answer["run"])?;
    let path = format!("/api/metrics/range?run_id={run_id}&max_points={SPARKLINE_WIDTH}&order=asc");
    print_curves(&client.json(&path).await?)?;
    output::line(&format!("\nmetrics: {}", answer["metric_count"]))?;
    let rows = cells::list(&answer, "metrics");
    if !rows.is_empty() {
        metrics::print(rows)?;
    }
    let events = client.json(&format!("/api/runs/{run_id}/events?limit={}", limit.max(1))).await?;
    let events = cells::list(&events, "events");
    if events.is_empty() {
        return Ok(());
    }
    output::line("\nevents:")?;
    let row = |row: &Value| vec![cells::moment(row, "timestamp"), cells::text(row, "type"), cells::count(row, "epoch")];
    table::table(&["TIME (UTC)", "TYPE", "EPOCH"], events.iter().map(row).collect())
}

fn print_run(run: &Value) -> Result<(), CliError> {
    let tags: Vec<&str> = cells::list(run, "tags").iter().filter_map(Value::as_str).collect();
    let tags = tags.join(", ");
    let fields = [
        ("run", cells::text(run, "run_id")),
        ("name", cells::text(run, "run_name")),
        ("status", cells::text(run, "status")),
        ("started", cells::moment(run, "start_time")),
        ("restarted", cells::moment(run, "restarted_at")),
        ("ended", cells::moment(run, "end_time")),
        ("seconds", cells::count(run, "duration_seconds")),
        ("last event", cells::moment(run, "last_event_time")),
        ("dataset", cells::text(run, "dataset_name")),
        ("dataset size", cells::count(run, "dataset_size")),
        ("epoch", cells::count(run, "final_epoch")),
        ("train loss", cells::number(run, "final_train_loss")),
        ("train accuracy", cells::number(run, "final_train_accuracy")),
        ("val loss", cells::number(run, "final_val_loss")),
        ("val accuracy", cells::number(run, "final_val_accuracy")),
        ("best val accuracy", cells::number(run, "best_val_accuracy")),
        ("best epoch", cells::count(run, "best_epoch")),
        ("hidden units", cells::count(run, "total_hidden_units")),
        ("parameters", cells::count(run, "total_parameters")),
        ("config", cells::text(run, "config_json")),
        ("notes", cells::text(run, "notes")),
        ("tags", table::text(Some(&tags))),
        ("created by", cells::text(run, "created_by")),
    ];
    let rows = fields
        .into_iter()
        .filter(|(_, cell)| !cell.content().is_empty())
        .map(|(name, cell)| vec![table::text(Some(name)), cell.set_alignment(comfy_table::CellAlignment::Left)])
        .collect();
    table::table(&[], rows)
}
