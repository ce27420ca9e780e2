//! `metrics RUN`: the rows of one run, or its curve.

use serde_json::Value;

use super::{
    CliError,
    args::at_least_one,
    ask::{QueryClient, Target, escape},
    cells,
    curves::{print_curves, print_curves_of},
    lookup::{find_run, id},
    output, table,
};
use crate::{config::Settings, curve::Field, render, units::Micros};

/// Rows of one page.
const PAGE_ROWS: usize = 1_000;

/// Arguments of `metrics`.
#[derive(Clone, Debug, clap::Args)]
pub struct MetricsArgs {
    /// The run: its id or its name, or the beginning of either.
    pub run: String,
    /// At most this many.
    #[arg(long, short = 'n', default_value_t = 50, value_name = "N", value_parser = at_least_one)]
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
    /// Only this column, or number in `extra`, whatever is in its name; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub field: Vec<String>,
    /// The whole range as a curve of this many points, which hides no extreme.
    #[arg(long, value_name = "N", conflicts_with_all = ["cursor", "limit"])]
    pub points: Option<usize>,
    #[command(flatten)]
    pub target: Target,
}

/// Prints metrics of one run.
///
/// # Errors
/// When there is no such run, the cursor is none, or the store or the output fails.
pub async fn run(settings: Settings, args: MetricsArgs, json: bool) -> Result<(), CliError> {
    let client = QueryClient::connect(&settings, &args.target).await?;
    let run = find_run(&client, &args.run).await?;
    let order = if args.ascending { "asc" } else { "desc" };
    let mut path = format!("/api/metrics/range?run_id={}", id(&run));
    for (name, at) in [("start_time", args.start), ("end_time", args.end)] {
        if let Some(at) = at {
            path.push_str(&format!("&{name}={}", escape(&render::time(at))));
        }
    }
    for field in &args.field {
        path.push_str(&format!("&field={}", escape(field)));
    }
    let named: Vec<&str> = args.field.iter().map(|name| Field::canonical(name)).collect();
    if let Some(points) = args.points {
        let answer = client.json(&format!("{path}&max_points={points}&order=asc")).await?;
        if json {
            return output::json(&answer);
        }
        let named: Vec<(&str, &str)> = named.iter().map(|name| (*name, *name)).collect();
        let printed = if named.is_empty() { print_curves(&answer)? } else { print_curves_of(&answer, &named)? };
        return match printed {
            true => Ok(()),
            false if !named.is_empty() => output::line("no curve: it takes two rows with a number of that name"),
            false => output::line("no curve: it takes two rows with a loss or an accuracy"),
        };
    }
    let answer = pages(&client, &format!("{path}&order={order}"), &args).await?;
    if json {
        return output::json(&answer);
    }
    let rows = cells::list(&answer, "metrics");
    if named.is_empty() {
        print(rows)?
    } else {
        print_fields(rows, &named)?
    }
    match answer["next"].as_str() {
        Some(cursor) => output::line(&format!("\nmore with --cursor {cursor}")),
        None => Ok(()),
    }
}

/// As many pages as make up the limit, as one.
async fn pages(client: &QueryClient, path: &str, args: &MetricsArgs) -> Result<Value, CliError> {
    let (mut rows, mut cursor) = (Vec::new(), args.cursor.clone());
    loop {
        let limit = (args.limit - rows.len()).clamp(1, PAGE_ROWS);
        let after = cursor.as_deref().map(|cursor| format!("&cursor={}", escape(cursor))).unwrap_or_default();
        let mut page = client.json(&format!("{path}&limit={limit}{after}")).await?;
        if let Value::Array(more) = page["metrics"].take() {
            rows.extend(more);
        }
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() || rows.len() >= args.limit {
            page["count"] = rows.len().into();
            page["metrics"] = Value::Array(rows);
            return Ok(page);
        }
    }
}

/// The rows as a table.
pub(super) fn print(rows: &[Value]) -> Result<(), CliError> {
    if rows.is_empty() {
        return output::line("no metrics");
    }
    let row = |row: &Value| {
        vec![
            cells::moment(row, "timestamp"),
            cells::count(row, "epoch"),
            cells::text(row, "phase"),
            cells::count(row, "hidden_units"),
            cells::number(row, "train_loss"),
            cells::number(row, "train_accuracy"),
            cells::number(row, "val_loss"),
            cells::number(row, "val_accuracy"),
            cells::number(row, "learning_rate"),
        ]
    };
    let headers = ["TIME (UTC)", "EPOCH", "PHASE", "UNITS", "LOSS", "ACC", "VAL LOSS", "VAL ACC", "LR"];
    table::table(&headers, rows.iter().map(row).collect())
}

/// The same, of each row only these numbers.
fn print_fields(rows: &[Value], fields: &[&str]) -> Result<(), CliError> {
    if rows.is_empty() {
        return output::line("no metrics");
    }
    let cell = |row: &Value, field: &str| match &row[field] {
        Value::String(text) => table::text(Some(text)),
        _ => cells::number(row, field),
    };
    let row = |row: &Value| {
        let numbers = fields.iter().map(|field| cell(row, field));
        [cells::moment(row, "timestamp")].into_iter().chain(numbers).collect()
    };
    let headers: Vec<&str> = ["TIME (UTC)"].into_iter().chain(fields.iter().copied()).collect();
    table::table(&headers, rows.iter().map(row).collect())
}
