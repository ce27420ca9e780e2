//! `metrics RUN`: the rows of one run.

use std::io::Write;

use serde::Serialize;

use super::{
    CliError,
    lookup::{find_run, unreadable},
    table,
};
use crate::{
    event::MetricsRow,
    render::{self, JsonRows},
    store::{RangeQuery, Store},
    units::Micros,
};

/// Arguments of `metrics`.
#[derive(Clone, Debug, clap::Args)]
pub struct MetricsArgs {
    /// The run: its id or its name, or the beginning of either.
    pub run: String,
    /// At most this many.
    #[arg(long, short = 'n', default_value_t = 50, value_name = "N")]
    pub limit: usize,
    /// The oldest first.
    #[arg(long)]
    pub ascending: bool,
    /// Not before this moment.
    #[arg(long, value_name = "TIME", value_parser = render::parse_time)]
    pub start: Option<Micros>,
    /// Not after this moment.
    #[arg(long, value_name = "TIME", value_parser = render::parse_time)]
    pub end: Option<Micros>,
    /// Only rows behind this cursor (`next` of the page before).
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
}

#[derive(Serialize)]
struct Answer<'a> {
    metrics: JsonRows<'a, MetricsRow>,
    count: usize,
    next: Option<String>,
    exact: bool,
}

/// Prints metrics of one run.
///
/// # Errors
/// When there is no such run, the cursor is none, or the store or the output fails.
pub async fn metrics(store: &dyn Store, args: MetricsArgs, json: bool, out: &mut impl Write) -> Result<(), CliError> {
    let after = match &args.cursor {
        Some(text) => Some(
            render::parse_event_cursor(text)
                .ok_or_else(|| CliError::Usage(format!("`{text}` is no cursor of `metrics`")))?,
        ),
        None => None,
    };
    let run_id = find_run(store, &args.run).await?.run_id;
    // One more than is asked for tells whether there is a next page.
    let limit = args.limit.saturating_add(1);
    let query = RangeQuery { run_id, start: args.start, end: args.end, limit, ascending: args.ascending, after };
    let mut rows = store.metrics(&query).await.map_err(unreadable)?;
    let more = rows.len() > args.limit;
    rows.truncate(args.limit);
    let next = rows.last().filter(|_| more).map(|row| render::event_cursor(&row.key));
    if json {
        return table::json(out, &Answer { metrics: JsonRows(&rows), count: rows.len(), next, exact: true });
    }
    print(out, &rows)?;
    match next {
        Some(cursor) => table::line(out, &format!("\nmore with --cursor {cursor}")),
        None => Ok(()),
    }
}

/// The rows as a table.
pub(super) fn print(out: &mut impl Write, rows: &[MetricsRow]) -> Result<(), CliError> {
    if rows.is_empty() {
        return table::line(out, "no metrics");
    }
    let cells = |row: &MetricsRow| {
        vec![
            table::moment(Some(row.key.timestamp)),
            table::count(row.epoch),
            table::text(row.phase.as_deref()),
            table::count(row.hidden_units),
            table::number(row.train_loss),
            table::number(row.train_accuracy),
            table::number(row.val_loss),
            table::number(row.val_accuracy),
            table::number(row.learning_rate),
        ]
    };
    let headers = ["TIME (UTC)", "EPOCH", "PHASE", "UNITS", "LOSS", "ACC", "VAL LOSS", "VAL ACC", "LR"];
    table::table(out, &headers, rows.iter().map(cells).collect())
}
