//! `show RUN`: everything about one run, with its newest metrics and events.

use std::io::Write;

use serde_json::Value;

use super::{
    CliError,
    ask::{QueryClient, Target},
    cells,
    lookup::{find_run, id},
    metrics, spark, table,
};

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
pub async fn show(client: &QueryClient, args: &ShowArgs, json: bool, out: &mut impl Write) -> Result<(), CliError> {
    let run_id = id(&find_run(client, &args.run).await?).to_owned();
    let limit = args.limit.unwrap_or(if json { 1_000 } else { 10 });
    let answer = client.json(&format!("/api/runs/{run_id}?limit={limit}")).await?;
    if json {
        return table::json(out, &answer);
    }
    print_run(out, &answer["run"])?;
    let path = format!("/api/metrics/range?run_id={run_id}&max_points={SPARKLINE_WIDTH}&order=asc");
    print_curves(out, &client.json(&path).await?)?;
    table::line(out, &format!("\nmetrics: {}", answer["metric_count"]))?;
    let rows = cells::list(&answer, "metrics");
    if !rows.is_empty() {
        metrics::print(out, rows)?;
    }
    let events = client.json(&format!("/api/runs/{run_id}/events?limit={}", limit.max(1))).await?;
    let events = cells::list(&events, "events");
    if events.is_empty() {
        return Ok(());
    }
    table::line(out, "\nevents:")?;
    let row = |row: &Value| vec![cells::moment(row, "timestamp"), cells::text(row, "type"), cells::count(row, "epoch")];
    table::table(out, &["TIME (UTC)", "TYPE", "EPOCH"], events.iter().map(row).collect())
}

/// A line for each field that has values; whether there is any.
pub fn print_curves(out: &mut impl Write, curve: &Value) -> Result<bool, CliError> {
    let usual = [
        ("train_loss", "loss"),
        ("val_loss", "val loss"),
        ("train_accuracy", "accuracy"),
        ("val_accuracy", "val accuracy"),
    ];
    print_curves_of(out, curve, &usual)
}

/// The same for these fields, each with what it is called.
pub fn print_curves_of(out: &mut impl Write, curve: &Value, fields: &[(&str, &str)]) -> Result<bool, CliError> {
    let points = &curve["metrics"];
    let mut rows = Vec::new();
    for (field, name) in fields {
        let values = || spark::of_points(points, field);
        if values().flatten().count() > 1 {
            let (first, last) = (table::number(spark::first(points, field)), table::number(values().flatten().last()));
            rows.push(vec![table::text(Some(name)), first, comfy_table::Cell::new(spark::line(values())), last]);
        }
    }
    if rows.is_empty() {
        return Ok(false);
    }
    table::line(out, "")?;
    table::table(out, &[], rows)?;
    Ok(true)
}

fn print_run(out: &mut impl Write, run: &Value) -> Result<(), CliError> {
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
    table::table(out, &[], rows)
}
