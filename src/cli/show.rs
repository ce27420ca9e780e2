//! `show RUN`: everything about one run, with its newest metrics and events.

use std::io::Write;

use serde::Serialize;

use super::{
    CliError,
    lookup::{STALE_AFTER, find_run, unreadable},
    metrics, table,
};
use crate::{
    event::{EventRow, MetricsRow, RunRow},
    render::{JsonRows, RunJson, shown_status},
    store::{RangeQuery, Store},
    units::{self, Micros},
};

/// Arguments of `show`.
#[derive(Clone, Debug, clap::Args)]
pub struct ShowArgs {
    /// The run: its id or its name, or the beginning of either.
    pub run: String,
    /// How many of its newest metrics and events; absent: 10, with --json 1000 metrics.
    #[arg(long, short = 'n', value_name = "N")]
    pub limit: Option<usize>,
}

#[derive(Serialize)]
struct Answer<'a> {
    run: RunJson<'a>,
    metrics: JsonRows<'a, MetricsRow>,
    metric_count: u64,
}

/// Shows one run.
///
/// # Errors
/// When there is no such run, or the store or the output fails.
pub async fn show(store: &dyn Store, args: ShowArgs, json: bool, out: &mut impl Write) -> Result<(), CliError> {
    let run = find_run(store, &args.run).await?;
    let newest = RangeQuery::newest(run.run_id, args.limit.unwrap_or(if json { 1_000 } else { 10 }));
    let rows = store.metrics(&newest).await.map_err(unreadable)?;
    let metric_count = store.count_metrics(run.run_id).await.map_err(unreadable)?;
    let now = units::now();
    if json {
        let run = RunJson { run: &run, now, stale_after: STALE_AFTER };
        return table::json(out, &Answer { run, metrics: JsonRows(&rows), metric_count });
    }
    print_run(out, &run, now)?;
    table::line(out, &format!("\nmetrics: {metric_count}"))?;
    if !rows.is_empty() {
        metrics::print(out, &rows)?;
    }
    let events = store.events(&newest).await.map_err(unreadable)?;
    if events.is_empty() {
        return Ok(());
    }
    table::line(out, "\nevents:")?;
    let cells = |row: &EventRow| {
        vec![table::moment(Some(row.key.timestamp)), table::text(Some(&row.r#type)), table::count(row.epoch)]
    };
    table::table(out, &["TIME (UTC)", "TYPE", "EPOCH"], events.iter().map(cells).collect())
}

fn print_run(out: &mut impl Write, run: &RunRow, now: Micros) -> Result<(), CliError> {
    let tags: Vec<&str> = run.tags.iter().map(String::as_str).collect();
    let tags = tags.join(", ");
    let fields = [
        ("run", table::text(Some(&run.run_id.to_string()))),
        ("name", table::text(run.run_name.as_deref())),
        ("status", table::text(shown_status(run, now, STALE_AFTER))),
        ("started", table::moment(run.start_time)),
        ("ended", table::moment(run.end_time)),
        ("seconds", table::count(run.duration_seconds)),
        ("last event", table::moment(run.last_event_time)),
        ("dataset", table::text(run.dataset_name.as_deref())),
        ("dataset size", table::count(run.dataset_size)),
        ("epoch", table::count(run.final_epoch)),
        ("train loss", table::number(run.final_train_loss)),
        ("train accuracy", table::number(run.final_train_accuracy)),
        ("val loss", table::number(run.final_val_loss)),
        ("val accuracy", table::number(run.final_val_accuracy)),
        ("best val accuracy", table::number(run.best_val_accuracy)),
        ("best epoch", table::count(run.best_epoch)),
        ("hidden units", table::count(run.total_hidden_units)),
        ("parameters", table::count(run.total_parameters)),
        ("config", table::text(run.config_json.as_deref())),
        ("notes", table::text(run.notes.as_deref())),
        ("tags", table::text(Some(&tags))),
        ("created by", table::text(run.created_by.as_deref())),
    ];
    let rows = fields
        .into_iter()
        .filter(|(_, cell)| !cell.content().is_empty())
        .map(|(name, cell)| vec![table::text(Some(name)), cell.set_alignment(comfy_table::CellAlignment::Left)])
        .collect();
    table::table(out, &[], rows)
}
