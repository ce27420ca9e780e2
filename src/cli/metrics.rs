//! `metrics RUN`: the metrics of one run, as rows or as a curve.

use serde_json::Value;

use super::{
    CliError,
    args::{at_least_one, moment},
    ask::{QueryClient, Target, escape},
    cells::{self, FieldColumn},
    curves::{print_curves, print_curves_of},
    field_names::{self, FieldArgs},
    lookup::{find_run, id},
    output::{self, Further, Told},
    table::{Cell, Column, Table},
};
use crate::{config::Settings, render, terminal, units::Micros};

/// Rows of one page.
const PAGE_ROWS: usize = 1_000;
/// What shows the fields that a table of rows leaves out.
const SHOWN_BY: &str = "--fields NAME,... or --json shows them";

/// Columns of a row.
static COLUMNS: [FieldColumn; 10] = [
    FieldColumn::new("timestamp", Column::ranked("TIME (UTC)", 8), cells::moment),
    FieldColumn::new("epoch", Column::key("EPOCH"), cells::count),
    FieldColumn::new("step", Column::ranked("STEP", 1), cells::count),
    FieldColumn::new("phase", Column::ranked("PHASE", 6), cells::text),
    FieldColumn::new("hidden_units", Column::ranked("UNITS", 5), cells::count),
    FieldColumn::new("train_loss", Column::key("LOSS"), cells::number),
    FieldColumn::new("train_accuracy", Column::ranked("ACC", 3), cells::number),
    FieldColumn::new("val_loss", Column::ranked("VAL LOSS", 2), cells::number),
    FieldColumn::new("val_accuracy", Column::ranked("VAL ACC", 4), cells::number),
    FieldColumn::new("learning_rate", Column::ranked("LR", 7), cells::number),
];
/// Columns of a row that come before fields on request.
const KEYS: usize = 3;

/// Arguments of `metrics`.
#[derive(Clone, Debug, clap::Args)]
pub struct MetricsArgs {
    /// The run: its id or its name, or the beginning of either.
    pub run: String,
    /// At most this many rows.
    #[arg(long, short = 'n', default_value_t = 50, value_name = "N", value_parser = at_least_one, allow_negative_numbers = true)]
    pub limit: usize,
    /// The oldest rows first.
    #[arg(long)]
    pub ascending: bool,
    /// Only rows at this time or later; `1h`: of the last hour.
    #[arg(long = "since", alias = "start", value_name = "TIME", value_parser = moment)]
    pub start: Option<Micros>,
    /// Only rows at this time or earlier; `1h`: older than an hour.
    #[arg(long = "until", alias = "end", value_name = "TIME", value_parser = moment)]
    pub end: Option<Micros>,
    /// Only rows after this cursor (`next` of the previous page).
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
    #[command(flatten)]
    pub fields: FieldArgs,
    /// The whole range as a curve of this many points, extremes kept.
    #[arg(long, value_name = "N", conflicts_with_all = ["cursor", "limit"])]
    pub points: Option<usize>,
    #[command(flatten)]
    pub target: Target,
}

/// Prints metrics of one run.
///
/// # Errors
/// When there is no such run, the cursor is invalid, or the store or the output fails.
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
    let fields = match args.fields.is_empty() {
        true => Vec::new(),
        false => args.fields.resolve(&field_names::of_run(&client, id(&run)).await?)?,
    };
    let named: Vec<&str> = fields.iter().map(String::as_str).collect();
    // The table also has what places a row, and takes it from the whole row.
    if json || args.points.is_some() {
        named.iter().for_each(|field| path.push_str(&format!("&field={}", escape(field))));
    }
    if let Some(points) = args.points {
        let answer = client.json(&format!("{path}&max_points={points}&order=asc")).await?;
        if json {
            return output::json(&answer);
        }
        let named: Vec<(&str, &str)> = named.iter().map(|name| (*name, *name)).collect();
        let printed = if named.is_empty() { print_curves(&answer)? } else { print_curves_of(&answer, &named)? };
        return match printed {
            true => {
                let names = cells::further(std::slice::from_ref(&answer), &["metrics", "count"]);
                if terminal::stdout_is_terminal() { output::not_shown(&names, "--json shows them") } else { Ok(()) }
            }
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
        Some(cursor) => output::more("--cursor", cursor),
        None => Ok(()),
    }
}

/// As many pages as the limit needs, joined.
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

/// The rows as a table, and which fields they have beside its columns.
pub(super) fn print(rows: &[Value]) -> Result<(), CliError> {
    match rows {
        [] => output::line("no metrics"),
        rows => output::records(&COLUMNS, rows, &Told { elsewhere: &["run_id"], shown_by: SHOWN_BY }),
    }
}

/// What rows that come one by one have beside the columns of a table that begins with the run.
pub(super) fn further(rows: &[Value], fields: &[&str]) -> Further {
    let shown: Vec<_> = COLUMNS.iter().map(|column| column.name).chain(["run_id"]).collect();
    let names = if fields.is_empty() { cells::further(rows, &shown) } else { Vec::new() };
    Further { names, shown_by: SHOWN_BY }
}

/// The rows as a table of the usual columns, or of these fields.
fn print_fields(rows: &[Value], fields: &[&str]) -> Result<(), CliError> {
    if rows.is_empty() {
        return output::line("no metrics");
    }
    let rows: Vec<_> = rows.iter().map(|row| cells(row, fields)).collect();
    output::more_rows(&mut Table::new(columns(fields)), &rows, &Further { names: Vec::new(), shown_by: SHOWN_BY })
}

/// The columns of a table of rows.
pub(super) fn columns(fields: &[&str]) -> Vec<Column> {
    if fields.is_empty() {
        return cells::columns(&COLUMNS);
    }
    let keys = keys(fields).map(|key| key.column.clone().of(key.name));
    // The time is of less use than any field that was asked for.
    let named = fields.iter().zip(1..).map(|(field, rank)| Column::named(field, rank));
    keys.chain(named).collect()
}

/// The cells of one row.
pub(super) fn cells(row: &Value, fields: &[&str]) -> Vec<Cell> {
    if fields.is_empty() {
        return cells::row(&COLUMNS, row);
    }
    let keys = keys(fields).map(|key| (key.cell)(row, key.name));
    keys.chain(fields.iter().map(|field| cells::any(row, field))).collect()
}

/// The columns that place a row, unless they are named themselves.
fn keys<'a>(fields: &'a [&str]) -> impl Iterator<Item = &'static FieldColumn> + 'a {
    COLUMNS.iter().take(KEYS).filter(|key| !fields.contains(&key.name))
}
